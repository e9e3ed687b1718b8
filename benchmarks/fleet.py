"""Many robots and one reasoner: measured on a real server, and planned for several GPUs.

    scripts/in_env.sh python -m benchmarks.fleet measure [--robots 1 4 16 64] [--seconds 60]
    scripts/in_env.sh python -m benchmarks.fleet plan --p95 2.0 [--robots 100 1000 4000] …
    scripts/in_env.sh python -m benchmarks.fleet plot --json FILE --out docs/fleet.png

`measure` starts `transformers serve` with the bundled model. Every robot asks at random moments
(Poisson), about images of its own, and waits for an answer before it asks again; what arrives
meanwhile waits at the robot, and counts from its arrival.

`plan` simulates GPUs with continuous batching: a step gives every reply of the batch one token,
and takes longer with every reply; a prompt is read before its reply joins the batch, faster where
the image's prefix is kept. Robots go to the GPU with the fewest replies, but questions about an
image that was asked about before go where its prefix is. Service times are arguments: measure
them, or take them from `docs/serving.md`, which says where its numbers come from.
"""

from __future__ import annotations

import argparse
import heapq
import json
import random
import sys
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.figures import conclude, new_parser
from benchmarks.serving import FOLDER, Server

DEADLINE_S: Final = 20.0
EVERY_S: Final = 20.0
"""A robot asks this often on average [s]."""
MOST_GPUS: Final = 4096


@dataclass(frozen=True)
class Service:
    """How fast one GPU is."""

    prefill_ms: float = 60.0  # to read a prompt with a new image [ms]
    prefix_ms: float = 12.0  # to read a prompt whose image is kept [ms]
    step_ms: float = 7.0  # one token of one reply [ms]
    step_more_ms: float = 0.15  # what every further reply of the batch adds to that [ms]
    tokens: float = 100.0  # tokens of a reply, on average; they vary by a third of that (gamma)
    hit_rate: float = 0.5  # share of the questions about an image that was asked about before
    max_batch: int = 64  # most replies at a time; further ones wait


