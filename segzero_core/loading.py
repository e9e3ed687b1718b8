"""Loads the parts of a pipeline: reasoner, encoder, segmenter, and what to call them."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Final

import torch

from segzero_core.checkpoints.description import ModelDescription
from segzero_core.checkpoints.registry import find_model
from segzero_core.checkpoints.sam2_checkpoint import find_sam2
from segzero_core.checkpoints.weights import combined_hash, weights_hash
from segzero_core.cpu_threads import Cores
from segzero_core.encoders.base import RememberingEncoder
from segzero_core.errors import ConfigError, ModelLoadError, shown
from segzero_core.reasoner.qwen import QwenReasoner
from segzero_core.segmenter.encoder_selection import check_backend, choose_encoder
from segzero_core.segmenter.sam2 import Sam2Segmenter, load_segmenter
from segzero_core.types import ModelIdentity

_LOG: Final = logging.getLogger(__name__)


def load_parts(
    model: str,
    segmenter: str | None,
    device: str,
    template: str | None,
    max_new_tokens: int | None,
    *,
    backend: str = "auto",
    encoder_precision: str = "auto",
    decode: str = "auto",
    precision: str = "auto",
    grammar: bool = False,
    reasoner_type: type[QwenReasoner] = QwenReasoner,
) -> tuple[QwenReasoner, RememberingEncoder, Sam2Segmenter, ModelIdentity]:
    """Load everything that `SegZero` is made of; see `SegZero.load`."""
    check_backend(backend, encoder_precision)
    chosen = choose_device(device)
    files = find_model(model)
    description = adapt(files.description, template, max_new_tokens)
    # The cheap question first: is the segmenter there at all, before gigabytes are read.
    sam_name = segmenter or files.segmenter
    find_sam2(sam_name)
    weight_files = sorted(files.reasoner.glob("*.safetensors"))
    if not weight_files:
        raise ModelLoadError(
            f"{files.reasoner} has no *.safetensors; weights in other formats are not read"
        )
    reasoner_hash = weights_hash(weight_files)
    cores = Cores() if chosen == "cpu" else None
    reasoner = reasoner_type(
        files.reasoner,
        description,
        chosen,
        dtype=precision,
        decode=decode,
        grammar=grammar,
        cores=cores,
    )
    sam = load_segmenter(sam_name, chosen)
    encoder = choose_encoder(sam, chosen, backend, encoder_precision)
    _LOG.info("image encoder %s: %s", encoder.encoder.backend, encoder.reason)
    digest = combined_hash([reasoner_hash, sam.weights_hash])
    identity = ModelIdentity(files.name, digest, encoder.encoder.backend, encoder.reason)
    return reasoner, RememberingEncoder(encoder.encoder, cores), sam.segmenter, identity


def choose_device(device: str) -> str:
    """Return the torch device that a setting means.

    Raises:
        ConfigError: It is no device, or this machine does not have it.
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        chosen = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ConfigError(
            f"device: {shown(str(device))} is none; try auto, cpu or cuda"
        ) from error
    if chosen.type not in ("cpu", "cuda"):
        raise ConfigError(f"device: expected auto, cpu or cuda, got {shown(device)}")
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"device: {shown(device)} is not there; torch sees {torch.cuda.device_count()} GPUs"
        )
    return device


def adapt(
    description: ModelDescription, template: str | None, max_new_tokens: int | None
) -> ModelDescription:
    """Return the description with the caller's template and limit.

    Raises:
        ConfigError: The model was not trained with that template, or the limit is no number.
    """
    changes: dict[str, object] = {}
    if template is not None:
        changes["prompt_template"] = template
    if max_new_tokens is not None:
        changes["max_new_tokens"] = max_new_tokens
    return replace(description, **changes)  # type: ignore[arg-type]
