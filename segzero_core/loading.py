"""Loads the parts of a pipeline: reasoner, encoder, segmenter, and what to call them."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import replace
from typing import Final

import torch

from segzero_core.checkpoints.description import BUILT_IN, ModelDescription
from segzero_core.checkpoints.registry import ModelFiles, describe_model, find_model
from segzero_core.checkpoints.sam2_checkpoint import find_sam2
from segzero_core.checkpoints.weights import combined_hash, weights_hash
from segzero_core.cpu_threads import Cores
from segzero_core.encoders.base import CachingEncoder
from segzero_core.errors import ConfigError, ModelLoadError, shown
from segzero_core.reasoner.base import Reasoner
from segzero_core.reasoner.image_tokens import QWEN2_5_VL, tokens_of_folder
from segzero_core.reasoner.qwen import QwenReasoner
from segzero_core.reasoner.remote import RemoteReasoner
from segzero_core.reasoner.server_address import ServerAddress, is_server_address
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
) -> tuple[Reasoner, CachingEncoder, Sam2Segmenter, ModelIdentity]:
    """Load everything that `SegZero` is made of; see `SegZero.load`."""
    check_backend(backend, encoder_precision)
    chosen = choose_device(device)
    server = ServerAddress.parse(model) if is_server_address(model) else None
    files = _served(server) if server else find_model(model)
    description = adapt(files.description, template, max_new_tokens)
    # The cheap question first: is the segmenter there at all, before gigabytes are read.
    sam_name = segmenter or files.segmenter
    find_sam2(sam_name)
    cores = Cores() if chosen == "cpu" else None
    reasoner: Reasoner
    if server:
        _check_options_of_a_server(decode, precision, grammar=grammar)
        reasoner, reasoner_hash = _connect(server, files, description)
    else:
        weight_files = sorted(files.reasoner.glob("*.safetensors"))
        if not weight_files:
            raise ModelLoadError(
                f"{files.reasoner} has no *.safetensors; weights in other formats are not read"
            )
        reasoner_hash = weights_hash(weight_files)
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
    return reasoner, CachingEncoder(encoder.encoder, cores), sam.segmenter, identity


def _served(server: ServerAddress) -> ModelFiles:
    files = describe_model(server.described_as)
    if files is None:
        raise ConfigError(
            f"{server}: how {shown(server.described_as)} is asked is not known; write"
            f" {server.url}#{server.served_name}=NAME with a folder that holds a segzero.json, or"
            f" one of {', '.join(BUILT_IN)}"
        )
    return replace(files, name=str(server))


def _check_options_of_a_server(decode: str, precision: str, *, grammar: bool) -> None:
    for name, value, default in (
        ("decode", decode, "auto"),
        ("precision", precision, "auto"),
        ("grammar", grammar, False),
    ):
        if value != default:
            raise ConfigError(f"{name}: {value!r} is for a local reasoner; the server decides it")


def _connect(
    server: ServerAddress, files: ModelFiles, description: ModelDescription
) -> tuple[RemoteReasoner, str]:
    """Return a checked reasoner on a server, and a hash of its address: it shows no weights."""
    reasoner = RemoteReasoner(server, description)
    try:
        reasoner.check(tokens_of_folder(files.reasoner) or QWEN2_5_VL)
    except Exception:
        reasoner.close()
        raise
    return reasoner, hashlib.sha256(str(server).encode()).hexdigest()


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
