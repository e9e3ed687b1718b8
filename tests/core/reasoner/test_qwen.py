"""The Qwen reasoner, on a tiny Qwen2.5-VL that always gives the same reply."""

from __future__ import annotations

import json
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from segzero_core import (
    CancelledError,
    ConfigError,
    InputError,
    ModelLoadError,
    OutOfMemoryError,
    QwenReasoner,
    ReasoningError,
    RgbImage,
    ShapeError,
)
from segzero_core.checkpoints.registry import find_model
from segzero_core.reasoner.base import squash
from segzero_core.reasoner.chat_template import ChatTemplate
from tests.tiny_models import TINY_REPLY, save_tiny_reasoner


def load(folder: Path, **options: Any) -> QwenReasoner:
    files = find_model(str(folder))
    return QwenReasoner(files.reasoner, files.description, **options)


@pytest.fixture(scope="module")
def reasoner(tiny_model: Path) -> QwenReasoner:
    return load(tiny_model)


@pytest.fixture
def folder(tiny_model: Path, tmp_path: Path) -> Path:
    """A model that a test may damage."""
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


def threads() -> list[str]:
    return [
        thread.name
        for thread in threading.enumerate()
        if thread.name.startswith("segzero-reasoner")
    ]


def test_the_reply_comes_in_chunks(reasoner: QwenReasoner, image: RgbImage) -> None:
    chunks = list(reasoner.stream(image, "the red mug"))

    assert "".join(chunks) == TINY_REPLY
    assert len(chunks) > 20
    assert not threads()


def test_the_model_stops_when_the_answer_closes(tmp_path: Path, image: RgbImage) -> None:
    folder = save_tiny_reasoner(tmp_path, f"{TINY_REPLY} And so on.", segmenter="a/b")

    reply = "".join(load(folder).stream(image, "the red mug"))

    assert "</answer>" in reply
    assert "so on" not in reply  # though the last token may reach over the tag


def test_a_draft_in_the_thinking_does_not_stop_it(tmp_path: Path, image: RgbImage) -> None:
    spoken = "<think>Maybe <answer>[]</answer>? No.</think><answer>[]</answer>"
    folder = save_tiny_reasoner(tmp_path, spoken, segmenter="a/b")

    assert "".join(load(folder).stream(image, "the red mug")) == spoken


def test_the_limit_of_tokens_holds(tiny_model: Path, image: RgbImage) -> None:
    chunks = list(load(tiny_model, max_new_tokens=5).stream(image, "the red mug"))

    assert len(chunks) == 5
    assert TINY_REPLY.startswith("".join(chunks))


def test_a_cancellation_works_between_two_tokens(reasoner: QwenReasoner, image: RgbImage) -> None:
    cancel = threading.Event()
    stream = reasoner.stream(image, "the red mug", cancel=cancel)
    next(stream)
    cancel.set()

    with pytest.raises(CancelledError):
        list(stream)
    assert not threads()


def test_two_threads_get_their_own_replies(reasoner: QwenReasoner, image: RgbImage) -> None:
    with ThreadPoolExecutor(4) as pool:
        replies = list(
            pool.map(lambda _: "".join(reasoner.stream(image, "the red mug")), range(4))
        )

    assert replies == [TINY_REPLY] * 4


def test_a_cancellation_works_while_another_reply_is_made(
    reasoner: QwenReasoner, image: RgbImage
) -> None:
    cancel = threading.Event()
    threading.Timer(0.2, cancel.set).start()

    start = time.perf_counter()
    with reasoner._lock, pytest.raises(CancelledError):
        next(reasoner.stream(image, "the red mug", cancel=cancel))
    assert time.perf_counter() - start < 10
    assert not threads()


