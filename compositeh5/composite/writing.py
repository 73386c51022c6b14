"""Writing composites to files: one, or several together."""

from __future__ import annotations

import io
import os
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol, runtime_checkable

import numpy as np

from ..errors import (
    CompositeH5Error,
    ConflictError,
    EncodeError,
    NoSuchComponentError,
    WrongValueError,
    require_type,
    suggest,
)
from ..storage.digests import canonical_json, composite_digest, digest
from ..storage.layout import (
    DEFAULT,
    ID_NAMESPACE,
    ORIGIN,
    RANGE,
    check_file,
    composite_group,
    file_root,
    image_attrs,
    long_text,
)
from ..storage.locations import absolute_location, relative_location
from ..storage.nodes import ArrayNode, AttrValue, ExternalLink, Group, Node, SoftLink
from ..storage.publish import Output, make_folders, publish
from ..storage.quantized import QuantizedArray
from ..storage.recipes import OTHERS, Recipe, Recipes
from ..storage.threads import in_order
from ..storage.writer import write_image
from .definitions import known_definition
from .link import DataId, Link
from .parts import LinkedPart, Part, StoredPart, ValuePart, with_digest
from .session import current, node_bytes

KIND_VERSION = 1
"""Version of the encoding of a composite's group."""


@dataclass
class Contents:
    """What is written of a composite.

    Attributes
    ----------
    parts : dict of str to Part
        The components by name.
    absent : tuple of str
        Names of the components that are known to be None.
    definition, definition_version, data_id, dataset_type, run, stage, provenance
        As those of a composite.
    id : str
        Id; empty if it is to be derived from the content.
    signal : str
        Name of the component that viewers show.
    where : str
        What messages call the composite.
    is_stored : bool
        Whether the composite is in a file already, so that its id is that of what is there.
    digests : dict of str to str
        Digests of the components, once they are known.
    """

    parts: dict[str, Part]
    absent: tuple[str, ...] = ()
    definition: str = ""
    definition_version: int = 1
    data_id: DataId = field(default_factory=dict)
    dataset_type: str = ""
    run: str = ""
    stage: str = ""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    id: str = ""
    signal: str = ""
    where: str = "value"
    is_stored: bool = False
    digests: dict[str, str] = field(default_factory=dict)

    def group(self) -> Group:
        """Return the group to write, complete with id, digests and the records of links.

        The files of external links in it are absolute locations. Id and digests are those of this object from now on.
        """
        outputs = {name: part.output() for name, part in self.parts.items()}
        unknown = {name: node for name, (node, known) in outputs.items() if not known}
        found = in_order(digest, unknown.values(), sum(map(node_bytes, unknown.values())))
        self.digests = {name: known for name, (_, known) in outputs.items()}
        self.digests |= zip(unknown, found, strict=True)
        records = {name: part.link.record() for name, part in self.parts.items() if isinstance(part, LinkedPart)}
        attrs: dict[str, AttrValue] = {
            "kind": "composite",
            "kind_version": KIND_VERSION,
            "definition": self.definition,
            "definition_version": self.definition_version,
            "data_id": canonical_json(self.data_id),
            "dataset_type": self.dataset_type,
            "run": self.run,
            "stage": self.stage,
            "title": " ".join([self.definition or "composite", *(f"{k}={v}" for k, v in self.data_id.items())]),
            **long_text("absent", canonical_json(sorted(self.absent))),
            **long_text("links", canonical_json(records)),
            **long_text("provenance", canonical_json(self.provenance)),
        }
        if self.signal in self.parts:
            attrs |= {"NX_class": "NXdata", "signal": self.signal}
        children = {
            name: node if isinstance(node, ExternalLink) else with_digest(node, self.digests[name])
            for name, (node, _) in outputs.items()
        }
        group = Group(children, attrs, self.where)
        whole = composite_digest(group)
        self.id = self.id or str(uuid.uuid5(ID_NAMESPACE, whole))
        group.attrs |= {"id": self.id, "digest": whole}
        return group

    def link(self, name: str, location: str) -> Link:
        """Return a link to a component, for a composite whose digests are known, in a file at a location."""
        part = self.parts[name]
        return Link(
            id=self.id,
            component=name,
            kind=part.kind,
            digest=self.digests[name],
            uri=location,
            definition=self.definition,
            dataset_type=self.dataset_type,
            data_id=dict(self.data_id),
            run=self.run,
            stage=part.stage,
        )


@runtime_checkable
class Writable(Protocol):
    """What is written: a `Composite`."""

    def contents(self) -> Contents:
        """Return what is written of it."""

    def become(self, contents: Contents, location: str | None) -> None:
        """Be what was written, at a location if it has one."""


