"""The main tests of the Butler plug-in once more, on a PostgreSQL registry."""

from __future__ import annotations

from itertools import count
from pathlib import Path

import pytest

from compositeh5 import targets

pytest.importorskip("lsst.daf.butler", reason="needs lsst-daf-butler (the extra `butler`)")
pytest.importorskip("psycopg", reason="needs a driver for PostgreSQL (lsst-daf-butler[postgres])")

from butler_support import create_repo_with
from lsst.daf.butler import Butler
from test_butler import (  # noqa: F401
    CCD,
    ccd,
    open_butler,
    test_a_box_of_a_component,
    test_a_component_is_read_alone,
    test_a_composite_comes_back_as_the_dataset_it_was_put_as,
    test_a_detector_of_another_visit_is_refused,
    test_a_deviating_detector_is_named_and_nothing_is_stored,
    test_a_link_from_a_butler_and_from_a_handle,
    test_a_moved_repository_still_works,
    test_a_put_that_fails_late_leaves_nothing,
    test_a_removed_visit_leaves_a_named_lost_component,
    test_a_visit_that_is_stored_stays_when_it_is_stored_again,
    test_links_that_lead_nowhere,
    test_nine_detectors_share_one_record_that_is_decoded_once,
    test_provenance_is_kept_in_the_file,
    test_put_visit_registers_what_is_missing,
    test_real_visits,
    test_rows_and_columns_of_a_table,
)

from compositeh5.butler import register_dataset_type

_namespaces = (f"repo{number}" for number in count())


# The tests use these in place of the fixtures of the same names of their own module.


@pytest.fixture
def root(database: str, tmp_path: Path) -> Path:
    root = tmp_path / "repo"
    create_repo_with(root, {"registry": {"db": database, "namespace": next(_namespaces)}})
    return root


@pytest.fixture
def butler(root: Path) -> Butler:
    return open_butler(root)


@pytest.fixture(autouse=True)
def _nothing_cached() -> None:
    targets.cache.clear()


def test_repositories_share_a_database(database: str, root: Path, tmp_path: Path) -> None:
    other = create_repo_with(tmp_path / "other", {"registry": {"db": database, "namespace": next(_namespaces)}})
    register_dataset_type(other, "calexp", "exposure")
    butler = open_butler(root)
    refs = [b.put(ccd(), "calexp", CCD) for b in (butler, other)]
    assert not list(tmp_path.rglob("*.sqlite3"))
    assert [b.get_dataset(ref.id) is not None for b in (butler, other) for ref in refs] == [True, False, False, True]
    assert other.get("calexp.detector", CCD) is None
