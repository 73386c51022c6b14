"""The main tests of the Butler plug-in once more, on a PostgreSQL registry."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("lsst.daf.butler", reason="needs lsst-daf-butler (the extra `butler`)")
pytest.importorskip("psycopg", reason="needs a driver for PostgreSQL (lsst-daf-butler[postgres])")

from butler_support import create_repo_with
from linked_datasets import Repositories
from lsst.daf.butler import Butler
from support import visit_info
from test_butler import (  # noqa: F401
    CCD,
    VISIT,
    catalog,
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
    test_put_visit_registers_what_is_missing,
    test_real_visits,
    test_rows_and_columns_of_a_table,
    visit,
)
from test_butler_components import (  # noqa: F401
    add_tract,
    test_a_component_is_put_into_another_run,
    test_a_composite_of_what_other_tasks_stored,
    test_an_overlay_may_have_more_keys_than_its_base,
    test_an_overlay_shows_the_base_but_for_what_changed,
)

from compositeh5.butler import register_dataset_type
from compositeh5.composite.session import current


@pytest.fixture(scope="module")
def _repositories(database: str, tmp_path_factory: pytest.TempPathFactory) -> Repositories:
    return Repositories(tmp_path_factory.mktemp("postgres"), database)


# The tests use these in place of the fixtures of the same names of their own modules.


@pytest.fixture
def root(_repositories: Repositories, tmp_path: Path) -> Iterator[Path]:
    add_tract(_repositories.with_camera(tmp_path / "repo"))
    yield tmp_path / "repo"
    _repositories.close()


@pytest.fixture
def butler(root: Path) -> Butler:
    return open_butler(root)


@pytest.fixture
def filled(butler: Butler) -> Butler:
    butler.put(ccd(visit_info=visit_info(), photo_calib=None), "calexp", CCD)
    butler.put(visit(), "visit_metadata", VISIT)
    butler.put(catalog(), "src", CCD)
    return butler


@pytest.fixture(autouse=True)
def _nothing_cached() -> None:
    current().clear_cache()


def test_repositories_share_a_database(database: str, tmp_path: Path) -> None:
    butlers = [
        create_repo_with(tmp_path / name, {"registry": {"db": database, "namespace": name}})
        for name in ("one", "other")
    ]
    for butler in butlers:
        register_dataset_type(butler, "calexp", "exposure")
    refs = [butler.put(ccd(), "calexp", CCD) for butler in butlers]
    assert not list(tmp_path.rglob("*.sqlite3"))
    assert [b.get_dataset(ref.id) is not None for b in butlers for ref in refs] == [True, False, False, True]
    assert butlers[1].get("calexp.detector", CCD) is None
    for butler in butlers:
        # The database is the template of others, to which nobody may be connected.
        butler.close()
