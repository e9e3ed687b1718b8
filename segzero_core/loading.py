"""Loads the parts of a pipeline: reasoner, encoder, segmenter and their identity."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import torch

from segzero_core.checkpoints.description import BUILT_IN, ModelDescription
from segzero_core.checkpoints.registry import ModelFiles, describe_model, find_model
from segzero_core.checkpoints.sam2_checkpoint import find_sam2
from segzero_core.checkpoints.weights import combined_hash, reasoner_hash
from segzero_core.cpu_threads import CpuThreads
from segzero_core.encoders.base import CachingEncoder
from segzero_core.errors import ConfigError, ModelLoadError, shown
from segzero_core.reasoner.base import Reasoner
from segzero_core.reasoner.fallback import NamedReasoner
from segzero_core.reasoner.image_tokens import tokens_of_folder, tokens_of_name
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
    fallbacks: Sequence[str] = (),
    reasoner_type: type[QwenReasoner] = QwenReasoner,
) -> tuple[Reasoner, CachingEncoder, Sam2Segmenter, ModelIdentity, tuple[NamedReasoner, ...]]:
    """Load all parts of a `SegZero`; see `SegZero.load`."""
    check_backend(backend, encoder_precision)
    chosen = choose_device(device)
    names = (model, *fallbacks)
    # The cheap question first: is the segmenter there at all, before gigabytes are read.
    sam_name = segmenter or _find(model).segmenter
    find_sam2(sam_name)
    if all(map(is_server_address, names)):
        _check_options_of_a_server(decode, precision)
    cores = CpuThreads() if chosen == "cpu" else None
    loaded = [
        load_reasoner(
            name,
            chosen,
            # A fallback may not know a template that was chosen for the model.
            template=template if name == model else None,
            max_new_tokens=max_new_tokens,
            decode=decode,
            precision=precision,
            grammar=grammar,
            cores=cores,
            may_be_down=len(names) > 1,
            reasoner_type=reasoner_type,
        )
        for name in names
    ]
    sam = load_segmenter(sam_name, chosen)
    encoder = choose_encoder(sam, chosen, backend, encoder_precision)
    _LOG.info("image encoder %s: %s", encoder.encoder.backend, encoder.reason)
    first, *others = (
        NamedReasoner(
            ModelIdentity(
                each.name,
                combined_hash([each.digest, sam.weights_hash]),
                encoder.encoder.backend,
                encoder.reason,
            ),
            each.reasoner,
        )
        for each in loaded
    )
    caching = CachingEncoder(encoder.encoder, cores)
    return first.reasoner, caching, sam.segmenter, first.identity, tuple(others)


@dataclass(frozen=True, slots=True)
class LoadedReasoner:
    """A reasoner, ready to be asked."""

    name: str  # what it was called by
    reasoner: Reasoner  # Answers
    digest: str  # hash of its files; of its address where it is on a server, which shows none


def load_reasoner(
    model: str,
    device: str,
    *,
    template: str | None = None,
    max_new_tokens: int | None = None,
    decode: str = "auto",
    precision: str = "auto",
    grammar: bool = False,
    cores: CpuThreads | None = None,
    may_be_down: bool = False,
    reasoner_type: type[QwenReasoner] = QwenReasoner,
) -> LoadedReasoner:
    """Load a reasoner without a segmenter, or connect to one; see `SegZero.load` for the options.

    `cores` are shared with the image encoder. A server that `may_be_down` and cannot be reached is
    checked before its first reply instead. A local reasoner is of `reasoner_type`.
    """
    files = _find(model)
    description = adapt(files.description, template, max_new_tokens)
    if is_server_address(model):
        server = ServerAddress.parse(model)
        remote = RemoteReasoner(server, description, structured=grammar)
        try:
            tokens = tokens_of_folder(files.reasoner) or tokens_of_name(description.name)
            remote.check(tokens, later=may_be_down)
        except Exception:
            remote.close()
            raise
        digest = hashlib.sha256(str(server).encode()).hexdigest()
        return LoadedReasoner(files.name, remote, digest)
    if not any(files.reasoner.glob("*.safetensors")):
        raise ModelLoadError(
            f"{files.reasoner} has no *.safetensors; weights in other formats are not read"
        )
    local = reasoner_type(
        files.reasoner,
        description,
        device,
        dtype=precision,
        decode=decode,
        grammar=grammar,
        cores=cores,
    )
    return LoadedReasoner(files.name, local, reasoner_hash(files.reasoner))


def _find(model: str) -> ModelFiles:
    return _served(ServerAddress.parse(model)) if is_server_address(model) else find_model(model)


def _served(server: ServerAddress) -> ModelFiles:
    files = describe_model(server.described_as)
    if files is None:
        raise ConfigError(
            f"{server}: how {shown(server.described_as)} is asked is not known; write"
            f" {server.url}#{server.served_name}=NAME with a folder that holds a segzero.json, or"
            f" one of {', '.join(BUILT_IN)}"
        )
    return replace(files, name=str(server))


def _check_options_of_a_server(decode: str, precision: str) -> None:
    for name, value in (("decode", decode), ("precision", precision)):
        if value != "auto":
            raise ConfigError(f"{name}: {value!r} is for a local reasoner; the server decides it")


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
