"""TensorRT-RTX: its rules with a fake of the module, its parser and builder with the real one.

The real one needs no GPU to build, and the extra `rtx`; running an engine is left to
`segzero check-encoder`.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from enum import EnumType
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from segzero_cli.export import random_segmenter
from segzero_core import ConfigError, EngineMismatchError, ModelLoadError, load_segmenter
from segzero_core.checkpoints.registry import find_model
from segzero_core.encoders import tensorrt_encoder as encoder_module
from segzero_core.encoders.onnx_export import export_encoder
from segzero_core.encoders.tensorrt_engine import (
    RTX_CAPABILITIES,
    EngineKey,
    build_engine,
    check_gpu,
    engine_key,
    import_tensorrt,
)
from segzero_core.segmenter.encoder_selection import choose_encoder
from segzero_core.segmenter.sam2 import LoadedSegmenter
from tests.core.encoders import fake_tensorrt
from tests.core.encoders.fake_tensorrt import Fake
from tests.core.encoders.test_tensorrt import graph, new_encoder, sam, silent  # noqa: F401

VERSION = "1.7.1.116"
KEY = EngineKey(
    "w" * 16, "o" * 64, f"RTX {VERSION}", "RTX GPUs", "8.6+", "fp16", "1x3x8x8", "x86_64"
)
CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def rtx(monkeypatch: pytest.MonkeyPatch) -> Fake:
    """TensorRT-RTX on a machine that seems to have an RTX 4090."""
    fake = Fake(VERSION, rtx=True)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", fake)
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _device: "RTX 4090")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: (8, 9))
    return fake


def test_it_is_imported_without_a_gpu(rtx: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    assert import_tensorrt("tensorrt-rtx") is rtx
    with pytest.raises(ConfigError, match="torch sees no GPU"):
        check_gpu(rtx, GPU)


def test_a_missing_package_names_its_extra(rtx: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)

    with pytest.raises(ConfigError, match=r"segzero\[rtx\]"):
        import_tensorrt("tensorrt-rtx")


@pytest.mark.parametrize("version", ["1.2.0", "2.0.0", "10.3.0"])
def test_another_generation_of_rtx_is_refused(rtx: Fake, version: str) -> None:
    rtx.__version__ = version

    with pytest.raises(ConfigError, match=f"version {version}"):
        import_tensorrt("tensorrt-rtx")


@pytest.mark.parametrize("capability", [(7, 0), (8, 0), (8, 7), (9, 0), (10, 0), (11, 0)], ids=str)
def test_a_gpu_that_it_does_not_support_is_named_and_auto_takes_torch(
    rtx: Fake,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    sam: LoadedSegmenter,  # noqa: F811
    capability: tuple[int, int],
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: capability)

    with pytest.raises(ConfigError, match=r"RTX 4090 has compute capability.*12\.0 and 12\.1"):
        choose_encoder(sam, "cuda", "tensorrt-rtx")
    assert choose_encoder(sam, "cuda").encoder is sam.encoder
    assert not caplog.records


@pytest.mark.parametrize(
    ("capability", "target", "flags"),
    [((8, 6), "8.6+", []), ((12, 0), "8.6+", []), ((7, 5), "7.5", ["7.5"])],
)
def test_one_engine_serves_all_gpus_but_turing_has_its_own(
    rtx: Fake,
    monkeypatch: pytest.MonkeyPatch,
    graph: Path,  # noqa: F811
    capability: tuple[int, int],
    target: str,
    flags: list[str],
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: capability)
    monkeypatch.setattr("segzero_core.encoders.tensorrt_engine.onnx_path", lambda *_: graph)

    key = engine_key(rtx, GPU, "w" * 16, "fp16", 8)
    build_engine(rtx, graph, key, silent)

    assert (key.gpu, key.compute_capability) == ("RTX GPUs", target)
    assert rtx.flags == ["user allocation", *flags]
    assert rtx.timing_read == []
    assert (engine_key(rtx, CPU, "w" * 16, "fp16", 8) == key) == (target == "8.6+")


@pytest.mark.parametrize(
    ("invalid", "words"),
    [(6, "UNSUPPORTED_CC, OLD_CUDA_DRIVER"), (4, "OLD_CUDA_DRIVER"), (0, "no driver")],
)
def test_an_engine_that_does_not_fit_is_refused_with_its_reason(
    rtx: Fake, invalid: int, words: str
) -> None:
    rtx.invalid = invalid

    with pytest.raises(EngineMismatchError, match=f"take the engine: .*{words}.*build-engine"):
        new_encoder(rtx)


@pytest.mark.parametrize("kept", [None, b"compiled before", b"of another driver"])
def test_what_was_compiled_for_a_gpu_is_kept(tmp_path: Path, kept: bytes | None) -> None:
    path = tmp_path / "engines" / "x.compiled"
    path.parent.mkdir()
    if kept:
        path.write_bytes(kept)

    cache, config = encoder_module.runtime_cache(fake_tensorrt.Engine(), path)
    encoder_module.store(cache, path)

    assert config.get_runtime_cache() is cache
    assert path.read_bytes() == (kept if kept == b"compiled before" else b"compiled")


def test_no_room_for_what_was_compiled_is_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()

    encoder_module.store(fake_tensorrt.RuntimeCache(), tmp_path / "file" / "x.compiled")

    assert "compiles the engine again" in caplog.text


def stop(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGINT)


def fail(*_: object) -> None:
    raise BrokenPipeError("nobody reads")


@pytest.fixture(autouse=True)
def interruptible() -> Iterator[None]:
    """Ctrl-C raises, also where the tests run in the background, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(("progress", "raised"), [(stop, KeyboardInterrupt), (fail, OSError)])