def write_file(
    path: str | os.PathLike[str],
    composites: Mapping[str, Writable],
    /,
    *,
    share: bool = False,
    replace: bool = False,
    recipes: Recipes | None = None,
) -> None:
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
    share : bool, optional
        Whether a component that is equal to one of a composite before it is stored only there, and linked. The ids
        and digests of the composites don't depend on it.
    replace : bool, optional
        Whether another file that is there is replaced. One with equal composites is always accepted, so that many
        processes can write a file that they share.
    recipes : mapping of str to Recipe or str, optional
        How components are laid out and compressed, by name, as for `Composite.write`.

    Raises
    ------
    EncodeError
        If there are none, a name isn't an identifier, or two of them have the same id, or no id and equal content.
    NoSuchComponentError
        If none of the composites can have a component for which there is a recipe.
    ConflictError
        If the file exists and holds something else (a `FileExistsError`). It is untouched.
    OSError
        If it can't be written; nothing is left behind.
    """
    location = absolute_location(path)
    require_type(composites, Mapping, "a mapping of names to composites")
    for composite in composites.values():
        require_type(composite, Writable, "a composite")
    if "://" in location:
        raise WrongValueError(f"{location}: only files on disk can be written")
    contents = {name: composite.contents() for name, composite in composites.items()}
    root = _root(contents, location, recipes, share)
    make_folders(os.path.dirname(location))
    try:
        publish(location, partial(write_image, root), replace=replace)
    except FileExistsError as error:
        for name, own in contents.items():
            _require_same(name, root.group(name).attr("digest", str), own.id, location, error)
    for name, composite in composites.items():
        composite.become(contents[name], location)


def write(
    composite: Writable, path: str | os.PathLike[str], *, replace: bool = False, recipes: Recipes | None = None
) -> None:
    """Write the composite to a file, all of it or nothing.

    When this returns, the file is on the disk under its name, and `link` can refer to its components.

    Parameters
    ----------
    composite : Composite
        The composite.
    path : path
        The file; missing folders are made.
    replace : bool, optional
        Whether another composite that is there is replaced. An equal one is always accepted, so that many
        processes can write a file that they share.
    recipes : mapping of str to Recipe or str, optional
        How components are laid out and compressed, by name; the one named ``"default"`` is for all others. A string
        names one of ``"lossless"`` (the default), ``"archive"``, ``"raw"`` and ``"quantized"``. Without one, what
        is copied from a file stays as it is there. Reading doesn't depend on it; nor does equality, but for
        ``"quantized"``, which rounds images of floats: the composite then has the rounded ones.

    Raises
    ------
    NoSuchComponentError
        If the composite can't have a component for which there is a recipe.
    ConflictError
        If the file exists and holds something else (a `FileExistsError`). It is untouched.
    OSError
        If it can't be written; nothing is left behind.
    """
    write_file(path, {DEFAULT: composite}, replace=replace, recipes=recipes)


def file_image(composite: Writable, location: str | os.PathLike[str], *, recipes: Recipes | None = None) -> bytes:
    """Return the bytes of the file that holds the composite, as they must be at ``location``.

    Links are written relative to the location, so the bytes are valid only there, or where the files that
    they link to have moved along.

    Parameters
    ----------
    composite : Composite
        The composite.
    location : path
        Where the file will be.
    recipes : mapping, optional
        How components are compressed and cut into chunks, as for `write`.

    Raises
    ------
    NoSuchComponentError
        If the composite can't have a component for which there is a recipe.
    """
    output = io.BytesIO()
    write_image_of({DEFAULT: composite}, absolute_location(location), output, recipes=recipes)
    # Not a view of the buffer: Python 3.12.1 crashes when such a pair is garbage.
    return output.getvalue()


def write_image_of(
    composites: Mapping[str, Writable],
    location: str,
    output: Output | io.BytesIO,
    *,
    recipes: Recipes | None = None,
) -> None:
    """Write the bytes of a file of composites, as they must be at ``location``, in pieces; these get their ids.

    Raises
    ------
    EncodeError, NoSuchComponentError
        As `write_file` does.
    """
    contents = {name: composite.contents() for name, composite in composites.items()}
    write_image(_root(contents, location, recipes, share=False), output)
    for name, composite in composites.items():
        composite.become(contents[name], None)


def _root(composites: Mapping[str, Contents], location: str, recipes: Recipes | None, share: bool) -> Group:
    """Return the root group of a file of composites, which become what is written."""
    require_type({} if recipes is None else recipes, Mapping, "a mapping of components to recipes")
    chosen = {name: Recipe.of(recipe) for name, recipe in (recipes or {}).items()}
    _check_recipes(composites.values(), chosen)
    for contents in composites.values():
        _quantize(contents, chosen)
    groups: dict[str, Group] = {}
    names: dict[str, str] = {}
    shared: dict[tuple[str, str], Link] = {}
    for name, contents in composites.items():
        if not (isinstance(name, str) and name.isidentifier()):
            raise EncodeError(f"the name of a composite should be letters, digits and '_', not {name!r}")
        group = contents.group()
        if share and _share(contents, location, shared):
            group = contents.group()
        groups[name] = group
        found = {component: chosen.get(component, chosen.get(OTHERS)) for component in contents.parts}
        group.recipes = {component: recipe for component, recipe in found.items() if recipe is not None}
        other = names.setdefault(contents.id, name)
        if other != name:
            raise EncodeError(f"the composites {other!r} and {name!r} have the same id, {contents.id}")
    if not groups:
        raise EncodeError(f"{location}: a file needs at least one composite")
    return file_root({name: (composites[name].id, relative_links(group, location)) for name, group in groups.items()})


def _share(contents: Contents, location: str, shared: dict[tuple[str, str], Link]) -> bool:
    """Replace what is equal to a component of a composite before by a link to that; return whether there is any.

    The id stays: no digest depends on whether a component is stored or linked.
    """
    found = False
    for name, part in contents.parts.items():
        if part.state == "linked":
            continue
        own = contents.link(name, location)
        first = shared.setdefault((part.kind, own.digest), own)
        if first is not own:
            contents.parts[name] = LinkedPart(replace(first, stage=part.stage))
            found = True
    return found


def _quantize(contents: Contents, recipes: Mapping[str, Recipe]) -> None:
    """Round those images of which the recipe demands it."""
    others = recipes.get(OTHERS, Recipe())
    rounded: dict[str, Part] = {}
    for name, part in contents.parts.items():
        recipe = recipes.get(name, others)
        if not recipe.quantize:
            continue
        if isinstance(part, ValuePart | StoredPart) and part.kind == "image":
            node, _ = part.open_node()
            if isinstance(node, ArrayNode) and node.dtype.kind == "f":
                rounded[name] = _rounded(part, node, recipe.quantize)
        if name in recipes and name not in rounded:
            raise EncodeError(
                f"{contents.where}: component {name!r} of kind {part.kind!r} can't be quantized: "
                f"it isn't an image of floats that this composite has itself"
            )
    if rounded:
        contents.parts |= rounded
        # An id names one content. One that was given for what isn't stored yet is that of what will be.
        contents.id = "" if contents.is_stored else contents.id


def _rounded(part: Part, node: ArrayNode, fraction: float) -> StoredPart:
    """Return the part of an image, whose node is given, with the pixels rounded."""
    rounded = QuantizedArray(node, fraction)
    attrs = {**rounded.attrs, **image_attrs(node), **({"stage": part.stage} if part.stage else {})}
    if RANGE in attrs:
        attrs[RANGE] = rounded.round(np.asarray(attrs[RANGE]))
    # No longer what it was copied from.
    rounded.attrs = {name: value for name, value in attrs.items() if name not in (ORIGIN, "digest")}
    return StoredPart(rounded)


def _check_recipes(composites: Iterable[Contents], recipes: Recipes) -> None:
    possible, where = {OTHERS}, ""
    for contents in composites:
        where = where or contents.where
        possible.update(contents.parts, contents.absent)
        if (definition := known_definition(contents.definition)) is not None:
            possible.update(definition.components)
    for name in recipes:
        if name not in possible:
            raise NoSuchComponentError(
                f"{where}: there is a recipe for {name!r}, which isn't a component{suggest(name, possible)}"
            )


def _require_same(name: str, whole: str, id_: str, location: str, error: FileExistsError) -> None:
    """Raise `ConflictError` unless the file at ``location`` holds an equal composite with the same id."""
    try:
        file = current().open(location)
        try:
            check_file(file)
            group = composite_group(file, name)
            if group.attr("id", str) == id_ and composite_digest(group) == whole:
                return
            found = f"the composite {group.attr('id', str)} ({group.attr('title', str, '')})"
        finally:
            file.close()
    except (OSError, CompositeH5Error) as problem:
        found = f"something else ({problem})"
    raise ConflictError(
        f"{location}: holds {found}, so {id_} was not written; choose another path, or pass replace=True"
    ) from error


def relative_links(node: Node, location: str, before: str | None = None) -> Any:
    """Return the tree with the files of its external links as seen from ``location``; it may come from ``before``."""
    if isinstance(node, ExternalLink) and node.file in (location, before):
        # It stays right when the file gets another name.
        return SoftLink(node.target)
    if isinstance(node, ExternalLink):
        return ExternalLink(relative_location(node.file, location), node.target)
    if isinstance(node, Group):
        children = {name: relative_links(child, location, before) for name, child in node.children.items()}
        return Group(children, node.attrs, node.where, node.recipes)
    return node
