"""Pictures and questions for the reasoner, augmented on the fly from rendered folders."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import IterableDataset
from transformers import PreTrainedTokenizerFast

from segzero_core.prompt import (
    MULTI_OBJECT,
    MULTI_OBJECT_DIRECT,
    SINGLE_OBJECT,
    SINGLE_OBJECT_DIRECT,
    SINGLE_OBJECT_NO_EXAMPLE,
    build_prompt,
)
from training.bundle.reasoner.forward import CELLS, PREFIX, Asked, Packed, patchify
from training.bundle.reasoner.text import CHOSEN, Piece, Prompt, write_completion
from training.bundle.reasoner.tokenizer import SEEN_SIZE
from training.bundle.reasoner.unknown_objects import ask_unknown, invented_word
from training.bundle.reasoner.vqa import VQA_KINDS, VisualQuestion, ask_visual
from training.data.mask_prompts import mask_to_prompt
from worlds.tabletop.object_classes import COLORS_RGB, MODELS
from worlds.tabletop.queries import ask, ask_absent
from worlds.tabletop.scene import Query, Scene, SceneObject
from worlds.tabletop.vocabulary import NAMES, PHRASINGS, QUERY_KINDS

KINDS, COLORS = tuple(MODELS), tuple(COLORS_RGB)
KIND_SHARES = (0.2, 0.17, 0.2, 0.15, 0.12, 0.16)
"""How often each of `QUERY_KINDS` is asked, unless the command line says otherwise."""
_VISUAL_SHARE, _UNKNOWN_SHARE, _BARE_SHARE, _ABSENT_SHARE = 0.06, 0.09, 0.05, 0.16
"""How often a question of another sort takes the place of one of `QUERY_KINDS`."""
_ABSENT_WAYS = {"name": 0.24, "color": 0.4, "use": 0.2, "group": 0.16}
"""What is lacking in the `_ABSENT_SHARE`; a colour is the hardest to miss: the thing is there."""
_TEMPLATES = {
    MULTI_OBJECT: 0.58,
    SINGLE_OBJECT: 0.18,
    MULTI_OBJECT_DIRECT: 0.08,
    SINGLE_OBJECT_DIRECT: 0.1,
    SINGLE_OBJECT_NO_EXAMPLE: 0.06,
}
_TEMPLATES_OF_MANY = {MULTI_OBJECT: 0.88, MULTI_OBJECT_DIRECT: 0.12}
"""How often a question is asked with each prompt; several objects need the multi-object ones."""
_CHOICE_SHARES = {
    "name": 0.2, "attribute": 0.08, "function": 0.15, "relation": 0.05, "many": 0.12,
    "absent color": 0.14, "absent name": 0.06, "absent use": 0.1, "absent group": 0.08,
    "unknown": 0.02,
}  # fmt: skip
"""How often each is asked where only the choice is learned; about half ask for what is there."""
_FILLED_SHARE = 0.35
_FILLERS = (
    "hey robot,", "okay,", "now", "quickly,", "kindly", "please", "my friend wants", "I want",
    "let us see", "tell me,", "do you know", "look for", "get me", "grip", "touch", "go to",
    "reach for", "hold", "lift", "choose", "select", "highlight", "draw a line around", "pass me",
    "let me have", "I have to find", "help me find", "in this picture,", "on the table,",
    "try to find",
    "is there", "do we have", "we need", "she asked for", "move to", "detect", "identify",
    "outline",
)  # fmt: skip
_TAILS = (
    "now", "here", "please", "on the table", "for me", "in this picture", "right away",
    "if you can",
    "is the one", "is needed", "would be good", "will do", "is my choice", "that is all",
    "in front of you", "today", "for my mother", "with the robot arm", "thank you", "you see",
    "there",
)  # fmt: skip
WORD, NUMBER, CHOICE = range(3)
_CELL_PX = 14  # samples a cell side when cells are given their owners


@dataclass
class Sample:
    """One augmented picture with its questions; arrays as in `Packed`, without the batch."""

    image: NDArray[np.uint8]
    cell_kind: NDArray[np.int64]
    cell_color: NDArray[np.int64]
    cell_numbers: NDArray[np.int64]
    questions: list[tuple[list[int], list[int], list[int], list[int]]]
    cells_of: dict[int, NDArray[np.bool_]]


class Tables(IterableDataset[Sample]):
    """Endless augmented samples in a seeded order; new folders are picked up every pass."""

    def __init__(
        self,
        folders: Sequence[Path],
        tokenizer: PreTrainedTokenizerFast,
        *,
        questions: int,
        seed: int,
        shares: Sequence[float] = KIND_SHARES,
        choices_only: bool = False,
        augment: bool = True,
    ) -> None:
        self._choices_only = choices_only
        self._shares = np.array(shares) / sum(shares)
        self._folders, self._tokenizer = folders, tokenizer
        self._questions, self._seed, self._augment = questions, seed, augment

    def __iter__(self) -> Iterator[Sample]:
        worker = torch.utils.data.get_worker_info()
        number, count = (worker.id, worker.num_workers) if worker else (0, 1)
        cv2.setNumThreads(0)
        rng = np.random.default_rng((self._seed, number))
        while True:
            scenes = sorted(p.parent for f in self._folders for p in f.glob("*/scene.json"))
            for index in rng.permutation(len(scenes)):
                if index % count == number:
                    yield self.sample(scenes[index], rng)

    def sample(self, folder: Path, rng: np.random.Generator) -> Sample:
        """Read one folder and draw its questions."""
        scene = Scene.from_json((folder / "scene.json").read_text())
        image = cv2.imread(str(folder / "color.png"))[:, :, ::-1]
        instances = cv2.imread(str(folder / "instances.png"), cv2.IMREAD_UNCHANGED)
        image, instances, objects = _augmented(rng, image, instances, scene, augment=self._augment)
        height, width = instances.shape
        prompts = {o.id: _seen_prompt(instances == o.id, (width, height)) for o in objects}
        owners = cell_owners(instances)
        cells_of = {o.id: owners == o.id for o in objects}
        seen = cv2.resize(image, (SEEN_SIZE, SEEN_SIZE), interpolation=cv2.INTER_AREA)
        if self._augment:
            seen = _lighting(rng, seen)
        drawn = [
            self._question(rng, objects, prompts, (width, height)) for _ in range(self._questions)
        ]
        return Sample(seen, *_dense_targets(owners, objects, prompts), drawn, cells_of)

    def _question(
        self,
        rng: np.random.Generator,
        objects: tuple[SceneObject, ...],
        prompts: dict[int, Prompt],
        size_wh: tuple[int, int],
    ) -> tuple[list[int], list[int], list[int], list[int]]:
        if self._choices_only:
            query = ask_choice(rng, objects)
            query = replace(query, text=_filled(rng, query))
            pieces = write_completion(objects, query, prompts, size_wh, MULTI_OBJECT)
            chosen = until_choice(pieces)
            return encode_question(self._tokenizer, query.text, chosen, MULTI_OBJECT, closed=False)
        sort = rng.random()
        if sort < _VISUAL_SHARE:
            visual = ask_visual(rng, objects, str(rng.choice(VQA_KINDS)))
            if visual is not None:
                return encode_visual(self._tokenizer, visual)
        query = self._query(rng, objects, sort - _VISUAL_SHARE)
        choices = _TEMPLATES_OF_MANY if len(query.ids) > 1 else _TEMPLATES
        template = str(rng.choice(list(choices), p=list(choices.values())))
        if self._augment:
            query = replace(query, text=_filled(rng, query))
        pieces = write_completion(objects, query, prompts, size_wh, template)
        return encode_question(self._tokenizer, query.text, pieces, template)

    def _query(
        self, rng: np.random.Generator, objects: tuple[SceneObject, ...], sort: float
    ) -> Query:
        if 0 <= sort < _UNKNOWN_SHARE:
            return ask_unknown(rng)
        if 0 <= sort - _UNKNOWN_SHARE < _BARE_SHARE:
            return ask_bare(rng, objects)
        if 0 <= sort - _UNKNOWN_SHARE - _BARE_SHARE < _ABSENT_SHARE:
            way = str(rng.choice(list(_ABSENT_WAYS), p=list(_ABSENT_WAYS.values())))
            absent = ask_absent(rng, objects, way)
            if absent is not None:
                return absent
        query = None
        while query is None:
            query = ask(rng, objects, str(rng.choice(QUERY_KINDS, p=self._shares)))
        return query


def ask_choice(rng: np.random.Generator, objects: Sequence[SceneObject]) -> Query:
    """A question of `_CHOICE_SHARES`."""
    query = None
    while query is None:
        sort = str(rng.choice(list(_CHOICE_SHARES), p=list(_CHOICE_SHARES.values())))
        if sort == "unknown":
            query = ask_unknown(rng)
        elif sort.startswith("absent "):
            query = ask_absent(rng, objects, sort.removeprefix("absent "))
        else:
            query = ask(rng, objects, sort)
    return query


def until_choice(pieces: list[Piece]) -> list[Piece]:
    """The thinking up to the words in which the choice has fallen."""
    end = next(i for i, piece in enumerate(pieces) if piece.text in CHOSEN)
    return pieces[: end + 1]


def ask_bare(rng: np.random.Generator, objects: Sequence[SceneObject]) -> Query:
    """Ask for a kind without its colour, such as "the mug"; all of that kind are meant."""
    kind = objects[int(rng.integers(len(objects)))].kind
    frames = PHRASINGS["name"].train
    article = ("the", "a", "my")[int(rng.integers(3))]
    name = f"{article} {NAMES[kind][int(rng.integers(len(NAMES[kind])))]}"
    text = frames[int(rng.integers(len(frames)))].format(x=name)
    ids = tuple(sorted(o.id for o in objects if o.kind == kind))
    return Query("name", text, ids, "train", ("name", kind, ""))


def encode_visual(
    tokenizer: PreTrainedTokenizerFast, question: VisualQuestion
) -> tuple[list[int], list[int], list[int], list[int]]:
    """As `encode_question`, for a question without a template and its one-word answer."""
    pieces = [Piece(question.answer, question.object_id), Piece("<|im_end|>")]
    ids, ours, spoken, roles = _encoded(tokenizer, question.text, pieces)
    return ids, ours, spoken, [WORD] * len(roles)  # a count is no coordinate


def encode_question(
    tokenizer: PreTrainedTokenizerFast,
    text: str,
    pieces: list[Piece],
    template: str,
    *,
    closed: bool = True,
) -> tuple[list[int], list[int], list[int], list[int]]:
    """Tokens after the picture; per token: 1 if the model writes it, its object, its role.

    A completion that is not `closed` is cut off and has no end for the model to write.
    """
    end = [Piece("<|im_end|>")] if closed else []
    return _encoded(tokenizer, build_prompt(template, text.lower()), [*pieces, *end])


def _encoded(
    tokenizer: PreTrainedTokenizerFast, prompt: str, pieces: list[Piece]
) -> tuple[list[int], list[int], list[int], list[int]]:
    encode = _encoder(tokenizer)
    before = encode(f"<|vision_end|>{prompt}<|im_end|>\n<|im_start|>assistant\n")
    ids, ours, spoken, roles = (
        list(before),
        [0] * len(before),
        [0] * len(before),
        [WORD] * len(before),
    )
    for piece in pieces:
        part = encode(piece.text)
        ids += part
        ours += [1] * len(part)
        spoken += [piece.object_id] * len(part)
        first = CHOICE if piece.decides else WORD
        roles += [NUMBER] if piece.text.isdigit() else [first, *[WORD] * (len(part) - 1)]
    return ids, ours, spoken, roles


@lru_cache(maxsize=4)
def _encoder(tokenizer: PreTrainedTokenizerFast):
    @lru_cache(maxsize=20000)
    def encode(text: str) -> tuple[int, ...]:
        return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])

    return encode


def _filled(rng: np.random.Generator, query: Query) -> str:
    """Surround a question with words that do not matter, some of them never heard of."""
    text = query.text
    if rng.random() > _FILLED_SHARE:
        return text
    if rng.random() < 0.6:
        text = f"{_FILLERS[rng.integers(len(_FILLERS))]} {text}"
    if rng.random() < 0.4:
        text = f"{invented_word(rng)} {text}"
    if rng.random() < 0.3:
        text = f"{text.rstrip('?')} {_TAILS[rng.integers(len(_TAILS))]}"
    return text


def _augmented(
    rng: np.random.Generator,
    image: NDArray[np.uint8],
    instances: NDArray[np.uint16],
    scene: Scene,
    *,
    augment: bool,
) -> tuple[NDArray[np.uint8], NDArray[np.uint16], tuple[SceneObject, ...]]:
    """Mirror and crop at random; no object is cut further than it was."""
    if augment:
        height, width = instances.shape
        boxes = np.array([o.box_xyxy for o in scene.objects])
        x0, y0 = (int(rng.uniform(0, v)) for v in boxes[:, :2].min(0) * 0.9)
        x1, y1 = (
            int(rng.uniform(high + (full - high) * 0.1, full))
            for high, full in zip(boxes[:, 2:].max(0), (width, height), strict=True)
        )
        if rng.random() < 0.7:
            image, instances = image[y0:y1, x0:x1], instances[y0:y1, x0:x1]
        if rng.random() < 0.5:
            image, instances = image[:, ::-1], instances[:, ::-1]
    objects = []
    for thing in scene.objects:
        mask = instances == thing.id
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        box = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
        objects.append(replace(thing, box_xyxy=tuple(int(v) for v in box)))
    return np.ascontiguousarray(image), np.ascontiguousarray(instances), tuple(objects)


def _lighting(rng: np.random.Generator, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    gain, offset = rng.uniform(0.8, 1.2), rng.uniform(-15, 15)
    noise = rng.normal(0, rng.uniform(0, 4), image.shape)
    return np.clip(image * gain + offset + noise, 0, 255).astype(np.uint8)


def _seen_prompt(mask: NDArray[np.bool_], size_wh: tuple[int, int]) -> Prompt:
    box, points = mask_to_prompt(mask)
    x, y = SEEN_SIZE / size_wh[0], SEEN_SIZE / size_wh[1]
    placed = [(round(px * x), round(py * y)) for px, py in (points * 2)[:2]]
    seen = (round(box[0] * x), round(box[1] * y), round(box[2] * x), round(box[3] * y))
    return Prompt(seen, (placed[0], placed[1]))


def cell_owners(instances: NDArray[np.uint16]) -> NDArray[np.int64]:
    """Which object each image token shows, int [cells]; 0 for none.

    A token belongs to the object that covers most of it, if that is an eighth at least; every
    object has the token that it covers most, so that there is always a place to look at.
    """
    side = CELLS * _CELL_PX
    small = cv2.resize(instances, (side, side), interpolation=cv2.INTER_NEAREST)
    blocks = small.reshape(CELLS, _CELL_PX, CELLS, _CELL_PX).transpose(0, 2, 1, 3)
    blocks = blocks.reshape(CELLS**2, -1)
    ids = np.unique(small)
    ids = ids[ids > 0]
    if not len(ids):
        return np.zeros(CELLS**2, np.int64)
    cover = np.stack([(blocks == i).mean(1) for i in ids])
    owners = np.where(cover.max(0) >= 0.125, ids[cover.argmax(0)], 0).astype(np.int64)
    for i, share in zip(ids, cover, strict=True):
        if not (owners == i).any():
            owners[share.argmax()] = i
    return owners


def _dense_targets(
    owners: NDArray[np.int64], objects: tuple[SceneObject, ...], prompts: dict[int, Prompt]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    kind = np.full(len(owners), len(KINDS))
    color = np.full(len(owners), len(COLORS))
    numbers = np.full((len(owners), 6), -1)
    for thing in objects:
        mine = owners == thing.id
        kind[mine], color[mine] = KINDS.index(thing.kind), COLORS.index(thing.color)
        prompt = prompts[thing.id]
        numbers[mine] = [*prompt.box_xyxy, *prompt.points[0]]
    return kind, color, numbers


@dataclass
class Batch:
    """A packed batch and its targets, by group of questions as in `Packed.asked`.

    Attributes:
        packed: What goes in.
        targets: int64 [Q, L] each, the next token, -100 where the model need not write.
        roles: int64 [Q, L] each, whether the next token is a `WORD`, a coordinate (`NUMBER`) or
            one in which a choice falls (`CHOICE`).
        cell_kind: int64 [B, cells].
        cell_color: int64 [B, cells].
        cell_numbers: int64 [B, cells, 6], box and point of what the cell shows.
    """

    packed: Packed
    targets: list[torch.Tensor]
    roles: list[torch.Tensor]
    cell_kind: torch.Tensor
    cell_color: torch.Tensor
    cell_numbers: torch.Tensor


_Question = tuple[int, list[int], list[int], list[int], list[int]]
"""Picture, tokens, whether the model writes them, what they speak of, their roles."""


class Packer:
    """Puts samples into one batch; picklable, so that loader processes can do it."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, groups: int = 4) -> None:
        token = tokenizer.convert_tokens_to_ids
        self._groups = groups
        self._pad = token("<|endoftext|>")
        self._prefix = [*token(list(PREFIX)), *[token("<|image_pad|>")] * CELLS**2]

    def __call__(self, samples: list[Sample]) -> Batch:
        """Group the questions by length and pad each group."""
        questions = [(b, *question) for b, s in enumerate(samples) for question in s.questions]
        questions.sort(key=lambda question: len(question[1]))
        size = -(-len(questions) // self._groups) or 1
        parts = [questions[at : at + size] for at in range(0, len(questions), size)]
        groups = [self._group(part, samples) for part in parts]
        packed = Packed(
            pixels=patchify(torch.from_numpy(np.stack([s.image for s in samples]))),
            prefix=torch.tensor(self._prefix),
            asked=[asked for asked, _, _ in groups],
        )
        targets, roles = [t for _, t, _ in groups], [r for _, _, r in groups]
        return Batch(packed, targets, roles, *_stacked(samples))

    def _group(
        self, questions: list[_Question], samples: list[Sample]
    ) -> tuple[Asked, torch.Tensor, torch.Tensor]:
        count, length = len(questions), max(len(q[1]) for q in questions)
        ids = torch.full((count, length), self._pad)
        targets = torch.full((count, length), -100)
        roles = torch.full((count, length), WORD)
        most = max(1, max(sum(map(bool, q[3])) for q in questions))
        pointer_rows = torch.zeros((count, most), dtype=torch.long)
        pointer_cells = torch.zeros((count, most, CELLS**2), dtype=torch.bool)
        for row, (b, tokens, ours, spoken, role) in enumerate(questions):
            end = len(tokens)
            ids[row, :end] = torch.tensor(tokens)
            shifted = torch.where(torch.tensor(ours) == 1, torch.tensor(tokens), -100)
            targets[row, : end - 1] = shifted[1:]
            roles[row, : end - 1] = torch.tensor(role)[1:]
            places = [at for at, thing in enumerate(spoken[1:]) if thing]
            for i, at in enumerate(places):
                pointer_rows[row, i] = at
                pointer_cells[row, i] = torch.from_numpy(samples[b].cells_of[spoken[at + 1]])
        picture = torch.tensor([q[0] for q in questions], dtype=torch.long)
        return Asked(ids, picture, pointer_rows, pointer_cells), targets, roles


def _stacked(samples: list[Sample]) -> list[torch.Tensor]:
    rows = zip(*((s.cell_kind, s.cell_color, s.cell_numbers) for s in samples), strict=True)
    return [torch.from_numpy(np.stack(row)) for row in rows]
