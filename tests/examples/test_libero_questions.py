"""The eight questions about LIBERO's scenes: what is asked, and the image of the answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from examples import libero_questions
from segzero_core.images.files import load_image
from segzero_core.pipeline import SegZero
from segzero_core.testing.fakes import fake_segzero
from tests.examples.test_pick_and_place import needs_libero

FOUND = '<think>here</think><answer>[{"bbox_2d": [20,20,60,60], "point_2d": [40,40]}]</answer>'
NOTHING = "<think>not there</think><answer>[]</answer>"


@pytest.fixture
def image() -> np.ndarray:
    return np.full((480, 640, 3), 90, np.uint8)


def test_an_answer_is_drawn_with_its_question_below(image: np.ndarray) -> None:
    found, nothing = (
        libero_questions.panel(image, fake_segzero(reply).segment(image, "the mug"))
        for reply in (FOUND, NOTHING)
    )
    height = 358  # the image's 360 but the pixels beside the strip
    assert len(np.unique(found[:height].reshape(-1, 3), axis=0)) > 1
    assert len(np.unique(nothing[:height].reshape(-1, 3), axis=0)) == 1
    assert (found[height:] < 128).any()


def test_eight_panels_make_two_rows(image: np.ndarray) -> None:
    part = libero_questions.panel(image, fake_segzero(FOUND).segment(image, "the mug"))
    height, width = libero_questions.sheet([part] * 8).shape[:2]
    margin = libero_questions._MARGIN_PX
    assert (width, height) == (4 * (part.shape[1] + margin), 2 * (part.shape[0] + margin))


@needs_libero
@pytest.mark.libero
@pytest.mark.slow
def test_the_questions_are_asked_and_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = (libero_questions.QUESTIONS[0], libero_questions.QUESTIONS[-1])
    monkeypatch.setattr(libero_questions, "QUESTIONS", asked)  # building a scene takes seconds
    monkeypatch.setattr(SegZero, "load", lambda _: fake_segzero([FOUND, NOTHING]))
    monkeypatch.setenv("SEGZERO_CACHE", str(tmp_path / "cache"))
    out = tmp_path / "answers.png"
    assert libero_questions.main(["--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert printed.count("1 object,") == printed.count("no objects,") == 1
    height, width, _ = load_image(out).shape
    assert width == 2 * 490
    assert height > 400
