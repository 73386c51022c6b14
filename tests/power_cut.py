"""A model of what is on a disk after a loss of power: what wasn't forced to it may be there, or not, in any mixture.

Files are kept by pages, of each of which any version since the last `fsync` of the file may have reached the disk, as
may any size that the file had since. Names are kept by folders: of the changes since the last `fsync` of the folder,
any may be missing. That is more than journaling file systems lose; none loses more.
"""

from __future__ import annotations

import os
import random
import shutil
from dataclasses import dataclass, field
from pathlib import Path

PAGE = 4096


@dataclass(frozen=True)
class Event:
    """What a process had the operating system do.

    Attributes
    ----------
    call : str
        ``"create"``, ``"mkdir"``, ``"write"``, ``"truncate"``, ``"sync"``, ``"rename"``, ``"link"``, ``"symlink"``,
        ``"unlink"``, or ``"exit"``.
    path : str
        Of what; for the second name of a link, and what a symbolic one leads to, see ``other``.
    pid : int
        The process, or thread.
    value : int
        Where it was written, the new size, or the code of the exit.
    """

    call: str
    path: str
    pid: int = 0
    other: str = ""
    data: bytes = b""
    value: int = 0


@dataclass
class _Node:
    """A file or a folder, with all that happened to it, by the number of the event."""

    content: bytes | dict[str, _Node] | str = b""
    writes: list[tuple[int, int, bytes]] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    names: list[tuple[int, str, _Node | None]] = field(default_factory=list)
    syncs: list[int] = field(default_factory=list)
    present: dict[str, _Node] = field(default_factory=dict)
    size: int = 0


class Disk:
    """A folder before a run, and what may be left of it if the power fails at some moment in that run.

    Parameters
    ----------
    root : Path
        The folder as it is before; all in it is safe.
    """

    def __init__(self, root: Path) -> None:
        self._root = str(root)
        self._top = _scan(root)
        self._count = 0

    def replay(self, events: list[Event]) -> None:
        """Follow what a run did."""
        for event in events:
            self._follow(event)
            self._count += 1

    def _find(self, path: str) -> _Node | None:
        node: _Node | None = self._top
        for name in Path(path).relative_to(self._root).parts:
            node = node.present.get(name) if node is not None else None
        return node

    def _name(self, path: str, node: _Node | None) -> None:
        folder = self._find(os.path.dirname(path))
        assert folder is not None, path
        name = os.path.basename(path)
        folder.names.append((self._count, name, node))
        if node is None:
            folder.present.pop(name, None)
        else:
            folder.present[name] = node

    def _follow(self, event: Event) -> None:
        if event.call == "exit":
            return
        node = self._find(event.path)
        if event.call == "create":
            self._name(event.path, _Node())
        elif event.call == "mkdir":
            self._name(event.path, _Node({}))
        elif event.call == "symlink":
            self._name(event.path, _Node(event.other))
        elif event.call == "unlink":
            self._name(event.path, None)
        elif event.call in ("rename", "link"):
            assert node is not None, event
            self._name(event.other, node)
            if event.call == "rename":
                self._name(event.path, None)
        elif node is None:
            return  # It has no name any more.
        elif event.call == "sync":
            node.syncs.append(self._count)
        elif event.call == "write":
            node.writes.append((self._count, event.value, event.data))
            self._resize(node, max(node.size, event.value + len(event.data)))
        else:
            self._resize(node, event.value)

    def _resize(self, node: _Node, size: int) -> None:
        if size != node.size:
            node.sizes.append((self._count, size))
            node.size = size

    def cut(self, target: Path, at: int, rng: random.Random) -> None:
        """Make a folder be what may be left when the power fails before an event."""
        shutil.rmtree(target, ignore_errors=True)
        # Nothing of what wasn't forced, half of it, or all.
        self._restore(self._top, target, at, rng.choice([0.0, 0.5, 0.5, 0.9, 1.0]), rng)

    def _restore(self, node: _Node, path: Path, at: int, chance: float, rng: random.Random) -> None:
        synced = max((each for each in node.syncs if each < at), default=-1)
        if isinstance(node.content, str):
            path.symlink_to(node.content)
        elif isinstance(node.content, bytes):
            path.write_bytes(_surviving(node, synced, at, chance, rng))
        else:
            path.mkdir()
            entries: dict[str, _Node | None] = dict(node.content)
            kept: dict[int, bool] = {}
            for index, name, child in node.names:
                # A rename within a folder is one change.
                if index < synced or (index < at and kept.setdefault(index, rng.random() < chance)):
                    entries[name] = child
            for name, found in entries.items():
                if found is not None:
                    self._restore(found, path / name, at, chance, rng)


def _surviving(node: _Node, synced: int, at: int, chance: float, rng: random.Random) -> bytes:
    assert isinstance(node.content, bytes)
    sizes = [len(node.content), *(size for index, size in node.sizes if index < synced)][-1:]
    sizes += [size for index, size in node.sizes if synced < index < at]
    size = sizes[0] if rng.random() >= chance else rng.choice(sizes[1:] or sizes)
    data = bytearray(max(size, *sizes, *(start + len(some) for _, start, some in node.writes), len(node.content)))
    data[: len(node.content)] = node.content
    for index, new in node.sizes:
        if index < synced:
            data[new:] = bytes(len(data) - new)
    indices = [index for index, *_ in node.writes if synced < index < at]
    until: dict[int, int] = {}
    for index, start, some in node.writes:
        for first in range(start - start % PAGE, start + len(some), PAGE):
            if index >= at:
                continue
            if index > synced and first not in until:
                # The system wrote the page to the disk at some moment, or not yet.
                until[first] = rng.choice(indices) if rng.random() < chance else synced
            if index <= synced or index <= until[first]:
                low, high = max(first, start), min(first + PAGE, start + len(some))
                data[low:high] = some[low - start : high - start]
    return bytes(data[:size])


def _scan(path: Path) -> _Node:
    if path.is_symlink():
        return _Node(os.readlink(path))
    if not path.is_dir():
        content = path.read_bytes()
        return _Node(content, size=len(content))
    children = {child.name: _scan(child) for child in path.iterdir()}
    return _Node(dict(children), present=children)
