"""The command for parts of repositories: ``butler compositeh5-subset``."""

from __future__ import annotations

from typing import Any

import click
from lsst.daf.butler import Butler
from lsst.daf.butler.cli.utils import split_commas

from .commands_common import IGNORE_MISSING, SELECTION, TRANSFER, command, dataset, missing_links, report, selecting
from .subset import subset


@command(
    "compositeh5-subset",
    click.argument("source", required=True),
    click.argument("target", required=True),
    *SELECTION,
    click.option(
        "--components",
        multiple=True,
        callback=split_commas,
        help="Only these components of the selected datasets, separated by commas; all by default.",
    ),
    TRANSFER,
    IGNORE_MISSING,
)
def subset_command(
    source: str,
    target: str,
    components: tuple[str, ...],
    transfer: str,
    ignore_missing: bool,
    as_json: bool,
    **selection: Any,
) -> None:
    """Store the selected datasets of one repository, and what they need of others, in another one.

    SOURCE and TARGET are the paths or URIs of the repositories. What is linked to comes along whole, unless it has
    pixels that nobody needs: then only its needed components do, as datasets of the type `<dataset type>_parts`. If
    it is stopped, do it again: what is there is kept.
    """
    with selecting(source, selection) as (butler, refs):
        into = Butler.from_config(target, writeable=True)
        missing = missing_links(ignore_missing)
        done = subset(butler, into, refs, components=components or None, transfer=transfer, missing=missing)
    document = {
        "datasets": [dataset(ref) for ref in done.refs],
        "linked": [dataset(ref) for ref in done.linked],
        "parts": [dataset(ref) for ref in done.parts],
        "lost": list(done.lost),
    }
    summary = f"Datasets: {len(done.refs)}; to which they link: {len(done.linked)} whole, {len(done.parts)} in part"
    report(as_json, document, summary, *(f"Lost: {lost}" for lost in done.lost))


COMMANDS: list[click.Command] = [subset_command]
"""The commands of this module."""
