"""What a training run is made of: frozen, named, readable from a file.

    segzero-train grpo --config seg-zero-7b --set data=data/refcocog --set output=runs/7b
    segzero-train grpo --config my.toml

A file (TOML) may begin from a named one with `base = "seg-zero-3b"`. Every field can be set from
the command line; a wrong name, type or value is an error that names it.

Source of the numbers: Seg-Zero (arXiv:2503.06520) and its public code, whose two configurations
differ in the model alone; VisionReasoner (arXiv:2505.12081) and its run scripts.
"""

from __future__ import annotations

import dataclasses
import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

from segzero_core.errors import ConfigError, shown
from segzero_core.prompt import MULTI_OBJECT, MULTI_OBJECT_DIRECT, SINGLE_OBJECT, TEMPLATES

VLLM_MODES = ("off", "server", "colocate")
PROTOCOL_NAMES = ("paper", "reference", "segzero")


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ConfigError(f"{name}: {shown(value)} is none of {', '.join(allowed)}")


def _at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise ConfigError(f"{name}: expected {least} or more, got {value}")


@dataclass(frozen=True)
class SftConfig:
    """Supervised fine-tuning on the true boxes and points; there is no thinking to imitate.

    Attributes:
        learning_rate: Peak rate of AdamW.
        batch_size: Samples an optimiser step, over all processes.
        warmup_steps: Steps in which the rate rises.
    """

    learning_rate: float = 1e-5
    batch_size: int = 16
    warmup_steps: int = 0


@dataclass(frozen=True)
class GrpoConfig:
    """Group relative policy optimisation (defaults: those of Seg-Zero's public code).

    Attributes:
        learning_rate: Rate of AdamW, constant.
        prompts_per_step: Questions an optimiser step, over all processes.
        completions_per_prompt: Size of a group (8 in the code, 16 for the paper's main results).
        kl_weight: Weight of the k3 estimate of the divergence from the first model, in the loss.
        entropy_weight: Weight of the entropy bonus; the reference code's default, easy to miss.
        clip: The ratio is clipped to [1 - clip, 1 + clip].
        clip_high: Upper clip in place of `clip`; 0: the same.
        temperature: Of sampling.
        max_completion_tokens: Longest completion.
        scale_by_std: Divide advantages by the group's standard deviation.
        protocol: Which rewards: `paper`, `reference` or `segzero`.
        accuracy: `hard` (thresholds) or `soft` (the value itself).
        answer_format: `strict` or `soft` check of the answer's keys.
        parts: What the answer is paid for: `box`, `points`, or both.
        mask_weight: Weight of the mask IoU with the segmenter in the loop; 0 leaves it out.
        shared_pictures: Compute a picture once for its group
            (`training.finetune.shared_image_sampling`); for the small reasoner only, in one
            process.
        vllm: `off`, `server` or `colocate`; where the completions are made.
        vllm_server: `http://host:port` of `trl vllm-serve`, for `server`.
        vllm_memory: Share of the GPU's memory for the rollouts, for `colocate`.
    """

    learning_rate: float = 1e-6
    prompts_per_step: int = 16
    completions_per_prompt: int = 8
    kl_weight: float = 5e-3
    entropy_weight: float = 1e-3
    clip: float = 0.2
    clip_high: float = 0.0
    temperature: float = 1.0
    max_completion_tokens: int = 1300
    scale_by_std: bool = True
    protocol: str = "paper"
    accuracy: str = "hard"
    answer_format: str = "strict"
    parts: tuple[str, ...] = ("box", "points")
    mask_weight: float = 0.0
    shared_pictures: bool = False
    vllm: str = "off"
    vllm_server: str = ""
    vllm_memory: float = 0.5

    def __post_init__(self) -> None:
        _one_of("grpo.protocol", self.protocol, PROTOCOL_NAMES)
        _one_of("grpo.accuracy", self.accuracy, ("hard", "soft"))
        _one_of("grpo.answer_format", self.answer_format, ("strict", "soft"))
        _one_of("grpo.vllm", self.vllm, VLLM_MODES)
        _at_least("grpo.prompts_per_step", self.prompts_per_step, 1)
        _at_least("grpo.completions_per_prompt", self.completions_per_prompt, 2)
        if not self.parts or any(part not in ("box", "points") for part in self.parts):
            raise ConfigError(f"grpo.parts: expected box, points or both, got {self.parts}")
        if (self.vllm == "server") != bool(self.vllm_server):
            raise ConfigError(
                "grpo.vllm_server: give it with vllm = server, such as http://localhost:8000,"
                f" and only then; got vllm {self.vllm!r} and {self.vllm_server!r}"
            )


