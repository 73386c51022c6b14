"""Giving up rights: what a process that reads a file on its own does before it sees the file."""

from __future__ import annotations

import ctypes
import errno
import platform
import resource
import struct

from .limits import Limits

_SET_SECCOMP, _FILTER = 22, 2
_SET_NO_NEW_PRIVILEGES = 38
_MACHINES: dict[str, tuple[int, tuple[int, ...]]] = {
    "x86_64": (0xC000003E, (62, 200, 234, 129, 297, 101, 310, 311, 59, 322, 109, 112, 302, 248, 249, 250, 321, 298)),
    "aarch64": (0xC00000B7, (129, 130, 131, 138, 240, 117, 270, 271, 221, 281, 154, 157, 261, 217, 218, 219, 280, 241)),
}
"""For each machine the number that seccomp knows it by, and the system calls that are refused: kill, tkill, tgkill,
rt_sigqueueinfo, rt_tgsigqueueinfo, ptrace, process_vm_readv, process_vm_writev, execve, execveat, setpgid, setsid,
prlimit64, add_key, request_key, keyctl, bpf and perf_event_open."""

_EVERYWHERE = (424, 425, 434, 438)
"""pidfd_send_signal, io_uring_setup, pidfd_open and pidfd_getfd."""

_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
"""Instructions of the filter: load a word, jump if it is equal or at least, return."""

_ALLOW, _KILL = 0x7FFF0000, 0x80000000
_REFUSE = 0x00050000 | errno.EPERM
_OTHER_NUMBERS = 0x40000000
"""From here on the numbers of x86-64 are those of x32: the same calls again."""


def give_up_rights(limits: Limits) -> None:
    """Open no file or connection from here on, write no file, touch no other process, get no more memory or time.

    The calls that would touch other processes are refused where the kernel has seccomp.
    """
    with open("/proc/self/statm") as statm:
        used = int(statm.read().split()[0]) * resource.getpagesize()
    for what, limit in {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: 0,
        # No new descriptor: those that are open stay so.
        resource.RLIMIT_NOFILE: 0,
        resource.RLIMIT_CPU: limits.cpu_seconds,
        resource.RLIMIT_AS: used + limits.memory,
    }.items():
        allowed = resource.getrlimit(what)[1]
        limit = limit if allowed == resource.RLIM_INFINITY else min(limit, allowed)
        resource.setrlimit(what, (limit, limit))
    library = ctypes.CDLL(None)
    library.prctl(_SET_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    if platform.machine() in _MACHINES:
        program = _filter(*_MACHINES[platform.machine()])
        buffer = ctypes.create_string_buffer(program, len(program))
        head = struct.pack("HxxxxxxQ", len(program) // 8, ctypes.addressof(buffer))
        library.prctl(_SET_SECCOMP, _FILTER, ctypes.c_char_p(head), 0, 0)


def _filter(machine: int, refused: tuple[int, ...]) -> bytes:
    """Return a program for seccomp: instructions of a code, two jumps (to skip so many if so, and if not), a number."""
    numbers = (*refused, *_EVERYWHERE)
    steps = [
        # The machine is the second word of what is looked at, the call the first.
        (_LOAD, 0, 0, 4),
        (_EQUAL, 1, 0, machine),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, 0),
        (_AT_LEAST, len(numbers) + 1, 0, _OTHER_NUMBERS),
        *((_EQUAL, len(numbers) - i, 0, number) for i, number in enumerate(numbers)),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _REFUSE),
    ]
    return b"".join(struct.pack("HBBI", *step) for step in steps)
