"""`open(isolated=True)`: HDF5 reads in a process of its own, which has nothing but the bytes of the file."""

from __future__ import annotations

import io
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import compositeh5 as ch5
from compositeh5 import targets
from compositeh5.container import isolated as container
from compositeh5.container.isolated import IsolatedFile, pieces
from compositeh5.container.source import FileSource
from compositeh5.container.wire import Channel
from compositeh5.errors import (
    ClosedError,
    IsolationError,
    NoSuchComponentError,
)

THREADS = (b"OPENBLAS_NUM_THREADS", b"OMP_NUM_THREADS")
pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("isolated")
    visit = ch5.Composite("visit", visit_info={"visit": 7, "time": 30.0, "note": "klar, 1″"}, data_id={"visit": 7})
    visit.write(folder / "visit.h5")
    rng = np.random.default_rng(1)
    inner = ch5.Composite(None, {"text": "inside", "link": visit.link("visit_info")})
    ch5.Composite(
        None,
        image=ch5.Image(rng.normal(0, 23, (700, 600)).astype("f4"), (100, 200), "nJy"),
        mask=ch5.Mask(rng.integers(0, 4, (700, 600)).astype(np.int32), {"BAD": 0, "SAT": 1}),
        psf=ch5.Psf.constant(np.ones((5, 5)) / 25),
        photo_calib=ch5.PhotoCalib(2.5, 0.01),
        values=np.arange(12, dtype=">i2").reshape(3, 4),
        flags=np.array([True, False, True]),
        names=np.array(["a", "Ω", ""]),
        raw=np.array([b"x", b"yz"]),
        number=np.array(3.5),
        complex=np.array([1 + 2j]),
        record={"a": 1, "b": [1.5, float("inf")], "c": {"d": "e"}, "f": None, "g": np.arange(5)},
        text="x" * 9_000_000,
        bytes=b"\0\1\2",
        visit_info=visit.link("visit_info"),
        items=[visit.link("visit_info"), {"own": 1}],
        inner=inner,
        data_id={"visit": 7, "detector": 1},
    ).write(folder / "calexp.h5")
    return folder


@pytest.fixture(scope="module")
def both(tree: Path) -> Iterator[tuple[ch5.Composite, ch5.Composite]]:
    with ch5.open(tree / "calexp.h5") as plain, ch5.open(tree / "calexp.h5", isolated=True) as isolated:
        yield plain, isolated


@pytest.fixture
def own(tree: Path, tmp_path: Path) -> Path:
    """Files that no other test has open: these would share their process."""
    return Path(shutil.copytree(tree, tmp_path / "own"))


@pytest.fixture
def one(own: Path) -> Iterator[ch5.Composite]:
    with ch5.open(own / "calexp.h5", isolated=True) as composite:
        yield composite
    assert composite._file is None


def process(composite: ch5.Composite) -> int:
    assert isinstance(composite._file, IsolatedFile)
    assert composite._file.process.pid is not None
    return composite._file.process.pid


def test_every_kind_reads_as_without(both: tuple[ch5.Composite, ch5.Composite]) -> None:
    plain, isolated = both
    assert list(plain) == list(isolated)
    for name in plain:
        assert ch5.Composite(None, {name: plain[name]}).digest == ch5.Composite(None, {name: isolated[name]}).digest
        assert repr(plain[name]) == repr(isolated[name])
    assert plain.components() == isolated.components()
    assert (plain.id, plain.data_id, plain.digest) == (isolated.id, isolated.data_id, isolated.digest)
    assert plain.tree() == isolated.tree()


def test_parts_are_read_as_without(both: tuple[ch5.Composite, ch5.Composite], tree: Path, tmp_path: Path) -> None:
    plain, isolated = both
    box = ch5.Box(150, 300, 250, 260)
    assert np.array_equal(plain.read("image", box=box).array, isolated.read("image", box=box).array)
    for index in (np.s_[10:20, ::7], np.s_[::-3, 5], np.s_[...], np.s_[5:5]):
        assert np.array_equal(plain.lazy("image")[index], isolated.lazy("image")[index])
    assert isolated.lazy("image").chunks == plain.lazy("image").chunks
    with pytest.raises(TypeError, match="mapped"):
        isolated.memmap("image")
    with pytest.raises(NoSuchComponentError):
        isolated["nothing"]
    isolated.flatten(tmp_path / "flat.h5")
    plain.flatten(tmp_path / "plain.h5")
    assert (tmp_path / "flat.h5").read_bytes() == (tmp_path / "plain.h5").read_bytes()


