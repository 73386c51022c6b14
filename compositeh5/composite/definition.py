"""Definitions: what a type of composite is made of, and how its Python objects are built and taken apart.

A definition is a YAML file. `load_definition` reads one, `get_definition` returns one that is shipped
(``definitions/*.yaml``) or was registered with `register_definition`:

.. code-block:: yaml

    name: exposure                # letters, digits, _
    version: 1                    # 1 or more; raise it when the meaning of a component changes
    description: A calibrated image of one detector.             # optional
    dimensions: [instrument, visit, detector]    # optional: the keys of the data ID of such composites
    signal: image                 # optional: the component that viewers show (of kind image or array)
    python_type: package.module.Class            # optional: the class of the Python objects
    assembler: package.module:function           # optional: function(components: dict) -> object
    disassembler: package.module:function        # optional: function(object) -> mapping
    components:                   # one or more
      image: {kind: image, required: true}
      visit_info: {kind: record, shared: [instrument, visit], getter: getVisitInfo, setter: setVisitInfo}
      amplifiers: {kind: image, list: true}
      flat: {kind: image, input_only: true, description: Given to the object, never taken from it.}

The keys of a component are

``kind``
    How it is encoded (of each member, if it is list-valued). The only key that must be there.
``description``
    What it is.
``required``
    Whether a composite without it is an error (default: false).
``calibration``
    Whether later processing steps replace it: `Composite.require_stage` asks for these (default: false).
``shared``
    The data ID keys under which it has a file of its own, to which composites link. They must be among the
    ``dimensions``, if these are given.
``list``
    Whether its value is a list (default: false).
``input_only``
    Whether it is only given to the Python object and never taken from it (default: false).
``getter``, ``setter``
    Names of a method or attribute of the Python object, where it isn't an attribute of the component's name; see
    `compositeh5.composite.python_objects`.

Every other key, a key at the wrong level, a duplicate key, and keys that contradict each other are errors;
what is found is reported together, with file and line. Import paths are ``package.module.Name`` or
``package.module:Qualified.Name``. They come from definitions only, that is from configuration: nothing in a
data file is ever imported.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..errors import DefinitionError, suggest
from .link import Link

VERSIONS = "versions"
"""Name of the component, which every composite may have, that keeps other versions of components."""

# Attributes and other entries of a composite group: a component of that name would be mistaken for them.
RESERVED_NAMES = frozenset(
    {"id", "data_id", "dataset_type", "run", "stage", "definition", "components", "provenance", VERSIONS}
)


@dataclass(frozen=True)
class ComponentDefinition:
    """What a definition says about one component; see the module for the meaning of each field."""

    name: str
    kind: str
    description: str = ""
    required: bool = False
    calibration: bool = False
    shared: tuple[str, ...] = ()
    is_list: bool = False
    input_only: bool = False
    getter: str | None = None
    setter: str | None = None


@dataclass(frozen=True, repr=False)
class Definition:
    """A type of composite: its components and their kinds; see the module for the meaning of each field.

    Make it with `load_definition` or `get_definition`, which check it. Two definitions are
    equal if they say the same, wherever they come from.
    """

    name: str
    version: int
    components: Mapping[str, ComponentDefinition] = field(hash=False)
    """The components by name, in the order of the file."""
    description: str = ""
    dimensions: tuple[str, ...] = ()
    signal: str | None = None
    python_type: str | None = None
    assembler: str | None = None
    disassembler: str | None = None
    source: str = field(default="", compare=False)
    """Where it comes from, for messages."""

    def __repr__(self) -> str:
        return f"<Definition {self.name!r} version {self.version}: {', '.join(self.components)}>"

    @property
    def title(self) -> str:
        """What messages call it."""
        return f"definition {self.name!r} ({self.source})"

    @property
    def required(self) -> tuple[str, ...]:
        """Names of the components without which a composite is incomplete."""
        return tuple(name for name, component in self.components.items() if component.required)

    @property
    def shared(self) -> dict[str, tuple[str, ...]]:
        """The data ID keys of each component that has a file of its own."""
        return {name: component.shared for name, component in self.components.items() if component.shared}

    @property
    def calibrations(self) -> tuple[str, ...]:
        """Names of the components that later processing steps replace."""
        return tuple(name for name, component in self.components.items() if component.calibration)

    def check(self, components: Mapping[str, object], of: str = "") -> None:
        """Check that components are those of a composite of this type.

        Parameters
        ----------
        components : mapping
            Component values, or links to components, by name; None is the same as a missing one. Only the values of
            required and of list-valued components are looked at.
        of : str, optional
            What has the components, for the message.

        Raises
        ------
        DefinitionError
            If a required component is absent, one isn't in the definition, or a list-valued one isn't a list,
            tuple or link; the message lists every problem.
        """
        found = [
            f"there is no component {name!r}{suggest(name, self.components)}"
            for name in components
            if name not in self.components and name != VERSIONS
        ]
        for name, component in self.components.items():
            value = components.get(name)
            if value is None:
                if component.required:
                    found.append(f"the required component {name!r} is absent")
            elif component.is_list and not isinstance(value, (list, tuple, Link)):
                kind, other = component.kind, type(value).__name__
                found.append(f"the component {name!r} should be a list of {kind}, not a {other}")
        if found:
            raise DefinitionError(": ".join(filter(None, (self.title, of, "; ".join(found)))))
