"""An object store on this machine that counts requests: moto's S3 server behind a log, and a check of signatures."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

boto3 = pytest.importorskip("boto3", reason="needs boto3 (the extra `test`)")
server = pytest.importorskip("moto.server", reason="needs moto[server] (the extra `test`)")
pytest.importorskip("lsst.resources.s3", reason="needs lsst-resources[s3] (the extra `remote`)")

BUCKET = "data"


@dataclass
class ObjectStore:
    """A running object store with one bucket."""

    url: str = ""
    requests: list[tuple[str, str, str]] = field(default_factory=list)
    """Method, path and range of each request."""

    def client(self) -> Any:
        """Return boto3's client."""
        return boto3.client("s3", endpoint_url=self.url)

    def upload(self, folder: Path) -> None:
        """Copy all files of a folder to the bucket."""
        for path in folder.rglob("*"):
            if path.is_file():
                self.client().upload_file(str(path), BUCKET, str(path.relative_to(folder)))

    def presigned(self, key: str) -> str:
        """Return a URL with which anybody can read an object for a while."""
        client = self.client()
        return client.generate_presigned_url("get_object", Params={"Bucket": BUCKET, "Key": key}, ExpiresIn=600)

    @contextmanager
    def counted(self) -> Iterator[Callable[[str], dict[str, int]]]:
        """Yield a function that tells how many requests of a method there were since for each object."""
        before = len(self.requests)

        def count(method: str) -> dict[str, int]:
            paths = [path for used, path, _ in self.requests[before:] if used == method]
            return {path.rsplit("/", 1)[-1]: paths.count(path) for path in paths}

        yield count

    def _logged(self, app: Callable[..., Iterable[bytes]]) -> Callable[..., Iterable[bytes]]:
        def logging(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
            method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
            self.requests.append((method, path, environ.get("HTTP_RANGE", "")))
            if "HTTP_AUTHORIZATION" not in environ and "Signature=" not in environ.get("QUERY_STRING", ""):
                # As real stores do, and moto by default doesn't.
                start_response("403 Forbidden", [("Content-Length", "0")])
                return []
            return app(environ, start_response)

        return logging


@contextmanager
def object_store(monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStore]:
    """Run an object store, and make it that of this process."""
    from lsst.resources.s3utils import _get_s3_client
    from werkzeug.serving import make_server

    for name, value in {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "LSST_DISABLE_BUCKET_VALIDATION": "1",
    }.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    store = ObjectStore()
    app = store._logged(server.DomainDispatcherApplication(server.create_backend_app))
    http = make_server("127.0.0.1", 0, app, threaded=True, request_handler=server.MotoRequestHandler)
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    store.url = f"http://127.0.0.1:{http.server_port}"
    monkeypatch.setenv("S3_ENDPOINT_URL", store.url)
    _get_s3_client.cache_clear()
    try:
        store.client().create_bucket(Bucket=BUCKET)
        yield store
    finally:
        http.shutdown()
        thread.join()
        http.server_close()
        _get_s3_client.cache_clear()
