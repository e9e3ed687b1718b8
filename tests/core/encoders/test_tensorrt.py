"""Building, keeping and believing TensorRT engines, with a fake of the module.

What only a GPU can show (streams, the captured graph, the masks) is not shown here; see
`benchmarks/gpu.py`.
"""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from segzero_core import (
    ConfigError,
    EngineMismatchError,
    ModelLoadError,
    OutOfMemoryError,
    RgbImage,
    SegmentationError,
    load_segmenter,
)
from segzero_core.encoders import tensorrt_encoder as encoder_module
from segzero_core.encoders import tensorrt_engine
from segzero_core.encoders.onnx_export import onnx_path
from segzero_core.encoders.tensorrt_engine import (
    EngineKey,
    build_engine,
    import_tensorrt,
    read_engine,
)
from segzero_core.segmenter import encoder_selection
from segzero_core.segmenter.encoder_selection import choose_encoder, tensorrt_encoder
from segzero_core.segmenter.sam2 import LoadedSegmenter
from tests.core.encoders.fake_tensorrt import Fake

KEY = EngineKey("w" * 16, "o" * 64, "10.3.0", "Some GPU", "9.0", "fp16", "1x3x128x128", "x86_64")
SIDE = 128


@pytest.fixture
def tensorrt(monkeypatch: pytest.MonkeyPatch) -> Fake:
    """TensorRT on a machine that seems to have a GPU."""
    fake = Fake()
    monkeypatch.setitem(sys.modules, "tensorrt", fake)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _device: "Some GPU")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: (9, 0))
    return fake


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    path = tmp_path / "encoder.onnx"
    path.write_bytes(b"a graph")
    return path


@pytest.fixture(scope="module")
def sam(tiny_model: Path) -> LoadedSegmenter:
    return load_segmenter(str(tiny_model / "segmenter"))


def new_encoder(tensorrt: Fake) -> encoder_module.TensorRtImageEncoder:
    device, compiled = torch.device("cuda"), KEY.compiled("Some GPU")
    return encoder_module.TensorRtImageEncoder(tensorrt, b"x", ["image_embed"], device, compiled)


def silent(_phase: str, _step: int, _steps: int) -> None:
    pass


def test_without_a_gpu_the_module_is_not_even_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    class Trap:
        def __getattr__(self, name: str) -> Any:
            raise AssertionError(f"tensorrt.{name} was touched without a GPU")

    monkeypatch.setitem(sys.modules, "tensorrt", Trap())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    with pytest.raises(ConfigError, match="no GPU"):
        import_tensorrt()


def test_a_missing_module_names_its_package(
    tensorrt: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)

    with pytest.raises(ConfigError, match=r"segzero\[trt\]"):
        import_tensorrt()


@pytest.mark.parametrize("version", ["8.6.1", "10.2.0", "12.0.0", "unknown"])
def test_another_generation_is_refused(tensorrt: Fake, version: str) -> None:
    tensorrt.__version__ = version

    with pytest.raises(ConfigError, match=f"version {version}"):
        import_tensorrt()


@pytest.mark.parametrize("version", ["10.3.0", "10.16.1.11", "11.4.0.106"])
def test_the_documented_generations_are_taken(tensorrt: Fake, version: str) -> None:
    tensorrt.__version__ = version

    assert import_tensorrt() is tensorrt


def test_an_engine_is_built_once_and_found_again(tensorrt: Fake, graph: Path) -> None:
    steps: list[tuple[str, int, int]] = []

    path = build_engine(tensorrt, graph, KEY, lambda *step: steps.append(step))
    again = build_engine(tensorrt, graph, KEY, silent)

    assert path == again
    assert tensorrt.builds == 1
    assert read_engine(KEY) == tensorrt.plan
    assert steps == [("Building", 0, 2), ("Building", 1, 2), ("Building", 2, 2), steps[-1]]
    assert tensorrt.network_flags == [1 << 1]  # strongly typed
    assert tensorrt.flags == []


def test_float32_means_float32(tensorrt: Fake, graph: Path) -> None:
    build_engine(tensorrt, graph, replace(KEY, precision="fp32"), silent)

    assert tensorrt.flags == ["no tf32"]


def test_the_times_of_one_build_serve_the_next(tensorrt: Fake, graph: Path) -> None:
    build_engine(tensorrt, graph, KEY, silent)
    build_engine(tensorrt, graph, replace(KEY, weights_hash="v" * 16), silent)

    assert tensorrt.timing_read == [b"", b"times"]


@pytest.mark.parametrize("field", EngineKey.__slots__)
def test_each_part_of_the_key_makes_another_engine(
    tensorrt: Fake, graph: Path, field: str
) -> None:
    build_engine(tensorrt, graph, KEY, silent)
    other = replace(KEY, **{field: "another"})

    assert other.path != KEY.path
    with pytest.raises(ModelLoadError, match=r"1 for other.*run segzero build-engine"):
        read_engine(other)


