"""From a question to masks: with fakes for the order of things, with tiny models for the whole."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segzero_core import (
    AnswerDelta,
    AnswerParseError,
    Box,
    CancelledError,
    ConfigError,
    Finished,
    InputError,
    MaskReady,
    MasksReady,
    ModelIdentity,
    ModelLoadError,
    OutOfMemoryError,
    PromptFound,
    ReasoningError,
    RgbImage,
    SegmentationError,
    SegZero,
    ShapeError,
    ThinkingDelta,
    TruncatedReplyError,
)
from segzero_core.encoders.base import CachingEncoder
from segzero_core.testing.fakes import (
    BoxSegmenter,
    FakeEncoder,
    ScriptedReasoner,
    fake_description,
    fake_segzero,
)
from tests.tiny_models import TINY_REPLY

MUG = '{"bbox_2d": [10, 20, 30, 40], "point_2d": [15, 25]}'
REPLY = f"<think>It is red.</think><answer>[{MUG}]</answer>"


def pipeline(reasoner: Any, encoder: Any = None, segmenter: Any = None) -> SegZero:
    return SegZero(
        reasoner,
        encoder or FakeEncoder(),
        segmenter or BoxSegmenter(),
        ModelIdentity("m", "0", "f"),
    )


def test_a_question_becomes_a_mask_in_pixels_of_the_image(image: RgbImage) -> None:
    result = fake_segzero(REPLY).segment(image, " the red mug. ")  # the model sees 100x100

    assert result.query == "the red mug"
    assert result.size_wh == (80, 60)
    (prompt,) = result.reasoning.prompts
    assert prompt.box == Box(8, 12, 24, 24)
    assert prompt.points[0].xy == (12, 15)
    assert result.reasoning.thinking == "It is red."
    assert result.reasoning.completion == REPLY
    assert int(result.segmentation.masks.sum()) == 16 * 12
    assert result.model.name == "scripted"


def test_the_events_come_in_order(image: RgbImage) -> None:
    events = list(fake_segzero(REPLY).stream(image, "the red mug"))

    # The mask of one object comes whenever it is there, before the last two.
    assert [type(event) for event in events[-2:]] == [MasksReady, Finished]
    order = [type(event) for event in events if not isinstance(event, MaskReady)]
    assert order == sorted(
        order, key=[ThinkingDelta, AnswerDelta, PromptFound, MasksReady, Finished].index
    )
    assert "".join(e.text for e in events if isinstance(e, ThinkingDelta)) == "It is red."
    assert "".join(e.text for e in events if isinstance(e, AnswerDelta)) == f"[{MUG}]"
    found = [event for event in events if isinstance(event, PromptFound)]
    assert isinstance(events[-1], Finished)
    assert [event.prompt for event in found] == list(events[-1].result.reasoning.prompts)


def test_nothing_matched_is_a_result(image: RgbImage) -> None:
    result = fake_segzero("<answer>[]</answer>").segment(image, "a unicorn")

    assert result.reasoning.prompts == ()
    assert result.segmentation.masks.shape == (0, 60, 80)


def test_normalised_coordinates_are_scaled(image: RgbImage) -> None:
    description = fake_description(coordinates="normalized_1000")
    reply = '<answer>[{"bbox_2d": [0, 500, 1000, 2000], "point_2d": [500, 750]}]</answer>'

    result = pipeline(ScriptedReasoner(reply, description=description)).segment(image, "mug")

    assert result.reasoning.prompts[0].box == Box(0, 30, 80, 60)  # cut at the border
    assert result.reasoning.prompts[0].points[0].xy == (40, 45)


def test_objects_of_a_draft_are_replaced(image: RgbImage) -> None:
    other = MUG.replace("10", "12")
    reply = f"<answer>[{other}, {other}]</answer> No: <answer>[{MUG}]</answer>"

    events = list(fake_segzero(reply).stream(image, "the red mug"))

    found = [event for event in events if isinstance(event, PromptFound)]
    assert [event.index for event in found] == [0, 1, 0]
    assert isinstance(events[-1], Finished)
    assert events[-1].result.reasoning.prompts == (found[-1].prompt,)


def test_objects_that_only_the_end_makes_known_are_reported(image: RgbImage) -> None:
    reply = f"<think>It is red. <answer>[{MUG}]</answer>"  # thinking never closed

    events = list(fake_segzero(reply).stream(image, "the red mug"))

    assert [event.index for event in events if isinstance(event, PromptFound)] == [0]


@pytest.mark.parametrize(
    ("reply", "error", "message"),
    [
        pytest.param("<answer>[", TruncatedReplyError, "never closed", id="truncated"),
        pytest.param("a mug", AnswerParseError, "no <answer>", id="no answer"),
        pytest.param(
            '<answer>[{"bbox_2d": [100, 0, 120, 9], "point_2d": [1, 1]}]</answer>',
            AnswerParseError,
            "outside the image of 100x100",
            id="box outside",
        ),
        pytest.param(
            '<answer>[{"bbox_2d": [1e300, 0, 1.1e300, 9], "point_2d": [1, 1]}]</answer>',
            AnswerParseError,
            "outside",
            id="box far outside",
        ),
        pytest.param(
            '<answer>[{"bbox_2d": [0, 0, 9, 9], "point_2d": [1.7e308, 1]}]</answer>'.replace(
                "[0, 0, 9, 9]", "[-9, -9, 1e-320, 9]"
            ),
            AnswerParseError,
            "outside",
            id="box that vanishes when it is scaled",
        ),
    ],
)
def test_an_unusable_reply_carries_itself(
    image: RgbImage, reply: str, error: type[ReasoningError], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        fake_segzero(reply).segment(image, "the red mug")
    assert caught.value.completion == reply


def test_a_point_outside_moves_to_the_nearest_pixel(image: RgbImage) -> None:
    reply = '<answer>[{"bbox_2d": [0, 0, 50, 50], "point_2d": [-1e300, 500]}]</answer>'

    result = fake_segzero(reply).segment(image, "the red mug")

    assert result.reasoning.prompts[0].points[0].xy == (0, 59)


@pytest.mark.parametrize(
    "bad", [np.zeros((0, 0, 3), np.uint8), np.zeros((4, 4), np.uint8), None, "table.png"], ids=repr
)
def test_a_bad_image_is_refused_at_the_call(bad: Any) -> None:
    with pytest.raises(ShapeError):
        fake_segzero(REPLY).stream(bad, "mug")


@pytest.mark.parametrize("query", ["", "x" * 100_000, "</answer>", "<|im_end|>"])
def test_a_bad_query_is_refused_at_the_call(image: RgbImage, query: str) -> None:
    with pytest.raises(InputError, match="query"):
        fake_segzero(REPLY).stream(image, query)


TWO = f"<think>Two.</think><answer>[{MUG}, {MUG.replace('10', '12')}]</answer>"


def test_the_first_mask_of_several_comes_before_the_last_token(image: RgbImage) -> None:
    made = threading.Event()

    class Watched(BoxSegmenter):
        def segment(self, *arguments: Any) -> Any:
            found = super().segment(*arguments)
            made.set()
            return found

    class Patient(ScriptedReasoner):
        """Says its last piece only when a mask was made."""

        def stream(self, image: RgbImage, query: str, **_: Any) -> Iterator[str]:
            pieces = list(super().stream(image, query))
            yield from pieces[:-1]
            assert made.wait(20)
            yield pieces[-1]

    events = list(pipeline(Patient(TWO), segmenter=Watched()).stream(image, "mugs"))

    masks = [event for event in events if isinstance(event, MaskReady)]
    assert sorted(event.index for event in masks) == [0, 1]
    assert isinstance(events[-1], Finished)
    result = events[-1].result
    for event in masks:
        assert event.prompt == result.reasoning.prompts[event.index]
        assert (event.mask == result.segmentation.masks[event.index]).all()
        assert event.score == result.segmentation.scores[event.index]
    assert 0 < result.timings.first_mask_ms <= result.timings.total_ms


def test_no_mask_is_made_twice(image: RgbImage) -> None:
    asked: list[Any] = []

    class Counting(BoxSegmenter):
        def segment(self, embedding: Any, prompts: Any) -> Any:
            asked.extend(prompts)
            return super().segment(embedding, prompts)

    reply = f"<answer>[{MUG}, {MUG}]</answer>"
    result = pipeline(ScriptedReasoner(reply), segmenter=Counting()).segment(image, "mugs")

    assert len(asked) == 1
    assert len(result.segmentation) == 2


def test_a_draft_whose_mask_fails_does_not_spoil_the_answer(image: RgbImage) -> None:
    class Picky(BoxSegmenter):
        def segment(self, embedding: Any, prompts: Any) -> Any:
            if any(prompt.box.x_min > 8 for prompt in prompts):
                raise ValueError("odd")
            return super().segment(embedding, prompts)

    draft = MUG.replace("[10", "[20")
    reply = f"<answer>[{draft}]</answer> No, that is not it: <answer>[{MUG}]</answer>"
    slow = ScriptedReasoner(reply, delay_s=0.005)

    assert len(pipeline(slow, segmenter=Picky()).segment(image, "mug").segmentation) == 1


def test_the_embedding_of_the_same_frame_is_kept(image: RgbImage) -> None:
    encoder = CountingEncoder()
    kept = CachingEncoder(encoder)
    buffer = image.copy()

    first = kept.encode(buffer)
    assert kept.encode(image.copy()) is first
    buffer[0, 0] += 1
    assert kept.encode(buffer) is not first
    assert kept.encode(buffer.reshape(80, 60, 3)).size_wh == (60, 80)
    assert encoder.count == 3
    assert kept.backend == "fake"


def test_after_a_failure_the_frame_is_encoded_again(image: RgbImage) -> None:
    encoder = CountingEncoder(error=ValueError("odd"))
    kept = CachingEncoder(encoder)
    for _ in range(2):
        with pytest.raises(ValueError, match="odd"):
            kept.encode(image)
    assert encoder.count == 2


class CountingEncoder(FakeEncoder):
    count = 0

    def encode(self, image: RgbImage) -> Any:
        self.count += 1
        return super().encode(image)


class Meeting:
    """A reasoner and an encoder that each wait until the other one works."""

    def __init__(self) -> None:
        self._barrier = threading.Barrier(2, timeout=20)
        self._reasoner = ScriptedReasoner(REPLY)
        self._encoder = FakeEncoder()
        self.description = self._reasoner.description
        self.backend = "fake"

    def stream(self, image: RgbImage, query: str, **_: Any) -> Iterator[str]:
        self._barrier.wait()
        yield REPLY

    def encode(self, image: RgbImage) -> Any:
        self._barrier.wait()
        return self._encoder.encode(image)


def test_the_image_is_encoded_while_the_reasoner_thinks(image: RgbImage) -> None:
    meeting = Meeting()

    assert len(pipeline(meeting, meeting).segment(image, "mug").segmentation) == 1


def test_the_times_overlap(image: RgbImage) -> None:
    model = pipeline(ScriptedReasoner(REPLY, delay_s=0.02), FakeEncoder(delay_s=0.4))

    times = model.segment(image, "mug").timings

    assert times.encoder_ms >= 400
    assert times.reasoner_ms >= 20 * times.tokens
    assert 20 <= times.first_token_ms <= times.reasoner_ms
    assert times.total_ms < times.encoder_ms + times.reasoner_ms + times.decoder_ms
    assert times.tokens == -(-len(REPLY) // 4)


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (ValueError("odd"), SegmentationError),
        (SegmentationError("odd"), SegmentationError),
        (MemoryError("odd"), OutOfMemoryError),
    ],
    ids=repr,
)
def test_a_failing_encoder_ends_the_thinking_at_once(
    image: RgbImage, raised: Exception, expected: type
) -> None:
    model = pipeline(ScriptedReasoner("x" * 100_000, delay_s=0.001), FakeEncoder(error=raised))

    start = time.perf_counter()
    with pytest.raises(expected, match="odd"):
        model.segment(image, "mug")
    assert time.perf_counter() - start < 10  # the reply alone would take 25 s


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (ValueError("odd"), ReasoningError),
        (ReasoningError("odd"), ReasoningError),
        (MemoryError("odd"), OutOfMemoryError),
    ],
    ids=repr,
)
def test_a_failing_reasoner_is_an_error_of_ours(
    image: RgbImage, raised: Exception, expected: type
) -> None:
    with pytest.raises(expected, match="odd"):
        fake_segzero(raised).segment(image, "mug")


@pytest.mark.parametrize(
    ("raised", "expected"),
    [(KeyError("odd"), SegmentationError), (MemoryError("odd"), OutOfMemoryError)],
    ids=repr,
)
def test_a_failing_decoder_is_an_error_of_ours(
    image: RgbImage, raised: Exception, expected: type
) -> None:
    class Broken:
        def segment(self, *_: Any) -> Any:
            raise raised

    with pytest.raises(expected, match="odd"):
        pipeline(ScriptedReasoner(REPLY), segmenter=Broken()).segment(image, "mug")


def test_a_cancellation_stops_the_thinking(image: RgbImage) -> None:
    cancel = threading.Event()
    stream = fake_segzero("<think>" + "x" * 100_000, delay_s=0.001).stream(
        image, "mug", cancel=cancel
    )
    next(stream)
    cancel.set()

    with pytest.raises(CancelledError):
        next(stream)


def test_a_cancellation_does_not_wait_for_the_encoder(image: RgbImage) -> None:
    cancel = threading.Event()
    model = pipeline(ScriptedReasoner(REPLY), FakeEncoder(delay_s=3))
    threading.Timer(0.1, cancel.set).start()

    start = time.perf_counter()
    with pytest.raises(CancelledError):
        model.segment(image, "mug", cancel=cancel)
    assert time.perf_counter() - start < 2


def test_cancelled_questions_do_not_leave_an_encoder_each(image: RgbImage) -> None:
    began, may_end = threading.Event(), threading.Event()

    class Slow(CountingEncoder):
        def encode(self, image: RgbImage) -> Any:
            began.set()
            assert may_end.wait(20)
            return super().encode(image)

    encoder = Slow()
    answering = pipeline(ScriptedReasoner(REPLY), encoder)
    for _ in range(5):
        events = answering.stream(image, "mug")
        next(events)
        assert began.wait(20)
        events.close()  # type: ignore[attr-defined]
    may_end.set()

    assert len(answering.segment(image, "mug").segmentation) == 1
    assert encoder.count <= 2  # one that could not be stopped, and the last


def test_a_reasoner_that_ignores_the_cancellation_is_stopped(image: RgbImage) -> None:
    class Deaf(ScriptedReasoner):
        def stream(self, image: RgbImage, query: str, **_: Any) -> Iterator[str]:
            return super().stream(image, query)

    cancel = threading.Event()
    cancel.set()
    with pytest.raises(CancelledError):
        pipeline(Deaf(REPLY)).segment(image, "mug", cancel=cancel)


def test_closing_the_events_closes_the_reasoner(image: RgbImage) -> None:
    closed = threading.Event()

    class Watched(ScriptedReasoner):
        def stream(self, image: RgbImage, query: str, **_: Any) -> Iterator[str]:
            try:
                yield from super().stream(image, query)
            finally:
                closed.set()

    events: Any = pipeline(Watched(REPLY)).stream(image, "mug")
    next(events)
    events.close()

    assert closed.is_set()


def test_a_scripted_reasoner_repeats_its_last_reply(image: RgbImage) -> None:
    model = fake_segzero(["<answer>[]</answer>", REPLY])

    found = [len(model.segment(image, f"query {n}").segmentation) for n in range(3)]

    assert found == [0, 1, 1]
    assert isinstance(model.reasoner, ScriptedReasoner)
    assert model.reasoner.queries == ["query 0", "query 1", "query 2"]


def test_real_models_answer(tiny_model: Path, image: RgbImage) -> None:
    model = SegZero.load(str(tiny_model), device="cpu")

    result = model.segment(image, "the red mug")

    assert result.reasoning.completion == TINY_REPLY
    assert result.reasoning.prompts[0].box == Box(10, 20, 50, 60)  # of 112x84
    assert result.segmentation.masks.shape == (1, 60, 80)
    assert result.model.encoder_backend == "torch"
    assert len(result.model.weights_hash) == 16
    assert result.timings.tokens > 20


def test_the_options_of_load_reach_the_model(tiny_model: Path, image: RgbImage) -> None:
    model = SegZero.load(
        str(tiny_model / "reasoner"),
        segmenter=str(tiny_model / "segmenter"),
        device="cpu",
        template="single_object",
        max_new_tokens=3,
    )

    assert model.description.prompt_template == "single_object"
    with pytest.raises(AnswerParseError, match="max_new_tokens") as caught:
        model.segment(image, "the red mug")
    assert caught.value.completion == TINY_REPLY[:9]


@pytest.mark.parametrize(
    ("option", "value", "error"),
    [
        ("template", "two_objects", ConfigError),
        ("max_new_tokens", 0, ConfigError),
        ("device", "cuda:7", ConfigError),
        ("segmenter", "/no/such", ModelLoadError),
    ],
)
def test_a_wrong_option_is_refused(
    tiny_model: Path, option: str, value: Any, error: type[Exception]
) -> None:
    with pytest.raises(error):
        SegZero.load(str(tiny_model), **{"device": "cpu", option: value})


def test_a_folder_without_weights_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "segzero.json").write_text((tiny_model / "reasoner/segzero.json").read_text())

    with pytest.raises(ConfigError, match="segmenter"):
        SegZero.load(str(tmp_path))
    with pytest.raises(ModelLoadError, match=r"has no \*\.safetensors"):
        SegZero.load(str(with_segmenter(tmp_path, tiny_model / "segmenter")))


def with_segmenter(folder: Path, segmenter: Path) -> Path:
    path = folder / "segzero.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"segmenter": str(segmenter)}))
    return folder
