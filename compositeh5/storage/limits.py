"""What a file may ask of a reader; the writer keeps to the defaults."""

from __future__ import annotations

from dataclasses import dataclass, fields

from ..errors import ConfigurationError, LimitError


@dataclass(frozen=True)
class Limits:
    """What a file may ask of a reader: whatever asks for more is refused, before it is allocated or followed.

    All are positive integers.

    Raises
    ------
    ConfigurationError
        If one of them isn't a positive integer.
    """

    depth: int = 32
    """Groups inside groups."""
    children: int = 65_536
    """Links in one group."""
    attributes: int = 256
    """Attributes of one object."""
    attribute_bytes: int = 65_536
    """Size of one attribute."""
    ratio: int = 1100
    """Size of an array over that of its stored bytes; deflate can't exceed 1032."""
    read_bytes: int | None = None
    """Size in memory of one read of an array: of the whole one, or of the part that was asked for. None: any."""
    open_files: int = 512
    """Files at the ends of links that one composite keeps open at a time."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is None and field.name == "read_bytes":
                continue
            if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
                raise ConfigurationError(f"the limit {field.name!r} should be a positive integer, not {value!r}")

    def check_read(self, nbytes: int, where: str) -> None:
        """Raise an error if a read is too large.

        Parameters
        ----------
        nbytes : int
            Size of what is read, in memory.
        where : str
            File and path, for the message.

        Raises
        ------
        LimitError
            If it is more than is allowed.
        """
        if self.read_bytes is not None and nbytes > self.read_bytes:
            raise LimitError(
                f"{where}: reading this needs {nbytes} bytes, but the limit is {self.read_bytes}: read a part of it, "
                f"or pass other limits (compositeh5.Limits(read_bytes=...))"
            )


LIMITS = Limits()
"""The defaults."""
