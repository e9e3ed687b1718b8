"""What only a GPU can show; elsewhere everything here is skipped.

    python -m pytest -m gpu tests/gpu

Whatever runs on a GPU is held against the same on the processor, or against transformers'
`generate` on the same GPU.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from segzero_core import ConfigError, QwenReasoner, RgbImage, SegZero, load_image, load_segmenter
from segzero_core.checkpoints.registry import find_model
from segzero_core.encoders.tensorrt_engine import check_gpu, import_tensorrt
from segzero_core.errors import is_out_of_memory
from segzero_core.qwen_vl.language_model import KV_CACHE_STEP
from segzero_core.segmenter.encoder_parity import mask_agreement
from segzero_core.segmenter.encoder_selection import choose_encoder
from tests.tiny_models import TINY_REPLY, save_tiny_model

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU"),
]

ROOT = Path(__file__).parents[2]
QUESTIONS = ("the lemon", "every plate", "something to tighten a screw with", "the mug")
MIN_IOU = 0.95


@pytest.fixture(scope="module")
def image() -> RgbImage:
    return load_image(ROOT / "tests" / "table.png")[100:420, 440:866]  # what the camera saw


@pytest.fixture(scope="module")
def on_cpu() -> SegZero:
    return SegZero.load("tabletop", device="cpu", backend="torch")


def bundled(**options: Any) -> QwenReasoner:
    files = find_model("tabletop")
    return QwenReasoner(files.reasoner, files.description, "cuda", **options)


def iou(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    union = np.count_nonzero(one | other)
    return np.count_nonzero(one & other) / union if union else 1.0


@pytest.mark.parametrize("decode", ["auto", "compiled", "eager", "plain"])
def test_a_gpu_answers_as_the_processor_does(
    decode: str, image: RgbImage, on_cpu: SegZero
) -> None:
    on_gpu = SegZero.load("tabletop", device="cuda", precision="float32", decode=decode)
    for question in QUESTIONS:
        wanted = on_cpu.segment(image, question).segmentation.masks
        found = on_gpu.segment(image, question).segmentation.masks
        assert len(found) == len(wanted)
        assert all(iou(a, b) > MIN_IOU for a, b in zip(found, wanted, strict=True))


@pytest.mark.parametrize("decode", ["eager", "graph", "compiled"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_loops_say_what_generate_says(decode: str, precision: str, image: RgbImage) -> None:
    plain = bundled(decode="plain", dtype=precision)
    lean = bundled(decode=decode, dtype=precision)
    images = [image, np.ascontiguousarray(image[:, ::-1]), image]
    said = [
        ["".join(model.stream(shown, q)) for shown in images for q in QUESTIONS]
        for model in (plain, lean)
    ]
    if precision == "float32":
        assert said[0] == said[1]
    else:
        # In half as many digits two tokens may tie; most replies are the same.
        same = sum(a == b for a, b in zip(*said, strict=True))
        assert same >= len(said[0]) // 2, (same, len(said[0]))


def test_a_captured_step_goes_on_where_the_memory_has_grown(
    tmp_path: Path, image: RgbImage
) -> None:
    counted = "".join(f"{number:03d}" for number in range(2 * KV_CACHE_STEP // 3 * 2))
    reply = TINY_REPLY.replace("I see", f"{counted} I see")
    folder = save_tiny_model(tmp_path / "long", reply, max_new_tokens=1000) / "reasoner"
    description = find_model(str(folder)).description
    lean, plain = (
        QwenReasoner(folder, description, "cuda", dtype="float32", decode=decode)
        for decode in ("graph", "plain")
    )
    # The second question needs more room than the first, so that the memory moves.
    for query in ("the mug", "the mug " * 249):
        pieces = list(lean.stream(image, query))
        assert len(pieces) > KV_CACHE_STEP
        assert pieces == list(plain.stream(image, query))


def test_bfloat16_finds_the_same_objects(image: RgbImage, on_cpu: SegZero) -> None:
    on_gpu = SegZero.load("tabletop", device="cuda")
    for question in QUESTIONS[:2]:
        wanted = on_cpu.segment(image, question).segmentation.masks
        found = on_gpu.segment(image, question).segmentation.masks
        assert len(found) == len(wanted)
        assert all(iou(a, b) > 0.8 for a, b in zip(found, wanted, strict=True))


def test_the_encoder_works_while_a_step_is_captured(image: RgbImage) -> None:
    sam = load_segmenter(find_model("tabletop").segmenter, "cuda")
    wanted = sam.encoder.encode(image).image_embed.clone()
    over, failed = threading.Event(), []

    def encode() -> None:
        while not over.is_set():
            got = sam.encoder.encode(image).image_embed
            if not torch.allclose(got, wanted, atol=1e-3):
                failed.append(float((got - wanted).abs().max()))

    worker = threading.Thread(target=encode)
    worker.start()
    try:
        for _ in range(3):
            assert "".join(bundled(dtype="float32", decode="graph").stream(image, QUESTIONS[0]))
    finally:
        over.set()
        worker.join()
    assert not failed


def test_encoders_on_the_gpu_make_the_processors_masks(image: RgbImage) -> None:
    name = find_model("tabletop").segmenter
    sam, cpu = load_segmenter(name, "cuda"), load_segmenter(name, "cpu")
    here, there = (each.encoder.encode(image).image_embed.cpu() for each in (sam, cpu))
    assert float((here - there).abs().max()) < 0.02 * float(there.abs().max())
    # In fp16 it is refused where the masks are others.
    for backend, precision in (("torch", "fp16"), ("torch-compile", "fp16"), ("torch", "fp32")):
        other = choose_encoder(sam, "cuda", backend, precision).encoder
        assert min(mask_agreement(sam.encoder, other, sam.segmenter)) > 0.99
        assert other.encode(image).image_embed.dtype == torch.float32


def test_tracks_are_those_of_the_processor(image: RgbImage, on_cpu: SegZero) -> None:
    answer = on_cpu.segment(image, QUESTIONS[0])
    on_gpu = SegZero.load("tabletop", device="cuda")
    trackers = [model.new_tracker() for model in (on_cpu, on_gpu)]
    for tracker in trackers:
        tracker.start(image, answer.segmentation)
    for shift in range(2, 42, 2):
        moved = np.roll(image, shift, axis=1)
        here, there = (tracker.step(moved).tracks for tracker in trackers)
        for one, other in zip(here, there, strict=True):
            assert one.lost == other.lost
            assert iou(one.mask, other.mask) > MIN_IOU


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_weights_in_few_bits_answer(precision: str, tmp_path: Path, image: RgbImage) -> None:
    pytest.importorskip("bitsandbytes")
    model = SegZero.load("tabletop", device="cuda", precision=precision)
    result = model.segment(image, QUESTIONS[0])
    assert result.reasoning.completion
    assert len(result.segmentation)


def test_too_large_an_allocation_is_known_as_such() -> None:
    with pytest.raises(torch.OutOfMemoryError) as caught:
        torch.empty(1 << 50, device="cuda")
    assert is_out_of_memory(caught.value)


@pytest.mark.parametrize("backend", ["tensorrt", "tensorrt-rtx"])
def test_an_engine_makes_torchs_masks(backend: str, image: RgbImage) -> None:
    try:
        check_gpu(import_tensorrt(backend), torch.device("cuda"))
    except ConfigError as error:
        pytest.skip(str(error))
    from segzero_cli.build_engine import main as build_engine

    assert build_engine(["--model", "tabletop", *["--rtx"] * backend.endswith("rtx")]) == 0
    model = SegZero.load("tabletop", device="cuda", backend=backend)
    assert model.segment(image, QUESTIONS[0]).model.backend == backend


def test_a_tiny_model_of_the_published_formats_answers(tmp_path: Path, image: RgbImage) -> None:
    model = SegZero.load(str(save_tiny_model(tmp_path / "tiny")), device="cuda")
    result = model.segment(image, "the red mug")
    assert result.reasoning.completion == TINY_REPLY
    assert len(result.segmentation) == 1
