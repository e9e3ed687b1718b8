"""Checks a reasoner's folder before transformers reads it: everything in it may be an attack.

What transformers would take for code, or for a name of code elsewhere, is refused, and so are
files that are none, and numbers that would take all memory before the weights are compared.
`docs/security.md` has the table.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from segzero_core.errors import ConfigError, ModelLoadError, shown
from segzero_core.files import open_regular, read_regular
from segzero_core.limits import MAX_JSON_BYTES, MAX_TOKENIZER_BYTES, MAX_WEIGHTS_BYTES

_VOCABULARY: Final = ("tokenizer.json", "vocab.json", "merges.txt", "added_tokens.json")
_LIMITS: Final = {
    ".json": MAX_JSON_BYTES,
    ".txt": MAX_TOKENIZER_BYTES,
    ".model": MAX_TOKENIZER_BYTES,
    ".jinja": MAX_JSON_BYTES,
    ".safetensors": MAX_WEIGHTS_BYTES,
}
_INDEX: Final = "model.safetensors.index.json"
_NOT_READ: Final = {
    "adapter_config.json": "adapters are not read; merge it into the weights",
    "additional_chat_templates": "a model has one chat template; remove the folder",
}
"""What transformers would read and this library has no use for, and what to do about it."""

_CODE_FIELDS: Final = (
    "auto_map",
    "custom_generate",
    "custom_pipelines",
    "attn_implementation",
    "_attn_implementation",
    "experts_implementation",
    "_experts_implementation",
)
"""Fields by which a file chooses code: of the folder, or kernels of the Hub."""

_LARGEST: Final = {
    "depth": 512,
    "num_hidden_layers": 512,
    "num_attention_heads": 1024,
    "num_heads": 1024,
    "num_key_value_heads": 1024,
    "head_dim": 4096,
    "embed_dim": 65_536,
    "hidden_size": 65_536,
    "out_hidden_size": 65_536,
    "intermediate_size": 1_000_000,
    "max_position_embeddings": 10_000_000,
    "vocab_size": 10_000_000,
    "in_channels": 64,
    "in_chans": 64,
    "patch_size": 256,
    "spatial_patch_size": 256,
    "temporal_patch_size": 16,
    "merge_size": 16,
    "spatial_merge_size": 16,
    "tokens_per_second": 1_000,
    "window_size": 65_536,
    "shortest_edge": 16_777_216,
    "min_pixels": 16_777_216,
    "longest_edge": 2**31,
    "max_pixels": 2**31,
    "num_beams": 1,
    "num_return_sequences": 1,
}
"""Numbers that decide about memory or time, wherever they stand, and the largest of each."""


def check_model_folder(folder: Path) -> None:
    """Refuse a folder that would make its reader run code, wait for ever, or take all memory.

    Raises:
        ConfigError: What is wrong, in which file.
        ModelLoadError: A file is no regular file, or too large.
    """
    for name, advice in _NOT_READ.items():
        if os.path.lexists(folder / name):
            raise ConfigError(f"{folder / name}: {advice}")
    for path in sorted(folder.iterdir()):
        limit = MAX_TOKENIZER_BYTES if path.name in _VOCABULARY else _LIMITS.get(path.suffix)
        if limit is None or (path.is_dir() and not path.is_symlink()):
            continue
        try:
            open_regular(path, limit).close()
        except OSError as error:
            raise ModelLoadError(f"{path} cannot be read: {error}") from error
        if path.suffix == ".json" and path.name not in _VOCABULARY:
            _check_values(path)


def _check_values(path: Path) -> None:
    try:
        values = json.loads(read_regular(path, MAX_JSON_BYTES))
    except RecursionError as error:  # another reader might get through
        raise ConfigError(f"{path}: its values are nested too deep") from error
    except (OSError, ValueError):
        return  # whoever reads it says what is wrong
    for name, value in _fields(values):
        if name in _CODE_FIELDS and value is not None:
            raise ConfigError(
                f"{path}: {name} names code, and a model folder is data; remove the field"
            )
        if name == "quantization_config" and not _is_bitsandbytes(value):
            raise ConfigError(f"{path}: {name}: only bitsandbytes is read; see precision")
        largest = _LARGEST.get(name)
        if largest is not None and isinstance(value, int | float) and not 0 <= value <= largest:
            raise ConfigError(
                f"{path}: {name}: expected 0 to {largest}, got {shown(str(value), 40)}"
            )
    if path.name == _INDEX:
        _check_index(path, values)


def _check_index(path: Path, values: Any) -> None:
    """Refuse shards that lie elsewhere."""
    files = values.get("weight_map") if isinstance(values, dict) else None
    for name in set(map(str, files.values())) if isinstance(files, dict) else ():
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise ConfigError(f"{path}: {shown(name)} is no safetensors file of this folder")


def _is_bitsandbytes(value: Any) -> bool:
    return isinstance(value, dict) and value.get("quant_method") == "bitsandbytes"


def _fields(values: Any) -> Iterator[tuple[str, Any]]:
    """Yield all fields of nested objects."""
    waiting = [values]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            yield from value.items()
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
