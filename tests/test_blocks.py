"""Blocks of remote files: few requests, made at once, and no thread that waits for another."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from compositeh5 import errors
from compositeh5.storage import source
from compositeh5.storage.source import BLOCK, GAP, BlockSource


class Requests:
    """A file of which each read is noted."""

    def __init__(self, content: bytes) -> None:
        self.content, self.made = content, list[tuple[int, int]]()

    def __call__(self, offset: int, size: int) -> bytes:
        self.made.append((offset, size))
        return self.content[offset : offset + size]


@pytest.fixture(scope="module")
def content() -> bytes:
    return np.random.default_rng(3).bytes(40 * BLOCK + 77)


@pytest.fixture
def noise(content: bytes) -> Requests:
    return Requests(content)


def test_blocks_read_as_a_file_does(noise: Requests) -> None:
    blocks = BlockSource(noise, "noise", len(noise.content))
    rng = np.random.default_rng(4)
    edges = [0, BLOCK - 1, 40 * BLOCK, 40 * BLOCK + 76, 40 * BLOCK + 77]
    for start in [*edges, *rng.integers(0, 40 * BLOCK, 9).tolist()]:
        blocks.seek(start)
        assert blocks.read(3 * BLOCK) == noise.content[start : start + 3 * BLOCK]
        assert blocks.tell() == min(start + 3 * BLOCK, len(noise.content))
    assert blocks.seek(-77, 2) == 40 * BLOCK


def test_what_was_read_is_not_fetched_again(noise: Requests) -> None:
    blocks = BlockSource(noise, "noise", len(noise.content))
    for start in (5, 100, BLOCK // 2):
        blocks.seek(start)
        blocks.read(50)
    assert noise.made == [(0, BLOCK)]


def test_near_ranges_are_one_request_and_far_ones_two(noise: Requests) -> None:
    blocks = BlockSource(noise, "noise", len(noise.content))
    blocks.prefetch([(3 * BLOCK, 10), (3 * BLOCK + GAP, 10), (39 * BLOCK, 10)])
    assert noise.made[1:] == [(3 * BLOCK, GAP + BLOCK), (39 * BLOCK, BLOCK)]
    blocks.prefetch([(3 * BLOCK + 5, GAP), (40 * BLOCK, 500)])
    assert noise.made[3:] == [(40 * BLOCK, 77)]


def test_a_long_read_does_not_pile_up_blocks(noise: Requests, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "KEPT", 8 * BLOCK)
    blocks = BlockSource(noise, "noise", len(noise.content))
    for start in (*range(0, 40, 2), 4):
        blocks.seek(start * BLOCK)
        assert blocks.read(2 * BLOCK) == noise.content[start * BLOCK : (start + 2) * BLOCK]
    # What was read long ago is fetched again.
    assert noise.made[-1] == noise.made[3]


def test_a_file_that_is_shorter_than_recorded_is_damaged(noise: Requests) -> None:
    blocks = BlockSource(noise, "noise", len(noise.content) + 5)
    with pytest.raises(errors.CorruptFileError, match="ends at byte"):
        blocks.prefetch([(40 * BLOCK, 80)])


def test_far_ranges_are_fetched_at_once(noise: Requests) -> None:
    everybody = threading.Barrier(3)

    def read_at(offset: int, size: int) -> bytes:
        if offset:
            everybody.wait(timeout=20)
        return noise(offset, size)

    blocks = BlockSource(read_at, "noise", len(noise.content))
    blocks.prefetch([(10 * BLOCK, 5), (20 * BLOCK, 5), (30 * BLOCK, 5)])
    assert {size for _, size in noise.made} == {BLOCK}
    assert blocks.read_at(20 * BLOCK + 3, 9) == noise.content[20 * BLOCK + 3 : 20 * BLOCK + 12]


def test_what_hdf5_reads_needs_no_other_thread(noise: Requests) -> None:
    """It holds a lock that another thread may need to collect garbage."""
    threads = set()

    def read_at(offset: int, size: int) -> bytes:
        threads.add(threading.get_ident())
        return noise(offset, size)

    blocks = BlockSource(read_at, "noise", len(noise.content))
    blocks.prefetch([(n * BLOCK, 5) for n in range(12, 27)])
    # Two requests: around those that are there.
    blocks.seek(BLOCK)
    assert blocks.read(39 * BLOCK) == noise.content[BLOCK : 40 * BLOCK]
    assert len(noise.made) == 4
    assert threads == {threading.get_ident()}


def test_a_request_that_fails_can_be_made_again(noise: Requests) -> None:
    refused = {20 * BLOCK}

    def read_at(offset: int, size: int) -> bytes:
        if offset in refused:
            refused.clear()
            raise ConnectionResetError("by peer")
        return noise(offset, size)

    blocks = BlockSource(read_at, "noise", len(noise.content))
    wanted = [(n * BLOCK, 10) for n in (10, 20, 30)]
    with pytest.raises(ConnectionResetError):
        blocks.prefetch(wanted)
    blocks.prefetch(wanted)
    assert blocks.read_at(20 * BLOCK, 10) == noise.content[20 * BLOCK : 20 * BLOCK + 10]


def test_many_threads_read_the_same_blocks(noise: Requests, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "KEPT", 3 * BLOCK)
    blocks = BlockSource(noise, "noise", len(noise.content))
    wrong = []

    def read(seed: int) -> None:
        for start in np.random.default_rng(seed).integers(0, 40 * BLOCK, 20).tolist():
            if blocks.read_at(start, BLOCK) != noise.content[start : start + BLOCK]:
                wrong.append(start)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
