"""The bundled segmenter follows objects, once its memory is trained; its configuration says so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from segzero_core.sam2_model import read_tracking_facts
from segzero_core.segmenter import load_segmenter
from segzero_core.types import Segmentation
from training.segmenter_validation import mask_iou

SEGMENTER = Path(__file__).parents[2] / "models" / "tabletop" / "segmenter"
SEEDS = (1_000_000, 1_000_001, 1_000_002)
# A guard against a broken memory (these clips have 0.81), and no measure of how well it follows,
# which is benchmarks/tracking.py.
MIN_MEAN_IOU = 0.7

pytestmark = pytest.mark.skipif(
    read_tracking_facts(SEGMENTER / "config.yaml").memory != "trained",
    reason="config.yaml of the bundled segmenter does not say that its memory is trained",
)


def test_objects_are_followed_through_clips_of_unseen_seeds() -> None:
    clips = pytest.importorskip("tabletop.clips")
    camera = pytest.importorskip("tabletop.camera")
    tracker = load_segmenter(str(SEGMENTER)).segmenter.new_tracker()
    ious, still = [], []
    with camera.Camera() as eye:
        for seed in SEEDS:
            clip, pictures = clips.film(eye, seed, 60, clips.RATE_HZ)
            first = next(pictures)
            truth = first.instances == clip.target
            tracker.start(first.color, Segmentation(truth[None], np.ones(1, np.float32)))
            for picture in pictures:
                now = picture.instances == clip.target
                ious.append(mask_iou(tracker.step(picture.color).tracks[0].mask, now))
                still.append(mask_iou(truth, now))
    assert np.mean(ious) >= MIN_MEAN_IOU
    assert np.mean(ious) > np.mean(still) + 0.2
