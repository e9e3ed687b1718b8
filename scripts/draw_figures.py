"""Draws the figures of the README and the manual anew.

    make figures                                 all of them
    make figures FIGURES="web tracking"          some of them

What a figure needs and is not installed is said in a sentence, and the figure stays as it is.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
DOCS: Final = ROOT / "docs"
MAX_BYTES: Final = 3_000_000
"""Of all figures together."""
PAGE_WH: Final = (1280, 1120)
PAGE_TIMEOUT_MS: Final = 300_000
_CHROMIUM: Final = os.environ.get("CHROMIUM") or shutil.which("chromium")


@dataclass(frozen=True)
class Figure:
    """A figure and how it is drawn."""

    path: str  # below docs/
    draw: Callable[[Path], None]
    needs: tuple[str, ...] = ()  # packages
    remedy: str = ""  # how to install them
    remark: str = ""  # why it takes long


def module(*arguments: str) -> Callable[[Path], None]:
    """Return what runs one of our modules; the path is its last argument."""

    def draw(path: Path) -> None:
        subprocess.run([sys.executable, "-m", *arguments, str(path)], cwd=ROOT, check=True)

    return draw


def draw_fleet(path: Path) -> None:
    """Draw what is recorded beside it."""
    from benchmarks.fleet import plot

    plot(_recorded(path), path)


def draw_bench(path: Path) -> None:
    """Draw what is recorded beside it."""
    from segzero_cli.bench.report import plot

    plot(_recorded(path), path)


def draw_training(path: Path) -> None:
    """Draw the trainings of the weights of the tabletop's model."""
    from training.bundle.model_card import draw_curves, read_logs

    draw_curves(read_logs(DOCS / "runs" / "tabletop-3"), path)


def draw_libero_training(path: Path) -> None:
    """Draw the trainings of the reasoner of the model `libero`, one after another."""
    from training.bundle.model_card import draw_reasoner_curves

    logs = [DOCS / "runs" / f"libero-{number}" / "text.jsonl" for number in (1, 2, 3)]
    draw_reasoner_curves(logs, 448, path)


def draw_study(path: Path) -> None:
    """Draw the study's trainings, and its tables with them."""
    from training.study.report import write_report

    write_report(path.parent, DOCS / "study.md")


def draw_page(path: Path) -> None:
    """Take a screenshot of the page with an answer about two objects, from a server of our own."""
    from playwright.sync_api import expect, sync_playwright

    command = [sys.executable, "-m", "segzero_cli", "web", "--port", "0"]
    server = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        url = server.stdout.readline().split()[2]
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=_CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
            )
            width, height = PAGE_WH
            page = browser.new_page(viewport={"width": width, "height": height})
            page.goto(url)
            page.locator("#examples button").nth(4).click()
            expect(page.locator("#status")).to_contain_text("found", timeout=PAGE_TIMEOUT_MS)
            expect(page.locator("#space")).to_be_visible(timeout=PAGE_TIMEOUT_MS)
            expect(page.locator("#state")).to_contain_text("ready", timeout=PAGE_TIMEOUT_MS)
            page.screenshot(path=path)
            browser.close()
    finally:
        server.terminate()
        server.wait()


def _recorded(path: Path) -> Any:
    return json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))


_LIBERO: Final = (("libero", "mujoco"), "run `make libero-setup`")
_PLOTS: Final = (("matplotlib",), "pip install 'segzero[train]'")
FIGURES: Final = {
    "bench": Figure("bench.png", draw_bench, *_PLOTS),
    "fleet": Figure("fleet.png", draw_fleet, *_PLOTS),
    "training": Figure("training.png", draw_training, *_PLOTS),
    "libero-training": Figure("libero-training.png", draw_libero_training, *_PLOTS),
    "study": Figure("study/curves.png", draw_study, *_PLOTS),
    "tracking": Figure(
        "tracking.png",
        module("benchmarks.tracking", "--seed", "1000002", "--picture"),
        ("mujoco",),
        "pip install 'segzero[tabletop]'",
        "a minute: sixty images are tracked",
    ),
    "web": Figure(
        "web.png",
        draw_page,
        ("playwright", "starlette", "rosbags"),
        "pip install 'segzero[web,dev]', apt-get install chromium",
    ),
    "libero": Figure(
        "libero.png",
        module("examples.libero_questions", "--out"),
        *_LIBERO,
        "a minute: eight scenes are built",
    ),
    "film": Figure(
        "libero-task.gif",
        module("benchmarks.libero", "--suite", "libero_spatial", "--film"),
        *_LIBERO,
        "minutes: a robot carries out a task",
    ),
}


def missing(figure: Figure) -> list[str]:
    """Return what a figure needs and is not installed."""
    lacking = [name for name in figure.needs if importlib.util.find_spec(name) is None]
    if "playwright" in figure.needs and _CHROMIUM is None:
        lacking.append("chromium")
    return lacking


def use_palette() -> None:
    """Give plots the colors of the overlays."""
    if importlib.util.find_spec("matplotlib") is None:
        return
    import matplotlib as mpl
    from cycler import cycler

    from segzero_core.images.palette import PALETTE

    # Yellow lines are not seen on white, black ones are.
    shown = [color for color in PALETTE if min(color[:2]) < 200] + [(0, 0, 0)]
    colors = [[part / 255 for part in color] for color in shown]
    mpl.rcParams["axes.prop_cycle"] = cycler("color", colors)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; 1 where a figure could not be drawn or all are too large."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(FIGURES))
    names = parser.parse_args(argv).names or list(FIGURES)
    if unknown := sorted(set(names) - set(FIGURES)):
        parser.error(f"there is no figure {', '.join(unknown)}, only {', '.join(FIGURES)}")
    use_palette()
    failed = []
    for name in names:
        figure, began_s = FIGURES[name], time.monotonic()
        if lacking := missing(figure):
            print(f"{name}: left as it is, {', '.join(lacking)} is missing; {figure.remedy}")
            continue
        print(f"{name}: {figure.remark or 'is drawn'}", flush=True)
        try:
            figure.draw(DOCS / figure.path)
        except Exception as error:  # the others are still drawn
            failed.append(name)
            print(f"{name}: error: {error}", file=sys.stderr)
        else:
            print(f"{name}: docs/{figure.path}, {time.monotonic() - began_s:.0f} s", flush=True)
    size = sum((DOCS / figure.path).stat().st_size for figure in FIGURES.values())
    print(f"{size / 1e6:.2f} MB in all, at most {MAX_BYTES / 1e6:g}")
    return int(bool(failed) or size > MAX_BYTES)


if __name__ == "__main__":
    sys.exit(main())
