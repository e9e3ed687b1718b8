"""Writes a segmenter with a trained memory: untrained weights are copied bit for bit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from segzero_core.checkpoints.sam2_architecture import config_text, read_config
from segzero_core.checkpoints.sam2_checkpoint import find_sam2, read_state
from training.bundle.segmenter.export import write_segmenter


def export(
    model: Any,
    trained: Sequence[str],
    base: Path,
    folder: Path,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write a segmenter with a trained memory, at tracking's resolution; see `write_segmenter`.

    `trained` are prefixes of the names of the trained weights, `base` is the segmenter they come
    from.

    Raises:
        ValueError: Some weights do not fit into float16.
    """
    files = find_sam2(str(base))
    weights = read_state(files.weights)
    for name, tensor in model.state_dict().items():
        if name.startswith(tuple(trained)):
            weights[name] = tensor.detach().to(weights[name].dtype)
    config = read_config(files.config)
    config["model"]["num_maskmem"] = model.num_maskmem
    config["segzero"] = {"memory": "trained", "tracking_side": model.image_size, "careful": True}
    first_line = files.config.read_text(encoding="utf-8").splitlines()[0]
    comment = f"{first_line}\n" if first_line.startswith("#") else ""
    write_segmenter(folder, weights, comment + config_text(config), metadata)
