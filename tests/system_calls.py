"""What processes have the operating system do, seen and disturbed by strace; also what SQLite does."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from power_cut import Event

CHANGING = (
    "write pwrite64 ftruncate fsync fdatasync rename renameat renameat2 link linkat symlink symlinkat unlink unlinkat"
)
"""The calls that change what is on a disk, or force it to be, and that are disturbed."""

_FOLDERS = "mkdir mkdirat rmdir"
_UNKNOWN = "writev pwritev pwritev2 sendfile copy_file_range fallocate"
"""What the model of a disk can't follow; not met so far."""

TRACED = f"{CHANGING} {_FOLDERS} {_UNKNOWN} openat lseek"

_LINE = re.compile(r"(\d+) +(\w+)\((.*)\) += (-?\d+)(.*)")
_EXIT = re.compile(r"(\d+) +\+\+\+ (?:exited with (\d+)|killed by (\w+)).*")
_STRING = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
_PLACE = re.compile(r"<((?:\\x[0-9a-f]{2})+)>")


@dataclass(frozen=True)
class Call:
    """A system call that a process made on a folder, by its name and how many of the name the process made before."""

    name: str
    number: int


def strace_works() -> bool:
    """Return whether strace is there, and may trace other processes."""
    if shutil.which("strace") is None:
        return False
    return subprocess.run(["strace", "-o", "/dev/null", "true"], capture_output=True, check=False).returncode == 0


def attach(pids: Sequence[int], output: Path, *options: str) -> subprocess.Popen[bytes]:
    """Start strace on processes, which must wait until this returns."""
    command = ["strace", "-f", "-y", "-xx", "-s", "100000000", "-o", str(output), *options]
    for pid in pids:
        command += ["-p", str(pid)]
    strace = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    for pid in pids:
        while "TracerPid:\t0" in Path(f"/proc/{pid}/status").read_text():
            if strace.poll() is not None:
                raise OSError("strace can't trace processes here")
            time.sleep(0.0005)
    return strace


def trace_options() -> list[str]:
    """Return the options with which strace writes what `read_trace` reads."""
    return ["-e", f"trace={TRACED.replace(' ', ',')}"]


def inject_options(call: Call, fault: str) -> list[str]:
    """Return the options with which a call isn't made: it fails with an errno, or the process dies (``"kill"``)."""
    how = "error=EIO:signal=SIGKILL" if fault == "kill" else f"error={fault}"
    return ["-e", f"trace={call.name}", "-e", f"inject={call.name}:{how}:when={call.number}"]


def was_injected(output: Path) -> bool:
    """Return whether a call was disturbed."""
    return b"(INJECTED)" in (text := output.read_bytes()) or b"killed by SIGKILL" in text


def read_trace(output: Path, root: Path) -> tuple[list[Event], list[tuple[int, Call]]]:
    """Return what was done in a folder, and the calls that did it, with their threads."""
    below = f"{root}{os.sep}"
    counts: Counter[tuple[int, str]] = Counter()
    positions: dict[str, int] = {}
    events: list[Event] = []
    calls: list[tuple[int, Call]] = []
    for line in _joined(output.read_text()):
        if match := _EXIT.fullmatch(line):
            events.append(Event("exit", "", int(match[1]), value=int(match[2] or -1)))
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            continue
        pid, name, arguments, result = int(match[1]), match[2], match[3], int(match[4])
        counts[pid, name] += 1
        strings = [_bytes(found) for found in _STRING.findall(arguments)]
        places = [os.fsdecode(_bytes(found)) for found in _PLACE.findall(arguments)]
        if name in ("write", "pwrite64", "ftruncate", "fsync", "fdatasync", "lseek"):
            paths = places[:1]
        elif name.startswith("symlink"):
            paths = [os.path.join(places[0] if places else "/", os.fsdecode(strings[1]))]
        else:
            folders = places or [os.getcwd()] * 2
            paths = [os.path.join(folders[i % len(folders)], os.fsdecode(text)) for i, text in enumerate(strings)]
        if not any(path.startswith(below) for path in paths) and paths[:1] != [str(root)]:
            continue
        if name in CHANGING.split():
            calls.append((pid, Call(name, counts[pid, name])))
        if result < 0:
            continue
        if name in _UNKNOWN.split():
            raise NotImplementedError(f"the model of disks doesn't know {name}: {line[:200]}")
        path, position = paths[0], f"{pid} {arguments.split('<')[0]}"
        numbers = [int(text) for text in re.findall(r", (-?\d+)", _STRING.sub("", arguments))]
        if name == "openat":
            positions[f"{pid} {result}"] = 0
            if "O_CREAT" in arguments:
                events.append(Event("open", path, pid, value=int("O_TRUNC" in arguments)))
        elif name == "lseek":
            positions[position] = result
        elif name == "write":
            start = positions.get(position, 0)
            positions[position] = start + result
            events.append(Event("write", path, pid, data=strings[0][:result], value=start))
        elif name == "pwrite64":
            events.append(Event("write", path, pid, data=strings[0][:result], value=numbers[-1]))
        elif name == "ftruncate":
            events.append(Event("truncate", path, pid, value=numbers[-1]))
        elif name in ("fsync", "fdatasync"):
            events.append(Event("sync", path, pid))
        elif name.startswith(("rename", "link")):
            events.append(Event(name[:6].removesuffix("at"), path, pid, paths[1]))
        elif name.startswith("symlink"):
            events.append(Event("symlink", path, pid, os.fsdecode(strings[0])))
        elif name.startswith(("unlink", "rmdir")):
            events.append(Event("unlink", path, pid))
        elif name.startswith("mkdir"):
            events.append(Event("mkdir", path, pid))
    return events, calls


def created(events: list[Event], root: Path) -> list[Event]:
    """Return the events with those of opening replaced by what that did: `root` is as it was before them."""
    there = {str(path) for path in root.rglob("*")}
    result = []
    for event in events:
        if event.call == "open":
            if event.path not in there:
                there.add(event.path)
                result.append(Event("create", event.path, event.pid))
            elif event.value:
                result.append(Event("truncate", event.path, event.pid))
            continue
        if event.call in ("rename", "unlink"):
            there.discard(event.path)
        if event.call in ("rename", "link"):
            there.add(event.other)
        elif event.call in ("mkdir", "symlink"):
            there.add(event.path)
        result.append(event)
    return result


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))


def _joined(text: str) -> list[str]:
    """Return the lines with those put together that strace wrote in two, for others came in between."""
    begun: dict[str, str] = {}
    lines = []
    for line in text.splitlines():
        pid = line.split(" ", 1)[0]
        if line.endswith("<unfinished ...>"):
            begun[pid] = line.removesuffix("<unfinished ...>").rstrip()
        elif " resumed>" in line:
            lines.append(begun.pop(pid) + line.split(" resumed>", 1)[1])
        else:
            lines.append(line)
    return lines
