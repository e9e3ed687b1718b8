"""The exported encoder: like torch's, readable by TensorRT, refused where it does not belong."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from segzero_core import (
    ConfigError,
    EngineMismatchError,
    ModelLoadError,
    RgbImage,
    SegZero,
    ShapeError,
    load_segmenter,
)
from segzero_core.checkpoints.registry import find_model
from segzero_core.checkpoints.sam2_architecture import build_sam2
from segzero_core.checkpoints.sam2_checkpoint import package_config
from segzero_core.encoders.onnx_encoder import OnnxImageEncoder
from segzero_core.encoders.onnx_export import export_encoder, onnx_path
from segzero_core.segmenter.encoder_parity import MIN_IOU, drawn_scene, mask_agreement
from segzero_core.segmenter.encoder_selection import choose_encoder
from segzero_core.segmenter.sam2 import LoadedSegmenter

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

OPERATORS = {
    name
    for line in Path(__file__).with_name("tensorrt_operators.txt").read_text().splitlines()
    if not line.startswith("#")
    for name in line.split()
}
SIDE = 128


@pytest.fixture(scope="module")
def sam(tiny_model: Path) -> LoadedSegmenter:
    return load_segmenter(str(tiny_model / "segmenter"))


@pytest.fixture(scope="module")
def exported(sam: LoadedSegmenter, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "tiny.onnx"
    export_encoder(sam.model, sam.weights_hash, path)
    return path


def check_operators(path: Path) -> None:
    graph = onnx.load(path).graph
    assert {node.op_type for node in graph.node} <= OPERATORS
    for node in graph.node:
        if node.op_type == "Resize":
            (mode,) = (a.s for a in node.attribute if a.name == "mode")
            assert mode in (b"nearest", b"linear")
    (image,) = graph.input
    shape = [dimension.dim_value for dimension in image.type.tensor_type.shape.dim]
    assert shape[:2] == [1, 3]
    assert all(side > 0 for side in shape), "the shape is fixed"


def test_features_are_those_of_torch(
    sam: LoadedSegmenter, exported: Path, image: RgbImage
) -> None:
    encoder = OnnxImageEncoder(exported, sam.weights_hash)
    ours, theirs = encoder.encode(image), sam.encoder.encode(image)

    assert encoder.backend == "onnxruntime"
    assert ours.size_wh == theirs.size_wh
    pairs = zip(
        (*ours.high_res_feats, ours.image_embed),
        (*theirs.high_res_feats, theirs.image_embed),
        strict=True,
    )
    for feature, expected in pairs:
        difference = np.abs(np.asarray(feature) - expected.numpy()).max()
        assert difference < 1e-3 * float(expected.abs().max())


def test_masks_are_those_of_torch(sam: LoadedSegmenter, exported: Path) -> None:
    encoder = OnnxImageEncoder(exported, sam.weights_hash)

    assert min(mask_agreement(sam.encoder, encoder, sam.segmenter)) >= MIN_IOU


def test_other_masks_are_noticed(sam: LoadedSegmenter) -> None:
    class Blurred:
        backend = "blurred"

        def encode(self, image: RgbImage) -> Any:
            return sam.encoder.encode((image // 2).astype(np.uint8))

    assert min(mask_agreement(sam.encoder, Blurred(), sam.segmenter)) < MIN_IOU


def test_tensorrt_reads_every_operator_of_the_small_encoder(exported: Path) -> None:
    check_operators(exported)


def test_half_precision_stays_close_and_is_typed_in_the_graph(
    sam: LoadedSegmenter, tmp_path: Path
) -> None:
    path = tmp_path / "half.onnx"

    errors = export_encoder(sam.model, sam.weights_hash, path, "fp16")

    assert 1e-6 < max(error.relative for error in errors) < 1e-2
    check_operators(path)
    graph = onnx.load(path).graph
    kinds = {i.data_type for i in graph.initializer if i.name.endswith("weight")}
    assert kinds == {onnx.TensorProto.FLOAT16}
    ends = [*graph.input, *graph.output]
    assert {e.type.tensor_type.elem_type for e in ends} == {onnx.TensorProto.FLOAT}
    # The model that it was made from is as it was.
    assert next(sam.model.parameters()).dtype == torch.float32


def test_the_model_is_as_it_was_after_an_export(
    sam: LoadedSegmenter, image: RgbImage, tmp_path: Path
) -> None:
    before = sam.encoder.encode(image).image_embed
    export_encoder(sam.model, sam.weights_hash, tmp_path / "again.onnx")

    assert torch.equal(torch.as_tensor(sam.encoder.encode(image).image_embed), before)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_bundled_encoder_can_be_exported(tmp_path: Path, precision: str) -> None:
    bundled = load_segmenter(find_model("tabletop").segmenter)
    path = tmp_path / "bundled.onnx"
    export_encoder(bundled.model, bundled.weights_hash, path, precision)

    check_operators(path)
    encoder = OnnxImageEncoder(path, bundled.weights_hash)
    assert min(mask_agreement(bundled.encoder, encoder, bundled.segmenter)) >= MIN_IOU


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["configs/sam2/sam2_hiera_t.yaml", "configs/sam2.1/sam2.1_hiera_t.yaml"]
)
def test_a_published_configuration_can_be_exported(tmp_path: Path, name: str) -> None:
    torch.manual_seed(0)
    sam = build_sam2(package_config(name)).requires_grad_(requires_grad=False)
    errors = export_encoder(sam, "random", tmp_path / "sam.onnx")

    check_operators(tmp_path / "sam.onnx")
    assert max(error.relative for error in errors) < 1e-3


def test_an_encoder_of_other_weights_is_refused(exported: Path) -> None:
    with pytest.raises(EngineMismatchError, match=r"made from the weights .* run segzero export"):
        OnnxImageEncoder(exported, "0" * 16)


@pytest.mark.parametrize("keep", [0, 100, 20_000])
def test_a_file_that_is_cut_off_is_refused(
    sam: LoadedSegmenter, exported: Path, tmp_path: Path, keep: int
) -> None:
    cut = tmp_path / "cut.onnx"
    cut.write_bytes(exported.read_bytes()[:keep])

    with pytest.raises(ModelLoadError, match="run segzero export"):
        OnnxImageEncoder(cut, sam.weights_hash)


def test_a_file_that_is_not_there_names_the_command(sam: LoadedSegmenter, tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="run segzero export"):
        OnnxImageEncoder(tmp_path / "none.onnx", sam.weights_hash)


def test_without_onnx_runtime_the_package_is_named(
    sam: LoadedSegmenter, exported: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)

    with pytest.raises(ConfigError, match=r"segzero\[onnx\]"):
        OnnxImageEncoder(exported, sam.weights_hash)
    with pytest.raises(ConfigError, match=r"segzero\s*\[onnx\]"):
        export_encoder(sam.model, "x", tmp_path / "x.onnx")


def test_a_gpu_needs_its_provider(sam: LoadedSegmenter, exported: Path) -> None:
    with pytest.raises(ConfigError, match="onnxruntime-gpu"):
        OnnxImageEncoder(exported, sam.weights_hash, "cuda")


def test_a_folder_without_room_is_an_error_and_leaves_nothing(
    sam: LoadedSegmenter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(ModelLoadError, match=r"No space left.*SEGZERO_CACHE"):
        export_encoder(sam.model, "x", tmp_path / "x.onnx")
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_precision_is_refused(sam: LoadedSegmenter, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="fp8"):
        export_encoder(sam.model, "x", tmp_path / "x.onnx", "fp8")


def test_auto_takes_what_was_exported(
    cache: Path, sam: LoadedSegmenter, exported: Path, tiny_model: Path, image: RgbImage
) -> None:
    before = choose_encoder(sam, "cpu")
    assert before.encoder.backend == "torch"
    assert "run segzero export" in before.reason

    path = onnx_path(sam.weights_hash, SIDE, "fp32")
    path.parent.mkdir(parents=True)
    path.write_bytes(exported.read_bytes())

    assert path.is_relative_to(cache)
    assert choose_encoder(sam, "cpu").encoder.backend == "onnxruntime"
    model = SegZero.load(str(tiny_model), device="cpu")
    result = model.segment(image, "the red mug")
    assert result.model.encoder_backend == "onnxruntime"
    plain = SegZero.load(str(tiny_model), device="cpu", backend="torch", decode="plain")
    expected = plain.segment(image, "the red mug")
    assert result.reasoning == expected.reasoning
    assert (result.segmentation.masks != expected.segmentation.masks).mean() < 0.001


def test_auto_falls_back_with_a_warning_where_a_file_is_wrong(
    cache: Path, sam: LoadedSegmenter, exported: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = onnx.load(exported)
    for note in model.metadata_props:
        note.value = "other" if note.key == "weights_hash" else note.value
    path = onnx_path(sam.weights_hash, SIDE, "fp32")
    path.parent.mkdir(parents=True)
    onnx.save(model, path)

    chosen = choose_encoder(sam, "cpu")

    assert chosen.encoder.backend == "torch"
    assert len(caplog.records) == 1
    assert "made from the weights other" in caplog.text


@pytest.mark.parametrize(
    ("backend", "error", "message"),
    [
        ("openvino", ConfigError, "none of auto, torch"),
        ("onnxruntime", ModelLoadError, "run segzero export"),
        ("tensorrt", ConfigError, "no GPU"),
    ],
)
def test_a_backend_that_was_asked_for_is_not_replaced(
    cache: Path,
    sam: LoadedSegmenter,
    backend: str,
    error: type[Exception],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(error, match=message):
        choose_encoder(sam, "cpu", backend)


def test_a_bad_image_is_refused(sam: LoadedSegmenter, exported: Path) -> None:
    with pytest.raises(ShapeError):
        OnnxImageEncoder(exported, sam.weights_hash).encode(np.zeros((4, 4), np.uint8))


def test_drawn_scenes_ask_for_what_they_show() -> None:
    for seed in range(3):
        image, prompts = drawn_scene(seed)
        assert image.shape == (480, 640, 3)
        for prompt in prompts:
            assert 0 <= prompt.box.x_min < prompt.box.x_max <= 640
            assert 0 <= prompt.box.y_min < prompt.box.y_max <= 480