def test_links_are_followed_into_processes_of_their_own(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[str] = []
    original = IsolatedFile.__init__
    monkeypatch.setattr(
        IsolatedFile, "__init__", lambda s, o, n, *a: (started.append(Path(n).name), original(s, o, n, *a))[1]
    )
    targets.cache.clear()
    with ch5.open(own / "calexp.h5", isolated=True) as composite:
        assert started == ["calexp.h5"]
        assert composite["visit_info"]["note"] == "klar, 1″"
        assert started == ["calexp.h5", "visit.h5"]
        assert composite["items"][0]["visit"] == 7
        assert composite["inner"]["link"]["visit"] == 7
    with ch5.open(own / "calexp.h5") as composite:
        # What a process has said is not taken where the file is read without one.
        link = composite.links["visit_info"]
        assert targets.cache.get(link) is None
        assert targets.cache.get(link, targets.Access(isolated=True)) is not None


def test_the_process_has_nothing_but_the_file(one: ch5.Composite, monkeypatch: pytest.MonkeyPatch) -> None:
    proc = Path(f"/proc/{process(one)}")
    environment = (proc / "environ").read_bytes().split(b"\0")
    assert {line.partition(b"=")[0] for line in environment} <= {
        b"LC_ALL",
        b"OPENBLAS_NUM_THREADS",
        b"OMP_NUM_THREADS",
        b"",
    }
    links = [os.readlink(proc / "fd" / name) for name in os.listdir(proc / "fd")]
    files = {link for link in links if link.startswith("/") and link != "/dev/null"}
    assert {Path(file.removesuffix(" (deleted)")).name for file in files} == {"calexp.h5", "memfd:compositeh5"}
    limits = {line[:25].strip(): line[25:].split()[:2] for line in (proc / "limits").read_text().splitlines()}
    for name in ("Max open files", "Max file size", "Max core file size"):
        assert limits[name] == ["0", "0"]
    assert limits["Max cpu time"] == ["3600", "3600"]
    assert int(limits["Max address space"][1]) < 4 << 30
    assert "NoNewPrivs:\t1" in (proc / "status").read_text()
    assert (proc / "cwd").resolve() == Path("/")
    assert os.getsid(process(one)) == process(one)


CONFINED = """
import ctypes, errno, os, resource, signal, socket, sys, threading
from compositeh5.container.confine import give_up_rights
from compositeh5.container.limits import Limits
parent, libc = os.getppid(), ctypes.CDLL(None, use_errno=True)
filtered = "Seccomp:" in open("/proc/self/status").read()
kept = open("/dev/null", "wb")
give_up_rights(Limits(memory=200 << 20))

def refused(number, do):
    try:
        done = do()
    except OSError as error:
        assert error.errno == number, error
    else:
        raise SystemExit(f"{do} was done: {done}")

refused(errno.EMFILE, lambda: open("/etc/hostname"))
refused(errno.EMFILE, socket.socket)
refused(errno.EMFILE, os.pipe)
if filtered:
    refused(errno.EPERM, lambda: os.kill(parent, 0))
    refused(errno.EPERM, lambda: os.kill(os.getpid(), signal.SIGUSR1))
    refused(errno.EPERM, lambda: os.execv("/bin/true", ["true"]))
    refused(errno.EPERM, os.setsid)
    refused(errno.EPERM, lambda: resource.prlimit(parent, resource.RLIMIT_CPU))
    refused(errno.EPERM, lambda: os.pidfd_open(parent))
    assert (libc.ptrace(16, parent, 0, 0), ctypes.get_errno()) == (-1, errno.EPERM)
    assert (libc.process_vm_readv(parent, 0, 0, 0, 0, 0), ctypes.get_errno()) == (-1, errno.EPERM)
try:
    bytes(300 << 20)
    raise SystemExit("no limit of memory")
except MemoryError:
    pass
# What it needs still works.
thread = threading.Thread(target=lambda: kept.write(b"x"))
thread.start()
thread.join()
print("confined", filtered)
"""


def test_what_a_process_gives_up_is_gone() -> None:
    done = subprocess.run([sys.executable, "-c", CONFINED], capture_output=True, text=True, check=False)
    assert done.stdout.startswith("confined"), done.stderr


def test_a_process_that_is_killed_is_a_named_error_and_not_a_hang(one: ch5.Composite) -> None:
    image = one.lazy("image")
    os.kill(process(one), signal.SIGKILL)
    with pytest.raises(IsolationError, match=r"calexp\.h5: the process that read it was ended by SIGKILL"):
        image[:]
    with pytest.raises(ChildProcessError, match="isn't read any further"):
        one["psf"]


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT, signal.SIGXCPU])
def test_a_process_that_dies_while_it_is_asked(own: Path, number: signal.Signals) -> None:
    with ch5.open(own / "calexp.h5", isolated=True) as composite:
        image, pid = composite.lazy("image"), process(composite)
        # Stopped, so that the request is waiting when it dies.
        os.kill(pid, signal.SIGSTOP)
        failure: list[BaseException] = []

        def read() -> None:
            try:
                image[:]
            except BaseException as error:
                failure.append(error)

        reader = threading.Thread(target=read)
        reader.start()
        while not waiting_bytes(composite):
            time.sleep(0.01)
        os.kill(pid, number)
        os.kill(pid, signal.SIGCONT)
        reader.join(30)
        assert not reader.is_alive()
        assert isinstance(failure[0], IsolationError)
        assert f"was ended by {number.name}" in str(failure[0])


