"""Camera model: rays, projection and the calibrations that are refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from segzero_core.depth import CameraModel
from segzero_core.errors import InputError

K = [[300.0, 0.0, 159.5], [0.0, 300.0, 119.5], [0.0, 0.0, 1.0]]


@pytest.mark.parametrize(
    ("distortion", "model"),
    [
        pytest.param((), "", id="none"),
        pytest.param((-0.25, 0.08, 0.001, -0.002, 0.01), "", id="plumb bob"),
        pytest.param((0.1, -0.05, 0.001, 0.001, 0.02, 0.05, -0.02, 0.01), "", id="rational"),
        pytest.param((0.05, -0.01, 0.002, -0.001), "equidistant", id="equidistant"),
    ],
)
def test_rays_lead_back_to_their_pixels(distortion: tuple[float, ...], model: str) -> None:
    k = [[300.0, 0.0, 150.0], [0.0, 240.0, 110.0], [0.0, 0.0, 1.0]]  # pixels are not square
    camera = CameraModel(k, distortion, (320, 240), model)
    pixels = np.random.default_rng(0).uniform((0, 0), (319, 239), (200, 2))
    rays = camera.rays(pixels)
    points = np.column_stack((rays, np.ones(len(rays)))) * 0.7
    assert camera.pixels(points) == pytest.approx(pixels, abs=0.1)


@pytest.mark.parametrize(
    ("k", "distortion", "model", "complaint"),
    [
        pytest.param(np.zeros((3, 3)), (), "", "is the camera calibrated", id="zero K"),
        pytest.param(np.eye(2), (), "", "camera matrix K", id="shape of K"),
        pytest.param([[np.nan] * 3] * 3, (), "", "camera matrix K", id="K is not finite"),
        pytest.param(K, (0.1, 0.2), "", "4 or 5 coefficients", id="two coefficients"),
        pytest.param(K, (0.1,) * 4, "fancy", "none of plumb_bob", id="unknown model"),
        pytest.param(K, (np.inf,) * 5, "", "not all numbers are finite", id="infinite"),
    ],
)
def test_a_camera_that_is_none_is_refused(
    k: Any, distortion: tuple[float, ...], model: str, complaint: str
) -> None:
    with pytest.raises(InputError, match=complaint):
        CameraModel(k, distortion, (320, 240), model)
