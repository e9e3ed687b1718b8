"""Which cells of a frame look like an object."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from segzero_core.tracking.appearance import AppearanceModel

EVERYWHERE = np.ones((24, 24), np.bool_)


def _features(**values: float) -> torch.Tensor:
    """Two features of a table with objects on it, each with a value of its own."""
    generator = torch.Generator().manual_seed(0)
    fine = 0.05 * torch.randn(1, 2, 24, 24, generator=generator)
    for name, value in values.items():
        fine[:, 0][:, *PLACES[name]] += value
    return fine


PLACES = {
    "top": (slice(4, 8), slice(4, 12)),
    "bottom": (slice(8, 12), slice(4, 12)),
    "other": (slice(4, 12), slice(14, 22)),
}


def _covered(*names: str) -> torch.Tensor:
    covered = torch.zeros(1, 1, 24, 24)
    for name in names:
        covered[0, 0][PLACES[name]] = 1
    return covered


def _cells(*names: str) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    return _covered(*names)[0, 0].numpy() > 0


def test_an_object_in_two_colors_is_known_by_both_and_a_third_is_not_it() -> None:
    fine = _features(top=1.0, bottom=3.0, other=2.0)
    appearance = AppearanceModel(fine, _covered("top", "bottom"))
    moved = torch.roll(fine, (6, 2), (2, 3))
    expected = np.roll(_cells("top", "bottom"), (6, 2), (0, 1))
    np.testing.assert_array_equal(appearance.matching_cells(moved, EVERYWHERE), expected)


def test_nothing_is_found_where_it_is_not_looked() -> None:
    fine = _features(top=1.0)
    appearance = AppearanceModel(fine, _covered("top"))
    where = _cells("other")
    assert not appearance.matching_cells(fine, where).any()
    assert not appearance.matching_cells(fine, np.zeros_like(where)).any()


def test_what_is_learned_later_replaces_what_was_learned_later_and_not_the_first() -> None:
    first, dark, darker = (_features(top=value, other=value + 3) for value in (0.8, -3.0, -6.0))
    appearance, top = AppearanceModel(first, _covered("top")), _cells("top")
    assert not appearance.matching_cells(dark, top).any()
    appearance.update(dark, _covered("top"))
    np.testing.assert_array_equal(appearance.matching_cells(dark, top), top)
    appearance.update(darker, _covered("top"))
    for known in (first, darker):
        np.testing.assert_array_equal(appearance.matching_cells(known, top), top)


def test_units_of_the_features_do_not_matter() -> None:
    fine = _features(top=1.0, other=2.0)
    units = torch.tensor([1.0, 1000.0]).view(1, 2, 1, 1)
    plain = AppearanceModel(fine, _covered("top")).matching_cells(fine, EVERYWHERE)
    scaled = AppearanceModel(fine * units + 7, _covered("top")).matching_cells(
        fine * units + 7, EVERYWHERE
    )
    np.testing.assert_array_equal(plain, scaled)


@pytest.mark.parametrize("share", [0.01, 0.3])
def test_an_object_smaller_than_a_cell_is_known_by_the_cell_it_covers_most(share: float) -> None:
    fine, covered = _features(), torch.zeros(1, 1, 24, 24)
    fine[..., 7, 9] = 5.0
    covered[..., 7, 9], covered[..., 7, 10] = share, share / 2
    found = AppearanceModel(fine, covered).matching_cells(fine, EVERYWHERE)
    assert np.argwhere(found).tolist() == [[7, 9]]


def test_an_object_that_fills_the_frame_is_everywhere() -> None:
    fine = _features(top=1.0)
    appearance = AppearanceModel(fine, torch.ones(1, 1, 24, 24))
    assert appearance.matching_cells(fine, EVERYWHERE).all()


def test_of_a_large_frame_some_cells_are_known_and_that_is_enough() -> None:
    fine = _features(top=1.0, other=2.0).repeat_interleave(8, 2).repeat_interleave(8, 3)
    fine = fine + 0.01 * torch.randn(fine.shape, generator=torch.Generator().manual_seed(1))
    covered = _covered("top").repeat_interleave(8, 2).repeat_interleave(8, 3)
    appearance = AppearanceModel(fine, covered)
    found = appearance.matching_cells(fine, np.ones((192, 192), np.bool_))
    assert (found == (covered[0, 0].numpy() > 0)).mean() > 0.99
