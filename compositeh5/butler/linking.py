"""Links to components of datasets."""

from __future__ import annotations

from typing import Any, overload

from lsst.daf.butler import DatasetRef, DeferredDatasetHandle, LimitedButler

from ..composite.link import Link
from ..errors import NoSuchComponentError, NotACompositeFileError, WrongValueError
from .datasets import open_uri


@overload
def link(butler: LimitedButler, ref: DatasetRef, component: str, /) -> Link: ...


@overload
def link(handle: DeferredDatasetHandle, component: str, /) -> Link: ...


def link(source: Any, *what: Any) -> Link:
    """Return a link to a component of a stored dataset.

    Called as ``link(butler, ref, component)`` or ``link(handle, component)``.

    Given to a `Composite` as a component, it makes the file of that composite link to the dataset's file. Only the
    attributes of the latter are read.

    Parameters
    ----------
    butler : LimitedButler
        The repository.
    ref : DatasetRef
        The dataset: a composite.
    handle : DeferredDatasetHandle
        The dataset, as tasks get it for deferred inputs, or ``butler.getDeferred`` gives it.
    component : str
        Name of the component.

    Raises
    ------
    NoSuchComponentError, AbsentComponentError
        If the dataset has no such component, or it is known to be None.
    NotACompositeFileError
        If the dataset isn't stored in a file of this format.
    FileNotFoundError
        If the dataset doesn't exist.
    ValueError
        If the handle has parameters: a link leads to a whole component.
    """
    *pair, component = what
    butler, ref = (source, *pair) if pair else (source.butler, source.ref)
    if not pair and source.parameters:
        raise WrongValueError(
            f"{ref}: a link leads to a whole component, but the handle has parameters {source.parameters}"
        )
    uris = butler.getURIs(ref)
    uri = uris.componentURIs.get(component) or uris.primaryURI
    if uri is None:
        stored = ", ".join(sorted(uris.componentURIs))
        raise NoSuchComponentError(f"{ref}: no component {component!r} is stored (only {stored})")
    if uri.scheme == "mem":
        raise NotACompositeFileError(f"{ref}: is in memory ({uri}), not in a file to which a link could lead")
    with open_uri(uri, ref=ref) as composite:
        return composite.link(component)
