"""Tiny models in the published formats, made once for all tests of the core."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from segzero_core.types import RgbImage

# No test may wait for a network; huggingface_hub reads this at its first import.
os.environ["HF_HUB_OFFLINE"] = "1"


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with reasoner/ and segmenter/; the reasoner always says `TINY_REPLY`."""
    from tests.tiny_models import save_tiny_model

    return save_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def image() -> RgbImage:
    return np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
