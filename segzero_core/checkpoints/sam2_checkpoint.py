"""Builds SAM 2 from the files it is published in: one configuration and one weights file.

Only modules of sam2 and torch are built, whatever a configuration asks for, and weights are read
as data, never as code: a folder from elsewhere cannot run anything here.
"""

from __future__ import annotations

import copy
import importlib
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from segzero_core.checkpoints.registry import fetch_from_hub, is_hub_id
from segzero_core.errors import ConfigError, ModelLoadError, shown

# Hub id -> configuration inside the sam2 package, weights file in the Hub repository.
_PUBLISHED: Final = {
    f"facebook/sam{version}-hiera-{size}": (
        f"configs/sam{version}/sam{version}_hiera_{letter}.yaml",
        f"sam{version}_hiera_{size.replace('-', '_')}.pt",
    )
    for version in ("2", "2.1")
    for size, letter in (("tiny", "t"), ("small", "s"), ("base-plus", "b+"), ("large", "l"))
}
_MODULE_PREFIXES: Final = ("sam2.modeling.", "torch.nn.")
_WEIGHT_SUFFIXES: Final = (".safetensors", ".pt")
_NAMES_SHOWN: Final = 3


@dataclass(frozen=True, slots=True)
class Sam2Files:
    """The two files of one SAM 2.

    Attributes:
        name: The folder or Hub id it was called by.
        config: The configuration, in sam2's own form.
        weights: A `.safetensors` file, or a `.pt` file with `{"model": state_dict}`.
    """

    name: str
    config: Path
    weights: Path


def find_sam2(name: str) -> Sam2Files:
    """Find a SAM 2 by folder or Hub id.

    Raises:
        ConfigError: The folder does not hold exactly one configuration and one weights file.
        ModelLoadError: It is nowhere.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
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


def package_config(name: str) -> Path:
    """Return the path of a configuration that ships with the sam2 package.

    Args:
        name: Such as `configs/sam2/sam2_hiera_l.yaml`.

    Raises:
        ModelLoadError: The installed sam2 does not have it.
    """
    import sam2

    path = Path(next(iter(sam2.__path__))) / name
    if not path.is_file():
        raise ModelLoadError(f"the installed sam2 has no {name}; it needs sam2 1.1 or later")
    return path


def build_sam2(config: Path) -> nn.Module:
    """Build the (untrained) SAM 2 that a configuration file describes, on torch's present device.

    Raises:
        ConfigError: The file is unreadable, asks for a module that is not one of SAM 2's, or
            its numbers do not fit together.
    """
    from hydra.utils import instantiate
    from omegaconf import OmegaConf

    section = _read_config(config).get("model")
    if not isinstance(section, dict) or "_target_" not in section:
        raise ConfigError(f"{config} has no `model:` section with a `_target_`, as sam2 writes it")
    for target in _targets(section):
        _check_target(target, config)
    try:
        model = instantiate(OmegaConf.create(section), _recursive_=True)
    except Exception as error:
        raise ConfigError(f"{config} describes no SAM 2 that can be built: {error}") from error
    if not isinstance(model, nn.Module) or not hasattr(model, "sam_mask_decoder"):
        raise ConfigError(f"{config} describes a {type(model).__name__}, not a SAM2Base")
    return model.eval()


def load_sam2(files: Sam2Files, device: torch.device) -> nn.Module:
    """Build a SAM 2 and put its weights in, as float32, ready for inference.

    Raises:
        ConfigError: See `build_sam2`.
        ModelLoadError: The weights are damaged, or belong to another configuration.
    """
    state = read_state(files.weights)
    model = build_sam2(files.config)
    _check_fit(model.state_dict(), state, files)
    model.load_state_dict(state)
    return model.float().to(device).requires_grad_(requires_grad=False)


def at_side(model: nn.Module, side: int) -> nn.Module:
    """Return a twin of a SAM2Base that takes pictures of another size; both share all weights.

    Args:
        model: A `SAM2Base`; no weight of it depends on the size of its pictures.
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
    """What a configuration file says about following objects, in its section `segzero:`.

    Attributes:
        memory: `trained`, `untrained`, or empty where it says nothing, as published ones do.
        side: Side of the pictures to follow objects in [px]; 0: the model's own.
        careful: What memory finds is drawn and checked again; see `ObjectMemory`.
    """

    memory: str = ""
    side: int = 0
    careful: bool = False

    def __post_init__(self) -> None:
        if self.memory not in ("", "trained", "untrained"):
            raise ConfigError(f"memory: {self.memory!r} is neither trained nor untrained")
        if type(self.side) is not int or self.side < 0:
            raise ConfigError(f"tracking_side: {self.side!r} is no size in pixels")
        if type(self.careful) is not bool:
            raise ConfigError(f"careful: {self.careful!r} is neither true nor false")


def read_tracking_facts(config: Path) -> TrackingFacts:
    """Read what a configuration file says about following objects.

    Raises:
        ConfigError: The file is unreadable, or what it says is wrong.
    """
    section = _read_config(config).get("segzero")
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


def _read_config(config: Path) -> dict[Any, Any]:
    from omegaconf import OmegaConf

    try:
        values = OmegaConf.to_container(OmegaConf.load(config), resolve=True)
    except Exception as error:  # yaml and omegaconf have no common root
        raise ConfigError(f"{config} cannot be read as a configuration: {error}") from error
    return values if isinstance(values, dict) else {}


def image_side(model: nn.Module) -> int:
    """Return the side of the square that a SAM 2's encoder takes [px]."""
    return int(cast(int, model.image_size))


def read_state(path: Path) -> dict[str, torch.Tensor]:
    """Read a weights file into tensors on the CPU.

    Raises:
        ModelLoadError: It is missing, damaged, or holds something else.
    """
    try:
        if path.suffix == ".safetensors":
            state: Any = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except (
        OSError,
        EOFError,
        KeyError,
        RuntimeError,
        ValueError,
        SafetensorError,
        pickle.UnpicklingError,
    ) as error:
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


def _targets(value: Any) -> list[Any]:
    """Collect everything that a configuration asks to be called."""
    if isinstance(value, dict):
        own = [value["_target_"]] if "_target_" in value else []
        return own + [target for item in value.values() for target in _targets(item)]
    if isinstance(value, list):
        return [target for item in value for target in _targets(item)]
    return []


def _check_target(target: object, config: Path) -> None:
    """Refuse everything but module classes, by where they are defined and not by spelling."""
    name = str(target)
    module_name, _, class_name = name.rpartition(".")
    found: object = None
    if name.startswith(_MODULE_PREFIXES):
        try:
            found = getattr(importlib.import_module(module_name), class_name, None)
        except ImportError:
            found = None
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise ConfigError(
            f"{config}: _target_ {shown(name)} is not a module of sam2.modeling or torch.nn"
        )


def _check_fit(
    expected: dict[str, torch.Tensor], state: dict[str, torch.Tensor], files: Sam2Files
) -> None:
    faults = {
        "missing": [name for name in expected if name not in state],
        "unknown": [name for name in state if name not in expected],
        "of another shape": [
            f"{name} {list(state[name].shape)} for {list(tensor.shape)}"
            for name, tensor in expected.items()
            if name in state and state[name].shape != tensor.shape
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
