"""Converts prepared data for TRL's trainers: conversation, image and true answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, IterableDataset
from PIL import Image
from pycocotools import mask as coco

from segzero_core.checkpoints.description import ModelDescription
from segzero_core.errors import ConfigError
from segzero_core.prompt import MULTI_OBJECT, SINGLE_OBJECT, build_prompt, is_single_object
from segzero_core.reasoner.base import squash
from training.config import TrainConfig
from training.data.shards import load_prepared
from training.rewards.ground_truth import GroundTruth

Row = Mapping[str, Any]
TRUTH_COLUMNS = ("boxes_xyxy", "points", "seen_size_wh", "source_id", "masks")


def load_conversations(
    config: TrainConfig, description: ModelDescription, finish: Callable[..., dict[str, list]]
) -> Dataset | IterableDataset:
    """Open the data of a run, and convert its rows to the columns of a trainer.

    `finish` is `grpo_columns` or `sft_columns`.

    Raises:
        ConfigError: The data is empty after the choice of kinds, or was prepared for another
            size than the model sees.
        InputError: The data is missing, unfinished or damaged.
    """
    streaming = config.shuffle_buffer > 0
    data = load_prepared(Path(config.data), streaming=streaming)
    first = next(iter(data))
    if tuple(first["seen_size_wh"]) != tuple(description.seen_size_wh):
        raise ConfigError(
            f"data {config.data}: prepared for a model that sees {tuple(first['seen_size_wh'])}"
            f" pixels, but {config.model} sees {description.seen_size_wh}; prepare it again with"
            f" --seen-size {description.seen_size_wh[0]}x{description.seen_size_wh[1]}"
        )
    if not streaming:
        return _chosen(config, data).with_transform(partial(finish, config, description))
    data = data.filter(partial(_is_wanted, config))
    data = data.shuffle(config.seed, buffer_size=config.shuffle_buffer)
    if config.max_samples:
        data = data.take(config.max_samples)
    return data.map(partial(finish, config, description), batched=True, remove_columns=list(first))


def grpo_columns(
    config: TrainConfig, description: ModelDescription, batch: Mapping[str, Sequence[Any]]
) -> dict[str, list[Any]]:
    """Return prompt, image and true answer: the columns that GRPO and its rewards read."""
    images = batch["image"]
    return {
        "prompt": [_asked(config, description, query) for query in batch["query"]],
        "image": [_seen(description, image) for image in images],
        # Only the mask reward looks at the image itself.
        "original": list(images) if config.grpo.mask_weight else [None] * len(images),
        **{name: list(batch[name]) for name in TRUTH_COLUMNS},
    }


def conversation(row: Row) -> list[dict[str, Any]]:
    """Make a conversation for the processor's chat template from a row of `grpo_columns`."""
    (message,) = row["prompt"]
    image = {"type": "image", "image": row["image"]}
    return [{"role": "user", "content": [image, {"type": "text", "text": message["content"]}]}]


def sft_columns(
    config: TrainConfig, description: ModelDescription, batch: Mapping[str, Sequence[Any]]
) -> dict[str, list[Any]]:
    """Return prompt, image and the answer to imitate: true boxes and points, no thinking."""
    answers = [
        write_answer(config.template, boxes, points)
        for boxes, points in zip(batch["boxes_xyxy"], batch["points"], strict=True)
    ]
    return {
        "prompt": [_asked(config, description, query) for query in batch["query"]],
        "completion": [[{"role": "assistant", "content": answer}] for answer in answers],
        "image": [_seen(description, image) for image in batch["image"]],
    }


def write_answer(
    template: str,
    boxes_xyxy: Sequence[Sequence[float]],
    points: Sequence[Sequence[Sequence[float]]],
) -> str:
    """Write the answer that `parse_completion` reads back as these objects.

    Boxes and points, two an object, are in pixels of the seen image; no box means that nothing
    fits. The template decides the form.

    Raises:
        ConfigError: Several objects in the single-object form.
    """
    if not boxes_xyxy:
        return "<answer>[]</answer>"
    if not is_single_object(template):
        objects = [
            f'{{"bbox_2d": [{_whole(box)}], "point_2d": [{_whole(pair[0])}]}}'
            for box, pair in zip(boxes_xyxy, points, strict=True)
        ]
        return f"<answer>[{', '.join(objects)}]</answer>"
    if len(boxes_xyxy) > 1:
        raise ConfigError(
            f"template {template}: cannot name {len(boxes_xyxy)} objects; leave such samples out"
            " with kinds, or use a multi-object template"
        )
    (first, second), (box,) = points[0], boxes_xyxy
    return (
        f'<answer>{{"bbox": [{_whole(box)}], "points_1": [{_whole(first)}],'
        f' "points_2": [{_whole(second)}]}}</answer>'
    )


def truth_of(template: str, row: Row, *, with_masks: bool = False) -> GroundTruth:
    """Return the ground truth of a row, for the rewards."""
    masks = None
    if with_masks:
        height, width = row["masks"][0]["size"] if row["masks"] else (1, 1)
        decoded = [
            coco.decode({"size": rle["size"], "counts": rle["counts"].encode("ascii")})
            for rle in row["masks"]
        ]
        masks = np.asarray(decoded, np.bool_).reshape(len(decoded), height, width)
    return GroundTruth(
        boxes_xyxy=tuple(tuple(box) for box in row["boxes_xyxy"]),
        points=tuple(tuple(tuple(point) for point in pair) for pair in row["points"]),
        seen_size_wh=tuple(row["seen_size_wh"]),
        form=SINGLE_OBJECT if is_single_object(template) else MULTI_OBJECT,
        masks=masks,
        image_id=row["source_id"],
    )


def _chosen(config: TrainConfig, data: Dataset) -> Dataset:
    kinds, boxes = data["kind"], data["boxes_xyxy"]
    rows = [
        index
        for index, (kind, own) in enumerate(zip(kinds, boxes, strict=True))
        if _is_wanted(config, {"kind": kind, "boxes_xyxy": own})
    ]
    if not rows:
        raise ConfigError(
            f"data {config.data}: none of {len(data)} samples is of kind"
            f" {config.kinds or 'any'} and fits template {config.template}; there are"
            f" {sorted(set(kinds))}"
        )
    return data.select(rows[: config.max_samples or None])


def _is_wanted(config: TrainConfig, row: Row) -> bool:
    fits_form = not is_single_object(config.template) or len(row["boxes_xyxy"]) <= 1
    return fits_form and (not config.kinds or row["kind"] in config.kinds)


def _asked(config: TrainConfig, description: ModelDescription, query: str) -> list[dict[str, str]]:
    text = build_prompt(config.template, description.asked(query))
    return [{"role": "user", "content": text}]


def _seen(description: ModelDescription, image: Image.Image) -> Image.Image:
    """Resize an image exactly as the model's pipeline does."""
    return squash(np.asarray(image.convert("RGB")), description.seen_size_wh)


def _whole(values: Sequence[float]) -> str:
    return ",".join(str(round(value)) for value in values)