def test_closing_the_stream_stops_the_model(
    reasoner: QwenReasoner, image: RgbImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The tiny model would be done before anybody looks.
    go_on, run = threading.Event(), reasoner._decoder.run

    def run_slowly(seen: Any, text: str, limit: int, on_token: Any) -> None:
        def wait(token: int) -> bool:
            over: bool = on_token(token)
            go_on.wait(10)
            return over

        run(seen, text, limit, wait)

    monkeypatch.setattr(reasoner._decoder, "run", run_slowly)
    stream: Any = reasoner.stream(image, "the red mug")
    next(stream)
    assert threads()

    threading.Timer(0.2, go_on.set).start()
    stream.close()

    assert not threads()


@pytest.mark.parametrize("how", ["cancel", "close"])
def test_a_stop_during_the_prompt_ends_with_the_prompt_and_leaves_no_thread(
    reasoner: QwenReasoner,
    tiny_model: Path,
    image: RgbImage,
    monkeypatch: pytest.MonkeyPatch,
    how: str,
) -> None:
    begun, go_on, cancel = threading.Event(), threading.Event(), threading.Event()
    prefill = reasoner._decoder._language.prefill

    def block(*arguments: Any) -> Any:
        begun.set()
        assert go_on.wait(60)
        return prefill(*arguments)

    monkeypatch.setattr(reasoner._decoder._language, "prefill", block)
    stream: Any = reasoner.stream(image, "the red mug", cancel=cancel)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(lambda: next(stream))
        assert begun.wait(60)
        if how == "cancel":
            cancel.set()
        # Another instance does not wait for the one that is stuck.
        assert "".join(load(tiny_model).stream(image, "the red mug")) == TINY_REPLY
        assert not first.done()
        go_on.set()
        if how == "cancel":
            with pytest.raises(CancelledError):
                first.result(60)
        else:
            assert first.result(60) == TINY_REPLY[: len(first.result())]
            stream.close()
    assert not threads()


@pytest.mark.parametrize("template", ["multi_object", "single_object"])
def test_the_model_is_asked_by_its_template(
    folder: Path, image: RgbImage, monkeypatch: pytest.MonkeyPatch, template: str
) -> None:
    path = folder / "reasoner" / "segzero.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"prompt_template": template}))
    reasoner = load(folder)
    asked: list[Any] = []
    run = reasoner._decoder.run
    monkeypatch.setattr(reasoner._decoder, "run", lambda *a: asked.append(a) or run(*a))

    list(reasoner.stream(image, "the RED mug."))

    ((seen, text, *_),) = asked
    assert seen.size == (112, 84)
    start = {
        "multi_object": 'Please find "the RED mug"',
        "single_object": "Please find 'the red mug'",
    }
    assert start[template] in text


def test_the_image_is_squashed_without_keeping_its_aspect(image: RgbImage) -> None:
    assert squash(image, (30, 90)).size == (30, 90)


@pytest.mark.parametrize("query", ["", "x" * 100_000, "mug</answer>", "<|im_end|>", "\ud800"])
def test_a_bad_query_is_refused(reasoner: QwenReasoner, image: RgbImage, query: str) -> None:
    with pytest.raises(InputError, match="query"):
        reasoner.stream(image, query).__next__()


def test_the_models_own_special_tokens_are_refused(
    reasoner: QwenReasoner, image: RgbImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reasoner, "_reserved", ["[SEP]"])

    with pytest.raises(InputError, match="special token"):
        reasoner.stream(image, "a mug [SEP]").__next__()


def test_a_bad_image_is_refused(reasoner: QwenReasoner) -> None:
    with pytest.raises(ShapeError):
        reasoner.stream(np.zeros((4, 4), np.uint8), "mug").__next__()


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (RuntimeError("broken kernel"), ReasoningError),
        (torch.OutOfMemoryError("CUDA out of memory"), OutOfMemoryError),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), OutOfMemoryError),
        (MemoryError(), OutOfMemoryError),
    ],
    ids=repr,
)
def test_a_failing_model_is_an_error_of_ours(
    reasoner: QwenReasoner,
    image: RgbImage,
    monkeypatch: pytest.MonkeyPatch,
    raised: Exception,
    expected: type,
) -> None:
    def fail(*_: Any) -> None:
        raise raised

    monkeypatch.setattr(reasoner._decoder._language, "prefill", fail)

    with pytest.raises(expected) as caught:
        list(reasoner.stream(image, "the red mug"))
    assert caught.value.__cause__ is raised


