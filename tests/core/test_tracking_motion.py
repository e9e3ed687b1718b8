"""How the camera moved, from two pictures of a place, and where things must be then."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from segzero_core import RgbImage
from segzero_core.tracking_motion import CameraMotion, Whereabouts

WIDTH, HEIGHT = 320, 240
CORNERS = np.array([[0.3, 0.3], [0.7, 0.3], [0.7, 0.7], [0.3, 0.7]])


def _place(seed: int = 0) -> RgbImage:
    """A table with many small things."""
    rng = np.random.default_rng(seed)
    image = np.full((HEIGHT, WIDTH, 3), (150, 120, 80), np.uint8)
    for _ in range(120):
        x, y, side = (int(v) for v in rng.integers((0, 0, 5), (WIDTH, HEIGHT, 25)))
        color = tuple(int(v) for v in rng.integers(0, 255, 3))
        cv2.rectangle(image, (x, y), (x + side, y + side), color, -1)
    return image


def _pixels_to_square(homography: np.ndarray) -> np.ndarray:
    scale = np.diag([WIDTH, HEIGHT, 1.0])
    return np.linalg.inv(scale) @ homography @ scale


def _applied(homography: np.ndarray, points: np.ndarray) -> np.ndarray:
    return cv2.perspectiveTransform(points[None].astype(np.float64), homography)[0]


@pytest.mark.parametrize(
    "homography",
    [
        pytest.param(np.array([[1, 0, 25], [0, 1, -12], [0, 0, 1.0]]), id="shifted"),
        pytest.param(
            np.vstack((cv2.getRotationMatrix2D((160, 120), 8, 1.05), [[0, 0, 1]])), id="turned"
        ),
        pytest.param(np.array([[1, 0.05, 4], [0, 1.04, 3], [2e-4, 1e-4, 1.0]]), id="tilted"),
    ],
)
def test_the_motion_between_two_pictures_is_found(homography: np.ndarray) -> None:
    first = _place()
    motion = CameraMotion()
    assert motion.step(first) is None
    found = motion.step(cv2.warpPerspective(first, homography, (WIDTH, HEIGHT)))
    assert found is not None
    expected = _applied(_pixels_to_square(homography), CORNERS)
    assert _applied(found, CORNERS) == pytest.approx(expected, abs=0.006)  # 2 of 320 px


def test_what_moves_by_itself_does_not_count() -> None:
    first = _place()
    second = first.copy()
    second[60:180, 200:300] = _place(1)[60:180, 200:300]  # an arm comes in
    motion = CameraMotion()
    motion.step(first)
    found = motion.step(second)
    assert found is not None
    assert _applied(found, CORNERS) == pytest.approx(CORNERS, abs=0.006)


@pytest.mark.parametrize("other", [np.zeros((HEIGHT, WIDTH, 3), np.uint8), _place(1)])
def test_two_pictures_of_different_places_have_no_motion(other: RgbImage) -> None:
    motion = CameraMotion()
    motion.step(_place())
    assert motion.step(other) is None


def _square_mask(left: int, top: int) -> np.ndarray:
    mask = np.zeros((48, 64), np.bool_)
    mask[top : top + 12, left : left + 16] = True
    return mask


def _known(left: int = 16, top: int = 12) -> Whereabouts:
    found = Whereabouts.of(_square_mask(left, top))
    assert found is not None
    return found


def _shift(x: float, y: float) -> np.ndarray:
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1.0]])


def test_a_place_is_drawn_where_the_mask_was() -> None:
    known = _known()
    assert known.centre == pytest.approx([24 / 64, 18 / 48])
    assert known.size == pytest.approx(0.24, abs=0.02)
    drawn, mask = known.mask((48, 64)), _square_mask(16, 12)
    assert (drawn & mask).sum() / (drawn | mask).sum() > 0.85
    assert known.mask((96, 128)).sum() == pytest.approx(4 * mask.sum(), rel=0.2)
    assert Whereabouts.of(np.zeros((48, 64), np.bool_)) is None


def test_a_place_moves_with_the_picture() -> None:
    moved = _known().moved(_shift(0.25, 0.0))
    assert moved is not None
    assert moved.missed == 1
    assert moved.centre == pytest.approx(_known(32).centre)
    gone = moved.moved(_shift(2.0, 0.0))
    assert gone is not None
    assert not gone.mask((48, 64)).any()
    back = gone.moved(_shift(-2.0, 0.0))
    assert back is not None
    assert back.centre == pytest.approx(moved.centre)


def test_what_lies_behind_the_camera_is_nowhere() -> None:
    assert _known().moved(np.array([[1, 0, 0], [0, 1, 0], [-4, 0, 1.0]])) is None


def test_the_longer_an_object_was_not_seen_the_further_it_may_be() -> None:
    known, near, far = _known(), _known(22), _known(40)
    assert known.may_be(near)
    assert not known.may_be(far)
    still = np.eye(3)
    later = known
    for _ in range(20):
        moved = later.moved(still)
        assert moved is not None
        later = moved
    assert later.may_be(far)
