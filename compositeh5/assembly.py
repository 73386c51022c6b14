"""Building Python objects from components, and taking them apart."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from functools import partial, partialmethod, singledispatchmethod
from types import MemberDescriptorType
from typing import TYPE_CHECKING, Any

from .errors import DefinitionError

if TYPE_CHECKING:
    pass


from .definition import ComponentDefinition, Definition, describe, problems
from .errors import did_you_mean, suggest

_MISSING: Any = object()

# Descriptors of methods that can't be called themselves.
_METHODS = (classmethod, partialmethod, singledispatchmethod)


def assemble(components: Mapping[str, Any], definition: Definition, cls: type[Any] | None = None) -> Any:
    """Build a Python object from components.

    The first of these rules that applies:

    1. The ``assembler`` of the definition is called with a dict of the components that are present.
    2. Otherwise the class (``cls``, or else the ``python_type`` of the definition) is called. A component
       goes to its constructor if that has a parameter of its name, or ``**keywords``, unless the component
       has an explicit ``setter``. Then the others are given to the object, each by its ``setter`` (a
       method, or an attribute to set), or else by the first that exists of the method ``set_visit_info``,
       the method ``setVisitInfo`` and the attribute ``visit_info``.

    Absent components (missing or None) are never passed. Whether a call can work is decided before it is
    made, so that any exception of the user's code comes out unchanged. An object that makes up its
    attributes (``__getattr__``) needs an assembler.

    Parameters
    ----------
    components : mapping
        Component values by name.
    definition : `Definition`
        What the composite is made of.
    cls : type, optional
        Class of the object, instead of the ``python_type`` of the definition.

    Raises
    ------
    DefinitionError
        If the components don't fit the definition (`Definition.check`), there is neither an assembler nor a
        class, an import path leads nowhere, an argument of the constructor is missing, or nothing accepts a
        component.
    """
    values = {name: components.get(name) for name in components}
    definition.check(values)
    present = {name: values[name] for name in definition.components if values.get(name) is not None}
    if definition.assembler is not None:
        return _resolve(definition, "assembler")(present)
    if cls is None:
        if definition.python_type is None:
            raise DefinitionError(
                f"{describe(definition)}: has neither an assembler nor a python_type to build an object"
            )
        cls = _resolve(definition, "python_type")
    args, keywords, rest = _arguments(cls, present, definition)
    obj = cls(*args, **keywords)
    setters = [(_setter(obj, definition.components[name], definition), value) for name, value in rest.items()]
    for setter, value in setters:
        setter(value)
    return obj


def disassemble(obj: Any, definition: Definition) -> dict[str, Any]:
    """Take a Python object apart.

    The first of these rules that applies:

    1. The ``disassembler`` of the definition is called with the object; it returns a mapping of components.
    2. Otherwise each component is taken by its ``getter`` (a method without arguments, or an attribute), or
       else by the first that exists of the method ``get_visit_info``, the method ``getVisitInfo`` and the
       attribute, property or method ``visit_info``. An object without any of them doesn't have the
       component.

    Methods are called; the value of an attribute or property is taken as it is, even if it can be called.
    Input-only components are left out, and what is None is absent. Exceptions of the user's code come out
    unchanged. An object that makes up its attributes (``__getattr__``) needs a disassembler.

    Parameters
    ----------
    obj : object
        What to take apart.
    definition : `Definition`
        What the composite is made of.

    Returns
    -------
    components : dict
        The components that are present, in the order of the definition.

    Raises
    ------
    DefinitionError
        If the components don't fit the definition (`Definition.check`), the object offers no way to take
        one that is required or has an explicit getter, or an import path leads nowhere.
    """
    if definition.disassembler is not None:
        found = _resolve(definition, "disassembler")(obj)
        if not isinstance(found, Mapping):
            raise DefinitionError(
                f"{describe(definition)}: disassembler: {definition.disassembler!r} should return a mapping "
                f"of components, not a {type(found).__name__}"
            )
        values = {name: found.get(name) for name in found}
    else:
        values = {
            name: _get(obj, component, definition)
            for name, component in definition.components.items()
            if not component.input_only
        }
    if wrong := problems(values, definition):
        raise DefinitionError(f"{describe(definition)}: {type(obj).__qualname__} object: {'; '.join(wrong)}")
    return {
        name: values[name]
        for name, component in definition.components.items()
        if not component.input_only and values.get(name) is not None
    }


def _arguments(
    cls: type[Any], present: Mapping[str, Any], definition: Definition
) -> tuple[list[Any], dict[str, Any], dict[str, Any]]:
    """Return the arguments with which the class can be called, and the components that are not among them."""
    try:
        parameters = inspect.signature(cls).parameters.values()
    except ValueError:
        raise DefinitionError(
            f"{describe(definition)}: the parameters of {cls.__qualname__} can't be known; give an assembler"
        ) from None
    setters = {name: component.setter for name, component in definition.components.items()}
    rest = dict(present)
    args: list[Any] = []
    keywords: dict[str, Any] = {}
    problems = []
    for parameter in parameters:
        name = parameter.name
        if parameter.kind is parameter.VAR_POSITIONAL:
            continue
        if parameter.kind is parameter.VAR_KEYWORD:
            for other in [other for other in rest if setters[other] is None]:
                keywords[other] = rest.pop(other)
        elif name in rest and setters[name] is None:
            value = rest.pop(name)
            if parameter.kind is parameter.POSITIONAL_ONLY:
                args.append(value)
            else:
                keywords[name] = value
        elif parameter.default is not parameter.empty:
            # Those before a positional one can't be left out.
            if parameter.kind is parameter.POSITIONAL_ONLY:
                args.append(parameter.default)
        elif name not in setters:
            problems.append(f"{name!r}, which is not a component{suggest(name, setters)}")
        elif setters[name] is not None:
            problems.append(f"{name!r}, but that component has a setter of its own, {setters[name]!r}")
        else:
            problems.append(f"{name!r}, but that component is absent; give the argument a default")
    if problems:
        raise DefinitionError(
            f"{describe(definition)}: {cls.__qualname__} can't be called without the argument "
            f"{'; nor without '.join(problems)}"
        )
    return args, keywords, rest


def _setter(obj: Any, component: ComponentDefinition, definition: Definition) -> Callable[[Any], object]:
    """Return the function that gives a component to an object."""
    if component.setter is not None:
        names: tuple[str, ...] = (component.setter,)
        found = [_method(obj, component.setter, None), _attribute_setter(obj, component.setter)]
    else:
        names = (*_accessors("set", component.name), component.name)
        found = [_method(obj, name, None) for name in names[:-1]] + [_attribute_setter(obj, component.name)]
    for setter in found:
        if setter is not None:
            return setter
    tried = names if component.setter else ("the constructor", *names)
    raise DefinitionError(
        f"{describe(definition)}: components.{component.name}: "
        f"nothing in {type(obj).__qualname__} accepts it; "
        f"tried: {', '.join(tried)}"
    )


def _get(obj: Any, component: ComponentDefinition, definition: Definition) -> Any:
    """Return one component of an object, or None if it hasn't got one."""
    own = component.getter or component.name
    names = (own,) if component.getter else (*_accessors("get", component.name), own)
    for name in names:
        method = _method(obj, name)
        if method is not None:
            return method()
    member = inspect.getattr_static(obj, own, _MISSING)
    if isinstance(member, MemberDescriptorType):
        try:
            return member.__get__(obj)
        except AttributeError:
            return None  # A slot runs no code of the user: it was never set.
    if _is_attribute(member):
        return getattr(obj, own)
    if component.getter or component.required:
        raise DefinitionError(
            f"{describe(definition)}: components.{component.name}: "
            f"nothing in {type(obj).__qualname__} gives it; "
            f"tried: {', '.join(names)}{did_you_mean(own, dir(type(obj)))}"
        )
    return None


