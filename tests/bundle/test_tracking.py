"""The bundled segmenter follows objects, once its memory is trained; its configuration says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from segzero_core.checkpoints.sam2_checkpoint import read_tracking_facts
from segzero_core.tracking.tracker import Sam2Tracker

SEGMENTER = Path(__file__).parents[2] / "models" / "tabletop" / "segmenter"
CLIPS = 2
# A guard against a broken memory (these clips have 0.88), and no measure of how well it follows,
# which is benchmarks/tracking.py.
MIN_MEAN_IOU = 0.77

pytestmark = pytest.mark.skipif(
    read_tracking_facts(SEGMENTER / "config.yaml").memory != "trained",
    reason="config.yaml of the bundled segmenter does not say that its memory is trained",
)


def test_objects_are_followed_through_clips_of_unseen_seeds() -> None:
    benchmark = pytest.importorskip("benchmarks.tracking")
    tracker = Sam2Tracker.load(str(SEGMENTER))
    scores, _ = benchmark.measure_clips({"tracker": tracker}, CLIPS, benchmark.SEED)
    followed, still = (scores[name].figures()["mean"] for name in ("tracker", "still"))
    assert followed >= MIN_MEAN_IOU
    assert followed > still + 0.2
