"""What may be different on a PostgreSQL registry: transactions, queries by data IDs from files, many repositories."""

# ruff: noqa: F811 (fixtures of another module)

from __future__ import annotations

from itertools import count
from pathlib import Path

import pytest

pytest.importorskip("lsst.daf.butler", reason="needs lsst-daf-butler (the extra `butler`)")
pytest.importorskip("psycopg", reason="needs a driver for PostgreSQL (lsst-daf-butler[postgres])")

from butler_support import (  # noqa: F401
    CCD,
    RUN,
    SEED,
    add_instrument,
    content,
    nothing_cached,
    put_ccds,
    put_overlay_and_catalog,
    register_types,
    root,
    states,
)
from lsst.daf.butler import Butler, Config
from support import visit_info
from test_butler import (  # noqa: F401
    ccd,
    test_a_composite_comes_back_as_the_dataset_it_was_put_as,
    test_a_put_that_fails_late_leaves_nothing,
    test_links_that_lead_nowhere,
)
from test_butler_closure import (  # noqa: F401
    test_a_link_of_which_no_data_id_is_known_or_a_wrong_one,
    test_what_was_ingested_under_another_id_is_found,
    test_what_would_break_is_told_before_it_does,
)
from test_butler_components import test_an_overlay_may_have_more_keys_than_its_base  # noqa: F401

from compositeh5.butler import subset, transfer_closure

_names = (f"repository{number}" for number in count())


def repository(root: Path, database: str, name: str) -> Butler:
    """Make a repository that shares the database with others."""
    config = Config(SEED)
    config["registry"] = {"db": database, "namespace": name}
    Butler.makeRepo(str(root), config=config)
    butler = Butler.from_config(str(root), run=RUN)
    add_instrument(butler)
    register_types(butler)
    return butler


@pytest.fixture
def butler(root: Path, database: str) -> Butler:
    return repository(root, database, next(_names))


def test_repositories_share_a_database(database: str, tmp_path: Path) -> None:
    one, other, third = (repository(tmp_path / name, database, name) for name in ("one", "other", "third"))
    _, (first, _) = put_ccds(one)
    _, catalog = put_overlay_and_catalog(one, first)
    assert not list(tmp_path.rglob("*.sqlite3"))
    assert other.get_dataset(first.id) is None
    transfer_closure(one, other, [catalog])
    subset(one, third, [catalog])
    expected = content(one, [catalog])
    (tmp_path / "one").rename(tmp_path / "gone")
    for target in (other, third):
        assert content(target, [catalog]) == expected
        assert set(states(target).values()) == {"ok"}
        assert target.get("src.visit_info", CCD, detector=0, collections="u/src") == visit_info()