@dataclass(frozen=True)
class TrainConfig:
    """A whole run.

    Attributes:
        name: What logs and the written description call it.
        model: Named model, folder or Hub id of the reasoner to begin from.
        data: Folder written by `python -m training.data.prepare`.
        output: Folder of checkpoints, metrics and the final model.
        template: Prompt template.
        kinds: Kinds of questions to train on; empty: all that the data holds.
        max_samples: At most so many samples of the data; 0: all.
        max_steps: Optimiser steps; 0: as many as `epochs` take.
        max_processor_minutes: Stop once the process has used so much processor time; 0: no limit.
        epochs: Passes over the data.
        seed: Of everything that draws lots.
        micro_batch_size: Samples a process computes at once; less memory, and for GRPO the
            same loss (every completion is normalised by its own length).
        weight_decay: Of AdamW.
        beta_1: Of AdamW.
        beta_2: Of AdamW.
        max_grad_norm: The gradient is clipped to this norm.
        dtype: Type of the weights while training: float32, or bfloat16 with `bf16_mixed`.
        bf16_mixed: Compute in bfloat16 (float32 master weights, as the reference does).
        gradient_checkpointing: Compute the forward pass twice to save memory.
        freeze_vision: Leave the vision tower as it is (the reference trains it).
        save_steps: Steps between checkpoints.
        keep_checkpoints: How many are kept; 0: all.
        log_steps: Steps between rows of the metrics.
        shuffle_buffer: Samples among which a streamed data set is shuffled; 0: no streaming.
        sft: Settings of `segzero-train sft`.
        grpo: Settings of `segzero-train grpo`.
    """

    name: str = "run"
    model: str = ""
    data: str = ""
    output: str = ""
    template: str = SINGLE_OBJECT
    kinds: tuple[str, ...] = ()
    max_samples: int = 0
    max_steps: int = 0
    max_processor_minutes: float = 0.0
    epochs: float = 1.0
    seed: int = 0
    micro_batch_size: int = 1
    weight_decay: float = 0.01
    beta_1: float = 0.9
    beta_2: float = 0.999
    max_grad_norm: float = 1.0
    dtype: str = "float32"
    bf16_mixed: bool = False
    gradient_checkpointing: bool = False
    freeze_vision: bool = False
    save_steps: int = 50
    keep_checkpoints: int = 0
    log_steps: int = 1
    shuffle_buffer: int = 0
    sft: SftConfig = field(default_factory=SftConfig)
    grpo: GrpoConfig = field(default_factory=GrpoConfig)

    def __post_init__(self) -> None:
        _one_of("template", self.template, tuple(TEMPLATES))
        _one_of("dtype", self.dtype, ("float32", "bfloat16"))
        for name in ("micro_batch_size", "save_steps", "log_steps"):
            _at_least(name, getattr(self, name), 1)
        for name in ("max_samples", "max_steps", "keep_checkpoints", "shuffle_buffer"):
            _at_least(name, getattr(self, name), 0)
        if not 0 <= self.max_processor_minutes < float("inf"):
            raise ConfigError(
                f"max_processor_minutes: expected 0 or more, got {self.max_processor_minutes}"
            )
        if self.epochs <= 0:
            raise ConfigError(f"epochs: expected more than 0, got {self.epochs}")

    def to_json(self) -> str:
        """The resolved configuration, as it is kept beside every checkpoint."""
        return json.dumps(dataclasses.asdict(self), indent=1)


_SEG_ZERO = TrainConfig(
    template=SINGLE_OBJECT,
    bf16_mixed=True,
    gradient_checkpointing=True,
    save_steps=50,
)
CONFIGS: dict[str, TrainConfig] = {
    config.name: config
    for config in (
        # Trained on 9,000 samples of RefCOCOg, one epoch, 562 steps; 8 GPUs.
        replace(_SEG_ZERO, name="seg-zero-3b", model="Qwen/Qwen2.5-VL-3B-Instruct"),
        replace(_SEG_ZERO, name="seg-zero-7b", model="Qwen/Qwen2.5-VL-7B-Instruct"),
        # About 7,000 samples of LVIS, RefCOCOg, gRefCOCO and LISA++.
        replace(
            _SEG_ZERO,
            name="vision-reasoner-7b",
            model="Qwen/Qwen2.5-VL-7B-Instruct",
            template=MULTI_OBJECT,
            save_steps=100,
            grpo=GrpoConfig(kl_weight=1e-2, max_completion_tokens=2000),
        ),
        # The small world of `tabletop/`, on two processor cores.
        TrainConfig(
            name="tabletop",
            model="tabletop",
            template=MULTI_OBJECT,
            micro_batch_size=32,
            save_steps=20,
            keep_checkpoints=2,
            freeze_vision=True,
            sft=SftConfig(learning_rate=1e-4, batch_size=32),
            grpo=GrpoConfig(
                learning_rate=2e-5,
                prompts_per_step=8,
                completions_per_prompt=8,
                max_completion_tokens=160,
                protocol="segzero",
                shared_pictures=True,
            ),
        ),
        # A few pictures of one's own (`segzero-train own`), until the processor time is spent.
        TrainConfig(
            name="own-objects",
            model="tabletop",
            template=MULTI_OBJECT_DIRECT,
            micro_batch_size=8,
            epochs=1000,
            save_steps=20,
            keep_checkpoints=1,
            sft=SftConfig(learning_rate=1e-4, batch_size=8, warmup_steps=5),
        ),
        # Two steps on a processor, for the tests.
        TrainConfig(
            name="debug",
            model="tabletop",
            template=MULTI_OBJECT,
            micro_batch_size=4,
            max_steps=2,
            save_steps=1,
            sft=SftConfig(learning_rate=1e-4, batch_size=4),
            grpo=GrpoConfig(
                learning_rate=1e-5,
                prompts_per_step=2,
                completions_per_prompt=4,
                max_completion_tokens=48,
                protocol="segzero",
            ),
        ),
    )
}


