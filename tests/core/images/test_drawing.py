"""What is drawn over and below images: outlines, labels, captions, at every size."""

from __future__ import annotations

import itertools

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from segzero_core import (
    Box,
    InputError,
    ObjectPrompt,
    Point,
    RgbImage,
    Segmentation,
    ShapeError,
    draw_overlay,
)
from segzero_core.images.labels import Place, place_labels
from segzero_core.images.lettering import add_caption, clean, font_px, scale_of, text_width, wrap
from segzero_core.images.overlay import draw_outline
from segzero_core.images.palette import PALETTE, to_lab

PROMPT = ObjectPrompt(Box(10, 10, 40, 40), (Point(20, 20),))
SIZES_WH = [(640, 480), (3840, 2160)]
ODD_SIZES_WH = [(16, 16), (1, 1), (3, 2000), (2000, 3), (5000, 40)]


def some_masks(count: int) -> Segmentation:
    masks = np.zeros((count, 60, 80), np.bool_)
    masks[:, 10:40, 10:40] = True
    return Segmentation(masks, np.ones(count, np.float32))


def discs(size_wh: tuple[int, int], count: int) -> NDArray[np.bool_]:
    """Discs in a row, each a third of the place it has."""
    width, height = size_wh
    masks = np.zeros((count, height, width), np.uint8)
    radius = max(1, min(width // (6 * count), height // 6))
    for index, mask in enumerate(masks):
        center = (width * (2 * index + 1) // (2 * count), height // 2)
        cv2.circle(mask, center, radius, 1, -1)
    return masks.view(np.bool_)


def answer(masks: NDArray[np.bool_]) -> Segmentation:
    return Segmentation(masks, np.linspace(0.9, 0.5, len(masks)).astype(np.float32))


def gray(size_wh: tuple[int, int], value: int = 128) -> RgbImage:
    return np.full((size_wh[1], size_wh[0], 3), value, np.uint8)


# ---- masks


def test_the_overlay_changes_the_object_and_nothing_far_from_it(image: RgbImage) -> None:
    before = image.copy()

    drawn = draw_overlay(image, some_masks(1), [PROMPT], labels=())

    changed = (drawn != image).any(axis=2)
    assert changed[10:40, 10:40].mean() > 0.95
    assert not changed[:, 44:].any()
    assert not changed[44:].any()
    assert drawn.dtype == np.uint8
    assert np.array_equal(image, before)


def test_nothing_found_draws_nothing(image: RgbImage) -> None:
    assert np.array_equal(draw_overlay(image, Segmentation.empty((80, 60))), image)


@pytest.mark.parametrize("size_wh", ODD_SIZES_WH)
@pytest.mark.parametrize("count", [1, 3])
def test_an_overlay_of_any_size_is_drawn(size_wh: tuple[int, int], count: int) -> None:
    masks = np.ones((count, size_wh[1], size_wh[0]), np.bool_)
    prompts = [ObjectPrompt(Box(0, 0, 0.5, 0.5), (Point(0, 0), Point(1e9, -1e9)))] * count

    drawn = draw_overlay(gray(size_wh), answer(masks), prompts)

    assert drawn.shape == (size_wh[1], size_wh[0], 3)
    assert (drawn != 128).any()


def test_a_box_far_outside_is_drawn_as_far_as_it_is_seen() -> None:
    prompt = ObjectPrompt(Box(-1e12, -1e12, 1e12, 1e12), ())
    assert draw_overlay(gray((80, 60)), some_masks(1), [prompt]).shape == (60, 80, 3)


def test_more_objects_than_colors_are_drawn(image: RgbImage) -> None:
    assert draw_overlay(image, some_masks(20), [PROMPT] * 20).shape == image.shape


def test_a_mask_that_is_noise_is_drawn() -> None:
    noise = np.random.default_rng(0).random((1, 300, 400)) > 0.5
    drawn = draw_overlay(gray((400, 300)), answer(noise))
    assert (drawn[noise[0]] != 128).any(axis=1).all()


def test_parts_that_do_not_belong_together_are_refused(image: RgbImage) -> None:
    with pytest.raises(ShapeError, match="60, 80"):
        draw_overlay(image, Segmentation.empty((60, 80)))
    with pytest.raises(InputError, match="1 prompts for 2 masks"):
        draw_overlay(image, some_masks(2), [PROMPT])
    with pytest.raises(InputError, match="1 labels for 2 masks"):
        draw_overlay(image, some_masks(2), labels=["a"])


@pytest.mark.parametrize(
    ("size_wh", "color"), [(SIZES_WH[0], color) for color in PALETTE] + [(SIZES_WH[1], PALETTE[2])]
)
def test_an_outline_is_seen_on_every_ground(
    size_wh: tuple[int, int], color: tuple[int, int, int]
) -> None:
    """On each ground a pixel of dark line or colored line is clearly another color, all around."""
    (mask,) = discs(size_wh, 1)
    rim = max(1, round(scale_of(gray(size_wh))))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (6 * rim + 1, 6 * rim + 1))
    grown = cv2.dilate(mask.view(np.uint8), kernel) > 0
    band = grown & ~(cv2.erode(mask.view(np.uint8), kernel) > 0)
    grounds = [(0, 0, 0), (90, 90, 90), (255, 255, 255), color]
    for ground in grounds:
        pixels = np.empty((*mask.shape, 3), np.uint8)
        pixels[:] = ground
        draw_outline(pixels, mask, color)
        apart = np.linalg.norm(to_lab(pixels[band]) - to_lab(np.array([ground], np.uint8)), axis=1)
        clear = np.zeros(mask.shape, np.uint8)
        clear[band] = apart > 20
        # From the middle, every direction meets it.
        contours, _ = cv2.findContours(clear, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        assert max(map(cv2.contourArea, contours)) > 0.9 * mask.sum()


def test_lines_and_letters_grow_with_the_image() -> None:
    """The same scene at 640x360 and at 4K, made smaller again, looks the same."""
    small, large = (640, 360), (3840, 2160)
    masks = discs(small, 2)
    big = masks.repeat(6, axis=1).repeat(6, axis=2)
    drawn = draw_overlay(gray(small), answer(masks))
    large_drawn = draw_overlay(gray(large), answer(big))
    shrunk = cv2.resize(large_drawn, small, interpolation=cv2.INTER_AREA)
    changed = [(pixels != 128).any(axis=2) for pixels in (drawn, shrunk)]
    assert (changed[0] & changed[1]).sum() > 0.85 * (changed[0] | changed[1]).sum()
    assert np.abs(drawn.astype(int) - shrunk).mean() < 2.0


# ---- labels


def is_apart(one: Place, other: Place) -> bool:
    return (
        one.right <= other.left
        or other.right <= one.left
        or one.bottom <= other.top
        or other.bottom <= one.top
    )


@pytest.mark.parametrize("size_wh", SIZES_WH)
@pytest.mark.parametrize("seed", range(5))
def test_labels_cover_no_object_and_no_other_label(size_wh: tuple[int, int], seed: int) -> None:
    width, height = size_wh
    rng = np.random.default_rng(seed)
    masks = np.zeros((9, height, width), np.uint8)
    for mask in masks:
        center = rng.integers((0, 0), size_wh).tolist()  # also at the image's border
        cv2.ellipse(mask, center, (width // 15, height // 20), seed * 30, 0, 360, 1, -1)
    size = (width // 11, height // 26)

    places = place_labels(masks.view(np.bool_), [size] * 9, 3)

    assert None not in places
    union = masks.any(axis=0)
    for place in places:
        assert 0 <= place.left < place.right <= width
        assert 0 <= place.top < place.bottom <= height
        assert not union[place.top : place.bottom, place.left : place.right].any()
        assert (place.right - place.left, place.bottom - place.top) == size
    assert all(is_apart(*pair) for pair in itertools.combinations(places, 2))


def test_the_only_free_place_is_found_though_it_is_far_away() -> None:
    mask = np.ones((1, 480, 640), np.bool_)
    mask[:, 400:460, 500:620] = False

    (place,) = place_labels(mask, [(60, 20)], 3)

    assert not mask[0, place.top : place.bottom, place.left : place.right].any()


def test_a_label_away_from_its_object_is_led_to_it() -> None:
    masks = np.zeros((2, 480, 640), np.bool_)
    masks[0] = True
    masks[0, :60, :120] = False
    masks[0, 300:320, 300:320] = False
    masks[1, 300:320, 300:320] = True
    places = place_labels(masks, [(60, 20)] * 2, 3)
    drawn = draw_overlay(gray((640, 480)), answer(masks), colors=[(0, 0, 0), (255, 0, 0)])
    red = (drawn[..., 0] > 150) & (drawn[..., 1:] < 90).all(axis=2)

    assert max(places[1].right, places[1].bottom) <= 120
    assert red[100:290, 60:300].sum() > 150


def test_without_room_labels_cover_little_or_are_left_out() -> None:
    full = np.ones((200, 480, 640), np.bool_)
    places = [place for place in place_labels(full, [(60, 20)] * 200, 3) if place]

    assert len(places) > 100
    assert all(is_apart(*pair) for pair in itertools.combinations(places, 2))
    assert place_labels(np.ones((1, 16, 16), np.bool_), [(40, 14)], 2) == [None]
    assert place_labels(np.zeros((1, 60, 80), np.bool_), [(10, 10)], 2) == [None]


# ---- text

TEXTS = [
    "the red mug",
    "请把红色的杯子给我",
    "дай кружку, Ελληνικά, עברית, العربية, हिन्दी, 한국어, 🙂",
    "x" * 5000,
    "a\x00b\x1b[31m\n\r\t\u202e\u2028\ud800\ufffe",
    "word " * 3000,
    "e" + "\u0301" * 900,
    "",
]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("size_wh", [*SIZES_WH, *ODD_SIZES_WH])
def test_a_caption_of_any_text_is_bounded(text: str, size_wh: tuple[int, int]) -> None:
    pixels = gray(size_wh)
    drawn = add_caption(pixels, text, text, max_lines=(2, 3))

    strip = drawn[size_wh[1] :]
    assert np.array_equal(drawn[: size_wh[1]], pixels)
    assert drawn.shape[1] == size_wh[0]
    assert 0 < len(strip) <= 8 * font_px(scale_of(pixels), 17)
    fixed = add_caption(pixels, text, text, max_lines=(2, 3), is_fixed=True)
    assert fixed.shape == add_caption(pixels, "a", max_lines=(2, 3), is_fixed=True).shape


@pytest.mark.parametrize("text", TEXTS[:-1])
def test_lines_are_no_wider_than_they_may_be(text: str) -> None:
    lines = wrap(text, 14, 300, 3)

    assert 0 < len(lines) <= 3
    assert all(text_width(line, 14) <= 300 for line in lines)
    is_cut = sum(map(len, lines)) < len(clean(text).replace(" ", ""))
    assert lines[-1].endswith("...") == is_cut


def test_what_is_read_is_written() -> None:
    assert wrap("the red mug", 14, 300, 2) == ["the red mug"]
    assert " ".join(wrap("one two three four five six", 14, 60, 9)) == (
        "one two three four five six"
    )


def test_control_characters_are_not_written() -> None:
    assert clean("a\x00b\n c\u202ed\ud800") == "ab cd"


def test_letters_of_many_scripts_are_not_all_the_same() -> None:
    """As the boxes for missing letters would be."""
    drawn = {add_caption(gray((200, 100)), char).tobytes() for char in "aЖΩ杯한あאب"}
    assert len(drawn) == 8
