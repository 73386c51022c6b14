"""Finding linked components wherever a Butler has their datasets now.

Links are resolved without a Butler as long as the files stay at the same places relative to each other. Where they
don't (other templates, presigned URLs), a Butler knows where a dataset is, by its id.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from lsst.daf.butler import Butler
from lsst.resources import ResourcePath

from ..composite.link import Link
from ..composite.session import current
from ..errors import BrokenLinkError
from .datasets import source_of

RESOLVER = "resolver"
"""Name of the parameter of a get that is a Butler."""


@contextmanager
def use_butler(butler: Butler) -> Iterator[None]:
    """Ask a Butler for linked components that aren't found otherwise, within a ``with`` block.

    It holds for this thread and for asynchronous tasks that it starts, not for other threads. For a single get, give
    the Butler as the parameter ``resolver``.

    Parameters
    ----------
    butler : Butler
        A repository that has the datasets to which links lead; any kind of Butler that finds datasets by id.

    Examples
    --------
    >>> with use_butler(butler):  # doctest: +SKIP
    ...     info = butler.get("calexp.visit_info", data_id)
    """

    def locate(link: Link) -> ResourcePath | str:
        try:
            ref = butler.get_dataset(link.id)
            uris = None if ref is None else butler.getURIs(ref)
        except Exception as error:
            # What a Butler raises depends on its kind: errors of databases, of servers, of look-ups.
            raise BrokenLinkError(f"{butler} can't tell where {link.id} is: {error}") from error
        uri = None if uris is None else uris.componentURIs.get(link.component) or uris.primaryURI
        if uri is None:
            raise BrokenLinkError(f"{butler} has no dataset {link.id}")
        return source_of(uri)

    with replace(current(), resolver=locate).use():
        yield


@contextmanager
def resolving(parameters: Mapping[str, Any] | None) -> Iterator[dict[str, Any]]:
    """Use the Butler among the parameters of a get, if there is one, and yield the others."""
    rest = dict(parameters or {})
    butler = rest.pop(RESOLVER, None)
    if butler is None:
        yield rest
    else:
        with use_butler(butler):
            yield rest
