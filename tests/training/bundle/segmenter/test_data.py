from __future__ import annotations

from pathlib import Path

import numpy as np

from training.bundle.segmenter.data import (
    POSITIVE,
    SceneImage,
    augment,
    close_up,
    find_scenes,
    jitter_box,
    make_batch,
    read_scene,
)


def test_a_scene_that_is_still_being_written_is_left_for_later(scenes: Path):
    (scenes / "000001" / "scene.json").write_text('{"format"')
    assert [folder.name for folder in find_scenes([scenes])] == ["000000", "000002"]


def test_augmentation_moves_image_and_masks_together(scenes: Path):
    scene = read_scene(scenes / "000000")
    for seed in range(5):
        seen = augment(scene, 128, np.random.default_rng(seed))
        red = seen.image[seen.instances == 1].astype(int).mean(axis=0)
        assert seen.image.shape == (128, 128, 3)
        assert red[0] > 2 * red[1]


def test_a_close_up_is_a_square_that_shows_an_object_larger(scenes: Path):
    scene = read_scene(scenes / "000000")
    for seed in range(20):
        seen = close_up(scene, np.random.default_rng(seed))
        side = seen.instances.shape[0]
        assert seen.image.shape == (side, side, 3)
        assert 64 <= side <= 120
        assert set(np.unique(seen.instances)) - {0}
    empty = SceneImage(scene.image, np.zeros_like(scene.instances))
    assert close_up(empty, np.random.default_rng(0)) is empty


def test_a_jittered_box_stays_in_the_image_and_meets_the_true_one():
    rng = np.random.default_rng(0)
    box = (40.0, 50.0, 90.0, 70.0)
    for _ in range(500):
        x0, y0, x1, y1 = jitter_box(box, 100.0, rng)
        assert 0 <= x0 < x1 <= 100
        assert 0 <= y0 < y1 <= 100
        assert min(x1, box[2]) > max(x0, box[0])
        assert min(y1, box[3]) > max(y0, box[1])


def test_a_batch_points_at_what_it_names(scenes: Path):
    images = [read_scene(folder) for folder in find_scenes([scenes])]
    for seed in range(10):
        batch = make_batch(images, 64, 6, np.random.default_rng(seed))
        assert batch is not None
        assert batch.images.shape == (3, 3, 64, 64)
        for number, index, box in zip(
            batch.image_index, batch.object_id, batch.box_xyxy.astype(int), strict=True
        ):
            inside = batch.instances[number][box[1] : box[3], box[0] : box[2]]
            assert (inside == index).mean() > (0.3 if index else 0.97)
        assert set(np.unique(batch.labels)) <= {-1, POSITIVE, 2, 3}
