"""Image tokens and the objects that they show."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from training.bundle.reasoner.data import Scenes, cell_owners
from training.bundle.reasoner.tabletop.world import WORLD

CELLS = 12


def test_every_object_owns_a_cell_and_no_cell_shows_bare_table(scenes: Path) -> None:
    for path in sorted(scenes.iterdir()):
        instances = np.asarray(Image.open(path / "instances.png")).astype(np.uint16)
        owners = cell_owners(instances, CELLS)
        assert owners.shape == (CELLS**2,)
        assert set(np.unique(owners)) - {0} == set(np.unique(instances)) - {0}
        rows, columns = instances.shape
        for cell in np.flatnonzero(owners):
            top, left = cell // CELLS * rows // CELLS, cell % CELLS * columns // CELLS
            block = instances[top : top + rows // CELLS, left : left + columns // CELLS]
            assert (block == owners[cell]).any()


def test_folders_without_a_scene_are_an_error_and_no_endless_search(tmp_path: Path) -> None:
    scenes = iter(Scenes(WORLD, [tmp_path], None, questions=0, seed=0))
    with pytest.raises(FileNotFoundError, match=r"no \*/scene.json"):
        next(scenes)
