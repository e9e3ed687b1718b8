"""Builds a SAM 2 from the plain values of a configuration file.

A configuration is data: `yaml.safe_load` reads it, and `_CLASSES` names everything that it may
ask for, with the range of every argument. Nothing is imported, called or resolved because a file
says so. Published configurations (`configs/sam2*/`) and files of one's own read the same.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
import yaml
from torch import nn
from torch.overrides import TorchFunctionMode

from segzero_core.errors import ConfigError, shown
from segzero_core.files import read_regular
from segzero_core.limits import MAX_YAML_BYTES

_MAX_DEPTH: Final = 12
_MAX_LIST: Final = 64


@dataclass(frozen=True, slots=True)
class _Range:
    """A number of a type, between two bounds; `None` where the argument may be left empty."""

    kind: type
    low: float
    high: float
    optional: bool = False

    def read(self, value: object, path: str) -> object:
        if value is None and self.optional:
            return None
        # YAML 1.1 reads "1e-6" as text; sam2's own files write it so.
        if self.kind is float and isinstance(value, int | float | str) and value is not True:
            with contextlib.suppress(ValueError):
                value = float(value)
        if type(value) is not self.kind or not self.low <= value <= self.high:  # type: ignore[operator]
            raise ConfigError(
                f"{path}: expected {self.kind.__name__} from {self.low:g} to {self.high:g},"
                f" got {shown(str(value))}"
            )
        return value


@dataclass(frozen=True, slots=True)
class _OneOf:
    """One of a few values."""

    values: tuple[object, ...]

    def read(self, value: object, path: str) -> object:
        if not any(type(value) is type(known) and value == known for known in self.values):
            raise ConfigError(
                f"{path}: expected one of {list(self.values)}, got {shown(str(value))}"
            )
        return value


@dataclass(frozen=True, slots=True)
class _Several:
    """A list of numbers."""

    item: _Range

    def read(self, value: object, path: str) -> object:
        if not isinstance(value, list) or len(value) > _MAX_LIST:
            raise ConfigError(
                f"{path}: expected a list of at most {_MAX_LIST} numbers, got {shown(str(value))}"
            )
        return [self.item.read(item, f"{path}[{i}]") for i, item in enumerate(value)]


@dataclass(frozen=True, slots=True)
class _Part:
    """A module of its own, of one class."""

    target: str
    optional: bool = False

    def read(self, value: object, path: str) -> object:
        if value is None and self.optional:
            return None
        return _build(value, self.target, path)


@dataclass(frozen=True, slots=True)
class _Flags:
    """A section of plain values that a module passes on."""

    fields: Mapping[str, _Range | _OneOf]

    def read(self, value: object, path: str) -> object:
        if not isinstance(value, dict):
            raise ConfigError(f"{path}: expected a section, got {shown(str(value))}")
        return {
            name: _known(self.fields, name, path).read(item, f"{path}.{name}")
            for name, item in value.items()
        }


_Argument = _Range | _OneOf | _Several | _Part | _Flags
_FLAG: Final = _OneOf((True, False))
_WIDTH: Final = _Range(int, 1, 4096)
_COUNT: Final = _Range(int, 0, 64)
_SMALL: Final = _Range(float, 0.0, 1.0)
_SCALE: Final = _Range(float, -1e6, 1e6)
_SIDE: Final = _Range(int, 1, 4096)
_POSITION: Final = "sam2.modeling.position_encoding.PositionEmbeddingSine"
_ROPE: Final = "sam2.modeling.sam.transformer.RoPEAttention"

# Everything that a configuration may build, with every argument that it may give. Arguments that
# name a function or a class, such as `norm_layer`, are left out: no published file sets them.
_CLASSES: Final[Mapping[str, Mapping[str, _Argument]]] = {
    "sam2.modeling.sam2_base.SAM2Base": {
        "image_encoder": _Part("sam2.modeling.backbones.image_encoder.ImageEncoder"),
        "memory_attention": _Part("sam2.modeling.memory_attention.MemoryAttention"),
        "memory_encoder": _Part("sam2.modeling.memory_encoder.MemoryEncoder"),
        "num_maskmem": _COUNT,
        "image_size": _SIDE,
        "backbone_stride": _Range(int, 1, 64),
        "sigmoid_scale_for_mem_enc": _SCALE,
        "sigmoid_bias_for_mem_enc": _SCALE,
        "max_cond_frames_in_attn": _Range(int, -1, 64),
        "memory_temporal_stride_for_eval": _Range(int, 1, 64),
        "max_obj_ptrs_in_encoder": _COUNT,
        "multimask_min_pt_num": _COUNT,
        "multimask_max_pt_num": _COUNT,
        # Compiling is chosen by `backend`, never by a file.
        "compile_image_encoder": _OneOf((False,)),
        "sam_mask_decoder_extra_args": _Flags(
            {
                "dynamic_multimask_via_stability": _FLAG,
                "dynamic_multimask_stability_delta": _SMALL,
                "dynamic_multimask_stability_thresh": _SMALL,
            }
        ),
        **dict.fromkeys(
            (
                "use_mask_input_as_output_without_sam",
                "directly_add_no_mem_embed",
                "no_obj_embed_spatial",
                "use_high_res_features_in_sam",
                "multimask_output_in_sam",
                "multimask_output_for_tracking",
                "use_multimask_token_for_obj_ptr",
                "iou_prediction_use_sigmoid",
                "binarize_mask_from_pts_for_mem_enc",
                "non_overlap_masks_for_mem_enc",
                "use_obj_ptrs_in_encoder",
                "add_tpos_enc_to_obj_ptrs",
                "proj_tpos_enc_in_obj_ptrs",
                "use_signed_tpos_enc_to_obj_ptrs",
                "only_obj_ptrs_in_the_past_for_eval",
                "pred_obj_scores",
                "pred_obj_scores_mlp",
                "fixed_no_obj_ptr",
                "soft_no_obj_ptr",
                "use_mlp_for_obj_ptr_proj",
            ),
            _FLAG,
        ),
    },
    "sam2.modeling.backbones.image_encoder.ImageEncoder": {
        "trunk": _Part("sam2.modeling.backbones.hieradet.Hiera"),
        "neck": _Part("sam2.modeling.backbones.image_encoder.FpnNeck"),
        "scalp": _COUNT,
    },
    "sam2.modeling.backbones.hieradet.Hiera": {
        "embed_dim": _Range(int, 1, 1024),
        "num_heads": _Range(int, 1, 64),
        "drop_path_rate": _SMALL,
        "q_pool": _COUNT,
        "q_stride": _Several(_Range(int, 1, 16)),
        "stages": _Several(_Range(int, 1, 64)),
        "dim_mul": _Range(float, 1.0, 4.0),
        "head_mul": _Range(float, 1.0, 4.0),
        "window_pos_embed_bkg_spatial_size": _Several(_Range(int, 1, 256)),
        "window_spec": _Several(_Range(int, 0, 256)),
        "global_att_blocks": _Several(_Range(int, 0, 256)),
        "return_interm_layers": _FLAG,
    },
    "sam2.modeling.backbones.image_encoder.FpnNeck": {
        "position_encoding": _Part(_POSITION),
        "d_model": _WIDTH,
        "backbone_channel_list": _Several(_WIDTH),
        "kernel_size": _Range(int, 1, 9),
        "stride": _Range(int, 1, 8),
        "padding": _Range(int, 0, 8),
        "fpn_interp_model": _OneOf(("nearest", "bilinear", "bicubic")),
        "fuse_type": _OneOf(("sum", "avg")),
        "fpn_top_down_levels": _Several(_COUNT),
    },
    _POSITION: {
        "num_pos_feats": _WIDTH,
        "temperature": _Range(int, 1, 1_000_000),
        "normalize": _FLAG,
        "scale": _Range(float, 0.0, 1e6, optional=True),
        "warmup_cache": _FLAG,
        "image_size": _SIDE,
        "strides": _Several(_Range(int, 1, 64)),
    },
    "sam2.modeling.memory_attention.MemoryAttention": {
        "d_model": _WIDTH,
        "pos_enc_at_input": _FLAG,
        "layer": _Part("sam2.modeling.memory_attention.MemoryAttentionLayer"),
        "num_layers": _Range(int, 1, 32),
        "batch_first": _FLAG,
    },
    "sam2.modeling.memory_attention.MemoryAttentionLayer": {
        "activation": _OneOf(("relu", "gelu", "glu")),
        "cross_attention": _Part(_ROPE),
        "self_attention": _Part(_ROPE),
        "d_model": _WIDTH,
        "dim_feedforward": _Range(int, 1, 16384),
        "dropout": _SMALL,
        "pos_enc_at_attn": _FLAG,
        "pos_enc_at_cross_attn_keys": _FLAG,
        "pos_enc_at_cross_attn_queries": _FLAG,
    },
    _ROPE: {
        "embedding_dim": _WIDTH,
        "num_heads": _Range(int, 1, 64),
        "downsample_rate": _Range(int, 1, 64),
        "dropout": _SMALL,
        "kv_in_dim": _WIDTH,
        "rope_theta": _Range(float, 1.0, 1e7),
        "rope_k_repeat": _FLAG,
        "feat_sizes": _Several(_Range(int, 1, 256)),
    },
    "sam2.modeling.memory_encoder.MemoryEncoder": {
        "out_dim": _WIDTH,
        "in_dim": _WIDTH,
        "mask_downsampler": _Part("sam2.modeling.memory_encoder.MaskDownSampler"),
        "fuser": _Part("sam2.modeling.memory_encoder.Fuser"),
        "position_encoding": _Part(_POSITION),
    },
    "sam2.modeling.memory_encoder.MaskDownSampler": {
        "embed_dim": _WIDTH,
        "kernel_size": _Range(int, 1, 9),
        "stride": _Range(int, 2, 8),
        "padding": _Range(int, 0, 8),
        "total_stride": _Range(int, 2, 64),
    },
    "sam2.modeling.memory_encoder.Fuser": {
        "layer": _Part("sam2.modeling.memory_encoder.CXBlock"),
        "num_layers": _Range(int, 1, 16),
        "dim": _WIDTH,
        "input_projection": _FLAG,
    },
    "sam2.modeling.memory_encoder.CXBlock": {
        "dim": _WIDTH,
        "kernel_size": _Range(int, 1, 15),
        "padding": _Range(int, 0, 8),
        "drop_path": _SMALL,
        "layer_scale_init_value": _SMALL,
        "use_dwconv": _FLAG,
    },
}
_ROOT: Final = "sam2.modeling.sam2_base.SAM2Base"


class _LinspaceOnCpu(TorchFunctionMode):
    """Keeps `linspace` on the CPU: sam2 reads its drop rates off such a tensor."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run a function of torch."""
        given = kwargs or {}
        return func(*args, **({**given, "device": "cpu"} if func is torch.linspace else given))


