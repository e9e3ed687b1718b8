"""What a model still knows: questions that are answered in words, asked without the template.

    python -m training.evaluation.retention --benchmark chartqa --root CHARTQA --model M
    python -m training.evaluation.retention --benchmark textvqa --root TEXTVQA --model M
    python -m training.evaluation.retention --benchmark tabletop --root scenes --model tabletop

Training for one thing makes a model forget others; how much, Seg-Zero (arXiv:2503.06520, figure 5)
measures with ChartQA and TextVQA. The small model of the table is asked for colours, counts and
kinds. The folders are laid out as in docs/evaluation.md.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image
from tqdm import tqdm

from segzero_core.checkpoints.registry import find_model
from segzero_core.checkpoints.weights import weights_hash
from segzero_core.errors import InputError, SegZeroError, shown
from segzero_core.images.files import load_image
from segzero_core.loading import choose_device
from segzero_core.reasoner.base import squash
from segzero_core.types import RgbImage
from training.arguments import positive
from training.bundle.reasoner.vqa import VQA_KINDS, ask_visual
from training.data.rendered_scenes import open_scenes, read_record
from training.data.sources.base import fingerprint, read_annotations
from training.evaluation.batch_inference import BatchReasoner
from training.evaluation.bootstrap import Resampler
from training.evaluation.predictions import check_writable, write_whole
from training.evaluation.retention.metrics import (
    exact_word,
    relaxed_match,
    spoken_answer,
    vqa_accuracy,
)

CHARTQA: Final = "chartqa"
TEXTVQA: Final = "textvqa"
TABLETOP: Final = "tabletop"
BENCHMARKS: Final = (CHARTQA, TEXTVQA, TABLETOP)
ONE_WORD: Final = "Answer the question using a single word or phrase."
"""Said after a question of the public benchmarks; without it, a right sentence scores 0."""

MAX_NEW_TOKENS: Final = 128
"""Longest reply; a right one is a few words."""

BAD_INPUT_EXIT_CODE = 2
_CHARTQA_KINDS = ("human", "augmented")
_TEXTVQA_FOLDERS = {"val": "train_images", "train": "train_images", "test": "test_images"}
_TEXTVQA_VERSION = "0.5.1"
_SEED = 0
_HASH_DIGITS = 16


@dataclass(frozen=True)
class WordQuestion:
    """A question that is answered in words.

    Attributes:
        id: Unique in its benchmark.
        picture: The picture's file.
        text: What is asked.
        truths: The right answer, or those of several people.
        kind: A part of the benchmark.
    """

    id: str
    picture: Path
    text: str
    truths: tuple[str, ...]
    kind: str


@dataclass(frozen=True)
class WordBenchmark:
    """Questions, and how they are asked and scored.

    Attributes:
        name: One of `BENCHMARKS`, and its split.
        questions: In a fixed order.
        score: From an answer and the truths to [0, 1].
        suffix: Said after each question.
        squashed: The picture is squashed to what the reasoner sees in its other work.
        hash: First digits of a SHA-256 over the annotations.
    """

    name: str
    questions: tuple[WordQuestion, ...]
    score: Callable[[str, Sequence[str]], float]
    suffix: str
    squashed: bool
    hash: str


@dataclass(frozen=True)
class Answered:
    """A question with the model's reply and its score."""

    question: WordQuestion
    reply: str
    score: float
    ms: float


