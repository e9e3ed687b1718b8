"""Model folders to attack with, and a witness that nothing of them was run."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.tiny_models import save_tiny_model


@pytest.fixture(scope="session")
def good_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("good") / "model")


@pytest.fixture
def model(good_model: Path, tmp_path: Path) -> Path:
    """A copy of a good model folder, to put an attack into."""
    return Path(shutil.copytree(good_model, tmp_path / "model"))


@pytest.fixture
def reasoner(model: Path) -> Path:
    return model / "reasoner"


class Payload:
    """Pickled, it writes a file when it is loaded by whoever runs what a pickle says."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple:
        return Path.touch, (self.witness,)


@pytest.fixture
def witness(tmp_path: Path) -> Path:
    """A file that only an attack writes."""
    return tmp_path / "it-ran"


@pytest.fixture
def payload(witness: Path) -> Payload:
    return Payload(witness)
