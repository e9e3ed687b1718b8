"""Loads SAM 2 from the files it is published in: one configuration and one weights file.

Both are read as data: `sam2_architecture` builds from plain values, and weights are tensors only.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import torch
from safetensors.torch import load_file
from torch import nn

from segzero_core.checkpoints.pickle_check import check_pt
from segzero_core.checkpoints.registry import fetch_from_hub, is_hub_id, local_folder
from segzero_core.checkpoints.sam2_architecture import build_sam2, read_config, state_shapes
from segzero_core.checkpoints.weights import weights_hash
from segzero_core.errors import ConfigError, ModelLoadError, shown
from segzero_core.files import open_regular
from segzero_core.limits import MAX_WEIGHTS_BYTES

# Hub id -> configuration inside the sam2 package, weights file in the Hub repository.
_PUBLISHED: Final = {
    f"facebook/sam{version}-hiera-{size}": (
        f"configs/sam{version}/sam{version}_hiera_{letter}.yaml",
        f"sam{version}_hiera_{size.replace('-', '_')}.pt",
    )
    for version in ("2", "2.1")
    for size, letter in (("tiny", "t"), ("small", "s"), ("base-plus", "b+"), ("large", "l"))
}
_WEIGHT_SUFFIXES: Final = (".safetensors", ".pt")
_NAMES_SHOWN: Final = 3
_MAX_SIDE: Final = 4096


@dataclass(frozen=True, slots=True)
class Sam2Files:
    """The two files of one SAM 2."""

    name: str  # the folder or Hub id it was called by
    config: Path  # the configuration, in sam2's own form
    weights: Path  # a `.safetensors` file, or a `.pt` file with `{"model": state_dict}`


def find_sam2(name: str) -> Sam2Files:
    """Find a SAM 2 by folder or Hub id.

    Raises:
        ConfigError: The folder does not hold exactly one configuration and one weights file.
        ModelLoadError: It is nowhere.
    """
    if (folder := local_folder(name)) is not None:
        config = _only_file(folder, (".yaml", ".yml"), "configuration")
        return Sam2Files(name, config, _only_file(folder, _WEIGHT_SUFFIXES, "weights file"))
    if name in _PUBLISHED:
        config_name, weights_name = _PUBLISHED[name]
        weights = fetch_from_hub(name, [weights_name]) / weights_name
        return Sam2Files(name, package_config(config_name), weights)
    known = ", ".join(_PUBLISHED)
    if is_hub_id(name):
        raise ModelLoadError(
            f"segmenter {shown(name)}: no such folder, and not among the published ones ({known})"
        )
    raise ModelLoadError(f"segmenter {shown(name)}: no such folder; by Hub id there are {known}")


def segmenter_hash(files: Sam2Files) -> str:
    """Return the hash of a SAM 2: of its configuration too, which changes its masks.

    Raises:
        ModelLoadError: As `weights_hash`.
    """
    return weights_hash([files.config, files.weights])


def package_config(name: str) -> Path:
    """Return the path of a configuration in the sam2 package: `configs/sam2/sam2_hiera_l.yaml`.

    Raises:
        ModelLoadError: The installed sam2 does not have it.
    """
    import sam2

    path = Path(next(iter(sam2.__path__))) / name
    if not path.is_file():
        raise ModelLoadError(f"the installed sam2 has no {name}; it needs sam2 1.1 or later")
    return path


def load_sam2(files: Sam2Files, device: torch.device) -> nn.Module:
    """Build a SAM 2 and put its weights in, as float32, ready for inference.

    Raises:
        ConfigError: See `build_sam2`.
        ModelLoadError: The weights are damaged, or belong to another configuration.
    """
    state = read_state(files.weights)
    _check_fit(state_shapes(files.config), state, files)
    model = build_sam2(files.config)
    model.load_state_dict(state)
    return model.float().to(device).requires_grad_(requires_grad=False)


def at_side(model: nn.Module, side: int) -> nn.Module:
    """Return a twin of a SAM2Base that takes images of another size; both share all weights.

    Args:
        model: A `SAM2Base`; no weight of it depends on the size of its images.
        side: Of the square that the twin takes [px]; a multiple of the features' stride.

    Raises:
        ConfigError: The side is no such multiple.
    """
    source = cast(Any, model)
    grid, rest = divmod(side, source.backbone_stride)
    if grid < 1 or rest:
        raise ConfigError(f"side: {side} is no multiple of {source.backbone_stride}")
    twin, prompts = copy.copy(source), copy.copy(source.sam_prompt_encoder)
    prompts.image_embedding_size = (grid, grid)
    prompts.input_image_size = (side, side)
    prompts.mask_input_size = (4 * grid, 4 * grid)
    twin.__dict__["_modules"] = {**source._modules, "sam_prompt_encoder": prompts}
    twin.image_size, twin.sam_image_embedding_size = side, grid
    return cast(nn.Module, twin)


@dataclass(frozen=True, slots=True)
class TrackingFacts:
    """What a configuration file says about following objects, in its section `segzero:`."""

    # `trained`, `untrained`, or empty where it says nothing, as published ones do.
    memory: str = ""
    side: int = 0  # side of the images to follow objects in [px]; 0: the model's own
    careful: bool = False  # what memory finds is drawn and checked again; see `ObjectMemory`

    def __post_init__(self) -> None:
        if self.memory not in ("", "trained", "untrained"):
            raise ConfigError(f"memory: {self.memory!r} is neither trained nor untrained")
        if type(self.side) is not int or not (self.side == 0 or 64 <= self.side <= _MAX_SIDE):
            raise ConfigError(
                f"tracking_side: expected 64 to {_MAX_SIDE} px, or 0 for the model's own, got"
                f" {shown(repr(self.side))}"
            )
        if type(self.careful) is not bool:
            raise ConfigError(f"careful: {self.careful!r} is neither true nor false")


def read_tracking_facts(config: Path) -> TrackingFacts:
    """Read what a configuration file says about following objects.

    Raises:
        ConfigError: The file is unreadable, or what it says is wrong.
    """
    section = read_config(config).get("segzero")
    if section is None:
        return TrackingFacts()
    if not isinstance(section, dict):
        raise ConfigError(f"{config}: segzero: expected a section, got {section!r}")
    if unknown := sorted(set(map(str, section)) - {"memory", "tracking_side", "careful"}):
        raise ConfigError(f"{config}: segzero: unknown fields {unknown}")
    try:
        return TrackingFacts(
            section.get("memory", ""),
            section.get("tracking_side", 0),
            section.get("careful", False),
        )
    except ConfigError as error:
        raise ConfigError(f"{config}: {error}") from None


def image_side(model: nn.Module) -> int:
    """Return the side of the square that a SAM 2's encoder takes [px]."""
    return int(cast(int, model.image_size))


