"""Runs each target of the fuzzing for some seconds, and on every input that once broke it."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings

from tests.fuzz import strategies
from tests.fuzz.targets import TARGETS, measure_depth, read_a_reply, read_a_reply_in_chunks


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_a_target_raises_only_what_it_promises(name: str) -> None:
    target = TARGETS[name]
    checks = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
    run = settings(max_examples=target.examples, deadline=None, suppress_health_check=checks)
    run(given(target.inputs)(target.run))()


@pytest.mark.parametrize("number", range(len(strategies.replies())))
@pytest.mark.parametrize("length", [1, 2, 7])
def test_every_reply_of_the_corpus_means_the_same_in_chunks(number: int, length: int) -> None:
    text = strategies.replies()[number]
    for native in (False, True):
        read_a_reply((text, native))
        read_a_reply_in_chunks((text, [length], native))


@pytest.mark.parametrize("seed", [133, 298, 329, 360, 438, 861])
def test_geometry_that_once_raised_is_measured_or_has_a_reason(seed: int) -> None:
    measure_depth(seed)
