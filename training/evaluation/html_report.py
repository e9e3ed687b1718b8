"""An evaluation as one HTML file: figures, and pictures of the worst and best answers.

Nothing is loaded from elsewhere: pictures stand in the file. Every text is escaped, since queries
come from data sets and replies from a model.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from io import BytesIO
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segzero_core.images.overlay import draw_overlay
from segzero_core.types import RgbImage, Segmentation
from training.evaluation.cases import CaseSet
from training.evaluation.predictions import Scored
from training.evaluation.summary import FIGURES

SHOWN_CASES: Final = 12
"""So many of the worst, and so many of the best."""

_SIDE_PX = 360
_JPEG_QUALITY = 85
_OUTLINE_SHARE = 1 / 200
_WHITE, _BLACK = (255, 255, 255), (0, 0, 0)
_STYLE = """
body { font: 15px/1.4 sans-serif; margin: 2em auto; max-width: 1200px; color: #222; }
table { border-collapse: collapse; }
td, th { padding: .25em .7em; text-align: right; border-bottom: 1px solid #ddd; }
td:first-child, th:first-child { text-align: left; }
small { color: #666; display: block; }
.cases { display: grid; grid-template-columns: repeat(auto-fill, minmax(360px, 1fr)); gap: 1.5em; }
figure { margin: 0; }
figcaption b { display: block; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; background: #f5f5f5; padding: .6em;
  max-height: 14em; overflow: auto; margin: .3em 0; font-size: 12px; }
"""


def build_report(
    figures: dict[str, Any], samples: Sequence[Scored], cases: CaseSet, ignore: str
) -> str:
    """Write the report.

    Args:
        figures: What `training.evaluation.summary.report` gives.
        samples: All scored cases.
        cases: Where their pictures are read again.
        ignore: One of `IGNORE_POLICIES`, for the outline of the truth.

    Raises:
        InputError: A picture cannot be read any more.
    """
    ordered = sorted(samples, key=lambda sample: sample.outcome.iou)
    worst = ordered[:SHOWN_CASES]
    best = ordered[::-1][: min(SHOWN_CASES, len(ordered) - len(worst))]
    pictures = _draw([*worst, *best], cases, ignore)
    title = f"{figures['model']['name']} on {figures['data']['name']}"
    parts = [
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>",
        f"<h1>{escape(title)}</h1>",
        _table(figures),
        _facts(figures),
        "<p>Filled: the answer, with its boxes and points. Outlined in white: the truth.</p>",
    ]
    for heading, chosen in (("Worst", worst), ("Best", best)):
        parts.append(f'<h2>{heading} {len(chosen)}</h2>\n<div class="cases">')
        parts += [_figure(sample, pictures[sample.case.id]) for sample in chosen]
        parts.append("</div>")
    return "\n".join([*parts, "</body>\n</html>\n"])


def _table(figures: dict[str, Any]) -> str:
    heads = "".join(f"<th>{escape(heading)}</th>" for _, heading in FIGURES)
    lines = [f"<table>\n<tr><th>kind</th>{heads}<th>N</th><th>ms</th></tr>"]
    for kind, row in [*figures["kinds"].items(), ("all", figures)]:
        cells = "".join(_cell(row, key) for key, _ in FIGURES)
        ms = f"{row['ms'] or 0.0:.0f}"
        lines.append(f"<tr><td>{escape(kind)}</td>{cells}<td>{row['n']}</td><td>{ms}</td></tr>")
    return "\n".join([*lines, "</table>"])


def _cell(row: dict[str, Any], key: str) -> str:
    if row[key] is None:
        return "<td>-</td>"
    ends = row["intervals"][key]
    interval = "" if ends is None else f"<small>{ends[0]:.3f} to {ends[1]:.3f}</small>"
    return f"<td>{row[key]:.3f}{interval}</td>"


def _facts(figures: dict[str, Any]) -> str:
    lines = [
        f"<tr><th>{escape(f'{part}: {key}')}</th><td>{escape(str(value))}</td></tr>"
        for part in ("model", "data", "protocol")
        for key, value in figures[part].items()
    ]
    return "\n".join(
        ["<details><summary>what was done</summary>\n<table>", *lines, "</table></details>"]
    )


def _figure(sample: Scored, picture: str) -> str:
    outcome = sample.outcome
    said = sample.completion or "(no reply)"
    error = f"<small>{escape(sample.error)}</small>" if sample.error else ""
    return (
        f'<figure><img src="{picture}" alt="{escape(sample.case.query)}">\n'
        f"<figcaption><b>{escape(sample.case.query)}</b>"
        f"<small>{escape(sample.case.id)}, {escape(sample.case.kind)}: IoU {outcome.iou:.3f},"
        f" {outcome.ms:.0f} ms</small>{error}<pre>{escape(said)}</pre></figcaption></figure>"
    )


def _draw(samples: Sequence[Scored], cases: CaseSet, ignore: str) -> dict[str, str]:
    """Draw answers and truths; data URIs by the id of the case."""
    wanted = {sample.case.id: sample for sample in samples}
    drawn: dict[str, str] = {}
    for picture in cases.pictures:
        if not any(case.id in wanted for case in picture.cases):
            continue
        view = picture.read()
        for case, truth in zip(picture.cases, view.truths, strict=True):
            if case.id in wanted:
                shown = _overlay(view.image, wanted[case.id], truth.under(ignore).mask)
                drawn[case.id] = _data_uri(shown)
    return drawn


def _overlay(image: RgbImage, sample: Scored, truth: NDArray[np.bool_]) -> RgbImage:
    masks = np.zeros((len(sample.masks), *image.shape[:2]), np.bool_)
    for mask, rle in zip(masks, sample.masks, strict=True):
        mask[:] = rle.decode()
    scores = np.ones(len(masks), np.float32)
    pixels = draw_overlay(image, Segmentation(masks, scores), sample.prompts)
    outlines, _ = cv2.findContours(truth.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    line = max(1, round(max(image.shape[:2]) * _OUTLINE_SHARE))
    # White on black can be seen on any picture.
    cv2.drawContours(pixels, outlines, -1, _BLACK, 2 * line)
    cv2.drawContours(pixels, outlines, -1, _WHITE, line)
    return pixels


def _data_uri(pixels: RgbImage) -> str:
    picture = Image.fromarray(pixels)
    picture.thumbnail((_SIDE_PX, _SIDE_PX))
    encoded = BytesIO()
    picture.save(encoded, "JPEG", quality=_JPEG_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(encoded.getvalue()).decode('ascii')}"
