"""The curves of the study: rewards and the length of the replies against the step."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from training.study.estimates import Trainings

LENGTH: Final = "completions/mean_length"
REWARD: Final = "reward"
_SMOOTHED_OVER = 5  # steps


def plot_curves(arms: Sequence[Trainings], path: Path) -> None:
    """Draw the total reward, the length and each term, a color an arm, a line a training."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    keys = [REWARD, LENGTH, *reward_terms(arms)]
    columns = 3
    rows = -(-len(keys) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(11, 2.6 * rows), squeeze=False, layout="constrained"
    )
    for axis, key in zip(axes.flat, keys, strict=False):
        for number, arm in enumerate(arms):
            for index, metrics in enumerate(arm.metrics):
                points = [(row["step"], row[key]) for row in metrics if key in row]
                if not points:
                    continue
                steps, values = np.array(points).T
                label = arm.arm.label if index == 0 else None
                axis.plot(steps, values, color=f"C{number}", alpha=0.15, linewidth=0.8)
                axis.plot(steps, _smoothed(values), color=f"C{number}", alpha=0.8, label=label)
        axis.set_title(title_of(key), fontsize=9)
        axis.tick_params(labelsize=7)
    for axis in axes.flat[len(keys) :]:
        axis.set_axis_off()
    axes.flat[0].legend(fontsize=7)
    for axis in axes[-1]:
        axis.set_xlabel("step", fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def reward_terms(arms: Sequence[Trainings]) -> list[str]:
    """Keys of the terms that any training was paid for."""
    rows = [row for arm in arms for metrics in arm.metrics for row in metrics]
    paid = {key for row in rows for key, value in row.items() if value}
    return sorted(key for key in paid if key.startswith("rewards/") and key.endswith("/mean"))


def title_of(key: str) -> str:
    """Return the title of a metric."""
    if key == LENGTH:
        return "length of the reply [tokens]"
    return key.removeprefix("rewards/").removesuffix("/mean").replace("_", " ")


def _smoothed(values: np.ndarray) -> np.ndarray:
    """Mean over the last few steps."""
    sums = np.cumsum(np.insert(values, 0, 0.0))
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(0, ends - _SMOOTHED_OVER)
    return (sums[ends] - sums[starts]) / (ends - starts)
