"""Writing composites to files: one, or several together."""

from __future__ import annotations

import dataclasses
import io
import os
import uuid
from collections.abc import Mapping
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from . import definition as definitions
from . import links
from .components import Components
from .container.layout import ID_LENGTH, ID_NAMESPACE, file_root, long_text
from .container.nodes import ArrayNode, AttrValue, ExternalLink, Group, Later, Node, SoftLink, known, with_attrs
from .container.publish import Output, make_folders, publish
from .container.threads import WORTHWHILE_BYTES, Aside
from .container.writer import write_image
from .errors import EncodeError, NoSuchComponentError, WrongValueError, require_type, suggest
from .integrity import DIGEST_LENGTH, canonical_json, composite_digest, digest
from .parts import DigestOf, MemoryPart, Part, StoredPart, rounded_part
from .recipes import OTHERS, Recipe, Recipes
from .targets import node_bytes

if TYPE_CHECKING:
    from .composite import Composite

KIND_VERSION = 1
"""Version of the encoding of a composite's group."""


def write_file(
    path: str | os.PathLike[str],
    composites: Mapping[str, Composite],
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
    location = links.absolute_location(path)
    require_type(composites, Mapping, "a mapping of names to composites")
    for composite in composites.values():
        require_type(composite, Components, "a composite")
    if "://" in location:
        raise WrongValueError(f"{location}: only files on disk can be written")
    plan = _Plan(composites, location, recipes, share)
    make_folders(os.path.dirname(location))
    try:
        publish(location, partial(write_image, plan.root), replace=replace)
    except FileExistsError as error:
        from .opening import require_same

        for name, composite in plan.written().items():
            require_same(composite, location, error, name)
    plan.adopt()
    for composite in composites.values():
        composite.location = location


def _sharing(composites: Mapping[str, Composite], location: str) -> dict[str, Composite]:
    """Return composites in which what is equal to a component of one before is a link to that."""
    stored: dict[tuple[str, str], tuple[Composite, str]] = {}
    result: dict[str, Composite] = {}
    for name, composite in composites.items():
        # The id may follow from the content.
        composite.id = group_of(composite).attr("id", str)
        found: dict[str, links.Link] = {}
        for component in composite:
            part = composite._part(component)
            if part.state == "linked":
                continue
            first, there = stored.setdefault((part.kind, composite._digests[component]), (composite, component))
            if first is not composite:
                planned = first.replace(id=first.id)
                planned._digests, planned.location = first._digests, location
                link = planned.stored_link(there)
                found[component] = dataclasses.replace(link, stage=part.stage)
        result[name] = composite.replace(found, id=composite.id)
    return result


def image_of(composites: Mapping[str, Composite], location: str, *, recipes: Recipes | None = None) -> bytes:
    """Return the bytes of a file of composites, as they must be at ``location``; these get their ids.

    Raises
    ------
    EncodeError, NoSuchComponentError
        As `write_file` does.
    """
    image = io.BytesIO()
    write_image_of(composites, location, image, recipes=recipes)
    # Not a view of the buffer: Python 3.12.1 crashes when such a pair is garbage.
    return image.getvalue()


def write_image_of(
    composites: Mapping[str, Composite],
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
    plan = _Plan(composites, location, recipes)
    write_image(plan.root, output)
    plan.adopt()


class _Plan:
    """What a file of composites will have.

    Attributes
    ----------
    root : Group
        Its root group.
    """

    def __init__(
        self, composites: Mapping[str, Composite], location: str, recipes: Recipes | None, share: bool = False
    ) -> None:
        require_type({} if recipes is None else recipes, Mapping, "a mapping of components to recipes")
        chosen = {name: Recipe.of(recipe) for name, recipe in (recipes or {}).items()}
        _check_recipes(composites, chosen)
        self._composites = composites
        self._planned = {name: _quantized(composite, chosen) for name, composite in composites.items()}
        self._groups: dict[str, _Described] = {}
        names: dict[str, str] = {}
        with closing(Aside()) as aside:
            # The ids of several are compared before anything is written.
            digest_of = partial(_digest_later, aside) if len(composites) == 1 else digest
            for name, composite in (_sharing(self._planned, location) if share else self._planned).items():
                if not (isinstance(name, str) and name.isidentifier()):
                    raise EncodeError(f"the name of a composite should be letters, digits and '_', not {name!r}")
                described = self._groups[name] = _described(composite, digest_of)
                if chosen:
                    found = {component: chosen.get(component, chosen.get(OTHERS)) for component in composite}
                    described.group.recipes = {name: recipe for name, recipe in found.items() if recipe is not None}
                if isinstance(described.id, str):
                    other = names.setdefault(described.id, name)
                    if other != name:
                        raise EncodeError(f"the composites {other!r} and {name!r} have the same id, {described.id}")
        if not self._groups:
            raise EncodeError(f"{location}: a file needs at least one composite")
        self.root = file_root(
            {name: (found.id, relative_links(found.group, location)) for name, found in self._groups.items()}
        )

    def written(self) -> dict[str, Composite]:
        """Return the composites as they are in the file, once it is written: with ids, and rounded images."""
        for name, composite in self._planned.items():
            described = self._groups[name]
            composite.id = known(described.id)
            composite._digests = {component: known(own) for component, own in described.digests.items()}
        return self._planned

    def adopt(self) -> None:
        """Have the composites that were to be written be what was."""
        for name, written in self.written().items():
            composite = self._composites[name]
            composite.id, composite._parts, composite._digests = written.id, written._parts, written._digests


def _digest_later(aside: Aside, node: Node) -> str | Later:
    """Return the digest of a component; that of a large one is made while it is being written."""
    if node_bytes(node) < WORTHWHILE_BYTES:
        return digest(node)
    # Its attributes are added to.
    content = with_attrs(node, {})
    return Later(DIGEST_LENGTH, aside.begin(lambda: digest(content)))


def _quantized(composite: Composite, recipes: Mapping[str, Recipe]) -> Composite:
    """Return the composite with those images rounded of which the recipe demands it; the same one if there are none."""
    others = recipes.get(OTHERS, Recipe())
    parts: dict[str, Part] = {}
    for name in composite if any(recipe.quantize for recipe in recipes.values()) else ():
        part, recipe = composite._part(name), recipes.get(name, others)
        if not recipe.quantize:
            continue
        if isinstance(part, MemoryPart | StoredPart) and part.kind == "image":
            node, _ = part.open_node()
            if isinstance(node, ArrayNode) and node.dtype.kind == "f":
                parts[name] = rounded_part(part, node, recipe.quantize)
        if name in recipes and name not in parts:
            raise EncodeError(
                f"{composite._where}: component {name!r} of kind {part.kind!r} can't be quantized: "
                f"it isn't an image of floats that this composite has itself"
            )
    if not parts:
        return composite
    # An id names one content. One that was given for what isn't stored yet is that of what will be.
    result = composite.replace(id=composite.id if composite.location is None else None)
    result._parts |= parts
    return result


def group_of(composite: Composite) -> Group:
    """Return the group of a composite, complete with id, digests and the records of links.

    The files of external links in it are absolute locations.
    """
    described = _described(composite, digest)
    composite._digests = {name: known(own) for name, own in described.digests.items()}
    return described.group


class _Described(NamedTuple):
    """The group of a composite, its id, and the digests of its components."""

    group: Group
    id: str | Later
    digests: dict[str, str | Later]


def _described(composite: Composite, digest_of: DigestOf) -> _Described:
    """Return the group of a composite; digests that are made later are, with what depends on them, in `Node.later`."""
    parts = {name: composite._part(name) for name in composite}
    children: dict[str, Node] = {}
    digests: dict[str, str | Later] = {}
    for name, part in parts.items():
        children[name], digests[name] = part.output(digest_of)
    own: dict[str, Any] = {
        "definition": composite.definition,
        "definition_version": composite.definition_version,
        "data_id": composite.data_id,
        "dataset_type": composite.dataset_type,
        "run": composite.run,
        "stage": composite.stage,
        "absent": sorted(composite.absent),
        "provenance": composite.provenance,
    }

    def whole() -> str:
        return composite_digest(
            own,
            {
                name: {"kind": part.kind, "digest": known(digests[name]), "stage": part.stage}
                for name, part in parts.items()
            },
        )

    def derived() -> str:
        return str(uuid.uuid5(ID_NAMESPACE, known(whole_digest)))

    is_later = any(isinstance(own, Later) for own in digests.values())
    whole_digest = Later(DIGEST_LENGTH, whole) if is_later else whole()
    id_ = composite.id or (Later(ID_LENGTH, derived) if is_later else derived())
    title = " ".join([composite.definition or "composite", *(f"{k}={v}" for k, v in composite.data_id.items())])
    attrs: dict[str, AttrValue] = {
        "kind": "composite",
        "kind_version": KIND_VERSION,
        "definition": composite.definition,
        "definition_version": composite.definition_version,
        "data_id": canonical_json(composite.data_id),
        "dataset_type": composite.dataset_type,
        "run": composite.run,
        "stage": composite.stage,
        "title": title,
        **long_text("absent", canonical_json(own["absent"])),
        **long_text("links", canonical_json({name: link.record() for name, link in composite.links.items()})),
        **long_text("provenance", canonical_json(composite.provenance)),
    }
    if composite._signal in children:
        attrs |= {"NX_class": "NXdata", "signal": composite._signal}
    texts = {"id": id_, "digest": whole_digest}
    attrs |= {name: text for name, text in texts.items() if isinstance(text, str)}
    later = {name: text for name, text in texts.items() if isinstance(text, Later)}
    return _Described(Group(children, attrs, composite._where, later=later), id_, digests)


def _check_recipes(composites: Mapping[str, Composite], recipes: Recipes) -> None:
    possible = {OTHERS}
    for composite in composites.values():
        possible.update(composite, composite.absent)
        if composite.definition in definitions.definition_names():
            possible.update(definitions.get_definition(composite.definition).components)
    for name in recipes:
        if name not in possible:
            where = next((composite._where for composite in composites.values()), "")
            raise NoSuchComponentError(
                f"{where}: there is a recipe for {name!r}, which isn't a component{suggest(name, possible)}"
            )


def relative_links(node: Node, location: str, before: str | None = None) -> Any:
    """Return the tree with the files of its external links as seen from ``location``; it may come from ``before``."""
    if isinstance(node, ExternalLink) and node.file in (location, before):
        # It stays right when the file gets another name.
        return SoftLink(node.target)
    if isinstance(node, ExternalLink):
        return ExternalLink(links.relative_location(node.file, location), node.target)
    if isinstance(node, Group):
        children = {name: relative_links(child, location, before) for name, child in node.children.items()}
        return dataclasses.replace(node, children=children)
    return node
