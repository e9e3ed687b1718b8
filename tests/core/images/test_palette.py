"""Colors that are distinct to all eyes, and not those of the objects."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from segzero_core.images.palette import PALETTE, TOO_NEAR, choose_colors, ink_on, to_lab

# Linear RGB as seen without one kind of cone: Machado, Oliveira and Fernandes (2009), severity 1.
VISIONS = {
    "all cones": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
}


def seen(colors: NDArray[np.uint8], matrix: NDArray[np.float64]) -> NDArray[np.uint8]:
    share = colors / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    changed = np.clip(linear @ np.asarray(matrix).T, 0, 1)
    encoded = np.where(changed <= 0.0031308, 12.92 * changed, 1.055 * changed ** (1 / 2.4) - 0.055)
    return (255 * encoded).round().astype(np.uint8)


@pytest.mark.parametrize("vision", VISIONS)
def test_neighbors_of_the_palette_are_distinct_to_all_eyes(vision: str) -> None:
    lab = to_lab(seen(np.array(PALETTE, np.uint8), VISIONS[vision]))
    assert np.linalg.norm(lab - np.roll(lab, 1, axis=0), axis=1).min() > 50
    every = np.linalg.norm(lab[:, None] - lab[None], axis=2)[np.triu_indices(len(lab), 1)]
    assert every.min() > 15


def plain(colors: list[tuple[int, int, int]]) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """An image with an object of each color."""
    image = np.full((40, 20 * len(colors), 3), 128, np.uint8)
    masks = np.zeros((len(colors), *image.shape[:2]), np.bool_)
    for index, color in enumerate(colors):
        masks[index, 5:35, 20 * index + 4 : 20 * index + 16] = True
        image[masks[index]] = color
    return image, masks


def test_an_object_never_gets_its_own_color() -> None:
    steps = (0, 64, 128, 192, 255)
    for own in [(r, g, b) for r in steps for g in steps for b in steps] + list(PALETTE):
        (chosen,) = choose_colors(*plain([own]))
        all_apart = np.linalg.norm(
            to_lab(np.array(PALETTE, np.uint8)) - to_lab(np.array([own], np.uint8)), axis=1
        )
        assert all_apart[PALETTE.index(chosen)] == all_apart.max()
        assert all_apart.max() > 2 * TOO_NEAR


def test_many_objects_of_one_color_get_others_and_first_each_another() -> None:
    for own in PALETTE:
        chosen = choose_colors(*plain([own] * 12))
        assert own not in chosen
        assert len(set(chosen[:4])) == 4


def test_an_object_of_two_colors_gets_neither() -> None:
    image, masks = plain([(240, 228, 66)])
    image[5:14][masks[0][5:14]] = (0, 114, 178)
    assert choose_colors(image, masks)[0] not in ((240, 228, 66), (0, 114, 178))


def test_colors_are_the_same_each_time_and_kept_in_a_video() -> None:
    rng = np.random.default_rng(3)
    image, masks = plain([(200, 40, 40), (40, 90, 60), (90, 90, 200)])
    first = choose_colors(image, masks)
    assert choose_colors(image.copy(), masks.copy()) == first
    for _ in range(20):
        noisy = np.clip(image + rng.normal(0, 12, image.shape), 0, 255).astype(np.uint8)
        assert choose_colors(noisy, masks, first) == first


def test_a_color_kept_from_before_is_given_up_when_the_object_has_it() -> None:
    image, masks = plain([PALETTE[4]])
    assert choose_colors(image, masks, [PALETTE[4]]) != [PALETTE[4]]


def test_an_empty_mask_has_a_color() -> None:
    image, _ = plain([(0, 0, 0)])
    assert len(choose_colors(image, np.zeros((2, *image.shape[:2]), np.bool_))) == 2


def test_letters_are_read_on_every_color() -> None:
    for color in PALETTE:
        pair = to_lab(np.array([color, ink_on(color)], np.uint8))
        assert abs(pair[0, 0] - pair[1, 0]) > 40
