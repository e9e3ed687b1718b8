"""Write a trained segmenter as `segzero_core` loads it: one yaml, one float16 safetensors file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from segzero_core.checkpoints.sam2_architecture import config_text
from training.bundle.segmenter.model import ModelSize, model_config

CONFIG_FILE = "config.yaml"
WEIGHTS_FILE = "model.safetensors"


def export(model: Any, size: ModelSize, folder: Path) -> None:
    """Save configuration and weights, each in one step: a reader never sees half a file."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {
        name: (tensor.half() if tensor.is_floating_point() else tensor).detach().contiguous()
        for name, tensor in model.state_dict().items()
    }
    if not all(torch.isfinite(tensor).all() for tensor in weights.values()):
        raise ValueError("some weights do not fit into float16")
    partial = folder / "partial.tmp"
    save_file(weights, partial, metadata={"format": "pt"})
    partial.chmod(0o644)
    os.replace(partial, folder / WEIGHTS_FILE)
    text = config_text({"model": model_config(size), "segzero": {"memory": "untrained"}})
    partial.write_text(
        f"# A small SAM 2 for the tabletop world; read by sam2 1.1.0.\n{text}", encoding="utf-8"
    )
    os.replace(partial, folder / CONFIG_FILE)
