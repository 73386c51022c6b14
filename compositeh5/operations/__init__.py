"""Operations on composites and on trees of files."""

from .promote import Promotion, promote
from .pruning import PrunedFile, PruneReport, prune, remove
from .references import Reference, Referrers, refs, refs_to
from .relinking import RelinkedFile, RelinkReport, relink
from .subset import Subset, subset
from .tree import Unread, Visited
from .verify import Problem, Verification, verify_files

__all__ = [
    "Problem",
    "Promotion",
    "PruneReport",
    "PrunedFile",
    "Reference",
    "Referrers",
    "RelinkReport",
    "RelinkedFile",
    "Subset",
    "Unread",
    "Verification",
    "Visited",
    "promote",
    "prune",
    "refs",
    "refs_to",
    "relink",
    "remove",
    "subset",
    "verify_files",
]
