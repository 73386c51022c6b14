"""Links between composites: the record of what a link must find.

The id and the digest of a link are the truth; paths are hints. `session` finds what a link leads to.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ..errors import EncodeError, FormatError, require_type
from ..storage.layout import BY_ID

DataId = Mapping[str, int | str]


def checked_data_id(data_id: Mapping[str, Any]) -> dict[str, int | str]:
    """Return a data ID with plain numbers and text, in order of its keys; anything else is an `EncodeError`."""
    require_type(data_id, Mapping, "a data ID, a mapping of names to numbers and text,")
    checked: dict[str, int | str] = {}
    for key, value in sorted(data_id.items()):
        # numpy's integers are common here; JSON has no place for them.
        plain = value.item() if hasattr(value, "item") else value
        if not isinstance(key, str) or not isinstance(plain, int | str) or isinstance(plain, bool):
            raise EncodeError(f"a data ID holds numbers or text by name, not {key!r}: {value!r}")
        checked[key] = plain
    return checked


@dataclass(frozen=True)
class Link:
    """A reference to one component of a composite that is stored in a file.

    Attributes
    ----------
    id : str
        Id (UUID) of the composite: its dataset id in a Butler.
    component : str
        Name of the component there.
    kind, digest : str
        Kind and digest of the component.
    uri : str
        Where the file was when the link was made: an absolute path, or a URL.
    definition, dataset_type, run, stage : str
        What is known of the composite; empty where it is not.
    data_id : dict
        Data ID of the composite.
    """

    id: str
    component: str
    kind: str
    digest: str
    uri: str
    definition: str = ""
    dataset_type: str = ""
    data_id: dict[str, int | str] = field(default_factory=dict, hash=False)
    run: str = ""
    stage: str = ""

    @property
    def target(self) -> str:
        """HDF5 path of the target: by id, so that another file in its place is never taken for it."""
        return f"/{BY_ID}/{self.id}/{self.component}"

    def record(self) -> dict[str, Any]:
        """Return what is kept of the link in the file of the composite that has it."""
        return {name: value for name, value in asdict(self).items() if value not in ("", {})}

    @classmethod
    def from_record(cls, record: Any, where: str) -> Link:
        """Return the link that a record in a file describes.

        Parameters
        ----------
        record : object
            What JSON gave.
        where : str
            File and path, for messages.

        Raises
        ------
        FormatError
            If it isn't the record of a link.
        """
        texts = {"id", "component", "kind", "digest", "uri", "definition", "dataset_type", "run", "stage"}
        needed = {"id", "component", "kind", "digest", "uri"}
        if not isinstance(record, dict) or not needed <= record.keys():
            raise FormatError(f"{where}: the record of a link needs {', '.join(sorted(needed))}, found {record!r}")
        known = {name: value for name, value in record.items() if name in texts}
        data_id = record.get("data_id", {})
        if not all(isinstance(value, str) for value in known.values()) or not isinstance(data_id, dict):
            raise FormatError(f"{where}: the record of a link has values of wrong types: {record!r}")
        return cls(**known, data_id=data_id)

    def __str__(self) -> str:
        what = self.dataset_type or self.definition or "composite"
        return f"{what}.{self.component} (id {self.id})"
