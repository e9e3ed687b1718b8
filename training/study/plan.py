"""The arms of the study: what is trained, from which model and with which settings.

Every trained arm begins from the same warmed-up model and gets the same processor time. The
warm-up plays the part that the pretraining of Qwen2.5-VL plays in the paper.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from segzero_core.prompt import SINGLE_OBJECT, SINGLE_OBJECT_DIRECT, SINGLE_OBJECT_NO_EXAMPLE
from training.arguments import option

NONE: Final = "none"
TRAINED_KINDS: Final = ("name", "attribute", "relation", "function")
"""Kinds that mean exactly one object, which is what the paper's data and prompt are about."""
ASKED_KINDS: Final = (*TRAINED_KINDS, NONE)

WARMED_UP: Final = "9d973330771653a31a42aa1e0a737fe7fb728510"
"""The commit that holds the bundled model as its warm-up left it, before any reinforcement."""

MAIN, RATES, PILOTS, SIZES = "main", "rates", "pilots", "sizes"
BASE, SMALL = "base", "small"
SFT_RATES: Final = (3e-5, 1e-4, 3e-4)
SEEDS: Final = (0, 1, 2)
RL_RATE: Final = 5e-5


@dataclass(frozen=True)
class Arm:
    """One row of a table."""

    name: str  # of its files
    table: str  # which table it stands in
    label: str  # what the tables call it
    method: str = ""  # `sft` or `grpo`; empty where the warmed-up model itself is asked
    template: str = SINGLE_OBJECT  # prompt template, for training and for the questions afterwards
    settings: tuple[str, ...] = ()  # of the training configuration, beside those of all arms
    seeds: tuple[int, ...] = (0,)  # one training each
    base: str = BASE  # the model it begins from: `BASE`, or `SMALL` with fewer layers


@dataclass(frozen=True)
class Scale:
    """How large the study is; the fields are options of `python -m training.study`."""

    minutes: float = option(10.0, "processor time of each training")
    train_scenes: int = option(600, "rendered for training")
    validation_scenes: int = option(60, "for the choice of SFT's rate")
    test_scenes: int = option(150, "for all tables")
    small_steps: int = option(160, "steps of the small model's own warm-up")
    batch: int = option(5, "questions asked at once")
    reward_questions: int = option(120, "test questions whose sampled completions are rewarded")
    reward_replies: int = option(8, "completions sampled for each of them")


def rate_arms() -> tuple[Arm, ...]:
    """SFT at each of `SFT_RATES`; the best on validation scenes is used in the main table."""
    return tuple(_sft(f"sft_{rate:g}", RATES, f"SFT, rate {rate:g}", rate) for rate in SFT_RATES)


def main_arms(sft_rate: float) -> tuple[Arm, ...]:
    """Baseline, SFT, RL and RL with thinking (the paper's table 1 and figure 5).

    The run of SFT that the rate was chosen by counts as its first seed.
    """
    return (
        Arm("baseline", MAIN, "baseline", template=SINGLE_OBJECT_DIRECT),
        Arm("baseline_thinking", MAIN, "baseline, thinking"),
        _sft("sft", MAIN, "SFT", sft_rate, SEEDS),
        _rl("rl", MAIN, "RL", template=SINGLE_OBJECT_DIRECT, seeds=SEEDS),
        _rl("rl_thinking", MAIN, "RL, thinking", seeds=SEEDS),
    )


def pilot_arms() -> tuple[Arm, ...]:
    """One change each to `rl_thinking` (the paper's tables 2 to 8), with one seed."""
    return (
        _rl("soft_accuracy", PILOTS, "soft accuracy", "grpo.accuracy=soft"),
        _rl("soft_format", PILOTS, "soft format", "grpo.answer_format=soft"),
        _rl("box_paid", PILOTS, "box alone paid", "grpo.parts=box"),
        _rl("points_paid", PILOTS, "points alone paid", "grpo.parts=points"),
        *(_rl(f"group_{n}", PILOTS, f"groups of {n}", *_group(n)) for n in (4, 16)),
        _rl("kl_0", PILOTS, "no divergence term", "grpo.kl_weight=0.0"),
        _rl("kl_5e-2", PILOTS, "divergence 5e-2", "grpo.kl_weight=0.05"),
        _rl("no_example", PILOTS, "no example", template=SINGLE_OBJECT_NO_EXAMPLE),
        _rl("refusal", PILOTS, "refusal paid", "grpo.protocol=segzero", _kinds(ASKED_KINDS)),
    )


def size_arms() -> tuple[Arm, ...]:
    """A smaller model, before and after (the paper's table 8)."""
    return (
        Arm("small_baseline", SIZES, "5 layers, baseline", base=SMALL),
        _rl("small_rl", SIZES, "5 layers, RL", base=SMALL),
    )


def arms_after_rates(sft_rate: float) -> tuple[Arm, ...]:
    """All arms of the tables but those that SFT's rate is chosen by."""
    return (*main_arms(sft_rate), *pilot_arms(), *size_arms())


SMALL_LAYERS: Final = 5


def _kinds(kinds: tuple[str, ...]) -> str:
    return f"kinds={','.join(kinds)}"


def settings_of_all(scale: Scale) -> tuple[str, ...]:
    """Settings that every trained arm shares, on top of the configuration `tabletop`."""
    return (
        *REWARD_SETTINGS,
        f"max_processor_minutes={scale.minutes:g}",
        "epochs=100000.0",
        "save_steps=10",
        "keep_checkpoints=1",
        f"grpo.learning_rate={RL_RATE:g}",
    )


REWARD_SETTINGS: Final = (
    _kinds(TRAINED_KINDS),
    "grpo.protocol=paper",
    "grpo.max_completion_tokens=140",
)
"""What all arms are rewarded for on held-out questions, also those that are trained otherwise."""


def _sft(name: str, table: str, label: str, rate: float, seeds: tuple[int, ...] = (0,)) -> Arm:
    return Arm(
        name, table, label, "sft", SINGLE_OBJECT_DIRECT, (f"sft.learning_rate={rate:g}",), seeds
    )


def _rl(
    name: str,
    table: str,
    label: str,
    *settings: str,
    template: str = SINGLE_OBJECT,
    seeds: tuple[int, ...] = (0,),
    base: str = BASE,
) -> Arm:
    return Arm(name, table, label, "grpo", template, settings, seeds, base)


def _group(size: int) -> tuple[str, ...]:
    """Return settings for the same number of completions a step, in groups of another size."""
    return (f"grpo.completions_per_prompt={size}", f"grpo.prompts_per_step={64 // size}")
