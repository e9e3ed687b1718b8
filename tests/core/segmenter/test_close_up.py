"""Close-ups: where they are cut, and that a small object's mask comes from one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from segzero_core import Box, ObjectPrompt, Point, RgbImage, load_segmenter
from segzero_core.encoders.base import Embedding
from segzero_core.geometry import mask_iou
from segzero_core.segmenter.close_up import MOST_CLOSE_UPS, CloseUp, is_small, segment_closely
from segzero_core.segmenter.mask_worker import JobThread, MaskWorker
from segzero_core.types import Segmentation
from tests.tiny_models import save_tiny_segmenter

SIZE_WH = (640, 480)
IMAGE = np.zeros((480, 640, 3), np.uint8)
SMALL, LARGE = Box(20.0, 20.0, 60.0, 44.0), Box(200.0, 100.0, 420.0, 300.0)


def prompt(box: Box) -> ObjectPrompt:
    return ObjectPrompt(box, (Point((box.x_min + box.x_max) / 2, (box.y_min + box.y_max) / 2),))


class BoxSegmenter:
    """Fills the boxes, and remembers the images it was asked about."""

    backend = "torch"

    def __init__(self) -> None:
        self.asked: list[tuple[tuple[int, int], tuple[Box, ...]]] = []

    def encode(self, image: RgbImage) -> Embedding:
        size_wh = (image.shape[1], image.shape[0])
        return Embedding(np.zeros((1, 1, 1, 1), np.float32), (), size_wh)

    def segment(self, embedding: Embedding, prompts: Sequence[ObjectPrompt]) -> Segmentation:
        self.asked.append((embedding.size_wh, tuple(p.box for p in prompts)))
        masks = np.zeros((len(prompts), *embedding.size_wh[::-1]), np.bool_)
        for mask, box in zip(masks, (p.box for p in prompts), strict=True):
            mask[round(box.y_min) : round(box.y_max), round(box.x_min) : round(box.x_max)] = True
        return Segmentation(masks, np.full(len(prompts), 0.9, np.float32))


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        (Box(300.0, 200.0, 340.0, 220.0), CloseUp(260, 150, 120)),
        (Box(300.0, 200.0, 310.0, 220.0), CloseUp(257, 162, 96)),
        (SMALL, CloseUp(0, 0, 120)),
        (Box(600.0, 450.0, 640.0, 480.0), CloseUp(520, 360, 120)),
        (LARGE, CloseUp(70, 0, 480)),
    ],
)
def test_a_close_up_lies_around_its_box_and_in_the_image(box: Box, expected: CloseUp) -> None:
    assert CloseUp.around(box, SIZE_WH) == expected
    assert expected.crop(IMAGE).shape == (expected.side, expected.side, 3)


def test_small_means_a_share_of_the_images_shorter_side() -> None:
    assert is_small(SMALL, SIZE_WH, 0.1)
    assert not is_small(SMALL, SIZE_WH, 40 / 480)
    assert not is_small(SMALL, SIZE_WH, 0.0)


def test_a_prompt_that_leaves_the_close_up_ends_at_its_border() -> None:
    part = CloseUp(100, 100, 96)
    moved = part.moved(ObjectPrompt(Box(90.0, 120.0, 150.0, 160.0), (Point(95.0, 140.0),)))
    assert moved == ObjectPrompt(Box(0.0, 20.0, 50.0, 60.0), (Point(0.0, 40.0),))


def test_only_small_objects_are_asked_in_close_ups_and_the_order_stays() -> None:
    fake = BoxSegmenter()
    boxes = [SMALL, LARGE, Box(500.0, 300.0, 530.0, 330.0)]
    found = segment_closely(fake, fake, IMAGE, fake.encode(IMAGE), list(map(prompt, boxes)), 0.2)
    whole = fake.segment(fake.encode(IMAGE), list(map(prompt, boxes)))
    assert np.array_equal(found.masks, whole.masks)
    assert [size for size, _ in fake.asked[:-1]] == [SIZE_WH, (120, 120), (96, 96)]
    assert fake.asked[0][1] == (LARGE,)


def test_the_mask_worker_makes_close_ups_where_the_model_says_so() -> None:
    for share, sizes in ((0.0, [SIZE_WH]), (0.2, [SIZE_WH, (120, 120)])):
        fake = BoxSegmenter()
        worker = MaskWorker(JobThread(), fake, fake, IMAGE, share)
        found = worker.finish([prompt(SMALL)], None)
        worker.close()
        assert found.masks[0].sum() == SMALL.width * SMALL.height
        assert [size for size, _ in fake.asked] == sizes


def test_a_long_answer_has_a_bounded_number_of_close_ups() -> None:
    fake = BoxSegmenter()
    boxes = [Box(10.0 + 20 * n, 10.0, 25.0 + 20 * n, 25.0) for n in range(MOST_CLOSE_UPS + 4)]
    worker = MaskWorker(JobThread(), fake, fake, IMAGE, 0.2)
    found = worker.finish(list(map(prompt, boxes)), None)
    later = worker.finish([prompt(SMALL)], None)
    worker.close()
    assert found.masks.sum(axis=(1, 2)).tolist() == [15 * 15] * len(boxes)
    assert later.masks[0].any()
    sizes = [size for size, _ in fake.asked]
    assert sizes == [SIZE_WH, *[(96, 96)] * MOST_CLOSE_UPS, SIZE_WH]


def test_with_sam2_the_mask_of_a_close_up_is_that_of_the_cut_out_image(
    tmp_path: Path, image: RgbImage
) -> None:
    loaded = load_segmenter(str(save_tiny_segmenter(tmp_path / "segmenter")))
    wide = np.ascontiguousarray(np.tile(image, (4, 4, 1)))
    size_wh = (wide.shape[1], wide.shape[0])
    asked = prompt(Box(60.0, 50.0, 90.0, 70.0))
    part = CloseUp.around(asked.box, size_wh)
    embedding = loaded.encoder.encode(wide)
    found = segment_closely(loaded.encoder, loaded.segmenter, wide, embedding, [asked], 0.5)
    alone = loaded.segmenter.segment(loaded.encoder.encode(part.crop(wide)), [part.moved(asked)])
    inside = found.masks[0][part.y : part.y + part.side, part.x : part.x + part.side]
    assert mask_iou(inside, alone.masks[0]) == 1.0
    assert found.scores[0] == alone.scores[0]
    assert found.masks[0].sum() == inside.sum()