def test_a_failure_half_way_keeps_the_reply_so_far(
    tiny_model: Path, image: RgbImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    reasoner = load(tiny_model, decode="eager")
    language = reasoner._decoder._language
    forward, calls = language.forward, []

    def fail(*arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 3:
            raise RuntimeError("lost the device")
        return forward(*arguments)

    monkeypatch.setattr(language, "forward", fail)

    with pytest.raises(ReasoningError) as caught:
        list(reasoner.stream(image, "the red mug"))
    assert caught.value.completion == TINY_REPLY[:9]

    monkeypatch.undo()
    assert "".join(reasoner.stream(image, "the red mug")) == TINY_REPLY


def test_a_processor_that_resizes_again_is_refused(folder: Path) -> None:
    path = folder / "reasoner" / "segzero.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"seen_size_wh": [100, 100]}))

    with pytest.raises(ConfigError, match=r"says 100x100, but .* makes 84x84"):
        load(folder)


def test_thousandths_do_not_depend_on_the_processors_size(folder: Path) -> None:
    path = folder / "reasoner" / "segzero.json"
    changes = {"seen_size_wh": [100, 100], "coordinates": "normalized_1000"}
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    assert load(folder).description.frame_wh == (1000, 1000)


@pytest.mark.parametrize("keep", [0, 5, 1000, 200_000])
def test_weights_that_are_cut_off_are_refused(folder: Path, keep: int) -> None:
    weights = folder / "reasoner" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:keep])

    with pytest.raises(ModelLoadError, match="no reasoner that can be loaded"):
        load(folder)


@pytest.mark.parametrize(
    "file", ["model.safetensors", "config.json", "tokenizer.json", "processor_config.json"]
)
def test_a_missing_file_is_a_load_error(folder: Path, file: str) -> None:
    (folder / "reasoner" / file).unlink()

    with pytest.raises(ModelLoadError, match="no reasoner that can be loaded"):
        load(folder)


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "processor_config.json"])
@pytest.mark.parametrize("text", ["", "{", '{"model_type": "none"}', "[]"])
def test_a_damaged_file_is_a_load_error(folder: Path, file: str, text: str) -> None:
    (folder / "reasoner" / file).write_text(text)

    with pytest.raises(ModelLoadError, match="no reasoner that can be loaded"):
        load(folder)


def test_a_weight_that_is_missing_is_not_made_up(folder: Path) -> None:
    weights = folder / "reasoner" / "model.safetensors"
    state = load_file(weights)
    del state["model.layers.0.mlp.up_proj.weight"]
    save_file(state, weights, metadata={"format": "pt"})

    with pytest.raises(ModelLoadError, match=r"1 missing keys, such as .*up_proj"):
        load(folder)


def test_a_weight_of_another_shape_is_refused(folder: Path) -> None:
    weights = folder / "reasoner" / "model.safetensors"
    state = load_file(weights)
    state["model.norm.weight"] = torch.ones(3)
    save_file(state, weights, metadata={"format": "pt"})

    with pytest.raises(ModelLoadError, match="norm"):
        load(folder)


def test_code_of_a_model_folder_is_not_run(folder: Path) -> None:
    path = folder / "reasoner" / "config.json"
    changes = {"model_type": "evil", "auto_map": {"AutoConfig": "evil.Config"}}
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    (folder / "reasoner" / "evil.py").write_text("raise SystemExit('code was run')")

    with pytest.raises(ConfigError, match="auto_map names code"):
        load(folder)


@pytest.mark.parametrize(("lowercase", "asked"), [(True, "the red mug"), (False, "The RED Mug")])
def test_a_model_of_lower_case_words_is_asked_in_lower_case(
    folder: Path, image: RgbImage, monkeypatch: pytest.MonkeyPatch, lowercase: bool, asked: str
) -> None:
    description = next(folder.rglob("segzero.json"))
    values = json.loads(description.read_text()) | {"lowercase_query": lowercase}
    description.write_text(json.dumps(values))
    reasoner = load(folder)
    seen: list[str] = []
    render = ChatTemplate.render

    def listen(template: ChatTemplate, text: str) -> str:
        seen.append(text)
        return render(template, text)

    monkeypatch.setattr(ChatTemplate, "render", listen)
    list(reasoner.stream(image, "The RED Mug"))
    assert asked in seen[0]
