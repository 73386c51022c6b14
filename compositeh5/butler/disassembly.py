"""Composites that the Butler stores in pieces: each component in a file of its own.

One more file joins them, that of the component `ASSEMBLY`: a composite with the attributes of the whole, and links to
the pieces. To any HDF5 tool it looks like the whole. Derived components are read from it, and so is what the Butler
can't know when it puts the pieces together again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..composite.composite import Composite
from ..composite.link import Link
from ..composite.parts import LinkedPart, ValuePart
from .datasets import (
    ASSEMBLY,
    BBOX,
    COMPONENTS,
    as_box,
    check_parameters,
    parameter_names,
    read_component,
    select_components,
)


@dataclass
class Piece:
    """A component of a composite that is being taken apart, on its way to its file.

    Attributes
    ----------
    component : str
        Name of the component.
    content : Composite
        What the file will hold: the component, or the attributes of the whole for that which joins the others.
    links : dict of str to Link
        Links to the pieces that are written already; all pieces of a composite have the same.
    """

    component: str
    content: Composite
    links: dict[str, Link] = field(default_factory=dict)

    def composite(self) -> Composite:
        """Return the composite to write; the one with the links is complete when all others are written."""
        return self.content.replace(self.links) if self.component == ASSEMBLY else self.content

    def written(self, composite: Composite, location: str) -> None:
        """Remember where the piece is; ``composite`` is what was written."""
        if self.component in composite:
            composite.location = location
            self.links[self.component] = composite.link(self.component)


def take_apart(whole: Composite, names: Iterable[str]) -> dict[str, Piece]:
    """Return the pieces of a composite, one for each name, and last what joins them.

    A component that is absent, or of which the composite knows nothing, has a piece too: only for what has one the
    Butler asks the formatter, and gives None.
    """
    links: dict[str, Link] = {}
    pieces = {}
    for name in names:
        own = {name: whole.part(name)} if name in whole else dict.fromkeys({name}.intersection(whole.absent))
        pieces[name] = Piece(name, Composite(None, own), links)
    return {**pieces, ASSEMBLY: Piece(ASSEMBLY, whole.with_parts({}), links)}


@dataclass(frozen=True)
class Assembly:
    """What is needed to put a disassembled composite together again.

    Attributes
    ----------
    frame : Composite
        The attributes, the links to other datasets, and what is no component in a piece of its own.
    awaited : dict
        Kind and stage of the components whose values come from the pieces.
    """

    frame: Composite
    awaited: dict[str, tuple[str, str]]

    def joined(self, values: Mapping[str, Any]) -> Composite:
        """Return the composite with the values of its pieces."""
        parts = {
            name: part.with_value(values[name]) if isinstance(part, LinkedPart) else part
            for name, part in self.frame.parts.items()
        }
        parts |= {name: ValuePart(values[name], kind, stage) for name, (kind, stage) in self.awaited.items()}
        return self.frame.with_parts(parts, id=self.frame.id or None)


def read_piece(composite: Composite, name: str, parameters: Mapping[str, Any]) -> Any:
    """Return the component of a piece, or the part of it that the parameters select.

    The Butler gives the parameters of a get of the whole to each piece: those are left out that are for others.

    Returns
    -------
    object
        The value; an `Assembly` for that which joins the others; None if the component is absent, or not among those
        that the parameters name.
    """
    if name == ASSEMBLY:
        return _read_assembly(composite, parameters)
    wanted = parameters.get(COMPONENTS, name)
    if name not in composite or name not in ([wanted] if isinstance(wanted, str) else wanted):
        return None
    known = parameter_names(composite.kind(name))
    return read_component(composite, name, {key: value for key, value in parameters.items() if key in known})


def _read_assembly(composite: Composite, parameters: Mapping[str, Any]) -> Assembly:
    # The pieces are cut by those who read them; only a WCS needs to know from which box.
    part, rest = select_components(composite, parameters)
    check_parameters(rest, map(part.kind, part), f"{part!r}")
    parts = dict(part.parts)
    if BBOX in rest:
        worlds = [name for name in part if part.kind(name) == "wcs"]
        parts |= part.cutout(as_box(rest[BBOX]), components=worlds).parts
    awaited = {}
    for name, own in composite.links.items():
        is_cut = not parameter_names(own.kind).isdisjoint(rest)
        if isinstance(parts.get(name), LinkedPart) and (own.id == composite.id or is_cut):
            awaited[name] = (own.kind, own.stage)
            del parts[name]
    return Assembly(part.with_parts(parts, id=None if parameters else composite.id), awaited)
