"""Images and questions for the reasoner, augmented on the fly from rendered folders."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import IterableDataset
from transformers import PreTrainedTokenizerFast

from segzero_core.geometry import box_from_mask
from training.bundle.reasoner.encoding import NOT_WRITTEN, WORD, EncodedQuestion
from training.bundle.reasoner.forward import Packed, QuestionGroup, patchify
from training.bundle.reasoner.model import PREFIX, TOKEN_PX
from training.bundle.reasoner.text import Prompt
from training.bundle.reasoner.world import SeenScene, World
from training.data.mask_prompts import mask_to_prompt
from worlds.common.scene import Scene, SceneObject

_CELL_PX = 14  # samples per side of an image token, to find the object that it shows


@dataclass
class Sample:
    """One augmented image with its questions; arrays as in `Packed`, without the batch."""

    image: NDArray[np.uint8]
    cell_kind: NDArray[np.int64]
    cell_color: NDArray[np.int64]
    cell_numbers: NDArray[np.int64]
    questions: list[EncodedQuestion]
    cells_of: dict[int, NDArray[np.bool_]]


class Scenes(IterableDataset[Sample]):
    """Endless augmented samples in a seeded order; new folders are picked up every pass."""

    def __init__(
        self,
        world: World,
        folders: Sequence[Path],
        tokenizer: PreTrainedTokenizerFast,
        *,
        questions: int,
        seed: int,
        shares: Sequence[float] | None = None,
        choices_only: bool = False,
        augment: bool = True,
    ) -> None:
        self._draw = world.sampler(
            tokenizer, shares or world.kind_shares, choices_only=choices_only, augment=augment
        )
        self._world, self._folders = world, folders
        self._questions, self._seed, self._augment = questions, seed, augment

    def __iter__(self) -> Iterator[Sample]:
        worker = torch.utils.data.get_worker_info()
        number, count = (worker.id, worker.num_workers) if worker else (0, 1)
        cv2.setNumThreads(0)
        rng = np.random.default_rng((self._seed, number))
        while True:
            scenes = sorted(p.parent for f in self._folders for p in f.glob("*/scene.json"))
            if not scenes:
                raise FileNotFoundError(f"no */scene.json in {', '.join(map(str, self._folders))}")
            for index in rng.permutation(len(scenes)):
                if index % count == number:
                    yield self.sample(scenes[index], rng)

    def sample(self, folder: Path, rng: np.random.Generator) -> Sample:
        """Read one folder and draw its questions."""
        scene, facts = self._world.read(folder)
        image = cv2.imread(str(folder / "color.png"))[:, :, ::-1]
        instances = cv2.imread(str(folder / "instances.png"), cv2.IMREAD_UNCHANGED)
        mirrored = self._augment and rng.random() < self._world.mirror_share
        if self._augment:
            image, instances = _augmented(rng, image, instances, scene, mirrored=mirrored)
        objects = tuple(_in_crop(item, instances) for item in scene.objects)
        height, width = instances.shape
        side = self._world.seen_size_px
        prompts = {o.id: _seen_prompt(instances == o.id, side) for o in objects}
        owners = cell_owners(instances, side // TOKEN_PX)
        cells_of = {o.id: owners == o.id for o in objects}
        pixels = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
        if self._augment:
            pixels = _lighting(rng, pixels)
        seen = SeenScene(objects, prompts, (width, height), facts, mirrored)
        drawn = [self._draw(rng, seen) for _ in range(self._questions)]
        targets = _dense_targets(self._world, owners, objects, prompts)
        return Sample(pixels, *targets, drawn, cells_of)


def _augmented(
    rng: np.random.Generator,
    image: NDArray[np.uint8],
    instances: NDArray[np.uint16],
    scene: Scene,
    *,
    mirrored: bool,
) -> tuple[NDArray[np.uint8], NDArray[np.uint16]]:
    """Mirror and crop at random; no object is cut further than it was."""
    height, width = instances.shape
    boxes = np.array([o.box_xyxy for o in scene.objects])
    x0, y0 = (int(rng.uniform(0, v)) for v in boxes[:, :2].min(0) * 0.9)
    x1, y1 = (
        int(rng.uniform(high + (full - high) * 0.1, full))
        for high, full in zip(boxes[:, 2:].max(0), (width, height), strict=True)
    )
    if rng.random() < 0.7:
        image, instances = image[y0:y1, x0:x1], instances[y0:y1, x0:x1]
    if mirrored:
        image, instances = image[:, ::-1], instances[:, ::-1]
    return np.ascontiguousarray(image), np.ascontiguousarray(instances)


def _in_crop(item: SceneObject, instances: NDArray[np.uint16]) -> SceneObject:
    box = box_from_mask(instances == item.id)
    assert box is not None  # the crop keeps every object
    return replace(item, box_xyxy=tuple(map(int, box.xyxy)))


def _lighting(rng: np.random.Generator, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    gain, offset = rng.uniform(0.8, 1.2), rng.uniform(-15, 15)
    noise = rng.normal(0, rng.uniform(0, 4), image.shape)
    return np.clip(image * gain + offset + noise, 0, 255).astype(np.uint8)


def _seen_prompt(mask: NDArray[np.bool_], side: int) -> Prompt:
    box, points = mask_to_prompt(mask)
    x, y = side / mask.shape[1], side / mask.shape[0]
    placed = [(round(px * x), round(py * y)) for px, py in (points * 2)[:2]]
    seen = (round(box[0] * x), round(box[1] * y), round(box[2] * x), round(box[3] * y))
    return Prompt(seen, (placed[0], placed[1]))


def cell_owners(instances: NDArray[np.uint16], cells: int) -> NDArray[np.int64]:
    """Which object each image token shows, int [cells * cells]; 0 for none.

    A token belongs to the object that covers most of it, if that is an eighth at least; every
    object has the token that it covers most, so that there is always a place to look at.
    """
    side = cells * _CELL_PX
    small = cv2.resize(instances, (side, side), interpolation=cv2.INTER_NEAREST)
    blocks = small.reshape(cells, _CELL_PX, cells, _CELL_PX).transpose(0, 2, 1, 3)
    blocks = blocks.reshape(cells**2, -1)
    ids = np.unique(small)
    ids = ids[ids > 0]
    if not len(ids):
        return np.zeros(cells**2, np.int64)
    cover = np.stack([(blocks == i).mean(1) for i in ids])
    owners = np.where(cover.max(0) >= 0.125, ids[cover.argmax(0)], 0).astype(np.int64)
    for i, share in zip(ids, cover, strict=True):
        if not (owners == i).any():
            owners[share.argmax()] = i
    return owners


def _dense_targets(
    world: World,
    owners: NDArray[np.int64],
    objects: tuple[SceneObject, ...],
    prompts: dict[int, Prompt],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    kind = np.full(len(owners), len(world.kinds))
    color = np.full(len(owners), len(world.colors))
    numbers = np.full((len(owners), 6), -1)
    for item in objects:
        mine = owners == item.id
        kind[mine] = world.kinds.index(item.kind)
        color[mine] = world.colors.index(item.color)
        prompt = prompts[item.id]
        numbers[mine] = [*prompt.box_xyxy, *prompt.points[0]]
    return kind, color, numbers


@dataclass
class Batch:
    """A packed batch and its targets, by group of questions as in `Packed.groups`."""

    packed: Packed  # what goes in
    # int64 [Q, L] each, the next token, `NOT_WRITTEN` where the model does not write it.
    targets: list[torch.Tensor]
    roles: list[torch.Tensor]  # int64 [Q, L] each, the role of the next token
    cell_kind: torch.Tensor  # int64 [B, cells]
    cell_color: torch.Tensor  # int64 [B, cells]
    cell_numbers: torch.Tensor  # int64 [B, cells, 6], box and point of what the cell shows


_Question = tuple[int, EncodedQuestion]
"""Index of the image, and the question."""


class Packer:
    """Puts samples into one batch; picklable, so that loader processes can do it."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, groups: int = 4) -> None:
        token = tokenizer.convert_tokens_to_ids
        self._groups = groups
        self._pad = token("<|endoftext|>")
        self._head = [*token(list(PREFIX))]
        self._image = token("<|image_pad|>")

    def __call__(self, samples: list[Sample]) -> Batch:
        """Group the questions by length and pad each group."""
        questions = [(b, question) for b, s in enumerate(samples) for question in s.questions]
        questions.sort(key=lambda question: len(question[1].ids))
        size = -(-len(questions) // self._groups) or 1
        parts = [questions[at : at + size] for at in range(0, len(questions), size)]
        groups = [self._group(part, samples) for part in parts]
        packed = Packed(
            pixels=patchify(torch.from_numpy(np.stack([s.image for s in samples]))),
            prefix=torch.tensor([*self._head, *[self._image] * len(samples[0].cell_kind)]),
            groups=[group for group, _, _ in groups],
        )
        targets, roles = [t for _, t, _ in groups], [r for _, _, r in groups]
        return Batch(packed, targets, roles, *_stacked(samples))

    def _group(
        self, questions: list[_Question], samples: list[Sample]
    ) -> tuple[QuestionGroup, torch.Tensor, torch.Tensor]:
        count, length = len(questions), max(len(q.ids) for _, q in questions)
        ids = torch.full((count, length), self._pad)
        targets = torch.full((count, length), NOT_WRITTEN)
        roles = torch.full((count, length), WORD)
        pointers = [_pointers(question) for _, question in questions]
        most = max(1, *map(len, pointers))
        pointer_rows = torch.zeros((count, most), dtype=torch.long)
        cells = len(samples[0].cell_kind)
        pointer_targets = torch.zeros((count, most, 2, cells + length), dtype=torch.bool)
        for row, (b, question) in enumerate(questions):
            tokens = torch.tensor(question.ids)
            end = len(tokens)
            ids[row, :end] = tokens
            targets[row, : end - 1] = torch.tensor(question.targets)[1:]
            roles[row, : end - 1] = torch.tensor(question.roles)[1:]
            for i, (at, number, sources) in enumerate(pointers[row]):
                pointer_rows[row, i] = at
                wanted = pointer_targets[row, i]
                for half, source in enumerate((*sources, *sources)[:2]):
                    wanted[half, cells + source] = True
                if number:
                    # Half of the heads look at the object, all of them if it follows from none.
                    halves = slice(1 if sources else None)
                    wanted[halves] = False
                    wanted[halves, :cells] = torch.from_numpy(samples[b].cells_of[number])
        image_index = torch.tensor([b for b, _ in questions], dtype=torch.long)
        return QuestionGroup(ids, image_index, pointer_rows, pointer_targets), targets, roles


def _pointers(question: EncodedQuestion) -> list[tuple[int, int, tuple[int, ...]]]:
    """Positions whose next token is about an object or follows from others, with both."""
    about = zip(question.object_ids[1:], question.sources[1:], strict=True)
    return [
        (at, number, sources) for at, (number, sources) in enumerate(about) if number or sources
    ]


def _stacked(samples: list[Sample]) -> list[torch.Tensor]:
    rows = zip(*((s.cell_kind, s.cell_color, s.cell_numbers) for s in samples), strict=True)
    return [torch.from_numpy(np.stack(row)) for row in rows]