def read_state(path: Path) -> dict[str, torch.Tensor]:
    """Read a weights file into tensors on the CPU.

    Raises:
        ModelLoadError: It is missing, damaged, or holds something else.
    """
    try:
        open_regular(path, MAX_WEIGHTS_BYTES).close()
        if path.suffix == ".safetensors":
            state: Any = load_file(path)
        else:
            check_pt(path)
            state = torch.load(path, map_location="cpu", weights_only=True)
    except ModelLoadError:
        raise
    except Exception as error:  # of the system, of safetensors, and any of torch's unpickler
        line = (str(error).splitlines() or [type(error).__name__])[0]
        raise ModelLoadError(
            f"{path} is missing or damaged: {line[:200]}; fetch the file again"
        ) from error
    if isinstance(state, dict) and isinstance(state.get("model"), dict):
        state = state["model"]
    if not isinstance(state, dict) or not all(isinstance(t, torch.Tensor) for t in state.values()):
        raise ModelLoadError(f'{path} holds no state dict; expected {{"model": {{name: tensor}}}}')
    return state


def _only_file(folder: Path, suffixes: tuple[str, ...], what: str) -> Path:
    found = sorted(path for path in folder.iterdir() if path.suffix in suffixes)
    if len(found) != 1:
        names = [path.name for path in found] or "none"
        raise ConfigError(
            f"{folder} must hold exactly one {what} ({' or '.join(suffixes)}), found {names}"
        )
    return found[0]


def _check_fit(
    expected: dict[str, torch.Size], state: dict[str, torch.Tensor], files: Sam2Files
) -> None:
    faults = {
        "missing": [name for name in expected if name not in state],
        "unknown": [name for name in state if name not in expected],
        "of another shape": [
            f"{name} {list(state[name].shape)} for {list(shape)}"
            for name, shape in expected.items()
            if name in state and state[name].shape != shape
        ],
    }
    parts = [
        f"{len(names)} {fault} (such as {', '.join(names[:_NAMES_SHOWN])})"
        for fault, names in faults.items()
        if names
    ]
    if parts:
        raise ModelLoadError(
            f"{files.weights} does not fit {files.config.name}: {'; '.join(parts)}"
        )
