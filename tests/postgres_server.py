"""A PostgreSQL server for the tests: on loopback, as an unprivileged user, gone when they end."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def database() -> Iterator[str]:
    """Return the URL of an empty database, or skip the test."""
    pytest.importorskip("psycopg", reason="needs a driver for PostgreSQL (lsst-daf-butler[postgres])")
    with postgres_server() as url:
        yield url


@contextmanager
def postgres_server() -> Iterator[str]:
    """Run a server with an empty database, whose URL is given; or skip the tests."""
    binaries = _binaries()
    owner: dict[str, Any] = {}
    data = Path(tempfile.mkdtemp(prefix="compositeh5-postgres-"))
    try:
        if os.getuid() == 0:
            # The server refuses to run as root.
            owner = {"user": _unprivileged(), "group": _unprivileged(), "extra_groups": []}
            shutil.chown(data, owner["user"], owner["group"])

        def run(program: str, *arguments: object) -> None:
            command = [str(binaries / program), "-D", str(data / "db"), *map(str, arguments)]
            # A server that inherits a pipe would keep it open.
            with open(os.devnull, "r+b") as null:
                subprocess.run(command, check=True, timeout=60, cwd=data, stdin=null, stdout=null, **owner)

        password = secrets.token_hex(16)
        (data / "password").write_text(password)
        run("initdb", "-U", "tester", "-A", "scram-sha-256", f"--pwfile={data / 'password'}", "-E", "UTF8", "-N")
        port = _free_port()
        settings = f"-c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories= -c fsync=off"
        run("pg_ctl", "start", "-w", "-l", data / "log", "-o", settings)
        try:
            url = f"postgresql://tester:{password}@127.0.0.1:{port}/postgres"
            import psycopg

            with psycopg.connect(url, autocommit=True) as connection:
                connection.execute("CREATE EXTENSION btree_gist")
            yield url
        finally:
            run("pg_ctl", "stop", "-m", "immediate")
    finally:
        shutil.rmtree(data)


def _binaries() -> Path:
    """Return the folder of the newest server, where Debian keeps it or on the path."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    initdb = str(found[-1]) if found else shutil.which("initdb")
    if initdb is None:
        pytest.skip("needs a PostgreSQL server (Debian package postgresql)")
    return Path(initdb).parent


def _unprivileged() -> str:
    try:
        return pwd.getpwnam("postgres").pw_name
    except KeyError:
        pytest.skip("PostgreSQL doesn't run as root, and there is no user postgres")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