def read_config(config: Path) -> dict[str, Any]:
    """Read a configuration file as plain values.

    Raises:
        ConfigError: It is unreadable, too large, repeats itself by YAML aliases, or holds an
            interpolation (`${`), which would be a program and not a value.
    """
    try:
        text = read_regular(config, MAX_YAML_BYTES).decode("utf-8")
        if "${" in text:
            raise ConfigError(f"{config}: interpolations (`${{`) are not read; write the value")
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            if isinstance(event, yaml.AliasEvent):
                raise ConfigError(f"{config}: YAML aliases (`*{event.anchor}`) are not read")
        values = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{config} cannot be read as a configuration: {error}") from error
    return values if isinstance(values, dict) else {}


class _WithoutAliases(yaml.SafeDumper):  # type: ignore[misc]  # yaml has no types
    """Writes a value again where it stands twice; `read_config` takes no aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        """Say that nothing is to be referred to."""
        return True


def config_text(values: Mapping[str, Any]) -> str:
    """Return a configuration as YAML that `read_config` reads."""
    return str(yaml.dump(dict(values), Dumper=_WithoutAliases, sort_keys=False))


def state_shapes(config: Path) -> dict[str, torch.Size]:
    """Return the shape of every weight that a configuration needs, without memory for them.

    A configuration of a few lines can describe a model of many gigabytes; this tells first.

    Raises:
        ConfigError: As `build_sam2`.
    """
    with torch.device("meta"), _LinspaceOnCpu():
        return {name: tensor.shape for name, tensor in build_sam2(config).state_dict().items()}


def build_sam2(config: Path) -> nn.Module:
    """Build the (untrained) SAM 2 that a configuration file describes, on torch's present device.

    Raises:
        ConfigError: The file is unreadable, asks for something that is not part of a SAM 2, an
            argument is unknown or out of range, or the numbers do not fit together.
    """
    try:
        return sam2_from_values(read_config(config).get("model"))
    except ConfigError as error:
        message = str(error)
        raise ConfigError(
            message if message.startswith(str(config)) else f"{config}: {message}"
        ) from error


def sam2_from_values(section: object) -> nn.Module:
    """Build the (untrained) SAM 2 that the values of a `model:` section describe.

    Raises:
        ConfigError: As `build_sam2`.
    """
    if not isinstance(section, dict) or "_target_" not in section:
        raise ConfigError("there is no `model:` section with a `_target_`, as sam2 writes it")
    model = _build(section, _ROOT, "model")
    return model.eval()


def _build(section: object, expected: str, path: str) -> nn.Module:
    if path.count(".") > _MAX_DEPTH or not isinstance(section, dict):
        raise ConfigError(f"{path}: expected a section, got {shown(str(section))}")
    target = section.get("_target_")
    if target != expected:
        raise ConfigError(f"{path}: _target_ {shown(str(target))} is not {expected}")
    arguments = _CLASSES[expected]
    values = {
        str(name): _known(arguments, name, path).read(value, f"{path}.{name}")
        for name, value in section.items()
        if name != "_target_"
    }
    module, _, name = expected.rpartition(".")
    make: Callable[..., nn.Module] = getattr(importlib.import_module(module), name)
    try:
        return make(**values)
    # SAM 2's constructors fail in many ways (assertions, tensor shapes, missing arguments).
    except Exception as error:
        raise ConfigError(f"{path} describes no {name} that can be built: {error}") from error


def _known(fields: Mapping[str, Any], name: object, path: str) -> Any:
    if not isinstance(name, str) or name not in fields:
        raise ConfigError(
            f"{path}: unknown argument {shown(str(name))}; known: {', '.join(fields)}"
        )
    return fields[name]
