"""Every error that this package raises on purpose.

Each inherits from `CompositeH5Error` and from the builtin that a user would catch for it, says what was expected
and what was found, and names the file and the full HDF5 path where there is one.
"""

from __future__ import annotations

import reprlib
from collections.abc import Collection, Iterable


class CompositeH5Error(Exception):
    """Base of all errors of this package."""

    def __str__(self) -> str:
        # KeyError would show the repr of the message, and OSError may add an errno.
        return " ".join(str(arg) for arg in self.args)


class EncodeError(CompositeH5Error, ValueError, TypeError):
    """A value can't be stored as the kind that was asked for."""


class DefinitionError(CompositeH5Error, ValueError):
    """A definition is wrong, or a composite doesn't fit its definition."""


class ConfigurationError(CompositeH5Error, ValueError):
    """A setting is wrong: of a recipe, or of the configuration of a repository."""


class FormatError(CompositeH5Error, ValueError):
    """A file is whole, but what it holds isn't what the format prescribes."""


class NotACompositeFileError(CompositeH5Error, OSError):
    """The file is not HDF5, or was not written in this format."""


class UnsupportedVersionError(CompositeH5Error, OSError, NotImplementedError):
    """The file, or a component, is in a newer version of the format than this release reads."""


class CorruptFileError(CompositeH5Error, OSError):
    """The file is damaged or incomplete."""


class TransferError(CompositeH5Error, ConnectionError):
    """A part of a remote file can't be fetched."""


class RefusedError(CompositeH5Error, OSError):
    """The file holds something that is never followed, loaded or allocated: it may be hostile."""


class LimitError(RefusedError):
    """What the file asks for is larger than the limits for files of strangers."""


class BusyError(CompositeH5Error, BlockingIOError):
    """Another program has the file open for writing, or died while it had: what is in it may change."""


class NoSpaceError(CompositeH5Error, OSError):
    """The disk is full, or the user's part of it. ``errno`` says which; nothing is left behind."""

    def __str__(self) -> str:
        return str(self.strerror)


class ClosedError(CompositeH5Error, ValueError):
    """A component was asked for after its file had been closed."""


class ConflictError(CompositeH5Error, FileExistsError):
    """Another object is already stored at that place; it was left as it is."""


class InUseError(CompositeH5Error, OSError):
    """A file isn't deleted, for others link to it, or may do so."""


class NoSuchComponentError(CompositeH5Error, KeyError):
    """The composite has no component of that name."""


class AbsentComponentError(CompositeH5Error, KeyError):
    """The component is known to be None for this composite: there is nothing to read."""


class LostComponentError(NoSuchComponentError):
    """The component was lost to damage before the file was rescued: there is nothing to read."""


class StageError(CompositeH5Error, ValueError):
    """Components have not reached the processing step that was asked for."""


class NoCandidateError(CompositeH5Error, LookupError):
    """None of the composites to choose from can be taken."""


class UnknownKindError(CompositeH5Error, NotImplementedError):
    """No installed package knows the kind of this component; the others stay readable."""


class BrokenLinkError(CompositeH5Error, FileNotFoundError):
    """A linked component is lost: its target was found in none of the places tried."""


class LinkRefusedError(BrokenLinkError):
    """A link isn't followed: it leads to another host, to what isn't a file, or to another link."""


class WrongIdError(BrokenLinkError):
    """What stands at the place of a link's target is another object, with another id."""


class DigestMismatchError(CompositeH5Error, ValueError):
    """The content of a component is not that for which its digest was recorded."""


class OutsideError(CompositeH5Error, ValueError, IndexError):
    """A box or position has no pixel in the image, or an index is beyond what there is."""


class ConversionError(CompositeH5Error, ValueError):
    """A file of another format can't be made a composite, for it isn't what was expected."""


class UnsupportedParameterError(CompositeH5Error, TypeError, ValueError):
    """No component understands a parameter of a read."""


class WrongTypeError(CompositeH5Error, TypeError):
    """An argument, or a component, is of a type that the function can't take."""


class WrongIndexError(WrongTypeError, IndexError):
    """What an array was indexed with is no index of it."""


class WrongValueError(CompositeH5Error, ValueError):
    """An argument, or an object, has a value that the function can't take."""


def require_type(value: object, types: type | tuple[type, ...], expected: str) -> None:
    """Raise `WrongTypeError` unless a value is of one of some types."""
    if not isinstance(value, types):
        raise WrongTypeError(f"{expected} was expected, not {reprlib.repr(value)}")


def checked_names(names: str | Iterable[str], expected: str) -> tuple[str, ...]:
    """Return names as a tuple; a single one may stand alone.

    Raises
    ------
    WrongTypeError
        If they aren't text.
    """
    listed = (names,) if isinstance(names, str) else tuple(names) if isinstance(names, Iterable) else (names,)
    for name in listed:
        require_type(name, str, expected)
    return listed


def did_you_mean(name: object, valid: Collection[str]) -> str:
    """Return the end of a message about a wrong name: the nearest valid one; empty if none is near."""
    import difflib

    close = difflib.get_close_matches(str(name), valid, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def suggest(name: object, valid: Collection[str]) -> str:
    """Return the end of a message about a wrong name: the nearest valid one, or all of them if none is near."""
    return did_you_mean(name, valid) or f"; there are: {', '.join(sorted(valid)) or 'none'}"
