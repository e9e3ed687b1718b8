"""Reads the questions of ChartQA, TextVQA, and of rendered scenes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from segzero_core.errors import InputError, shown
from training.bundle.reasoner.tabletop.vqa import VQA_KINDS, ask_visual
from training.data.rendered_scenes import open_scenes, read_record
from training.data.sources.base import check_choice, fingerprint, read_annotations
from training.evaluation.retention.metrics import exact_word, relaxed_match, vqa_accuracy

CHARTQA: Final = "chartqa"
TEXTVQA: Final = "textvqa"
TABLETOP: Final = "tabletop"
BENCHMARKS: Final = (CHARTQA, TEXTVQA, TABLETOP)
ONE_WORD: Final = "Answer the question using a single word or phrase."
"""Added to each question of the public benchmarks; without it, a right sentence scores 0."""

_CHARTQA_KINDS = ("human", "augmented")
_TEXTVQA_FOLDERS = {"val": "train_images", "train": "train_images", "test": "test_images"}
_TEXTVQA_VERSION = "0.5.1"
_SEED = 0
_HASH_DIGITS = 16


@dataclass(frozen=True)
class Question:
    """A question that is answered in words."""

    id: str  # unique in its benchmark
    image: Path  # the image's file
    text: str  # what is asked
    truths: tuple[str, ...]  # the right answer, or those of several people
    kind: str  # a part of the benchmark


Score = Callable[[str, Sequence[str]], float]
"""From an answer and the truths to [0, 1]."""


@dataclass(frozen=True)
class Benchmark:
    """The questions of a benchmark, and how they are asked and scored."""

    name: str  # one of `BENCHMARKS`, and its split
    questions: tuple[Question, ...]  # in a fixed order
    score: Score  # scores the answers
    hash: str  # first digits of a SHA-256 over the annotations
    suffix: str = ONE_WORD  # added to each question
    # The image is squashed to the size at which the reasoner answers queries.
    squashed: bool = False


def open_benchmark(name: str, root: Path, split: str | None, limit: int | None) -> Benchmark:
    """Read the first `limit` questions of a benchmark.

    The split is `test` of ChartQA and `val` of TextVQA by default; rendered scenes have none.

    Raises:
        InputError: Files are missing or damaged.
    """
    if not root.is_dir():
        raise InputError(f"{root}: there is no such folder; see docs/evaluation.md")
    if name == CHARTQA:
        found = _open_chartqa(root, split or "test")
    elif name == TEXTVQA:
        found = _open_textvqa(root, split or "val")
    else:
        found = _open_tabletop(root)
    return replace(found, questions=found.questions[:limit])


def _open_chartqa(root: Path, split: str) -> Benchmark:
    questions: list[Question] = []
    contents = []
    for kind in _CHARTQA_KINDS:
        path = root / split / f"{split}_{kind}.json"
        contents.append(read_annotations(path))
        for number, entry in enumerate(_entries(path, contents[-1], None)):
            image, text, truth = _texts(entry, ("imgname", "query", "label"), path)
            place = _inside(root / split / "png", image, path)
            questions.append(Question(f"{kind}/{number}", place, text, (truth,), kind))
    digest = fingerprint(contents)[:_HASH_DIGITS]
    return Benchmark(f"{CHARTQA}, {split}", tuple(questions), _first(relaxed_match), digest)


def _open_textvqa(root: Path, split: str) -> Benchmark:
    check_choice("textvqa: no split", split, _TEXTVQA_FOLDERS)
    path = root / f"TextVQA_{_TEXTVQA_VERSION}_{split}.json"
    content = read_annotations(path)
    questions = []
    for number, entry in enumerate(_entries(path, content, "data")):
        image, text = _texts(entry, ("image_id", "question"), path)
        answers = entry.get("answers")
        if not isinstance(answers, list) or not answers:
            raise InputError(f"{path}: question {number} has no answers; the test split has none")
        place = _inside(root / _TEXTVQA_FOLDERS[split], f"{image}.jpg", path)
        name = str(entry.get("question_id", number))
        questions.append(Question(name, place, text, tuple(map(str, answers)), "text"))
    digest = fingerprint([content])[:_HASH_DIGITS]
    return Benchmark(f"{TEXTVQA}, {split}", tuple(questions), vqa_accuracy, digest)


def _open_tabletop(root: Path) -> Benchmark:
    """Draw a question of each kind about every scene, always the same ones."""
    questions = []
    for folder in open_scenes(root):
        scene = read_record(folder)
        rng = np.random.default_rng((_SEED, scene.seed))
        for kind in VQA_KINDS:
            drawn = ask_visual(rng, scene.objects, kind)
            if drawn is not None:
                name, image = f"{folder.name}/{kind}", folder / "color.png"
                questions.append(Question(name, image, drawn.text, (drawn.answer,), kind))
    texts = (f"{q.id} {q.text} {q.truths[0]}".encode() for q in questions)
    digest, score = fingerprint(texts)[:_HASH_DIGITS], _first(exact_word)
    name = f"{TABLETOP}, words"
    return Benchmark(name, tuple(questions), score, digest, suffix="", squashed=True)


def _first(is_right: Callable[[str, str], bool]) -> Score:
    """Score an answer by the first truth."""
    return lambda answer, truths: float(is_right(answer, truths[0]))


def _entries(path: Path, content: bytes, key: str | None) -> list[dict[str, Any]]:
    try:
        values = json.loads(content)
        entries = values if key is None else values[key]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{path}: damaged: {error!r}") from error
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise InputError(f"{path}: damaged: it is no list of questions")
    if not entries:
        raise InputError(f"{path}: there is no question in it")
    return entries


def _texts(entry: Mapping[str, Any], keys: Sequence[str], path: Path) -> list[str]:
    for key in keys:
        if not isinstance(entry.get(key), str | int | float):
            raise InputError(f"{path}: damaged: a question has no {key}")
    return [str(entry[key]) for key in keys]


def _inside(folder: Path, name: str, path: Path) -> Path:
    if Path(name).name != name:
        raise InputError(f"{path}: the image {shown(name)} is not inside {folder}")
    return folder / name