@pytest.mark.parametrize("field", EngineKey.__slots__)
def test_an_engine_under_a_false_name_is_refused(tensorrt: Fake, graph: Path, field: str) -> None:
    path = build_engine(tensorrt, graph, KEY, silent)
    notes = path.with_suffix(".json")
    notes.write_text(json.dumps(json.loads(notes.read_text()) | {field: "another"}))

    with pytest.raises(EngineMismatchError, match=f"another {field}.*build-engine"):
        read_engine(KEY)


@pytest.mark.parametrize("keep", [0, 3])
def test_an_engine_that_is_cut_off_is_refused_and_built_again(
    tensorrt: Fake, graph: Path, keep: int
) -> None:
    path = build_engine(tensorrt, graph, KEY, silent)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(EngineMismatchError, match="damaged"):
        read_engine(KEY)

    build_engine(tensorrt, graph, KEY, silent)

    assert tensorrt.builds == 2
    assert read_engine(KEY) == tensorrt.plan


@pytest.mark.parametrize("notes", ["", "[]", "{"])
def test_an_engine_without_its_notes_is_refused(tensorrt: Fake, graph: Path, notes: str) -> None:
    build_engine(tensorrt, graph, KEY, silent).with_suffix(".json").write_text(notes)

    with pytest.raises(EngineMismatchError):
        read_engine(KEY)


