"""Reward functions for TRL's GRPO trainer, one for each term of the reward."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from PIL import Image

from segzero_core.checkpoints.registry import ModelFiles
from segzero_core.errors import ConfigError
from segzero_core.loading import choose_device
from segzero_core.prompt import asks_to_think
from segzero_core.types import RgbImage
from training.config import TrainConfig
from training.finetune.conversations import TRUTH_COLUMNS, truth_of
from training.rewards.masks import MaskIoU
from training.rewards.protocols import RewardProtocol, Scores, Term, make_protocol, score

MASK_TERM = "mask_iou"


class BatchScorer:
    """Scores each batch of completions once for all terms; loads a segmenter if needed."""

    def __init__(self, config: TrainConfig, files: ModelFiles, device: str = "cpu") -> None:
        self._template = config.template
        self._images: dict[str, Image.Image] = {}
        self._with_masks = config.grpo.mask_weight > 0
        self.protocol = protocol_of(config)
        if self._with_masks:
            from segzero_core.segmenter.sam2 import load_segmenter

            loaded = load_segmenter(files.segmenter, choose_device(device))
            weight = config.grpo.mask_weight
            term = Term(MaskIoU(loaded.encoder, loaded.segmenter, self._open), weight, weight)
            self.protocol = self.protocol.with_terms(**{MASK_TERM: term})
        self._last: tuple[tuple[str, ...], Scores] | None = None

    def scores(self, completions: Sequence[Any], columns: dict[str, Sequence[Any]]) -> Scores:
        """Score what TRL hands to a reward function: conversations or texts, and columns of data.

        Raises:
            RewardError: A term failed; names sample and term.
        """
        texts = tuple(c if isinstance(c, str) else c[-1]["content"] for c in completions)
        rows = [
            {name: columns[name][i] for name in TRUTH_COLUMNS} for i in range(len(completions))
        ]
        key = (*texts, *(row["source_id"] for row in rows))
        if self._last is None or self._last[0] != key:
            self._images = dict(
                zip((row["source_id"] for row in rows), columns["original"], strict=True)
            )
            truths = [truth_of(self._template, row, with_masks=self._with_masks) for row in rows]
            self._last = (key, score(self.protocol, texts, truths))
        return self._last[1]

    def _open(self, image_id: str) -> RgbImage:
        return np.asarray(self._images[image_id].convert("RGB"))


def protocol_of(config: TrainConfig) -> RewardProtocol:
    """Make the reward protocol of a run; a prompt without thinking has no term for it."""
    return make_protocol(
        config.grpo.protocol,
        accuracy=config.grpo.accuracy,
        format=config.grpo.answer_format,
        parts=config.grpo.parts,
        thinking=asks_to_think(config.template),
    )


def reward_functions(scorer: BatchScorer) -> list[Callable[..., list[float]]]:
    """Return a function for each term. TRL logs its mean under the function's name."""
    functions = []
    for name in scorer.protocol.terms:

        def reward(
            completions: Sequence[Any],
            log_metric: Callable[[str, float], None] | None = None,
            *,
            term: str = name,
            **columns: Any,
        ) -> list[float]:
            scores = scorer.scores(completions, columns)
            if log_metric is not None and term == next(iter(scorer.protocol.terms)):
                log_metric("unusable", scores.unusable_share)
            return [float(value) for value in scores.terms[term]]

        reward.__name__ = name
        functions.append(reward)
    if not functions:
        raise ConfigError("no reward is left: every term was taken out")
    return functions
