"""Adding what composites need to the configuration of a repository that there is already."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.resources import files
from typing import Any, TypeAlias

import yaml
from lsst.daf.butler import Butler
from lsst.resources import ResourcePath

from ..errors import ConfigurationError

_CHAINED = "ChainedDatastore"
_IN_MEMORY = "InMemoryDatastore"

_Path: TypeAlias = tuple[str | int, ...]
"""Keys, and indexes of lists, that lead to a place in a configuration."""


def install(repository: str) -> ResourcePath | None:
    """Write storage classes and formatters of composites into the ``butler.yaml`` of a repository.

    Lines are added, none is changed: comments, and formatters that were chosen otherwise, stay. Installing again does
    nothing. The former file is kept beside the new one.

    Parameters
    ----------
    repository : str
        Path or URI of the repository or its ``butler.yaml``, or a label of the repository index.

    Returns
    -------
    ResourcePath or None
        The copy of the former file; None if nothing was missing.

    Raises
    ------
    ConfigurationError
        If the file isn't YAML to which lines can be added, or has another storage class under a name of this package.
    FileNotFoundError
        If there is no such repository.
    OSError
        If the file can't be read or written.
    """
    uri = _config_uri(repository)
    original = uri.read().decode()
    where = str(uri)
    configs = files("compositeh5.butler") / "configs"
    storage_classes = yaml.safe_load((configs / "storageClasses.yaml").read_text())
    formatters = yaml.safe_load((configs / "formatters.yaml").read_text())

    config = _parsed(original, where)
    there = config.get("storageClasses") or {}
    if different := [
        name for name in storage_classes if there.get(name, storage_classes[name]) != storage_classes[name]
    ]:
        raise ConfigurationError(
            f"{where}: the storage class {', '.join(different)} is there, but isn't that of compositeh5; "
            f"datasets may depend on it: give it another name, or remove it if none does"
        )
    places: dict[_Path, Mapping[str, Any]] = {("storageClasses",): storage_classes}
    places |= {(*path, "formatters"): formatters for path in _file_datastores(config.get("datastore"), ("datastore",))}
    text = original
    for path, entries in places.items():
        text = _with_entries(text, path, entries, where)
        # Of anchors and other rarities of YAML the line that was found may not be the right one.
        if not _has(_parsed(text, where), path, entries):
            raise ConfigurationError(f"{where}: can't be added to under {_dotted(path)}; edit it by hand")
    if text == original:
        return None
    backup = _unused(uri)
    backup.write(original.encode(), overwrite=False)
    uri.write(text.encode())
    return backup


def _config_uri(repository: str) -> ResourcePath:
    found = Butler.get_repo_uri(repository, return_label=True)
    uri = ResourcePath(found, forceDirectory=None)
    return uri if uri.getExtension() == ".yaml" else ResourcePath(found, forceDirectory=True).join("butler.yaml")


def _unused(uri: ResourcePath) -> ResourcePath:
    """Return a name for a copy that is not in use."""
    number = 1
    while (copy := uri.parent().join(f"{uri.basename()}.backup{number}")).exists():
        number += 1
    return copy


def _parsed(text: str, where: str) -> dict[str, Any]:
    try:
        config = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        # The latter for dates and characters that don't exist.
        raise ConfigurationError(f"{where}: isn't plain YAML (of which !include is no part): {error}") from error
    if not isinstance(config, dict) or not config:
        raise ConfigurationError(f"{where}: isn't the configuration of a repository")
    return config


def _file_datastores(config: Any, path: _Path) -> Iterator[_Path]:
    """Yield where the datastores that keep files are configured."""
    name = str(config.get("cls", "")) if isinstance(config, dict) else ""
    if name.endswith(_CHAINED):
        for index, child in enumerate(config.get("datastores", ())):
            yield from _file_datastores(child, (*path, "datastores", index))
    elif not name.endswith(_IN_MEMORY):
        yield path


def _with_entries(text: str, path: _Path, entries: Mapping[str, Any], where: str) -> str:
    """Return a text of YAML with those entries of a mapping added that it doesn't have."""
    node, depth = yaml.compose(text, yaml.SafeLoader), 0
    assert node is not None, "the text was parsed before"
    while depth < len(path) and (child := _child(node, path[depth])) is not None:
        node, depth = child, depth + 1
    if not isinstance(node, yaml.MappingNode) or node.flow_style:
        raise ConfigurationError(
            f"{where}: under {_dotted(path[:depth])} there should be lines of `name: value`, "
            f"to which others can be added"
        )
    missing = {name: value for name, value in entries.items() if depth < len(path) or _child(node, name) is None}
    if not missing:
        return text
    for key in reversed(path[depth:]):
        missing = {str(key): missing}
    indent = " " * node.value[0][0].start_mark.column
    lines = text.splitlines(keepends=True)
    end = _last_line(node) + 1
    if not lines[end - 1].endswith("\n"):
        lines[end - 1] += "\n"
    lines[end:end] = [indent + line for line in yaml.safe_dump(missing, sort_keys=False).splitlines(keepends=True)]
    return "".join(lines)


def _child(node: yaml.Node, key: str | int) -> yaml.Node | None:
    if isinstance(node, yaml.SequenceNode):
        return next((value for index, value in enumerate(node.value) if index == key), None)
    if isinstance(node, yaml.MappingNode):
        return next((value for name, value in node.value if name.value == key), None)
    return None


def _last_line(node: yaml.Node) -> int:
    """Return the number of the last line of a node: of its content, not of comments that follow."""
    if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        return _last_line(last[1] if isinstance(last, tuple) else last)
    end = node.end_mark
    return int(end.line - (end.column == 0))


def _has(config: Any, path: _Path, entries: Mapping[str, Any]) -> bool:
    for key in path:
        config = config[key]
    return set(entries) <= set(config)


def _dotted(path: _Path) -> str:
    return ".".join(map(str, path)) or "the top"
