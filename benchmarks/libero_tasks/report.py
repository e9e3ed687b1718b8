"""Tables and a plot of what `benchmarks.libero` kept, and whether it is good enough.

    python -m benchmarks.libero_tasks.report --truth --plot docs/libero-truth.png
    python -m benchmarks.libero_tasks.report --model libero --check

It reads the episodes of all suites that are there, and runs none. `--check` wants every suite that
a target is set for: see `faults_of`.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.figures import conclude, new_parser
from benchmarks.libero import TARGETS, TRUTH, Episode, read_log, summary
from segzero_core.checkpoints.cache import cache_folder

FAMILIES: Final = ("object", "spatial", "goal")
KINDS: Final = ("", "_swap", "_task", "_lan")
SIX_TARGET: Final = 0.60
"""Mean over the `_swap` and `_task` suites of the three families, with a model."""
LAN_DROP: Final = 0.08
"""A rewording may cost so much."""
LONGEST_S: Final = 30.0
"""An episode may take so long at the median."""


def suite_of(family: str, kind: str) -> str:
    """The package's name of a suite."""
    return f"libero_{family}{kind}"


def read_folder(folder: Path, who: str, states: int) -> dict[str, list[Episode]]:
    """The episodes of each suite that there are some of."""
    found = {}
    for family in FAMILIES:
        for kind in KINDS:
            suite = suite_of(family, kind)
            kept = [e for e in read_log(folder / f"{suite}-{who}.jsonl") if e.state < states]
            if kept:
                found[suite] = kept
    return found


def faults_of(summaries: dict[str, dict[str, Any]], *, truth: bool) -> list[str]:
    """Every target that is missed, or has no episodes."""
    share = {suite: figures["share"] for suite, figures in summaries.items()}
    wanted = dict(TARGETS[truth])
    if not truth:
        wanted |= {
            suite_of(family, "_lan"): share.get(suite_of(family, ""), 0.0) - LAN_DROP
            for family in FAMILIES
        }
    faults = [
        f"{suite}: {share[suite]:.3f} instead of {least:.2f}"
        if suite in share
        else f"{suite}: no episodes"
        for suite, least in wanted.items()
        if share.get(suite, -1.0) < least
    ]
    six = [suite_of(family, kind) for family in FAMILIES for kind in ("_swap", "_task")]
    mean = float(np.mean([share.get(suite, 0.0) for suite in six]))
    if not truth and mean < SIX_TARGET:
        faults.append(f"mean over the six perturbed suites: {mean:.3f} instead of {SIX_TARGET}")
    slow = [suite for suite, each in summaries.items() if each["median_seconds"] > LONGEST_S]
    return faults + [f"{suite}: over {LONGEST_S:.0f} s an episode" for suite in slow]


def table(summaries: dict[str, dict[str, Any]]) -> str:
    """Success by family and kind of suite, in Markdown."""
    lines = ["| | " + " | ".join(f"`{kind}`" if kind else "original" for kind in KINDS) + " |"]
    lines.append("|---" * (len(KINDS) + 1) + "|")
    for family in FAMILIES:
        cells = [_cell(summaries.get(suite_of(family, kind))) for kind in KINDS]
        lines.append(f"| {family} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(figures: dict[str, Any] | None) -> str:
    if figures is None:
        return "-"
    low, high = figures["interval"]
    return f"{figures['succeeded']} of {figures['episodes']} ({low:.2f}-{high:.2f})"


def plot(summaries: dict[str, dict[str, Any]], out: Path) -> None:
    """Bars of the shares that succeeded, and that failed by each cause."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    total: Counter[str] = Counter()
    for figures in summaries.values():
        total.update(figures["causes"])
    causes = [cause for cause, _ in total.most_common()]
    suites = list(summaries)
    figure, axes = pyplot.subplots(figsize=(9, 1.2 + 0.4 * len(suites)), layout="constrained")
    left = np.array([summaries[suite]["share"] for suite in suites])
    axes.barh(suites, left, color="tab:green", label="succeeded")
    greens = (4, 5)  # of the map; they stand for success
    colors = pyplot.get_cmap("tab20")([i for i in range(20) if i not in greens])
    for color, cause in zip(colors, causes, strict=False):
        shares = np.array(
            [summaries[s]["causes"].get(cause, 0) / summaries[s]["episodes"] for s in suites]
        )
        axes.barh(suites, shares, left=left, color=color, label=cause)
        left = left + shares
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.set_xlabel("share of episodes")
    figure.legend(loc="outside right upper", fontsize="small")
    figure.savefig(out, dpi=110)
    pyplot.close(figure)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = new_parser(__doc__)
    parser.add_argument("--states", type=int, default=10, help="first initial states of each task")
    parser.add_argument("--model", default="libero", help="whose episodes")
    parser.add_argument("--truth", action="store_true", help="those with the simulator's masks")
    parser.add_argument("--work", type=Path, help="where episodes are kept (default: the cache)")
    parser.add_argument(
        "--plot", type=Path, metavar="PNG", help="draw the causes of failure there"
    )
    args = parser.parse_args(argv)
    folder = args.work or cache_folder("libero") / "episodes"
    if args.truth:
        who = TRUTH
    else:
        from segzero_core import SegZero

        who = SegZero.load(args.model).identity.weights_hash
    episodes = read_folder(folder, who, args.states)
    if not episodes:
        print(f"benchmarks.libero_tasks.report: error: no episodes in {folder}", file=sys.stderr)
        return 2
    summaries = {suite: summary(kept, suite) for suite, kept in episodes.items()}
    print(table(summaries))
    for suite, figures in summaries.items():
        causes = ", ".join(f"{count} {cause}" for cause, count in figures["causes"].items())
        print(f"{suite}: {figures['median_seconds']:.0f} s, {causes or 'no failure'}")
    faults = faults_of(summaries, truth=args.truth)
    print("\n".join(faults or ["all targets are reached"]))
    if args.plot:
        plot(summaries, args.plot)
    return conclude(args, summaries, missed=bool(faults))


if __name__ == "__main__":
    sys.exit(main())
