"""Configurations of training runs: frozen dataclasses, named ones, and the reader of TOML files.

    segzero-train grpo --config seg-zero-7b --set data=data/refcocog --set output=runs/7b
    segzero-train grpo --config my.toml

A TOML file may begin from a named configuration with `base = "seg-zero-3b"`. Every field can be
set on the command line. A wrong name, type or value is an error that names the field.

Source of the numbers: Seg-Zero (arXiv:2503.06520) and its public code, whose two configurations
differ in the model alone; VisionReasoner (arXiv:2505.12081) and its run scripts.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from math import inf
from pathlib import Path
from typing import Any, get_type_hints

from segzero_core.errors import ConfigError, shown
from segzero_core.prompt import (
    MULTI_OBJECT,
    MULTI_OBJECT_DIRECT,
    SEG_ZERO_TEMPLATES,
    SINGLE_OBJECT,
)

VLLM_MODES = ("off", "server", "colocate")
PROTOCOL_NAMES = ("paper", "reference", "segzero")


def _number(default: float, least: float, most: float = inf) -> Any:
    """Declare a field with its smallest and largest value."""
    return field(default=default, metadata={"range": (least, most)})


def _choice(default: str, allowed: Iterable[str]) -> Any:
    """Declare a field with the values that it may have."""
    return field(default=default, metadata={"allowed": tuple(allowed)})


def _check(config: Any, prefix: str = "") -> None:
    """Check the fields that were declared with a range or a choice; NaN is in no range."""
    for item in fields(config):
        name, value, limits = f"{prefix}{item.name}", getattr(config, item.name), item.metadata
        if value not in limits.get("allowed", (value,)):
            raise ConfigError(f"{name}: {shown(value)} is none of {', '.join(limits['allowed'])}")
        least, most = limits.get("range", (-inf, inf))
        if "range" in limits and not (least <= value <= most and value < inf):
            wanted = f"{least:g} or more" if most == inf else f"{least:g} to {most:g}"
            raise ConfigError(f"{name}: expected {wanted}, got {value}")


@dataclass(frozen=True)
class SftConfig:
    """Supervised fine-tuning on the true boxes and points, without thinking."""

    learning_rate: float = _number(1e-5, 0, 1)  # peak rate of AdamW
    batch_size: int = _number(16, 1)  # samples per optimizer step, over all processes
    warmup_steps: int = _number(0, 0)  # steps in which the rate rises

    def __post_init__(self) -> None:
        _check(self, "sft.")


@dataclass(frozen=True)
class GrpoConfig:
    """Group relative policy optimization (defaults: those of Seg-Zero's public code)."""

    learning_rate: float = _number(1e-6, 0, 1)  # rate of AdamW, constant
    prompts_per_step: int = _number(16, 1)  # questions per optimizer step, over all processes
    # Size of a group (8 in the code, 16 for the paper's main results).
    completions_per_prompt: int = _number(8, 2)
    # Weight in the loss of the KL divergence (k3 estimate) from the first model.
    kl_weight: float = _number(5e-3, 0, 100)
    entropy_weight: float = _number(1e-3, 0, 100)  # of the entropy bonus, as in the public code
    clip: float = _number(0.2, 0, 1)  # the ratio is clipped to [1 - clip, 1 + clip]
    clip_high: float = _number(0.0, 0, 1)  # upper clip in place of `clip`; 0: the same
    temperature: float = _number(1.0, 0.01, 10)  # sampling temperature
    max_completion_tokens: int = _number(1300, 1, 100_000)  # length of the longest completion
    scale_by_std: bool = True  # divide advantages by the group's standard deviation
    protocol: str = _choice("paper", PROTOCOL_NAMES)  # reward protocol
    accuracy: str = _choice("hard", ("hard", "soft"))  # by thresholds, or the value itself
    answer_format: str = _choice("strict", ("strict", "soft"))  # check of the answer's keys
    # Which parts of the answer are rewarded: `box`, `points`, or both.
    parts: tuple[str, ...] = ("box", "points")
    # Weight of the mask IoU, with the segmenter in the loop; 0 leaves it out.
    mask_weight: float = _number(0.0, 0, 100)
    # Encode an image once for its whole group (`training.finetune.shared_image_sampling`); for the
    # small reasoner only, in one process.
    shared_pictures: bool = False
    vllm: str = _choice("off", VLLM_MODES)  # where the completions are sampled
    vllm_server: str = ""  # `http://host:port` of `trl vllm-serve`, for `server`
    vllm_memory: float = _number(
        0.5, 0, 1
    )  # share of the GPU's memory for the rollouts, for `colocate`

    def __post_init__(self) -> None:
        _check(self, "grpo.")
        if not self.parts or any(part not in ("box", "points") for part in self.parts):
            raise ConfigError(f"grpo.parts: expected box, points or both, got {self.parts}")
        if (self.vllm == "server") != bool(self.vllm_server):
            raise ConfigError(
                "grpo.vllm_server: give it with vllm = server, such as http://localhost:8000,"
                f" and only then; got vllm {self.vllm!r} and {self.vllm_server!r}"
            )


@dataclass(frozen=True)
class TrainConfig:
    """One training run."""

    name: str = "run"  # name of the configuration
    model: str = ""  # name, folder or Hub id of the model to begin from
    data: str = ""  # folder written by `python -m training.data.prepare`
    output: str = ""  # folder of checkpoints, metrics and the final model
    template: str = _choice(SINGLE_OBJECT, SEG_ZERO_TEMPLATES)  # prompt template
    kinds: tuple[str, ...] = ()  # kinds of questions to train on; empty: all that the data holds
    max_samples: int = _number(0, 0)  # largest number of samples that are used; 0: all
    max_steps: int = _number(0, 0)  # optimizer steps; 0: as many as `epochs` take
    # Stop at the first step after this wall-clock time [min], interruptions left out; 0: no limit.
    max_minutes: float = _number(0.0, 0)
    # The same in processor time [min], which adds up all threads of this process and leaves out a
    # GPU's work. For comparing runs on a shared CPU; 0: no limit.
    max_processor_minutes: float = _number(0.0, 0)
    epochs: float = _number(1.0, 0)  # passes over the data
    seed: int = _number(0, 0, 2**32 - 1)  # of all random numbers
    # Samples that a process computes at once. A smaller one needs less memory; the loss of GRPO
    # stays the same, because every completion is normalized by its length.
    micro_batch_size: int = _number(1, 1)
    weight_decay: float = _number(0.01, 0, 1)  # of AdamW
    beta_1: float = _number(0.9, 0, 1)  # of AdamW
    beta_2: float = _number(0.999, 0, 1)  # of AdamW
    max_grad_norm: float = _number(1.0, 0)  # the gradient is clipped to this norm
    # Type of the weights while training: float32, or bfloat16 with `bf16_mixed`.
    dtype: str = _choice("float32", ("float32", "bfloat16"))
    # Compute in bfloat16 with float32 master weights, as the public code does.
    bf16_mixed: bool = False
    gradient_checkpointing: bool = False  # compute the forward pass twice to save memory
    freeze_vision: bool = False  # do not train the vision encoder (the public code trains it)
    save_steps: int = _number(50, 1)  # steps between checkpoints
    keep_checkpoints: int = _number(0, 0)  # number of checkpoints that are kept; 0: all
    log_steps: int = _number(1, 1)  # steps between rows of the metrics
    # Samples among which a streamed data set is shuffled; 0: no streaming.
    shuffle_buffer: int = _number(0, 0)
    sft: SftConfig = field(default_factory=SftConfig)  # settings of `segzero-train sft`
    grpo: GrpoConfig = field(default_factory=GrpoConfig)  # settings of `segzero-train grpo`

    def __post_init__(self) -> None:
        _check(self)
        if self.epochs <= 0:
            raise ConfigError(f"epochs: expected more than 0, got {self.epochs}")

    def to_json(self) -> str:
        """The resolved configuration, as it is saved beside every checkpoint."""
        return json.dumps(asdict(self), indent=1)


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
        # The rendered tabletop of `worlds/tabletop`, on two CPU cores.
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
        # Custom objects from a few labelled images (`segzero-train own`), until its time is over.
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
        # Two steps on a CPU, for the tests.
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
    top: dict[str, Any] = {}
    tables: dict[str, dict[str, str]] = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals:
            raise ConfigError(f"--set {shown(setting)}: expected KEY=VALUE")
        section, dot, name = key.partition(".")
        if dot:
            tables.setdefault(section, {})[name] = text
        else:
            top[key] = text
    config = CONFIGS.get(name_or_file) or _from_file(Path(name_or_file))
    # All at once: some fields of a section are valid only together.
    return _replaced(_replaced(config, top, from_text=True), tables, from_text=True)


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
    try:
        return _replaced(CONFIGS[base] if base else TrainConfig(), values)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def _replaced(
    config: Any, values: Mapping[str, Any], prefix: str = "", *, from_text: bool = False
) -> Any:
    """Replace fields of a dataclass, those of its sections by tables; check names and types."""
    types = get_type_hints(type(config))
    changes = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        if key not in types:
            raise ConfigError(f"{name}: no such field; there are {sorted(types)}")
        expected, is_table = types[key], isinstance(value, Mapping)
        if is_dataclass(expected):
            if not is_table:
                raise ConfigError(
                    f"{name}: is a section: expected a table, or one of its fields such as"
                    f" {name}.{next(iter(get_type_hints(expected)))}; got {shown(str(value))}"
                )
            section = getattr(config, key)
            changes[key] = _replaced(section, value, f"{name}.", from_text=from_text)
        elif is_table:
            raise ConfigError(f"{name}: has no field {next(iter(value), '')!r}")
        else:
            value = _parsed(expected, value) if from_text else value
            changes[key] = _checked(name, expected, value)
    return replace(config, **changes)


def _parsed(expected: Any, text: str) -> Any:
    """Read a value from text; what cannot be read stays text."""
    if expected is bool:
        return {"true": True, "false": False}.get(text.lower(), text)
    if expected in (int, float):
        with suppress(ValueError):
            return expected(text)
    if expected in (int, float, str):
        return text
    return tuple(part for part in text.split(",") if part)


def _checked(name: str, expected: Any, value: Any) -> Any:
    if expected is float and type(value) is int:
        return float(value)
    if expected in (bool, int, float, str):
        fits = type(value) is expected
    else:
        fits = isinstance(value, list | tuple) and all(type(part) is str for part in value)
        value = tuple(value) if fits else value
    if not fits:
        called = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
        wanted = called.get(expected, "a list of texts")
        raise ConfigError(f"{name}: expected {wanted}, got {shown(str(value))}")
    return value
