"""Reasoner and image encoder share the processor, and leave torch's setting as it was."""

from __future__ import annotations

import contextlib
import gc
import threading
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from segzero_core import RgbImage
from segzero_core.cpu_threads import CpuThreads, in_own_thread
from segzero_core.encoders.base import CachingEncoder, Embedding
from segzero_core.testing.fakes import FakeEncoder


@pytest.fixture(autouse=True)
def four_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("total", "encoder", "reasoner"), [(1, 1, 1), (2, 1, 1), (3, 1, 2), (8, 4, 4)]
)
def test_while_both_work_nobody_has_more_than_there_are(
    total: int, encoder: int, reasoner: int
) -> None:
    cores = CpuThreads(total)
    assert cores.reasoner_share == total
    with cores.encoding():
        assert (cores.encoder_share, cores.reasoner_share) == (encoder, reasoner)
    assert cores.reasoner_share == total


def test_the_reasoner_has_all_threads_again_once_the_image_is_encoded() -> None:
    cores = CpuThreads()
    reported: list[int] = []
    encodes, may_end, is_over = threading.Event(), threading.Event(), threading.Event()

    class Slow(FakeEncoder):
        def encode(self, image: RgbImage) -> Embedding:
            reported.append(torch.get_num_threads())
            encodes.set()
            assert may_end.wait(30.0)
            return super().encode(image)

    def encode() -> None:
        CachingEncoder(Slow(), cores).encode(np.zeros((4, 4, 3), np.uint8))
        is_over.set()

    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(encode)
        assert encodes.wait(30.0)
        with cores.reasoning():
            reported.append(torch.get_num_threads())
            may_end.set()
            assert is_over.wait(30.0)
            cores.take_share()
            reported.append(torch.get_num_threads())
        done.result()
    assert reported == [2, 2, 4]
    assert torch.get_num_threads() == 4


def test_who_has_no_use_for_more_threads_takes_no_more() -> None:
    cores = CpuThreads()

    with cores.reasoning():
        cores.take_share(most=1)
        alone = torch.get_num_threads()
        cores.take_share(most=9)
        assert (alone, torch.get_num_threads()) == (1, 4)

    assert torch.get_num_threads() == 4


def test_an_encoder_that_fails_gives_its_share_back() -> None:
    cores = CpuThreads()
    encoder = CachingEncoder(FakeEncoder(error=ValueError("no")), cores)

    with pytest.raises(ValueError, match="no"):
        encoder.encode(np.zeros((4, 4, 3), np.uint8))

    assert cores.reasoner_share == 4
    assert torch.get_num_threads() == 4


def test_work_in_an_own_thread_gives_its_result_and_ends() -> None:
    here = threading.current_thread()

    worked_in = in_own_thread(threading.current_thread)

    assert worked_in is not here
    worked_in.join(30.0)
    assert not worked_in.is_alive()


def test_work_in_an_own_thread_gives_its_error() -> None:
    def fail() -> None:
        raise ValueError("odd")

    with pytest.raises(ValueError, match="odd"):
        in_own_thread(fail)


def test_what_a_failed_work_had_made_is_freed_with_its_error() -> None:
    class Weights:
        pass

    made: list[weakref.ref[Weights]] = []

    def fail() -> None:
        weights = Weights()
        made.append(weakref.ref(weights))
        raise ValueError("odd")

    gc.disable()
    try:
        with contextlib.suppress(ValueError):
            in_own_thread(fail)
        deadline_s = time.monotonic() + 30.0
        while made[0]() is not None and time.monotonic() < deadline_s:
            threading.Event().wait(0.01)  # the thread that failed is ending
        assert made[0]() is None
    finally:
        gc.enable()