class Gpu:
    """One GPU: replies share its steps; a prompt that is read stops them for so long.

    Time is divided into stretches in which nothing begins or ends. `_steps` counts the tokens that
    every reply of the batch got since the beginning, so that a reply ends at a known count.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self._now = 0.0
        self._steps = 0.0
        self._batch: list[tuple[float, float]] = []  # the count at the end, the arrival
        self._waiting: list[tuple[float, float, float]] = []  # arrival, prefill [s], tokens
        self.latencies_s: list[float] = []

    @property
    def load(self) -> int:
        """How many replies it has."""
        return len(self._batch) + len(self._waiting)

    def ask(self, at_s: float, prefill_s: float, tokens: float) -> None:
        """Take a question that arrives now."""
        self.run_until(at_s)
        self._waiting.append((at_s, prefill_s, tokens))
        self._begin()

    def run_until(self, at_s: float) -> None:
        """Generate until a moment [s]."""
        service = self._service
        while self._batch and self._now < at_s:
            step_s = (service.step_ms + service.step_more_ms * (len(self._batch) - 1)) / 1e3
            end, arrived_s = self._batch[0]
            ends_s = self._now + (end - self._steps) * step_s
            if ends_s > at_s:
                self._steps += (at_s - self._now) / step_s
                break
            self._now, self._steps = ends_s, end
            heapq.heappop(self._batch)
            self.latencies_s.append(ends_s - arrived_s)
            self._begin()
        self._now = max(self._now, at_s)

    def _begin(self) -> None:
        while self._waiting and len(self._batch) < self._service.max_batch:
            arrived_s, prefill_s, tokens = self._waiting.pop(0)
            # The replies that run wait meanwhile.
            self._now = max(self._now, arrived_s) + prefill_s
            heapq.heappush(self._batch, (self._steps + tokens, arrived_s))


def simulate(
    service: Service, robots: int, gpus: int, *, every_s: float = EVERY_S, seconds: float = 300.0
) -> dict[str, float]:
    """Return answers a second, and percentiles of the latency [s], of a fleet."""
    rng, places = random.Random(7), random.Random(8)
    machines = [Gpu(service) for _ in range(gpus)]
    # The least loaded of a few random ones is nearly as good as the least loaded of all.
    few = min(gpus, 8)
    homes: dict[int, Gpu] = {}
    now_s, count = 0.0, 0
    while now_s < seconds:
        now_s += rng.expovariate(robots / every_s)
        robot, hit = rng.randrange(robots), rng.random() < service.hit_rate
        chosen = homes.get(robot) if hit else None
        if chosen is None:
            hit = False
            candidates = places.sample(machines, few)
            for each in candidates:
                each.run_until(now_s)
            chosen = min(candidates, key=lambda each: each.load)
            homes[robot] = chosen
        prefill_s = (service.prefix_ms if hit else service.prefill_ms) / 1e3
        tokens = max(1.0, rng.gammavariate(9.0, service.tokens / 9.0))
        chosen.ask(now_s, prefill_s, tokens)
        count += 1
    for machine in machines:
        machine.run_until(float("inf"))
    latencies = np.array([each for machine in machines for each in machine.latencies_s])
    return {"asked": count, "per_s": round(count / now_s, 2), **percentiles(latencies)}


def percentiles(latencies_s: Any) -> dict[str, float]:
    """Return p50, p95 and p99 [s]."""
    if not len(latencies_s):
        return {}
    found = np.percentile(latencies_s, [50, 95, 99])
    return {f"p{q}_s": round(float(v), 3) for q, v in zip((50, 95, 99), found, strict=True)}


def gpus_needed(service: Service, robots: int, p95_s: float, **options: float) -> int:
    """Return the fewest GPUs with which 95 % of the answers come in time; 0: more do not help."""

    def is_enough(gpus: int) -> bool:
        return simulate(service, robots, gpus, **options).get("p95_s", 0.0) <= p95_s

    high = 1
    while not is_enough(high):
        high *= 2
        if high > MOST_GPUS:
            return 0
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if is_enough(middle) else (middle, high)
    return high


def plan(args: argparse.Namespace) -> dict[str, Any]:
    """Say how many GPUs every fleet needs, and what more or fewer of them would do."""
    names = [field for field in Service.__dataclass_fields__]
    service = Service(**{name: getattr(args, name) for name in names})
    rows = []
    for robots in args.robots or (100, 1000, 4000):
        gpus = gpus_needed(service, robots, args.p95, every_s=args.every)
        row: dict[str, Any] = {"robots": robots, "gpus": gpus}
        for count in sorted({gpus // 2, gpus, 2 * gpus} - {0}):
            row[f"with_{count}"] = simulate(service, robots, count, every_s=args.every)
        rows.append(row)
        print(f"{robots} robots: {gpus or 'no number of'} GPUs for p95 <= {args.p95} s; {row}")
    return {"service": asdict(service), "p95_s": args.p95, "every_s": args.every, "fleets": rows}


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Let robots ask a real server."""
    rows = []
    with Server(scripted=False) as server:
        _fleet(server, 1, 3.0, 1.0)  # warm
        for robots in args.robots or (1, 4, 16, 64):
            row = {"robots": robots, **_fleet(server, robots, args.seconds, args.every)}
            rows.append(row)
            print(row, flush=True)
    return {"every_s": args.every, "seconds": args.seconds, "deadline_s": DEADLINE_S, "runs": rows}


