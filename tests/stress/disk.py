"""A model of what is on a disk after a loss of power: what wasn't forced to it may be there, or not, in any mixture.

Files are kept by pages, of each of which any version since the last `fsync` of the file may have reached the disk, as
may any size that the file had since. Names are kept by folders: of the changes since the last `fsync` of the folder,
any may be missing. That is more than journaling file systems lose; none loses more.
"""

from __future__ import annotations

import fcntl
import os
import pickle
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PAGE = 4096
CALLS = ("write", "pwrite", "ftruncate", "fsync", "replace", "rename", "link", "symlink", "unlink")
"""The functions of `os` that change what is on the disk, all of which can fail: the package writes by no others."""


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
    value : int
        Where it was written, or the new size.
    """

    call: str
    path: str
    other: str = ""
    data: bytes = b""
    value: int = 0


def patched(
    names: tuple[str, ...], action: Callable[[Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]
) -> None:
    """Have functions of `os` do something else in this process: the action gets each, and its arguments."""

    def wrap(call: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *args, **kwargs: action(call, args, kwargs)

    for name in names:
        setattr(os, name, wrap(getattr(os, name)))


def record(root: Path, log: Path) -> Callable[[], None]:
    """Note in a file what this process does below a folder, beside what others do; the result is called at the end."""
    file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    append = os.write

    def note(event: Event) -> None:
        if Path(event.path).is_relative_to(root):
            append(file, pickle.dumps(event))

    def path_of(fd: int) -> str:
        return os.readlink(f"/proc/self/fd/{fd}")

    def noted(call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        # One after the other, and noted in this order.
        fcntl.lockf(file, fcntl.LOCK_EX)
        try:
            match call.__name__:
                case "open" if args[1] & os.O_CREAT:
                    new, path = not os.path.lexists(args[0]), os.path.abspath(args[0])
                    result = call(*args, **kwargs)
                    if new or args[1] & os.O_TRUNC:
                        note(Event("create" if new else "truncate", path))
                    return result
                case "write":
                    start = os.lseek(args[0], 0, os.SEEK_CUR)
                    result = call(*args, **kwargs)
                    note(Event("write", path_of(args[0]), data=bytes(args[1])[:result], value=start))
                    return result
                case "pwrite":
                    result = call(*args, **kwargs)
                    note(Event("write", path_of(args[0]), data=bytes(args[1])[:result], value=args[2]))
                    return result
            result = call(*args, **kwargs)
            match call.__name__:
                case "ftruncate":
                    note(Event("truncate", path_of(args[0]), value=args[1]))
                case "fsync":
                    note(Event("sync", path_of(args[0])))
                case "replace" | "rename" | "link":
                    name = "link" if call.__name__ == "link" else "rename"
                    note(Event(name, os.path.abspath(args[0]), os.path.abspath(args[1])))
                case "symlink":
                    note(Event("symlink", os.path.abspath(args[1]), os.fspath(args[0])))
                case "mkdir" | "unlink" | "rmdir":
                    note(Event(call.__name__.replace("rmdir", "unlink"), os.path.abspath(args[0])))
            return result
        finally:
            fcntl.lockf(file, fcntl.LOCK_UN)

    patched((*CALLS, "open", "mkdir", "rmdir"), noted)
    return lambda: note(Event("exit", str(root)))


def recorded(log: Path) -> list[Event]:
    """Return what was noted in a file."""
    events = []
    with log.open("rb") as file:
        while file.peek(1):
            events.append(pickle.load(file))
    return events


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
            self._name(event.path, _Node(event.other, size=len(os.fsencode(event.other))))
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

    def names(self) -> set[str]:
        """Return the files that are there at the end, with their sizes: what shows that nothing was overlooked."""
        return _names(self._top, "")

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


def _names(node: _Node, path: str) -> set[str]:
    if isinstance(node.content, dict):
        return {found for name, child in node.present.items() for found in _names(child, f"{path}/{name}")}
    return {f"{path} {node.size}"}


def _scan(path: Path) -> _Node:
    if path.is_symlink():
        return _Node(os.readlink(path), size=path.lstat().st_size)
    if not path.is_dir():
        content = path.read_bytes()
        return _Node(content, size=len(content))
    children = {child.name: _scan(child) for child in path.iterdir()}
    return _Node(dict(children), present=children)