def test_what_ends_a_build_is_raised_as_it_is(
    rtx: Fake,
    graph: Path,  # noqa: F811
    progress: Any,
    raised: type[BaseException],
) -> None:
    with pytest.raises(raised):
        build_engine(rtx, graph, KEY, progress)
    assert not KEY.path.exists()


# From here on the real library.


@pytest.fixture(scope="module")
def real() -> Any:
    return pytest.importorskip("tensorrt_rtx", reason="needs the extra rtx")


def sam_of(name: str) -> LoadedSegmenter:
    if name == "bundled":
        return load_segmenter(find_model("tabletop").segmenter)
    return random_segmenter("configs/sam2.1/sam2.1_hiera_t.yaml")


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp16", "fp32"])
@pytest.mark.parametrize("name", ["bundled", "SAM 2.1 tiny"])
def test_the_real_library_builds_our_graphs(
    real: Any, tmp_path: Path, name: str, precision: str, capfd: pytest.CaptureFixture[str]
) -> None:
    model, onnx = sam_of(name).model, tmp_path / "encoder.onnx"
    export_encoder(model, KEY.weights_hash, onnx, precision)
    key = replace(KEY, precision=precision, tensorrt=f"RTX {real.__version__}")

    engine = build_engine(real, onnx, key, silent).read_bytes()

    assert len(engine) > onnx.stat().st_size
    assert "[E]" not in capfd.readouterr().err
    print(f"TensorRT-RTX {real.__version__}: {name} {precision} {len(engine) / 1e6:.1f} MB")
    if not torch.cuda.is_available():
        runtime = real.Runtime(real.Logger(real.Logger.ERROR))
        assert runtime.deserialize_cuda_engine(engine) is None
        assert "no driver" in encoder_module.refusal(real, runtime, engine)
        assert encoder_module.refusal(real, runtime, b"garbage") == "MALFORMED_ENGINE"


@pytest.mark.slow
def test_ctrl_c_ends_a_real_build(real: Any, tmp_path: Path) -> None:
    onnx = tmp_path / "encoder.onnx"
    export_encoder(sam_of("bundled").model, KEY.weights_hash, onnx)

    with pytest.raises(KeyboardInterrupt):
        build_engine(real, onnx, KEY, stop)
    assert not KEY.path.exists()


def test_the_real_parser_names_what_it_cannot_read(real: Any, tmp_path: Path) -> None:
    (tmp_path / "cut.onnx").write_bytes(b"\x08\x09 cut off")
    with pytest.raises(ModelLoadError, match=r"cannot read .*cut\.onnx"):
        build_engine(real, tmp_path / "cut.onnx", KEY, silent)


def test_the_real_library_targets_the_gpus_that_we_name(real: Any) -> None:
    config = real.Builder(real.Logger(real.Logger.INTERNAL_ERROR)).create_builder_config()
    config.num_compute_capabilities = 1

    def takes(capability: int) -> bool:
        return config.set_compute_capability(real.ComputeCapability(capability), 0)

    assert all(takes(10 * major + minor) for major, minor in RTX_CAPABILITIES)
    assert not any(takes(capability) for capability in (87, 90, 100, 110))


def public(kind: Any) -> set[str]:
    return {name for name in dir(kind) if not name.startswith("_")}


def test_the_fake_offers_nothing_that_the_real_library_lacks(real: Any) -> None:
    fake = Fake(rtx=True)
    made = public(fake) - set(fake.CONTROLS.split())
    builder = fake.Builder(None)
    pairs = {
        "Logger": fake.Logger,
        "IProgressMonitor": fake.IProgressMonitor,
        "OnnxParser": fake.OnnxParser(None, None),
        "Builder": builder,
        "IBuilderConfig": builder.create_builder_config(),
        "Runtime": fake.Runtime(None),
        "ICudaEngine": fake_tensorrt.Engine(),
        "IRuntimeConfig": fake_tensorrt.RuntimeConfig(),
        "IRuntimeCache": fake_tensorrt.RuntimeCache(),
    }
    assert made <= public(real)
    kinds = (SimpleNamespace, EnumType)
    pairs |= {name: v for name in made if isinstance(v := getattr(fake, name), kinds)}
    for name, offered in pairs.items():
        values = set(getattr(offered, "__members__", ())) or public(offered)
        assert values <= public(getattr(real, name)), name
