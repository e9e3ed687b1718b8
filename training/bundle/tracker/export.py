"""Write a segmenter with a trained memory: what is not trained is copied bit for bit."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from segzero_core.checkpoints.sam2_architecture import config_text, read_config
from segzero_core.checkpoints.sam2_checkpoint import find_sam2, read_state
from training.bundle.segmenter.export import CONFIG_FILE, WEIGHTS_FILE

SUMS_FILE = "SHA256SUMS"


def export(model: Any, trained: Sequence[str], base: Path, folder: Path) -> None:
    """Save configuration and weights, each in one step: a reader never sees half a file.

    Args:
        model: The segmenter with its trained memory, at the resolution of tracking.
        trained: Beginnings of the names of what was trained.
        base: The segmenter that it comes from.
        folder: Where to write to.

    Raises:
        ValueError: Some weights do not fit into float16.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = find_sam2(str(base))
    weights = read_state(files.weights)
    for name, tensor in model.state_dict().items():
        if name.startswith(tuple(trained)):
            weights[name] = tensor.detach().to(weights[name].dtype).contiguous()
    if not all(torch.isfinite(tensor).all() for tensor in weights.values()):
        raise ValueError("some weights do not fit into the type they are stored in")
    config = read_config(files.config)
    config["model"]["num_maskmem"] = model.num_maskmem
    config["segzero"] = {
        "memory": "trained",
        "tracking_side": model.image_size,
        "careful": True,
    }
    partial = folder / "partial.tmp"
    save_file(weights, partial, metadata={"format": "pt"})
    partial.chmod(0o644)
    os.replace(partial, folder / WEIGHTS_FILE)
    first_line = files.config.read_text(encoding="utf-8").splitlines()[0]
    comment = f"{first_line}\n" if first_line.startswith("#") else ""
    partial.write_text(comment + config_text(config), encoding="utf-8")
    os.replace(partial, folder / CONFIG_FILE)
    digest = hashlib.sha256((folder / WEIGHTS_FILE).read_bytes()).hexdigest()
    (folder / SUMS_FILE).write_text(f"{digest}  {WEIGHTS_FILE}\n", encoding="utf-8")
