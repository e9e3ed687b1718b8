"""What the benchmark of tracking counts, and which targets it says are missed."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest

from benchmarks.tracking import Scores, draw_clip, main, missed, watch
from segzero_core.checkpoints.registry import bundled_folder
from segzero_core.tracking.tracker import Sam2Tracker
from worlds.tabletop.camera import Camera


def _figures(**changes: Any) -> dict[str, Any]:
    figures: dict[str, Any] = {
        "iou": {"tracker": {"mean": 0.8}},
        "hz": 9.0,
        "on_end": {"constant": True, "growth_mb": 0.0},
    }
    return figures | changes


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        pytest.param({"iou": {"tracker": {"mean": 0.749}}}, "mean IoU 0.749 is below", id="iou"),
        pytest.param({"hz": 4.9}, "4.9 images a second are below 5", id="speed"),
        pytest.param(
            {"on_end": {"constant": False, "growth_mb": 0.0}}, "is not constant", id="memory"
        ),
        pytest.param(
            {"on_end": {"constant": True, "growth_mb": 90.0}}, "grew by 90.0 MB", id="growth"
        ),
    ],
)
def test_a_target_that_is_missed_is_named(changes: dict[str, Any], complaint: str) -> None:
    assert missed(_figures()) == []
    (fault,) = missed(_figures(**changes))
    assert complaint in fault


def test_an_empty_mask_is_right_where_the_object_is_hidden_and_wrong_elsewhere() -> None:
    mask, nothing = np.ones((4, 4), np.bool_), np.zeros((4, 4), np.bool_)
    scores = Scores()
    scores.add(mask, mask, "push")
    scores.add(nothing, mask, "push")
    scores.add(nothing, nothing, "occlude")
    scores.add(mask, nothing, "occlude")
    assert scores.figures() == {
        "mean": 0.5, "visible": 0.5, "hidden": 0.5, "push": 0.5, "occlude": 0.5,
    }  # fmt: skip


def test_eight_images_of_a_clip_are_drawn_in_two_rows() -> None:
    folder = bundled_folder("tabletop") / "segmenter"
    with Camera() as camera:
        first, *_ = watch(camera, 3, 8)
    drawn = draw_clip(Sam2Tracker.load(str(folder)), 3, frames=8)
    assert drawn.shape == (480, 1280, 3)
    half = cv2.resize(first.color, (320, 240), interpolation=cv2.INTER_AREA)
    changed = (drawn[:240, :320] != half).any(axis=2)
    truth = first.truth[::2, ::2]
    assert changed[truth].all()
    outside = changed & ~truth  # outlines and the label with the score
    assert 0 < outside.sum() < truth.size / 20
    assert (drawn[:240] != drawn[240:]).any()


def test_too_few_images_to_fill_a_memory_are_refused(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        main(["--memory-frames", "50"])
    assert "--memory-frames at least 200" in capsys.readouterr().err