def waiting_bytes(composite: ch5.Composite) -> bool:
    """Return whether a request has been sent that the process has not taken."""
    import fcntl
    import struct
    import termios

    assert isinstance(composite._file, IsolatedFile)
    channel = composite._file.process._channel
    assert channel is not None
    return bool(struct.unpack("i", fcntl.ioctl(channel.end.fileno(), termios.TIOCOUTQ, b"\0\0\0\0"))[0])


def test_a_process_that_hangs_is_ended(own: Path) -> None:
    with ch5.open(own / "calexp.h5", isolated=True, limits=ch5.Limits(seconds=3)) as composite:
        image, pid = composite.lazy("image"), process(composite)
        os.kill(pid, signal.SIGSTOP)
        with pytest.raises(IsolationError, match=r"calexp\.h5: .* did not answer within 3 s"):
            image[:]
        assert not Path(f"/proc/{pid}").exists()


def test_too_little_memory_is_said(tree: Path, tmp_path: Path) -> None:
    big = ch5.Composite(None, image=ch5.Image(np.zeros((3000, 3000))))
    big.write(tmp_path / "big.h5", recipes={"image": ch5.Recipe(chunks=(3000, 3000))})
    with (
        ch5.open(tmp_path / "big.h5", isolated=True, limits=ch5.Limits(memory=20 << 20)) as composite,
        pytest.raises(IsolationError, match=r"big\.h5: reading it needs more than the 20971520 bytes.*Limits\(memory"),
    ):
        composite["image"]
    with ch5.open(tmp_path / "big.h5", isolated=True) as composite:
        assert not composite["image"].array.any()


