"""Rendered scenes, and the processor of a small reasoner."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import AutoProcessor

from training.bundle.reasoner.tabletop.world import WORLD
from training.bundle.reasoner.tokenizer import build_processor, build_tokenizer
from worlds.tabletop import Scene
from worlds.tabletop.render import main as render


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("training_scenes")
    assert render(["--seed", "0", "--count", "6", "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def objects(scenes: Path) -> list:
    paths = sorted(scenes.glob("*/scene.json"))
    return [Scene.from_json(path.read_text()).objects for path in paths]


@pytest.fixture(scope="module")
def processor(scenes: Path, tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("processor")
    paths = sorted(scenes.glob("*/scene.json")) * 20
    build_processor(build_tokenizer(WORLD.texts(paths, 0), WORLD)).save_pretrained(folder)
    return AutoProcessor.from_pretrained(folder)
