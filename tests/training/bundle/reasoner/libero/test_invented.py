"""Invented layouts: training for the part of a thought that is computed."""

from __future__ import annotations

import math
import re
from copy import deepcopy

import numpy as np
import pytest

from segzero_core.prompt import MULTI_OBJECT
from training.bundle.reasoner.encoding import NOT_WRITTEN, NUMBER, encode_question
from training.bundle.reasoner.libero.invented import invent
from training.bundle.reasoner.libero.thoughts import ORDINALS
from training.bundle.reasoner.libero.world import WORLD
from training.bundle.reasoner.tokenizer import extend_tokenizer
from training.bundle.reasoner.train import main as reasoner

PLACE = r"at \((\d+),(\d+)\)"
SIDES = {"left of": (-1, 0), "right of": (1, 0), "in front of": (0, 1), "behind": (0, -1)}
ENDS = {"leftmost": (-1, 0), "rightmost": (1, 0), "at the front": (0, 1), "at the back": (0, -1)}


def places(text: str) -> list[tuple[int, int]]:
    return [(int(x), int(y)) for x, y in re.findall(PLACE, text)]


@pytest.mark.parametrize("seed", range(60))
def test_what_is_chosen_follows_from_the_places_that_are_listed(seed: int) -> None:
    text = "".join(chunk.text for chunk in invent(np.random.default_rng(seed))[1])
    asked, *starts, listed, choice = text.rstrip(".").split(".")
    candidates = np.array(places(listed))
    ordinal = next(i for i, word in enumerate(ORDINALS) if word in choice)
    assert places(choice) == [tuple(candidates[ordinal])]
    end = next((step for words, step in ENDS.items() if words in asked), None)
    side = next((step for words, step in SIDES.items() if words in asked), None)
    if end is not None:
        assert not starts
        assert (candidates @ end).argmax() == ordinal
        return
    anchor = places(starts[0])[-1]
    froms = re.findall(r"from \((\d+),(\d+)\)", listed)
    assert froms == [tuple(map(str, anchor))] * len(candidates)
    offsets = candidates - anchor
    if side is None:
        assert np.hypot(*offsets.T).argmin() == ordinal
    else:
        assert (offsets @ side).argmax() == ordinal
        assert sorted(offsets @ side > 0)[-2:] == [False, True]


def test_offsets_and_distances_are_those_of_the_places() -> None:
    chunks = invent(np.random.default_rng(1))[1]
    text = "".join(chunk.text for chunk in chunks)
    start = places(text.split(" I see")[0])[-1]
    pattern = PLACE + r" from \(\d+,\d+\), (\w+) by (\d+), (\w+) by (\d+), away by (\d+)"
    stated = re.findall(pattern, text)
    assert len(stated) >= 2
    for x, y, side, across, updown, along, away in stated:
        signed = int(across) * (1 if side == "right" else -1)
        assert int(x) - start[0] == signed
        assert int(y) - start[1] == int(along) * (1 if updown == "below" else -1)
        assert int(away) == min(round(math.hypot(int(across), int(along))), 447)


def test_only_what_follows_is_taught(processor) -> None:
    tokenizer = extend_tokenizer(deepcopy(processor.tokenizer), WORLD)
    text, chunks = invent(np.random.default_rng(1))
    encoded = encode_question(tokenizer, text, chunks, MULTI_OBJECT, closed=False)
    assert "I start from the" in tokenizer.decode(encoded.ids)
    taught = [token for token in encoded.targets if token != NOT_WRITTEN]
    written = tokenizer.decode(taught)
    assert "start" not in written
    assert len(re.findall(r"left by|right by", written)) >= 2
    assert re.search(PLACE, written.split("the ")[-1])  # the place of the one that is meant
    assert not any(encoded.object_ids)
    taught_from = [sources for sources in encoded.sources if sources]
    assert len(taught_from) > 8
    hidden = [role for role, target in zip(encoded.roles, encoded.targets, strict=True)
              if target == NOT_WRITTEN]  # fmt: skip
    assert NUMBER not in hidden


def test_every_relation_is_asked() -> None:
    rng = np.random.default_rng(0)
    asked = " ".join("".join(chunk.text for chunk in invent(rng)[1]) for _ in range(150))
    for words in ("next to", "nearest to", "between", " on the", " in the", *SIDES, *ENDS):
        assert words in asked


def test_layouts_are_for_thoughts_with_distances(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        reasoner(["train", "--world", "libero", "--thoughts", "places", "--invented", "0.5"])
    assert "--invented is for --thoughts distances" in capsys.readouterr().err


@pytest.mark.parametrize("value", ["1.5", "-0.1", "nan", "half"])
def test_what_is_no_share_is_refused(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        reasoner(["train", "--world", "libero", "--thoughts", "distances", f"--invented={value}"])
    assert "expected a share, a number of 0 to 1" in capsys.readouterr().err
