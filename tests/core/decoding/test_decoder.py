"""Our own loop says what `generate` says, token by token."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from segzero_core import ConfigError, QwenReasoner, RgbImage, load_image
from segzero_core.checkpoints.registry import find_model
from segzero_core.prompt import MULTI_OBJECT, SINGLE_OBJECT, build_messages
from segzero_core.reasoner.base import squash
from tests.tiny_models import TINY_REPLY, save_tiny_reasoner

ROOT = Path(__file__).parents[3]
QUESTIONS = ("the red mug", "every mug", "something to drive a nail with")


def images() -> list[RgbImage]:
    """Of the tabletop, drawn, and without any sense."""
    rng = np.random.default_rng(3)
    drawn = Image.new("RGB", (640, 480), "burlywood")
    pen = ImageDraw.Draw(drawn)
    for x, y, color in ((100, 90, "red"), (300, 250, "blue"), (480, 330, "yellow")):
        pen.ellipse((x, y, x + 110, y + 90), fill=color)
    return [
        load_image(ROOT / "tests" / "table.png")[:, :640],
        np.asarray(drawn),
        rng.integers(0, 256, (50, 70, 3), dtype=np.uint8),
    ]


def bundled(template: str = MULTI_OBJECT, **options: Any) -> QwenReasoner:
    files = find_model("tabletop")
    description = dataclasses.replace(files.description, prompt_template=template)
    return QwenReasoner(files.reasoner, description, **options)


def chunks(reasoner: QwenReasoner, image: RgbImage, query: str) -> list[str]:
    return list(reasoner.stream(image, query))


@pytest.fixture(scope="module")
def ours() -> QwenReasoner:
    return bundled()


@pytest.mark.parametrize(
    ("template", "mode", "backend"),
    [
        (MULTI_OBJECT, "auto", "onnxruntime"),
        (SINGLE_OBJECT, "auto", "onnxruntime"),
        (MULTI_OBJECT, "drafts", "torch"),
        (SINGLE_OBJECT, "drafts", "torch"),
        (MULTI_OBJECT, "eager", "torch"),
    ],
)
def test_first_and_second_questions_get_the_replies_of_generate(
    template: str, mode: str, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if backend == "torch":
        monkeypatch.setitem(sys.modules, "onnxruntime", None)
    else:
        pytest.importorskip("onnx")
        pytest.importorskip("onnxruntime")
    plain, ours = bundled(template, decode="plain"), bundled(template, decode=mode)
    assert ours._decoder.backend == backend

    for image in images():
        for query in QUESTIONS:  # the first about this image, and two more
            assert chunks(ours, image, query) == chunks(plain, image, query)
    # Back to an earlier image, whose KV cache was given up.
    assert chunks(ours, images()[0], QUESTIONS[0]) == chunks(plain, images()[0], QUESTIONS[0])
    assert ours._decoder.backend == backend


def test_a_repetition_penalty_in_the_models_settings_counts() -> None:
    plain, ours = bundled(decode="plain", max_new_tokens=40), bundled(max_new_tokens=40)
    image = images()[0]
    usual = chunks(ours, image, "the red mug")
    plain._model.generation_config.repetition_penalty = 1.4
    ours._decoder._penalty = 1.4

    spoken = chunks(plain, image, "the red mug")

    assert spoken != usual
    assert chunks(ours, image, "the red mug") == spoken


def test_the_image_is_encoded_once(ours: QwenReasoner, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    encode = ours._decoder._encode_image
    monkeypatch.setattr(ours._decoder, "_encode_image", lambda p: seen.append(p) or encode(p))
    image = images()[1]

    chunks(ours, image, "the red mug")
    chunks(ours, image, "every mug")
    chunks(ours, image.copy(), "the red mug")
    assert len(seen) == 1

    changed = image.copy()
    changed[100:300, 100:300] = 0
    chunks(ours, changed, "the red mug")
    assert len(seen) == 2


def test_an_image_that_was_changed_in_place_is_another_one(ours: QwenReasoner) -> None:
    buffer = images()[0].copy()
    changed = images()[1][: len(buffer)]
    expected = chunks(bundled(decode="plain"), changed, "the largest thing")
    assert chunks(ours, buffer, "the largest thing") != expected
    buffer[:] = changed

    assert chunks(ours, buffer, "the largest thing") == expected


def test_a_reply_that_was_stopped_does_not_change_the_next(ours: QwenReasoner) -> None:
    image = images()[0]
    whole = chunks(ours, image, "the red mug")
    stream: Any = ours.stream(image, "every mug")
    next(stream)
    stream.close()

    assert chunks(ours, image, "the red mug") == whole


def test_the_prompt_is_tokenized_as_the_processor_does(ours: QwenReasoner) -> None:
    image_seen = squash(images()[0], ours.description.seen_size_wh)
    for query in ("the red mug", 'a "Mug", é ☕'):
        text = ours._processor.apply_chat_template(
            build_messages(MULTI_OBJECT, query), tokenize=False, add_generation_prompt=True
        )
        batch = ours._processor(text=[text], images=[image_seen])
        assert ours._decoder.tokenize(text) == list(batch["input_ids"][0])


def test_generate_stops_with_the_answer_too(tmp_path: Path) -> None:
    folder = save_tiny_reasoner(tmp_path, f"{TINY_REPLY} And so on.", segmenter="a/b")
    files = find_model(str(folder))
    plain = QwenReasoner(files.reasoner, files.description, decode="plain")

    reply = "".join(chunks(plain, images()[0], "the red mug"))

    assert "</answer>" in reply
    assert "so on" not in reply


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"decode": "fast"}, "none of auto, plain"),
        ({"decode": "graph"}, "needs a GPU"),
        ({"decode": "compiled"}, "needs a GPU"),
        ({"decode": "plain", "grammar": True}, "does not go together"),
        ({"dtype": "int2"}, "none of auto, float32"),
        ({"dtype": "int4"}, "needs a GPU"),
        ({"dtype": "int8", "device": "cuda"}, "bitsandbytes"),
    ],
    ids=str,
)
def test_a_way_that_cannot_be_is_refused(
    tiny_model: Path, options: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    files = find_model(str(tiny_model))
    with pytest.raises(ConfigError, match=message):
        QwenReasoner(files.reasoner, files.description, **options)


def test_settings_that_our_loop_does_not_know_are_left_to_generate(tiny_model: Path) -> None:
    from segzero_core.decoding.decoder import is_supported

    files = find_model(str(tiny_model))
    reasoner = QwenReasoner(files.reasoner, files.description)
    assert is_supported(reasoner._model)

    reasoner._model.generation_config.no_repeat_ngram_size = 3
    assert not is_supported(reasoner._model)
    assert not is_supported(object())
