"""A remote Butler and its server, which hands out presigned URLs."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import exposure, visit_info

import compositeh5 as ch5
from compositeh5.composite.session import current

pytest.importorskip("lsst.daf.butler", reason="needs lsst-daf-butler (the extra `butler`)")
pytest.importorskip("moto", reason="needs moto[server] (the extra `test`)")

from butler_support import RUN, SEED, add_instrument
from lsst.daf.butler import Config
from lsst.daf.butler.tests import server_available

from compositeh5.butler import put_visit, use_butler

if not server_available.butler_server_is_available:
    pytest.skip(
        f"needs the Butler server: {server_available.butler_server_import_error}; tests/test_butler_remote.py has a "
        f"Butler with presigned URLs instead",
        allow_module_level=True,
    )

VISIT = {"instrument": "DemoCam", "visit": 903334}


def test_a_remote_butler_resolves_links_by_dataset_id(tmp_path: Path) -> None:
    from lsst.daf.butler.tests.server import create_test_server

    (tmp_path / "config/basic").mkdir(parents=True)
    config = Config(SEED)
    config["datastore", "cls"] = "lsst.daf.butler.datastores.fileDatastore.FileDatastore"
    config["datastore", "root"] = "s3://mutable-bucket/repo"
    config.dumpToUri(str(tmp_path / "config/basic/server.yaml"))
    with create_test_server(str(tmp_path)) as server:
        add_instrument(server.direct_butler)
        visit = ch5.Composite("visit", visit_info=visit_info(), data_id=VISIT)
        ccd = exposure((30, 40)).replace(data_id={**VISIT, "detector": 4})
        _, (ref,) = put_visit(server.direct_butler, visit, [ccd], run=RUN)
        component = ref.makeComponentRef("visit_info")
        remote = server.remote_butler
        current().clear_cache()
        assert remote.get(ref.makeComponentRef("wcs")).wcs.crval.tolist() == [150.1, 2.2]
        with pytest.raises(FileNotFoundError, match="is lost"):
            remote.get(component)
        assert remote.get(component, parameters={"resolver": remote}) == visit_info()
        current().clear_cache()
        with use_butler(remote):
            assert remote.get(ref)["visit_info"] == visit_info()
