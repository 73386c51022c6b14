"""Adding what composites need to the configuration of a repository that exists already."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files
from itertools import count
from typing import Any

import yaml
from lsst.daf.butler import Butler
from lsst.resources import ResourcePath

from ..errors import ConfigurationError

_CONFIGS = files("compositeh5.butler") / "configs"
_OURS = {name: yaml.safe_load((_CONFIGS / f"{name}.yaml").read_text()) for name in ("storageClasses", "formatters")}


def install(repository: str) -> ResourcePath | None:
    """Write storage classes and formatters of composites into the ``butler.yaml`` of a repository.

    What is configured already stays, also formatters that were chosen otherwise; comments are lost. Installing again
    does nothing. The former file is kept beside the new one.

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
        If the file isn't plain YAML, or has another storage class under a name of this package.
    OSError
        If there is no such repository, or the file can't be read or written.
    """
    found = ResourcePath(Butler.get_repo_uri(repository, return_label=True), forceDirectory=None)
    uri = found if found.getExtension() == ".yaml" else ResourcePath(found, forceDirectory=True).join("butler.yaml")
    original = uri.read()
    config = _parsed(original, uri)
    known = _completed(config, "storageClasses", uri)
    if different := [name for name, entry in _OURS["storageClasses"].items() if known[name] != entry]:
        raise ConfigurationError(
            f"{uri}: the storage class {', '.join(different)} is there, but isn't that of compositeh5; "
            f"datasets may depend on it: give it another name, or remove it if none does"
        )
    for datastore in _file_datastores(config["datastore"]):
        _completed(datastore, "formatters", uri)
    if config == _parsed(original, uri):
        return None
    names = (uri.parent().join(f"{uri.basename()}.backup{number}") for number in count(1))
    backup = next(name for name in names if not name.exists())
    backup.write(original, overwrite=False)
    uri.write(yaml.safe_dump(config, sort_keys=False).encode())
    return backup


def _parsed(content: bytes, uri: ResourcePath) -> dict[str, Any]:
    try:
        config = yaml.safe_load(content)
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigurationError(f"{uri}: isn't plain YAML (!include isn't): {error}; edit it by hand") from error
    if not isinstance(config, dict) or not isinstance(config.get("datastore"), dict):
        raise ConfigurationError(f"{uri}: isn't the configuration of a repository with a datastore")
    return config


def _completed(config: dict[str, Any], name: str, uri: ResourcePath) -> dict[str, Any]:
    """Add the entries to a section of the configuration that it doesn't have, and return it."""
    there = config.get(name) or {}
    if not isinstance(there, dict):
        raise ConfigurationError(f"{uri}: {name} should be names with values, not {there!r}; edit it by hand")
    config[name] = {**there, **_OURS[name], **there}
    return config[name]  # type: ignore[no-any-return]


def _file_datastores(datastore: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the configurations of the datastores that keep files."""
    for child in datastore.get("datastores", ()):
        yield from _file_datastores(child)
    if not str(datastore.get("cls", "")).endswith(("ChainedDatastore", "InMemoryDatastore")):
        yield datastore