def open_benchmark(name: str, root: Path, split: str | None, limit: int | None) -> WordBenchmark:
    """Read the questions of a benchmark.

    Args:
        name: One of `BENCHMARKS`.
        root: The folder it lies in.
        split: Its split; `test` of ChartQA and `val` of TextVQA by default. Rendered scenes have
            none.
        limit: Only the first so many questions.

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


def _open_chartqa(root: Path, split: str) -> WordBenchmark:
    questions: list[WordQuestion] = []
    contents = []
    for kind in _CHARTQA_KINDS:
        path = root / split / f"{split}_{kind}.json"
        contents.append(read_annotations(path))
        for number, entry in enumerate(_entries(path, contents[-1], None)):
            picture, text, truth = _texts(entry, ("imgname", "query", "label"), path)
            place = _inside(root / split / "png", picture, path)
            questions.append(WordQuestion(f"{kind}/{number}", place, text, (truth,), kind))
    return WordBenchmark(
        name=f"{CHARTQA}, {split}",
        questions=tuple(questions),
        score=lambda answer, truths: float(relaxed_match(answer, truths[0])),
        suffix=ONE_WORD,
        squashed=False,
        hash=fingerprint(contents)[:_HASH_DIGITS],
    )


def _open_textvqa(root: Path, split: str) -> WordBenchmark:
    if split not in _TEXTVQA_FOLDERS:
        raise InputError(f"textvqa: no split {split!r}; there are {', '.join(_TEXTVQA_FOLDERS)}")
    path = root / f"TextVQA_{_TEXTVQA_VERSION}_{split}.json"
    content = read_annotations(path)
    questions = []
    for number, entry in enumerate(_entries(path, content, "data")):
        picture, text = _texts(entry, ("image_id", "question"), path)
        answers = entry.get("answers")
        if not isinstance(answers, list) or not answers:
            raise InputError(f"{path}: question {number} has no answers; the test split has none")
        place = _inside(root / _TEXTVQA_FOLDERS[split], f"{picture}.jpg", path)
        name = str(entry.get("question_id", number))
        questions.append(WordQuestion(name, place, text, tuple(map(str, answers)), "text"))
    return WordBenchmark(
        name=f"{TEXTVQA}, {split}",
        questions=tuple(questions),
        score=vqa_accuracy,
        suffix=ONE_WORD,
        squashed=False,
        hash=fingerprint([content])[:_HASH_DIGITS],
    )


def _open_tabletop(root: Path) -> WordBenchmark:
    """Draw a question of each kind about every scene, always the same ones."""
    questions = []
    for folder in open_scenes(root):
        scene = read_record(folder)
        rng = np.random.default_rng((_SEED, scene.seed))
        for kind in VQA_KINDS:
            drawn = ask_visual(rng, scene.objects, kind)
            if drawn is not None:
                name = f"{folder.name}/{kind}"
                place = folder / "color.png"
                questions.append(WordQuestion(name, place, drawn.text, (drawn.answer,), kind))
    said = (f"{q.id} {q.text} {q.truths[0]}".encode() for q in questions)
    return WordBenchmark(
        name=f"{TABLETOP}, words",
        questions=tuple(questions),
        score=lambda answer, truths: float(exact_word(answer, truths[0])),
        suffix="",
        squashed=True,
        hash=fingerprint(said)[:_HASH_DIGITS],
    )


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
        raise InputError(f"{path}: the picture {shown(name)} is not inside {folder}")
    return folder / name


def ask(
    reasoner: BatchReasoner, benchmark: WordBenchmark, batch: int, suffix: str
) -> list[Answered]:
    """Ask all questions, greedily; a batch that fails is asked one by one.

    Args:
        reasoner: Who answers.
        benchmark: What is asked.
        batch: Questions asked at once.
        suffix: Said after each question.

    Raises:
        InputError: A picture cannot be read.
    """
    answered: list[Answered] = []
    with tqdm(total=len(benchmark.questions), unit="query", file=sys.stderr) as progress:
        for start in range(0, len(benchmark.questions), batch):
            questions = benchmark.questions[start : start + batch]
            answered += _ask_batch(reasoner, benchmark, questions, suffix)
            progress.update(len(questions))
    return answered


def _ask_batch(
    reasoner: BatchReasoner,
    benchmark: WordBenchmark,
    questions: Sequence[WordQuestion],
    suffix: str,
) -> list[Answered]:
    images = [load_image(question.picture) for question in questions]
    started = time.perf_counter()
    try:
        replies = _replies(reasoner, benchmark, images, questions, suffix)
    except SegZeroError as error:
        if len(questions) > 1:
            alone = ([q] for q in questions)
            return [a for q in alone for a in _ask_batch(reasoner, benchmark, q, suffix)]
        # A failure is a wrong answer and stays in the count.
        tqdm.write(f"{questions[0].id}: {error}", file=sys.stderr)
        replies = [""]
    ms = (time.perf_counter() - started) * 1e3 / len(questions)
    return [
        Answered(question, reply, benchmark.score(spoken_answer(reply), question.truths), ms)
        for question, reply in zip(questions, replies, strict=True)
    ]


def _replies(
    reasoner: BatchReasoner,
    benchmark: WordBenchmark,
    images: Sequence[RgbImage],
    questions: Sequence[WordQuestion],
    suffix: str,
) -> list[str]:
    description = reasoner.description
    size_wh = description.seen_size_wh
    pictures = [
        squash(image, size_wh) if benchmark.squashed else Image.fromarray(image)
        for image in images
    ]
    texts = [f"{question.text}\n{suffix}" if suffix else question.text for question in questions]
    if description.lowercase_query:
        texts = [text.lower() for text in texts]
    messages = [
        [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]}]
        for text in texts
    ]
    return reasoner.reply(pictures, messages, MAX_NEW_TOKENS)


def summarise(answered: Sequence[Answered]) -> dict[str, Any]:
    """Return accuracy, its interval and N over all questions and for each kind."""
    resampler = Resampler([str(a.question.picture) for a in answered])
    kinds = dict.fromkeys(a.question.kind for a in answered)
    return {
        **_figures(answered, resampler, None),
        "kinds": {kind: _figures(answered, resampler, kind) for kind in kinds},
        "ms": float(np.mean([a.ms for a in answered])),
    }


def _figures(
    answered: Sequence[Answered], resampler: Resampler, kind: str | None
) -> dict[str, Any]:
    counts = [kind in (None, a.question.kind) for a in answered]
    scores = [a.score if count else 0.0 for a, count in zip(answered, counts, strict=True)]
    return {
        "accuracy": sum(scores) / sum(counts),
        "interval": resampler.interval(scores, counts),
        "n": sum(counts),
    }


def _as_table(figures: Mapping[str, Any]) -> str:
    lines = [f"{figures['benchmark']}, {figures['model']['name']}"]
    for kind, row in [*figures["kinds"].items(), ("all", figures)]:
        ends = row["interval"]
        interval = "" if ends is None else f"   95 %: {ends[0]:.3f} to {ends[1]:.3f}"
        lines.append(f"{kind:<12}{row['accuracy']:>7.3f}{row['n']:>7}{interval}")
    return "\n".join(lines)


def _lines(answered: Sequence[Answered]) -> str:
    rows = (
        {
            "id": a.question.id,
            "kind": a.question.kind,
            "question": a.question.text,
            "truths": a.question.truths,
            "reply": a.reply,
            "score": a.score,
            "ms": a.ms,
        }
        for a in answered
    )
    return "".join(f"{json.dumps(row)}\n" for row in rows)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training.evaluation.retention",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--benchmark", choices=BENCHMARKS, required=True)
    add("--root", type=Path, required=True, help="the folder it lies in")
    add("--split", help="test of ChartQA and val of TextVQA by default")
    add("--model", default="tabletop", help="name, folder or Hub id")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, …")
    add("--limit", type=positive, help="at most so many questions")
    add("--batch", type=positive, default=1, help="questions asked at once")
    add("--suffix", help="said after each question; the benchmark's own by default")
    add("--samples", type=Path, help="write every reply to this file")
    add("--json", action="store_true", help="print one JSON object")
    return parser


def _run(args: argparse.Namespace) -> str:
    if args.samples:
        check_writable(args.samples)
    benchmark = open_benchmark(args.benchmark, args.root, args.split, args.limit)
    files = find_model(args.model)
    digest = weights_hash(sorted(files.reasoner.glob("*.safetensors")))
    reasoner = BatchReasoner(files.reasoner, files.description, choose_device(args.device))
    suffix = benchmark.suffix if args.suffix is None else args.suffix
    answered = ask(reasoner, benchmark, args.batch, suffix)
    if args.samples:
        write_whole(args.samples, _lines(answered))
    figures = summarise(answered) | {
        "benchmark": benchmark.name,
        "data": {"hash": benchmark.hash},
        "model": {"name": files.name, "weights_hash": digest},
        "suffix": suffix,
        "batch": args.batch,
    }
    return json.dumps(figures) if args.json else _as_table(figures)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns:
        0, or 2 with one line on standard error when the input cannot be used.
    """
    args = _parser().parse_args(argv)
    try:
        print(_run(args))
    except SegZeroError as error:
        print(f"training.evaluation.retention: {error}", file=sys.stderr)
        return BAD_INPUT_EXIT_CODE
    return 0


if __name__ == "__main__":
    sys.exit(main())