def _fleet(server: Server, robots: int, seconds: float, every_s: float) -> dict[str, Any]:
    from segzero_cli.check_model.command import questions
    from segzero_core.checkpoints.description import ModelDescription
    from segzero_core.errors import SegZeroError
    from segzero_core.reasoner.remote import RemoteReasoner
    from segzero_core.reasoner.server_address import ServerAddress
    from segzero_core.reasoner.server_client import ServerLimits

    asked = questions()
    description = ModelDescription.from_file(FOLDER / "segzero.json")
    latencies: list[float] = []
    errors: list[str] = []

    def drive(number: int) -> None:
        rng = random.Random(number)
        limits = ServerLimits(first_token_s=DEADLINE_S, total_s=DEADLINE_S, retries=0)
        reasoner = RemoteReasoner(ServerAddress.parse(server.address), description, limits)
        arrives_s = began_s + rng.expovariate(1.0 / every_s)
        while arrives_s < began_s + seconds:
            time.sleep(max(0.0, arrives_s - time.monotonic()))
            image, query, _ = rng.choice(asked)
            try:
                for _ in reasoner.stream(image, query):
                    pass
                latencies.append(time.monotonic() - arrives_s)
            except SegZeroError as error:
                errors.append(str(error))
            arrives_s += rng.expovariate(1.0 / every_s)
        reasoner.close()

    began_s = time.monotonic()
    threads = [threading.Thread(target=drive, args=(number,)) for number in range(robots)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took_s = time.monotonic() - began_s
    return {
        "answers": len(latencies),
        "failures": len(errors),
        "answers_per_s": round(len(latencies) / took_s, 3),
        **percentiles(np.array(latencies)),
        "first_failure": errors[0] if errors else "",
    }


def plot(figures: dict[str, Any], out: Path) -> None:
    """Draw what was measured beside what was planned."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 3.6))
    runs = figures["measure"]["runs"]
    for name in ("p50_s", "p95_s", "p99_s"):
        points = [(run["robots"], run[name]) for run in runs if name in run]
        left.plot(*zip(*points, strict=True), marker="o", label=name.split("_")[0])
    left.set(xscale="log", yscale="log", xlabel="robots", ylabel="latency [s]")
    left.set_title("measured: transformers serve, 2 cores, bundled model", fontsize=9)
    left.legend()
    service = Service(**figures["plan"]["service"])
    fleets = (50, 100, 200, 500, 1000, 2000)
    every_s = figures["plan"]["every_s"]
    for gpus in (1, 2, 4, 8):
        p95 = [simulate(service, robots, gpus, every_s=every_s)["p95_s"] for robots in fleets]
        right.plot(fleets, p95, marker="o", label=f"{gpus} GPUs")
    right.axhline(figures["plan"]["p95_s"], color="gray", linestyle=":")
    right.set(xscale="log", yscale="log", xlabel="robots", ylabel="p95 [s]")
    right.set_title("simulated, with the given service times", fontsize=9)
    right.legend()
    figure.tight_layout()
    figure.savefig(out, dpi=110)


def main() -> int:
    parser = new_parser(__doc__)
    parser.add_argument("what", choices=("measure", "plan", "plot"))
    parser.add_argument("--robots", type=int, nargs="+", help="numbers of robots")
    parser.add_argument("--every", type=float, default=EVERY_S, help="a robot asks so often [s]")
    parser.add_argument("--seconds", type=float, default=60.0, help="of each measurement")
    parser.add_argument("--p95", type=float, default=2.0, help="wanted latency [s]")
    parser.add_argument("--out", type=Path, help="where plot draws to")
    for name, field in Service.__dataclass_fields__.items():
        option = "--" + name.replace("_", "-")
        kind = type(field.default)
        parser.add_argument(option, type=kind, default=field.default, help=f"({field.default})")
    args = parser.parse_args()
    there = args.json is not None and args.json.is_file()
    figures = json.loads(args.json.read_text(encoding="utf-8")) if there else {}
    if args.what == "plot":
        plot(figures, args.out)
        return 0
    figures[args.what] = {"measure": measure, "plan": plan}[args.what](args)
    missed = args.what == "plan" and any(row["gpus"] == 0 for row in figures["plan"]["fleets"])
    return conclude(args, figures, missed=missed)


if __name__ == "__main__":
    sys.exit(main())
