"""How long scoring takes, with every protocol, on one core and without a segmenter.

    python -m benchmarks.rewards [--json FILE] [--check]

Target: 10,000 completions of 20 objects each in less than 2 seconds of processor time. The
completions are those of a model in the middle of its training: some boxes right, some off by a
little or a lot, one completion in twenty cut off. The best of three runs counts, since another
program on the machine can only add time. With `--check` the exit code is 1 when the target is
missed. The last line is the figure.
"""

from __future__ import annotations

import gc
import json
import random
import sys
import time

from benchmarks.figures import conclude, new_parser
from training.rewards.ground_truth import GroundTruth
from training.rewards.protocols import PROTOCOLS, score

TARGET_S = 2.0
N_OBJECTS = 20
RUNS = 3


def make_samples(count: int) -> tuple[list[str], list[GroundTruth]]:
    """Write completions with errors of all sizes, and what would have been right."""
    rng = random.Random(0)
    completions, truths = [], []
    for index in range(count):
        boxes, points, said = [], [], []
        for _ in range(N_OBJECTS):
            x, y = rng.randint(0, 700), rng.randint(0, 700)
            width, height = rng.randint(20, 130), rng.randint(20, 130)
            box = (x, y, x + width, y + height)
            boxes.append(box)
            points.append([(x + width // 2, y + height // 2)])
            error = rng.choice((0, 5, 40))
            wrong = [value + rng.randint(-error, error) // 4 for value in box]
            middle = [x + width // 2 + error, y + height // 2]
            said.append({"bbox_2d": wrong, "point_2d": middle})
        thinking = "I see twenty things, 0.5 m apart. All of them are meant. None is hidden."
        text = f"<think>{thinking}</think>\n<answer>{json.dumps(said)}</answer>"
        completions.append(text[: -20 if index % 20 == 0 else None])
        truths.append(GroundTruth(tuple(boxes), tuple(points), (840, 840)))
    return completions, truths


def measure(completions: list[str], truths: list[GroundTruth]) -> dict[str, float]:
    """Return the processor time of each protocol [s]."""
    seconds = {}
    for name, protocol in PROTOCOLS.items():
        runs = []
        for _ in range(RUNS):
            gc.collect()
            start = time.process_time()
            score(protocol, completions, truths)
            runs.append(time.process_time() - start)
        seconds[name] = min(runs)
    return seconds


def main() -> int:
    parser = new_parser("Time of scoring completions.")
    parser.add_argument("--count", type=int, default=10_000, help="number of completions")
    args = parser.parse_args()
    seconds = measure(*make_samples(args.count))
    for name, taken in seconds.items():
        print(f"{name:<10}{taken:6.2f} s  {taken / args.count * 1e6:5.0f} µs a completion")
    slowest, target = max(seconds.values()), TARGET_S * args.count / 10_000
    figures = {"count": args.count, "objects": N_OBJECTS, "seconds": seconds, "target_s": target}
    print(f"{slowest:.2f} s for {args.count} completions (target: {target:.2f} s)")
    return conclude(args, figures, missed=slowest >= target)


if __name__ == "__main__":
    sys.exit(main())
