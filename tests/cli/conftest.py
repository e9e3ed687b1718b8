"""A tiny model, an image file, and a way to run the command."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

# No test may wait for a network; huggingface_hub reads this at its first import.
os.environ["HF_HUB_OFFLINE"] = "1"


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Run `segzero` in this process with these arguments."""

    def call(*arguments: object) -> Outcome:
        from segzero_cli.main import main

        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return call


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.tiny_models import save_tiny_model

    return save_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def image_file(tmp_path: Path) -> Path:
    from segzero_core.images.files import save_image

    pixels = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    save_image(tmp_path / "table.png", pixels)
    return tmp_path / "table.png"
