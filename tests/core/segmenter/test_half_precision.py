"""The image encoder in half precision: near the exact one, or not used."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch

from segzero_core import RgbImage, load_segmenter
from segzero_core.encoders.torch_encoder import TorchImageEncoder
from segzero_core.errors import EngineMismatchError
from segzero_core.segmenter import encoder_selection
from segzero_core.segmenter.encoder_selection import choose_encoder
from segzero_core.segmenter.sam2 import LoadedSegmenter


@pytest.fixture(scope="module")
def sam(tiny_model: Path) -> LoadedSegmenter:
    return load_segmenter(str(tiny_model / "segmenter"))


@pytest.fixture
def other_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoder_selection, "mask_agreement", lambda *_: (1.0, 0.5, 1.0))


def test_features_are_near_the_exact_ones_and_of_their_type(
    sam: LoadedSegmenter, image: RgbImage
) -> None:
    exact = sam.encoder.encode(image)
    half = TorchImageEncoder(sam.model, half=True).encode(image)
    for a, b in zip(
        (half.image_embed, *half.high_res_feats),
        (exact.image_embed, *exact.high_res_feats),
        strict=True,
    ):
        assert a.dtype == torch.float32
        error = float((a - b).abs().max())
        assert 0 < error < 0.02 * float(b.abs().max())


@pytest.mark.parametrize("precision", ["auto", "fp32", "fp16"])
def test_a_processor_stays_exact(precision: str, sam: LoadedSegmenter) -> None:
    assert choose_encoder(sam, "cpu", "torch", precision).encoder is sam.encoder


def test_torch_on_a_gpu_is_exact_unless_fp16_is_requested(sam: LoadedSegmenter) -> None:
    assert choose_encoder(sam, "cuda", "torch").encoder is sam.encoder
    assert choose_encoder(sam, "cuda", "torch", "fp16").encoder is not sam.encoder


@pytest.mark.usefixtures("other_masks")
@pytest.mark.parametrize("backend", ["torch", "torch-compile"])
def test_other_masks_are_refused_where_half_precision_is_asked_for(
    backend: str, sam: LoadedSegmenter
) -> None:
    with pytest.raises(EngineMismatchError, match=f"{backend} in fp16 .* 0.500"):
        choose_encoder(sam, "cuda", backend, "fp16")


@pytest.mark.usefixtures("other_masks")
def test_the_choice_itself_turns_to_the_exact_one(
    sam: LoadedSegmenter, image: RgbImage, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        chosen = choose_encoder(sam, "cuda", "torch-compile").encoder
    assert "computes in fp32: torch-compile in fp16" in caplog.text
    assert isinstance(chosen, TorchImageEncoder)
    assert not chosen._half
