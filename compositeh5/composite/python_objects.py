"""Building objects of users' own classes from components, and taking them apart."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partialmethod, singledispatchmethod
from importlib import import_module
from operator import attrgetter
from typing import Any

from ..errors import DefinitionError, did_you_mean
from .definition import ComponentDefinition, Definition
from .definitions import definition_names, get_definition

_MISSING: Any = object()

# Descriptors of methods that can't be called themselves.
_METHODS = (classmethod, partialmethod, singledispatchmethod)


def assemble(components: Mapping[str, Any], definition: Definition, cls: type[Any] | None = None) -> Any:
    """Build a Python object from components.

    The ``assembler`` of the definition is called with a dict of the components that are present. Without one the class
    is called: a component goes to its constructor if that has a parameter of its name, or ``**keywords``, unless the
    component has a ``setter``. The others are then given to the object: by their ``setter``, a method or an attribute,
    or as the attribute of their name, which must exist.

    Absent components (missing or None) are never passed. Whether a call can work is decided before it is made, so that
    any exception of the user's code comes out unchanged.

    ``cls`` is the class of the object, instead of the ``python_type`` of the definition. A `DefinitionError` says that
    the components don't fit the definition (`Definition.check`), that there is neither an assembler nor a class, that
    an import path leads nowhere, that the constructor can't be called with the components, or that nothing accepts one.
    """
    definition.check(components)
    present = {name: components[name] for name in definition.components if components.get(name) is not None}
    if definition.assembler is not None:
        return _call(f"{definition.title}: assembler", _resolve(definition, "assembler"), present)
    if cls is None:
        if definition.python_type is None:
            raise DefinitionError(f"{definition.title}: has neither an assembler nor a python_type to build an object")
        cls = _resolve(definition, "python_type")
    own = _keywords(cls, present, definition)
    obj = _call(f"{definition.title}: {cls.__qualname__}({', '.join(own)})", cls, **own)
    for name, value in present.items():
        if name not in own:
            _set(obj, definition.components[name], value, f"{definition.title}: components.{name}")
    return obj


def disassemble(obj: Any, definition: Definition) -> dict[str, Any]:
    """Take a Python object apart: return the components that are present, in the order of the definition.

    The ``disassembler`` of the definition is called with the object; it returns a mapping of components. Without one
    each component is taken by its ``getter``, or by its name: a method without arguments, or an attribute. An object
    that has nothing of a component's name doesn't have the component.

    Input-only components are left out, and what is None is absent. Exceptions of the user's code come out unchanged.

    A `DefinitionError` says that the components don't fit the definition (`Definition.check`), that the object lacks
    one that is required or has a getter, or makes up its attributes (``__getattr__``), that a method needs arguments,
    or that an import path leads nowhere.
    """
    if definition.disassembler is not None:
        what = f"{definition.title}: disassembler"
        values = _call(what, _resolve(definition, "disassembler"), obj)
        if not isinstance(values, Mapping):
            raise DefinitionError(
                f"{what}: {definition.disassembler!r} should return a mapping of components, "
                f"not a {type(values).__name__}"
            )
    else:
        values = {
            name: _get(obj, component, f"{definition.title}: components.{name}")
            for name, component in definition.components.items()
            if not component.input_only
        }
    definition.check(values, f"{type(obj).__qualname__} object")
    return {
        name: values[name]
        for name, component in definition.components.items()
        if not component.input_only and values.get(name) is not None
    }


def definitions_of(cls: type[Any]) -> list[Definition]:
    """Return the known definitions that have a class as their ``python_type``."""
    return [
        definition
        for definition in map(get_definition, definition_names())
        # Modules of other classes are not imported to find out.
        if (definition.python_type or "").replace(":", ".").endswith(f".{cls.__qualname__}")
        and _resolve(definition, "python_type") is cls
    ]


def _keywords(cls: type[Any], present: Mapping[str, Any], definition: Definition) -> dict[str, Any]:
    """Return the components that the constructor of a class takes."""
    try:
        parameters = inspect.signature(cls).parameters.values()
    except ValueError:
        raise DefinitionError(
            f"{definition.title}: the parameters of {cls.__qualname__} can't be known; give an assembler"
        ) from None
    takes_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
    names = {
        parameter.name
        for parameter in parameters
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    }
    return {
        name: value
        for name, value in present.items()
        if (takes_all or name in names) and definition.components[name].setter is None
    }


# Members are looked up statically, so that an AttributeError that comes out of a property is never mistaken
# for the lack of that property.


def _set(obj: Any, component: ComponentDefinition, value: Any, where: str) -> None:
    """Give a component to an object."""
    name = component.setter or component.name
    member = inspect.getattr_static(obj, name, _MISSING)
    if component.setter and _is_method(member):
        _call(f"{where}: {type(obj).__qualname__}.{name}(value)", getattr(obj, name), value)
    elif member is _MISSING or _is_method(member) or (isinstance(member, property) and member.fset is None):
        raise DefinitionError(
            f"{where}: nothing in {type(obj).__qualname__} accepts it; give it an attribute {name!r} that can be set, "
            f"or the definition another setter{did_you_mean(name, dir(type(obj)))}"
        )
    else:
        setattr(obj, name, value)


def _get(obj: Any, component: ComponentDefinition, where: str) -> Any:
    """Return one component of an object, or None if it hasn't got one."""
    name = component.getter or component.name
    member = inspect.getattr_static(obj, name, _MISSING)
    if member is not _MISSING:
        found = getattr(obj, name)
        return _call(f"{where}: {type(obj).__qualname__}.{name}()", found) if _is_method(member) else found
    if component.getter or component.required or hasattr(type(obj), "__getattr__"):
        raise DefinitionError(
            f"{where}: nothing in {type(obj).__qualname__} gives it; give it an attribute {name!r}, or the definition "
            f"another getter or a disassembler{did_you_mean(name, dir(type(obj)))}"
        )
    return None


def _is_method(member: Any) -> bool:
    # For `inspect`, descriptors that compute an attribute when it is first read are routines too; they can't be called.
    return isinstance(member, _METHODS) or (inspect.isroutine(member) and callable(member))


def _call(what: str, function: Callable[..., Any], /, *args: Any, **keywords: Any) -> Any:
    """Call what a user has written; that it can't be called so is found out before."""
    try:
        inspect.signature(function).bind(*args, **keywords)
    except TypeError as error:
        raise DefinitionError(f"{what} can't be called: {error}") from error
    except ValueError:
        pass  # Extension types needn't tell their parameters.
    return function(*args, **keywords)


def _resolve(definition: Definition, key: str) -> Any:
    """Return the class or function that the import path under a key of a definition names."""
    path: str = getattr(definition, key)
    module, _, name = path.partition(":") if ":" in path else path.rpartition(".")
    try:
        found = import_module(module)
    except ModuleNotFoundError as error:
        # A module that is there, but lacks one that it imports, isn't a mistake in the definition.
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise
        raise DefinitionError(f"{definition.title}: {key}: {path!r}: there is no module {error.name!r}") from error
    try:
        return attrgetter(name)(found)
    except AttributeError as error:
        hint = did_you_mean(error.name, dir(error.obj))
        raise DefinitionError(f"{definition.title}: {key}: {path!r}: {error}{hint}") from error