def test_a_process_that_can_not_start_is_not_the_fault_of_the_file(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(IsolationError, match=r"calexp\.h5: no process could be started .* \(exit code 1\); check that"):
        ch5.open(own / "calexp.h5", isolated=True)


def test_close_ends_the_process(own: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with ch5.open(own / "calexp.h5", isolated=True) as composite:
        pid = process(composite)
        lazy = composite.lazy("image")
        with ch5.open(own / "calexp.h5", isolated=True) as again:
            assert process(again) == pid, "one file, one process"
    assert not Path(f"/proc/{pid}").exists()
    assert len(os.listdir("/proc/self/fd")) == before
    with pytest.raises(ClosedError):
        lazy[:]


def test_the_process_ends_with_the_one_that_started_it(tree: Path) -> None:
    code = (
        "import sys, os, compositeh5 as ch5; c = ch5.open(sys.argv[1], isolated=True);"
        "print(c._file.process.pid, flush=True); sys.stdin.read()"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code, str(tree / "calexp.h5")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.communicate()
    for _ in range(200):
        if not alive(pid):
            break
        time.sleep(0.05)
    assert not alive(pid)


def alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


@pytest.fixture(scope="module")
def victim(tree: Path) -> Iterator[IsolatedFile]:
    with FileSource(str(tree / "calexp.h5")) as source:
        file = IsolatedFile(source, "calexp.h5")
        file.process.stop()
        yield file
        file.close()


ARRAY = {"attrs": {"value": {}}, "shape": [2], "dtype": "<f8", "text": False, "chunks": None, "stored": 16}


@pytest.mark.parametrize(
    "answer",
    [
        b"\xff" * 8,
        b"\x02\0\0\0\0\0\0\0[]",
        b"\x02\0\0\0\0\0\0\0{x",
        b"\x40\x9c\0\0\0\0\0\0" + b"[" * 40_000,
        {},
        {"error": ["os.system", "x"]},
        {"error": 7},
        {"error": ["CorruptFileError", "\x1b[2Jx"]},
        {"value": None},
        {"value": []},
        {"value": {"link": []}},
        {"value": {"attrs": [], "names": {"value": []}}},
        {"value": {"attrs": {"value": {}}, "names": 7}},
        {"value": {"attrs": {"value": {}}, "names": {"value": [7]}}},
        {"value": {"attrs": {"value": {"digest": {"value": {"shape": [2], "dtype": "|O8", "data": ""}}}}, "names": {}}},
        {"value": {"attrs": {"value": {"digest": {"value": {"shape": [9], "dtype": "<f8", "data": ""}}}}, "names": {}}},
        {"value": {"attrs": {"value": {"digest": {"value": "\ud800"}}}, "names": {}}},
        {"value": {"attrs": {"value": {"a\x1bb": {"value": 1}}}, "names": {}}},
        {"need": [-1, 8]},
        {"need": "all"},
        *(
            {"value": {**ARRAY, "recipe": None, **odd}}
            for odd in (
                {"shape": [1 << 45]},
                {"shape": [-1]},
                {"shape": [True]},
                {"shape": 3},
                {"shape": [1] * 40},
                {"dtype": "O"},
                {"dtype": "<f8,<f8"},
                {"dtype": "<U8"},
                {"dtype": "<m8"},
                {"text": True},
                {"chunks": [0]},
                {"chunks": []},
                {"stored": "x"},
                {"recipe": {"gzip": 99, "chunks": []}},
                {"recipe": {"open": "x", "chunks": []}},
            )
        ),
    ],
    ids=lambda answer: str(answer)[:60],
)
def test_whatever_the_process_says_is_an_error_of_ours(victim: IsolatedFile, answer: Any) -> None:
    """In the place of a process that a file has taken over stands one end of the connection."""
    ours, theirs = socket.socketpair()
    victim.process._channel, victim.process._failure = Channel(ours), ""
    other = Channel(theirs)

    def lie() -> None:
        other.receive()
        if isinstance(answer, bytes):
            theirs.sendall(answer)
        else:
            other.send(answer)
        theirs.shutdown(socket.SHUT_WR)

    def read() -> None:
        node = victim.node("/composite")
        if isinstance(node, Mapping):
            list(node)
        node.attr("digest", str)

    liar = threading.Thread(target=lie)
    liar.start()
    with theirs:
        with pytest.raises(ch5.CompositeH5Error) as caught:
            read()
        liar.join()
    assert caught.value.args[0].isprintable()
    assert "calexp.h5" in str(caught.value) or "CorruptFileError" in str(answer)


def test_values_are_checked(own: Path) -> None:
    with ch5.open(own / "calexp.h5", isolated=True) as composite:
        array, names = composite._group["flags"], composite._group["names"]
        assert isinstance(composite._file, IsolatedFile)
        # A process that answers at once, and has put what it likes into the memory.
        composite._file.process.ask = lambda request, into=None: into.view(np.uint8).fill(255)  # type: ignore
        assert array.read().view(np.uint8).tolist() == [1, 1, 1]
        with pytest.raises(ch5.CompositeH5Error, match="not valid UTF-8"):
            names.read()


@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40), st.integers(1, 5)), min_size=0, max_size=3),
    st.integers(1, 8),
    st.integers(8, 300),
)
def test_pieces_make_up_the_whole(limits: list[tuple[int, int, int]], itemsize: int, most: int) -> None:
    wanted = tuple(range(a, max(a, b), step) for a, b, step in limits)
    chunks = (7,) * len(wanted)
    seen = []
    for piece in pieces(wanted, itemsize, chunks, most):
        assert np.prod([len(part) for part in piece]) * itemsize <= most
        seen += product(*piece)
    assert len(seen) == len(set(seen)) == int(np.prod([len(along) for along in wanted]))


def test_large_arrays_come_in_pieces(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The process keeps to its own, which is larger.
    monkeypatch.setattr(container, "PIECE", 100_000)
    with ch5.open(own / "calexp.h5") as plain, ch5.open(own / "calexp.h5", isolated=True) as isolated:
        assert np.array_equal(plain["image"].array, isolated["image"].array)


def test_streams_and_urls_are_read_through_this_process(tree: Path) -> None:
    data = (tree / "calexp.h5").read_bytes()
    with (
        ch5.open(tree / "calexp.h5") as plain,
        ch5.open(io.BytesIO(data), isolated=True, location=tree / "calexp.h5") as stream,
        ch5.open(f"file://{tree}/calexp.h5", isolated=True) as url,
    ):
        for composite in (stream, url):
            assert np.array_equal(plain["image"].array, composite["image"].array)
            assert composite["visit_info"]["visit"] == 7
