"""A formatter in the place of that of the LSST pipelines, which needs their software: its files are only looked up."""

from __future__ import annotations

from lsst.daf.butler import FormatterV2


class FitsFormatter(FormatterV2):
    default_extension = ".fits"
