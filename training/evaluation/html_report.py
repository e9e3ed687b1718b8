"""An evaluation as one HTML file: the metrics, and images of the worst and best answers.

Images are embedded in the file, so nothing is loaded from elsewhere. The template escapes every
text, since queries come from data sets and completions from a model.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import numpy as np
from jinja2 import Environment, FileSystemLoader
from numpy.typing import NDArray
from PIL import Image

from segzero_core.images.overlay import draw_outline, draw_overlay
from segzero_core.types import RgbImage, Segmentation
from training.evaluation.cases import CaseSet
from training.evaluation.predictions import Scored
from training.evaluation.summary import METRICS

SHOWN_CASES: Final = 12
"""So many of the worst, and so many of the best."""

_TEMPLATE = "report.html.j2"
_SIDE_PX = 360
_WHITE = (255, 255, 255)


def build_report(
    summary: dict[str, Any], samples: Sequence[Scored], cases: CaseSet, ignore: str
) -> str:
    """Return a page with the summary and the worst and best of the scored cases, drawn again.

    Raises:
        InputError: An image cannot be read any more.
    """
    ordered = sorted(samples, key=lambda sample: sample.outcome.iou)
    worst = ordered[:SHOWN_CASES]
    best = ordered[::-1][: min(SHOWN_CASES, len(ordered) - len(worst))]
    folder = FileSystemLoader(Path(__file__).parent)
    template = Environment(autoescape=True, loader=folder).get_template(_TEMPLATE)
    return template.render(
        title=f"{summary['model']['name']} on {summary['data']['name']}",
        columns=METRICS,
        rows=[*summary["kinds"].items(), ("all", summary)],
        summary=summary,
        sections=(("Worst", worst), ("Best", best)),
        images=_draw([*worst, *best], cases, ignore),
    )


def _draw(samples: Sequence[Scored], cases: CaseSet, ignore: str) -> dict[str, str]:
    """Draw answers and true masks; data URIs by the id of the case."""
    wanted = {sample.case.id: sample for sample in samples}
    drawn: dict[str, str] = {}
    for entry in cases.images:
        if not any(case.id in wanted for case in entry.cases):
            continue
        view = entry.read()
        for case, truth in zip(entry.cases, view.truths, strict=True):
            if case.id in wanted:
                pixels = _overlay(view.image, wanted[case.id], truth.under(ignore).mask)
                image = Image.fromarray(pixels)
                image.thumbnail((_SIDE_PX, _SIDE_PX))
                jpeg = BytesIO()
                image.save(jpeg, "JPEG", quality=85)
                text = base64.b64encode(jpeg.getvalue()).decode("ascii")
                drawn[case.id] = f"data:image/jpeg;base64,{text}"
    return drawn


def _overlay(image: RgbImage, sample: Scored, truth: NDArray[np.bool_]) -> RgbImage:
    masks = np.zeros((len(sample.masks), *image.shape[:2]), np.bool_)
    for mask, rle in zip(masks, sample.masks, strict=True):
        mask[:] = rle.decode()
    scores = np.ones(len(masks), np.float32)
    pixels = draw_overlay(image, Segmentation(masks, scores), sample.prompts, labels=())
    draw_outline(pixels, truth, _WHITE)
    return pixels