def load_config(name_or_file: str, settings: Sequence[str] = ()) -> TrainConfig:
    """Find a named configuration or read a TOML file, then apply `key=value` settings.

    Args:
        name_or_file: A key of `CONFIGS`, or the path of a TOML file.
        settings: Such as `grpo.learning_rate=2e-6`; a list is written `box,points`.

    Raises:
        ConfigError: There is no such name or file, or a field is unknown or wrong.
    """
    config = CONFIGS.get(name_or_file) or _from_file(Path(name_or_file))
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals:
            raise ConfigError(f"--set {shown(setting)}: expected KEY=VALUE")
        config = _with_text(config, key.split("."), text)
    return config


def _from_file(path: Path) -> TrainConfig:
    if not path.is_file():
        raise ConfigError(
            f"--config {path}: neither a file nor one of {', '.join(sorted(CONFIGS))}"
        )
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path} cannot be read as TOML: {error}") from error
    base = values.pop("base", None)
    if base is not None and base not in CONFIGS:
        raise ConfigError(f"{path}: base: no {shown(str(base))}; there are {sorted(CONFIGS)}")
    config = CONFIGS[base] if base else TrainConfig()
    try:
        return _with_values(config, values)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def _with_values(config: Any, values: Mapping[str, Any], prefix: str = "") -> Any:
    """Replace fields of a dataclass, sections by tables."""
    changes = {}
    for key, value in values.items():
        expected = _type_of(config, key, prefix)
        if dataclasses.is_dataclass(expected):
            if not isinstance(value, Mapping):
                raise ConfigError(f"{prefix}{key}: expected a table, got {shown(repr(value))}")
            changes[key] = _with_values(getattr(config, key), value, f"{prefix}{key}.")
        else:
            changes[key] = _checked(f"{prefix}{key}", expected, value)
    return replace(config, **changes)


def _with_text(config: Any, keys: Sequence[str], text: str, prefix: str = "") -> Any:
    expected = _type_of(config, keys[0], prefix)
    name = f"{prefix}{keys[0]}"
    if dataclasses.is_dataclass(expected):
        if len(keys) == 1:
            raise ConfigError(f"{name}: is a section; set one of its fields, such as {name}.…")
        value = _with_text(getattr(config, keys[0]), keys[1:], text, f"{name}.")
    elif len(keys) > 1:
        raise ConfigError(f"{name}: has no field {keys[1]!r}")
    else:
        value = _checked(name, expected, _parsed(name, expected, text))
    return replace(config, **{keys[0]: value})


def _type_of(config: Any, key: str, prefix: str) -> Any:
    hints = get_type_hints(type(config))
    if key not in {f.name for f in fields(config)}:
        raise ConfigError(f"{prefix}{key}: no such field; there are {sorted(hints)}")
    return hints[key]


def _parsed(name: str, expected: Any, text: str) -> Any:
    if expected is bool:
        if text.lower() not in ("true", "false"):
            raise ConfigError(f"{name}: expected true or false, got {shown(text)}")
        return text.lower() == "true"
    if expected in (int, float):
        try:
            return expected(text)
        except ValueError:
            raise ConfigError(
                f"{name}: expected {'a whole ' if expected is int else 'a '}number,"
                f" got {shown(text)}"
            ) from None
    if expected is str:
        return text
    return tuple(part for part in text.split(",") if part)


def _checked(name: str, expected: Any, value: Any) -> Any:
    if expected in (bool, int, str):
        fits = type(value) is expected
    elif expected is float:
        fits = type(value) in (int, float)
        value = float(value) if fits else value
    else:
        (inner, *_) = get_args(expected)
        fits = isinstance(value, list | tuple) and all(type(part) is inner for part in value)
        value = tuple(value) if fits else value
    if not fits:
        raise ConfigError(f"{name}: expected {_called(expected)}, got {shown(repr(value))}")
    return value


def _called(expected: Any) -> str:
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
    return names.get(expected, "a list of texts")
