"""Writing several composites to one file."""

from __future__ import annotations

import os
from collections.abc import Mapping

from . import links
from .composite import Composite, _relative_links
from .container.layout import file_root
from .container.nodes import GroupNode
from .container.publish import publish
from .container.writer import file_image
from .errors import EncodeError
from .opening import require_same


def write_file(path: str | os.PathLike[str], composites: Mapping[str, Composite], /, *, replace: bool = False) -> None:
    """Write composites to one file, all of them or nothing.

    ``compositeh5.open(path, name)`` opens one; without a name, the first. When this returns, the file is on the
    disk under its name, and links can refer to the components.

    Parameters
    ----------
    path : path
        The file; missing folders are made.
    composites : mapping
        The composites by the names of their groups. To be found as datasets of a Butler that `ingests
        <lsst.daf.butler.Butler.ingest>` the file, each needs its data ID.
    replace : bool, optional
        Whether another file that is there is replaced. One with equal composites is always accepted.

    Raises
    ------
    EncodeError
        If there are none, a name isn't an identifier, or two of them have the same id, or no id and equal content.
    ConflictError
        If the file exists and holds something else (a `FileExistsError`). It is untouched.
    OSError
        If it can't be written; nothing is left behind.
    """
    location = links.absolute_location(path)
    if "://" in location:
        raise ValueError(f"{location}: only files on disk can be written")
    groups: dict[str, tuple[str, GroupNode]] = {}
    names: dict[str, str] = {}
    for name, composite in composites.items():
        if not (isinstance(name, str) and name.isidentifier()):
            raise EncodeError(f"the name of a composite should be letters, digits and '_', not {name!r}")
        node = composite.node()
        id_ = node.attr("id", str)
        if id_ in names:
            raise EncodeError(f"the composites {names[id_]!r} and {name!r} have the same id, {id_}")
        names[id_] = name
        groups[name] = (id_, node)
    if not groups:
        raise EncodeError(f"{location}: a file needs at least one composite")
    image = file_image(_relative_links(file_root(groups), location))
    for name, composite in composites.items():
        composite.id = groups[name][0]
    os.makedirs(os.path.dirname(location), exist_ok=True)
    try:
        publish(location, image, replace=replace)
    except FileExistsError as error:
        for name, composite in composites.items():
            require_same(composite, location, error, name)
    for composite in composites.values():
        composite.location = location
