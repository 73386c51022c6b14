"""Work on many files: find, read, index, verify, copy, share, relink, prune."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .bulk_reading import cutouts, read_many
    from .composing import choose, compose, gather
    from .index_table import index, open_index
    from .pruning import prune, remove
    from .references import refs, refs_to
    from .relinking import promote, relink
    from .rescuing import rescue
    from .sharing import split, write_together
    from .subsetting import subset
    from .verify import verify_files
    from .visit_files import open_visit

_MODULES = {
    "choose": "composing",
    "compose": "composing",
    "cutouts": "bulk_reading",
    "gather": "composing",
    "index": "index_table",
    "open_index": "index_table",
    "open_visit": "visit_files",
    "promote": "relinking",
    "prune": "pruning",
    "read_many": "bulk_reading",
    "refs": "references",
    "refs_to": "references",
    "relink": "relinking",
    "remove": "pruning",
    "rescue": "rescuing",
    "split": "sharing",
    "subset": "subsetting",
    "verify_files": "verify",
    "write_together": "sharing",
}

__all__ = [
    "choose",
    "compose",
    "cutouts",
    "gather",
    "index",
    "open_index",
    "open_visit",
    "promote",
    "prune",
    "read_many",
    "refs",
    "refs_to",
    "relink",
    "remove",
    "rescue",
    "split",
    "subset",
    "verify_files",
    "write_together",
]


def __getattr__(name: str) -> Any:
    # Each is loaded when it is asked for.
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
