"""Writing composites to files: one, several together, and copies that need no other file."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import replace as changed
from functools import partial
from typing import Any

import numpy as np

from ..errors import (
    CompositeH5Error,
    ConflictError,
    EncodeError,
    NoSuchComponentError,
    WrongTypeError,
    WrongValueError,
    require_type,
    suggest,
)
from ..storage.digests import composite_digest, read_json
from ..storage.layout import (
    DEFAULT,
    ORIGIN,
    RANGE,
    composite_group,
    file_root,
    image_attrs,
    long_text,
    text_name,
)
from ..storage.locations import absolute_location, relative_location
from ..storage.nodes import ArrayNode, ExternalLink, Group, GroupNode, Node, SoftLink
from ..storage.publish import Output, make_folders, publish
from ..storage.quantized import QuantizedArray
from ..storage.recipes import OTHERS, Recipe, Recipes
from ..storage.writer import write_image
from .definitions import known_definition
from .encoding import composite_node, link_to, take_over_written
from .interface import CompositeLike
from .link import Link
from .parts import LIST, LinkedPart, Part, StoredPart, ValuePart, stored_part
from .session import Session, current


def write_file(
    path: str | os.PathLike[str],
    composites: Mapping[str, CompositeLike],
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
        if not hasattr(composite, "with_parts"):
            raise WrongTypeError(f"a composite was expected, not {composite!r}")
    if "://" in location:
        raise WrongValueError(f"{location}: only files on disk can be written")
    drafts, groups = _encoded(composites, location, recipes, share)
    make_folders(os.path.dirname(location))
    try:
        publish(location, partial(write_image, _root(groups, location)), replace=replace)
    except FileExistsError as error:
        for name, group in groups.items():
            _require_same(name, group, location, error)
    for name, composite in composites.items():
        take_over_written(composite, drafts[name], groups[name], location)


def write(
    composite: CompositeLike, path: str | os.PathLike[str], *, replace: bool = False, recipes: Recipes | None = None
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


def file_image(composite: CompositeLike, location: str | os.PathLike[str], *, recipes: Recipes | None = None) -> bytes:
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


def flatten(
    composite: CompositeLike, path: str | os.PathLike[str], *, replace: bool = False, recipes: Recipes | None = None
) -> None:
    """Write a copy that needs no other file: with what the links lead to in their place.

    The copy has the same id, and its components the same digests, as this composite; each that was linked keeps its
    origin. `split` turns such files into linked ones again.

    Parameters
    ----------
    composite : Composite
        The composite.
    path, replace, recipes
        As for `write`.

    Raises
    ------
    BrokenLinkError
        If a component is lost. Nothing is written.
    ConflictError, OSError
        As `write` does.
    """
    with ExitStack() as opened:
        parts = {name: _flat_part(part, opened) for name, part in composite.parts.items()}
        flat = composite.with_parts(parts, id=composite.id or None)
        flat.write(path, replace=replace, recipes=recipes)


def _flat_part(part: Part, opened: ExitStack) -> Part:
    """Return a part that needs no other file, with what links lead to; the digest stays. The stack closes files."""
    start, session = None, None
    if isinstance(part, LinkedPart):
        session, link = part.session, part.link
        node, file = part.open_node()
        if file is None:
            part = ValuePart(part.read(), part.kind, part.stage, link)
        else:
            opened.callback(file.close)
            part = StoredPart(node, file.name, session, link)
    if isinstance(part, StoredPart):
        start, session = part.location, part.session
    if part.kind not in (LIST, "composite"):
        return part
    node, _ = part.output()
    return StoredPart(_flat_node(node, start, session, opened))


def _flat_node(node: Node, start: str | None, session: Session | None, opened: ExitStack) -> Node:
    """Return a list or a composite, whose links lead to absolute locations, with what these lead to."""
    if not isinstance(node, GroupNode) or (kind := node.attr("kind", str, "")) not in (LIST, "composite"):
        return node
    children: dict[str, Node] = {}
    records = read_json(node, "links", dict)
    for name, child in node.items():
        if isinstance(child, ExternalLink):
            # Of a composite in memory, a link may lead to any host.
            part = stored_part(node, name, start or child.file, session, lambda: records)
            children[name], _ = _flat_part(part, opened).output()
        else:
            children[name] = _flat_node(child, start, session, opened)
    attrs = {name: value for name, value in node.attrs.items() if text_name(name) != "links"}
    return Group(children, attrs | (long_text("links", "{}") if kind == "composite" else {}), node.where)


def write_image_of(
    composites: Mapping[str, CompositeLike],
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
    drafts, groups = _encoded(composites, location, recipes, share=False)
    write_image(_root(groups, location), output)
    for name, composite in composites.items():
        take_over_written(composite, drafts[name], groups[name], None)


def _root(groups: Mapping[str, Group], location: str) -> Group:
    """Return the root of a file of composites, given their groups."""
    return file_root({name: (group.attr("id", str), relative_links(group, location)) for name, group in groups.items()})


def _encoded(
    composites: Mapping[str, CompositeLike], location: str, recipes: Recipes | None, share: bool
) -> tuple[dict[str, CompositeLike], dict[str, Group]]:
    """Return what composites become when they are written to one file, and their groups in it."""
    require_type({} if recipes is None else recipes, Mapping, "a mapping of components to recipes")
    chosen = {name: Recipe.of(recipe) for name, recipe in (recipes or {}).items()}
    _check_recipes(composites.values(), chosen)
    drafts = {name: _quantized(composite, chosen) for name, composite in composites.items()}
    groups: dict[str, Group] = {}
    names: dict[str, str] = {}
    shared: dict[tuple[str, str], Link] = {}
    for name, draft in drafts.items():
        if not (isinstance(name, str) and name.isidentifier()):
            raise EncodeError(f"the name of a composite should be letters, digits and '_', not {name!r}")
        group = composite_node(draft)
        draft.id = group.attr("id", str)
        if share and _share(draft, group, location, shared):
            group = composite_node(draft)
        groups[name] = group
        found = {component: chosen.get(component, chosen.get(OTHERS)) for component in draft.parts}
        group.recipes = {component: recipe for component, recipe in found.items() if recipe is not None}
        other = names.setdefault(draft.id, name)
        if other != name:
            raise EncodeError(f"the composites {other!r} and {name!r} have the same id, {draft.id}")
    if not groups:
        raise EncodeError(f"{location}: a file needs at least one composite")
    return drafts, groups


def _share(draft: CompositeLike, group: Group, location: str, shared: dict[tuple[str, str], Link]) -> bool:
    """Replace each component that an earlier composite of the file has too by a link to that; return whether one was.

    The id stays: no digest depends on whether a component is stored or linked.
    """
    found = False
    for name, part in draft.parts.items():
        if part.state == "linked":
            continue
        own = link_to(draft, name, group[name].attr("digest", str), location)
        first = shared.setdefault((part.kind, own.digest), own)
        if first is not own:
            draft._parts[name] = LinkedPart(changed(first, stage=part.stage))
            found = True
    return found


def _quantized(composite: CompositeLike, recipes: Mapping[str, Recipe]) -> CompositeLike:
    """Return a composite in memory that is like another, but for images that the recipes round."""
    others = recipes.get(OTHERS, Recipe())
    rounded: dict[str, Part] = {}
    for name, part in composite.parts.items():
        recipe = recipes.get(name, others)
        if not recipe.quantize:
            continue
        if isinstance(part, ValuePart | StoredPart) and part.kind == "image":
            node, _ = part.open_node()
            if isinstance(node, ArrayNode) and node.dtype.kind == "f":
                rounded[name] = _rounded(part, node, recipe.quantize)
        if name in recipes and name not in rounded:
            raise EncodeError(
                f"{composite.where}: component {name!r} of kind {part.kind!r} can't be quantized: "
                f"it isn't an image of floats that this composite has itself"
            )
    # An id names one content. One that was given for what isn't stored yet is that of what will be.
    id_ = None if rounded and composite.location is not None else composite.id or None
    draft = composite.with_parts({**composite.parts, **rounded}, id=id_)
    draft.location = composite.location
    return draft


def _rounded(part: Part, node: ArrayNode, fraction: float) -> StoredPart:
    """Return the part of an image, whose node is given, with the pixels rounded."""
    rounded = QuantizedArray(node, fraction)
    attrs = {**rounded.attrs, **image_attrs(node), **({"stage": part.stage} if part.stage else {})}
    if RANGE in attrs:
        attrs[RANGE] = rounded.round(np.asarray(attrs[RANGE]))
    # No longer what it was copied from.
    rounded.attrs = {name: value for name, value in attrs.items() if name not in (ORIGIN, "digest")}
    return StoredPart(rounded)


def _check_recipes(composites: Iterable[CompositeLike], recipes: Recipes) -> None:
    possible, where = {OTHERS}, ""
    for each in composites:
        where = where or each.where
        possible.update(each.parts, each.absent)
        if (definition := known_definition(each.definition)) is not None:
            possible.update(definition.components)
    for name in recipes:
        if name not in possible:
            raise NoSuchComponentError(
                f"{where}: there is a recipe for {name!r}, which isn't a component{suggest(name, possible)}"
            )


def _require_same(name: str, written: Group, location: str, error: FileExistsError) -> None:
    """Raise `ConflictError` unless the file at ``location`` holds an equal composite with the same id."""
    id_ = written.attr("id", str)
    try:
        with current().opened(location) as file:
            group = composite_group(file, name)
            if group.attr("id", str) == id_ and composite_digest(group) == written.attr("digest", str):
                return
            found = f"the composite {group.attr('id', str)} ({group.attr('title', str, '')})"
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