def test_of_two_builders_one_waits(tensorrt: Fake, graph: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        paths = list(pool.map(lambda _: build_engine(tensorrt, graph, KEY, silent), range(4)))

    assert set(paths) == {KEY.path}
    assert tensorrt.builds == 1


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"builder_is_none": True}, ConfigError, "driver may be too old"),
        ({"parser_errors": ["no Foo", "no Bar"]}, ModelLoadError, "no Foo; no Bar"),
        ({"plan": None}, ModelLoadError, "could not build"),
        ({"raised": torch.OutOfMemoryError("CUDA")}, OutOfMemoryError, "to build the engine"),
        ({"raised": RuntimeError("odd")}, ModelLoadError, "odd"),
    ],
    ids=str,
)
def test_a_failed_build_says_why_and_leaves_no_engine(
    tensorrt: Fake, graph: Path, changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    vars(tensorrt).update(changes)

    with pytest.raises(error, match=message):
        build_engine(tensorrt, graph, KEY, silent)
    assert not KEY.path.exists()


def test_no_room_for_the_engine_is_an_error(
    tensorrt: Fake, graph: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(ModelLoadError, match="No space left"):
        build_engine(tensorrt, graph, KEY, silent)
    assert not list(KEY.path.parent.glob("*.engine"))


def test_an_engine_that_the_runtime_does_not_take_is_a_mismatch(tensorrt: Fake) -> None:
    with pytest.raises(EngineMismatchError, match="does not take the engine"):
        new_encoder(tensorrt)


def test_no_memory_for_the_engine_is_reported(tensorrt: Fake) -> None:
    tensorrt.engine = SimpleNamespace(create_execution_context=lambda: None)

    with pytest.raises(OutOfMemoryError, match="GPU memory"):
        new_encoder(tensorrt)


class Engine:
    """In place of the encoder with an engine: torch's features, perhaps of another image."""

    backend = "tensorrt"
    runs = 0

    def __init__(self, sam: LoadedSegmenter, *, wrong: bool = False) -> None:
        self._sam = sam
        self._wrong = wrong

    def encode(self, image: RgbImage) -> Any:
        self.runs += 1
        return self._sam.encoder.encode((image // 2).astype(np.uint8) if self._wrong else image)


@pytest.fixture
def built(tensorrt: Fake, sam: LoadedSegmenter) -> EngineKey:
    path = onnx_path(sam.weights_hash, SIDE, "fp16")
    path.parent.mkdir(parents=True)
    path.write_bytes(b"a graph")
    key = tensorrt_engine.engine_key(
        tensorrt, torch.device("cuda"), sam.weights_hash, "fp16", SIDE
    )
    build_engine(tensorrt, path, key, silent)
    return key


def put_in_place(monkeypatch: pytest.MonkeyPatch, engine: Engine) -> None:
    monkeypatch.setattr(encoder_module, "TensorRtImageEncoder", lambda *_: engine)


def test_the_masks_are_compared_when_an_engine_is_first_loaded(
    built: EngineKey, sam: LoadedSegmenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(sam)
    put_in_place(monkeypatch, engine)

    for _ in range(2):
        assert tensorrt_encoder(sam, "cuda") is engine
    assert engine.runs == 3  # three images, once
    assert tensorrt_engine.read_notes(built)["agreement on Some GPU"] == [1.0, 1.0, 1.0]
    assert read_engine(built)


def test_an_engine_that_makes_other_masks_is_refused_each_time(
    built: EngineKey, sam: LoadedSegmenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_in_place(monkeypatch, Engine(sam, wrong=True))

    for _ in range(2):
        with pytest.raises(EngineMismatchError, match=r"other masks.*0\.99"):
            tensorrt_encoder(sam, "cuda")


@pytest.mark.parametrize(
    ("raised", "error", "message"),
    [
        (RuntimeError("CUDA driver version is insufficient"), EngineMismatchError, "too old"),
        (TypeError("factory function returned nullptr"), EngineMismatchError, "nullptr"),
        (torch.OutOfMemoryError("CUDA"), OutOfMemoryError, "GPU memory"),
    ],
    ids=repr,
)
def test_an_engine_that_cannot_be_started_is_an_error_of_ours(
    built: EngineKey,
    sam: LoadedSegmenter,
    monkeypatch: pytest.MonkeyPatch,
    raised: Exception,
    error: type[Exception],
    message: str,
) -> None:
    def fail(*_: Any) -> None:
        raise raised

    monkeypatch.setattr(encoder_module, "TensorRtImageEncoder", fail)

    with pytest.raises(error, match=message):
        tensorrt_encoder(sam, "cuda")
    assert choose_encoder(sam, "cuda").encoder is sam.encoder


def test_masks_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(EngineMismatchError):
        encoder_selection.check_agreement("it", (1.0, float("nan"), 1.0))


def test_auto_takes_the_engine_of_this_machine(
    built: EngineKey, sam: LoadedSegmenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_in_place(monkeypatch, Engine(sam))

    assert choose_encoder(sam, "cuda").encoder.backend == "tensorrt"


def test_auto_takes_torch_in_place_of_a_wrong_engine_and_warns_once(
    built: EngineKey,
    sam: LoadedSegmenter,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    put_in_place(monkeypatch, Engine(sam, wrong=True))

    assert choose_encoder(sam, "cuda").encoder is sam.encoder
    assert len(caplog.records) == 1


def test_an_engine_in_float32_takes_the_place_of_one_in_float16_that_is_wrong(
    built: EngineKey,
    tensorrt: Fake,
    sam: LoadedSegmenter,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    tensorrt.plan = b"plan in float32"
    path = onnx_path(sam.weights_hash, SIDE, "fp32")
    path.write_bytes(b"a graph in float32")
    key = tensorrt_engine.engine_key(
        tensorrt, torch.device("cuda"), sam.weights_hash, "fp32", SIDE
    )
    build_engine(tensorrt, path, key, silent)
    engines = {tensorrt.plan: Engine(sam), b"plan of an engine": Engine(sam, wrong=True)}
    monkeypatch.setattr(
        encoder_module, "TensorRtImageEncoder", lambda _trt, plan, *_: engines[plan]
    )

    chosen = choose_encoder(sam, "cuda")

    assert chosen.encoder.backend == "tensorrt"
    assert engines[tensorrt.plan].runs == 3
    assert len(caplog.records) == 1
    with pytest.raises(EngineMismatchError, match="other masks"):
        choose_encoder(sam, "cuda", "tensorrt", "fp16")


def test_where_nothing_can_be_written_an_engine_is_checked_at_every_load(
    built: EngineKey, sam: LoadedSegmenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    engine = Engine(sam)
    put_in_place(monkeypatch, engine)
    monkeypatch.setattr(Path, "replace", full)

    for _ in range(2):
        assert tensorrt_encoder(sam, "cuda") is engine
    assert engine.runs == 6


@pytest.mark.parametrize(
    "error", [SegmentationError("it stopped"), OutOfMemoryError("full")], ids=repr
)
def test_an_engine_that_fails_while_it_runs_is_replaced_with_one_warning(
    built: EngineKey,
    sam: LoadedSegmenter,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
) -> None:
    engine = Engine(sam)
    put_in_place(monkeypatch, engine)
    encoder = choose_encoder(sam, "cuda").encoder
    image = np.full((40, 50, 3), 120, np.uint8)
    encoder.encode(image)
    before = (encoder.backend, len(caplog.records))

    def fail(_image: RgbImage) -> Any:
        raise error

    monkeypatch.setattr(engine, "encode", fail)
    features = [encoder.encode(image).image_embed for _ in range(2)]

    assert (before, encoder.backend) == (("tensorrt", 0), "torch")
    assert len(caplog.records) == 1
    assert all(torch.equal(f, sam.encoder.encode(image).image_embed) for f in features)


def test_an_engine_that_was_asked_for_is_not_replaced(
    built: EngineKey, sam: LoadedSegmenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(sam)
    put_in_place(monkeypatch, engine)

    assert choose_encoder(sam, "cuda", "tensorrt").encoder is engine


def test_auto_takes_torch_in_silence_where_no_engine_was_built(
    tensorrt: Fake, sam: LoadedSegmenter, caplog: pytest.LogCaptureFixture
) -> None:
    chosen = choose_encoder(sam, "cuda")

    assert chosen.encoder is sam.encoder
    assert "tensorrt" in chosen.reason
    assert not caplog.records
