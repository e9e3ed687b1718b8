"""Writes a trained segmenter as `segzero_core` loads it: a YAML file and a safetensors file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from segzero_core.checkpoints.sam2_architecture import config_text
from segzero_core.checkpoints.weights import SUMS_FILE, file_digest
from segzero_core.files import write_atomically
from training.bundle.loop import WEIGHTS_FILE
from training.bundle.segmenter.model import ModelSize, model_config

CONFIG_FILE = "config.yaml"


def export(
    model: Any, size: ModelSize, folder: Path, metadata: Mapping[str, str] | None = None
) -> None:
    """Write configuration and float16 weights; see `write_segmenter`."""
    weights = {
        name: (tensor.half() if tensor.is_floating_point() else tensor).detach()
        for name, tensor in model.state_dict().items()
    }
    text = config_text({"model": model_config(size), "segzero": {"memory": "untrained"}})
    comment = "# A small SAM 2 for the tabletop world; read by sam2 1.1.0.\n"
    write_segmenter(folder, weights, comment + text, metadata)


def write_segmenter(
    folder: Path,
    weights: Mapping[str, torch.Tensor],
    config: str,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write weights in the types they have, configuration (YAML) and checksum, each in one step.

    Raises:
        ValueError: A weight is not finite in its type.
    """
    if not all(torch.isfinite(tensor).all() for tensor in weights.values()):
        raise ValueError("some weights do not fit into the type they are stored in")
    folder.mkdir(parents=True, exist_ok=True)
    stored = {name: tensor.contiguous() for name, tensor in weights.items()}
    header = {"format": "pt", **(metadata or {})}
    write_atomically(folder / WEIGHTS_FILE, lambda file: save_file(stored, file, header))
    write_atomically(folder / CONFIG_FILE, config)
    digest = file_digest(folder / WEIGHTS_FILE)
    write_atomically(folder / SUMS_FILE, f"{digest}  {WEIGHTS_FILE}\n")
