"""Composites in the LSST Butler.

``butler create REPO --seed-config resource://compositeh5/butler/configs/seed.yaml`` makes a repository that can store
them.
"""

from .checking import CheckedLink, check, users_of
from .dataset_files import link, use_butler
from .datasets import register_dataset_type
from .overlays import gather, put_component, put_links, put_overlay
from .subsetting import Subset, subset
from .target_map import Relinking, relink
from .transferring import export_closure, linked_refs, retrieve_closure, transfer_closure
from .visits import open_visit, put_visit

__all__ = [
    "CheckedLink",
    "Relinking",
    "Subset",
    "check",
    "export_closure",
    "gather",
    "link",
    "linked_refs",
    "open_visit",
    "put_component",
    "put_links",
    "put_overlay",
    "put_visit",
    "register_dataset_type",
    "relink",
    "retrieve_closure",
    "subset",
    "transfer_closure",
    "use_butler",
    "users_of",
]