def _accessors(verb: str, name: str) -> tuple[str, str]:
    """Return the names of a getter or setter in the styles ``get_visit_info`` and ``getVisitInfo``."""
    return f"{verb}_{name}", verb + "".join(part[:1].upper() + part[1:] for part in name.split("_"))


# Members are looked up statically, so that an AttributeError that comes out of a property is never mistaken
# for the lack of that property.


def _is_routine(member: Any) -> bool:
    # For `inspect`, descriptors that compute an attribute when it is first read are routines too; they can't be called.
    return isinstance(member, _METHODS) or (inspect.isroutine(member) and callable(member))


def _is_attribute(member: Any) -> bool:
    return member is not _MISSING and not _is_routine(member)


def _attribute_setter(obj: Any, name: str) -> Callable[[Any], object] | None:
    """Return what sets an attribute of an object, if it has one of that name that can be set."""
    member = inspect.getattr_static(obj, name, _MISSING)
    can_be_set = member.fset is not None if isinstance(member, property) else _is_attribute(member)
    return partial(setattr, obj, name) if can_be_set else None


def _method(obj: Any, name: str, *args: Any) -> Callable[..., Any] | None:
    """Return a method of an object, if it has one of that name that can be called with such arguments."""
    if not _is_routine(inspect.getattr_static(obj, name, _MISSING)):
        return None
    method = getattr(obj, name)
    try:
        inspect.signature(method).bind(*args)
    except TypeError:
        return None
    except ValueError:
        pass  # Methods of extension types needn't tell their parameters.
    return method  # type: ignore[no-any-return]


def _resolve(definition: Definition, key: str) -> Any:
    """Return the class or function that the import path under a key of a definition names."""
    path: str = getattr(definition, key)
    where = f"{describe(definition)}: {key}: {path!r}"
    module_name, _, qualified_name = path.partition(":") if ":" in path else path.rpartition(".")
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        # A module that is there, but lacks one that it imports, isn't a mistake in the definition.
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        raise DefinitionError(f"{where}: there is no module {error.name!r}") from error
    for step in qualified_name.split("."):
        try:
            found = getattr(found, step)
        except AttributeError as error:
            raise DefinitionError(f"{where}: {error}{did_you_mean(step, dir(found))}") from error
    if key == "python_type" and not isinstance(found, type):
        raise DefinitionError(f"{where}: should be a class, not a {type(found).__name__}")
    if not callable(found):
        raise DefinitionError(f"{where}: should be a function, not a {type(found).__name__}")
    return found
