"""SAM 2 in two halves, against sam2's own predictor, and the formats it is published in."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from safetensors.torch import load_file, save_file

from segzero_core import (
    Box,
    ConfigError,
    ModelLoadError,
    ObjectPrompt,
    Point,
    RgbImage,
    SegmentationError,
    ShapeError,
    load_segmenter,
)
from segzero_core.checkpoints.sam2_architecture import build_sam2
from segzero_core.checkpoints.sam2_checkpoint import package_config
from segzero_core.encoders.base import Embedding
from segzero_core.segmenter.sam2 import LoadedSegmenter
from tests.tiny_models import save_tiny_segmenter

PROMPTS = [
    ObjectPrompt(Box(10, 5, 50, 40), (Point(30, 20),)),
    ObjectPrompt(Box(0, 0, 80, 60), (Point(5, 5), Point(70, 50))),
    ObjectPrompt(Box(20, 30, 79.5, 60), (Point(60, 45),)),
    ObjectPrompt(Box(3, 3, 9, 9), ()),
]


@pytest.fixture(scope="module")
def loaded(tiny_model: Path) -> LoadedSegmenter:
    return load_segmenter(str(tiny_model / "segmenter"))


def test_the_masks_are_those_of_sam2s_own_predictor(
    loaded: LoadedSegmenter, image: RgbImage
) -> None:
    from sam2.sam2_image_predictor import SAM2ImagePredictor

    predictor = SAM2ImagePredictor(loaded.segmenter.model)
    side = predictor.model.image_size
    predictor._bb_feat_sizes = [(side // s, side // s) for s in (4, 8, 16)]  # it assumes 1024
    predictor.set_image(image)
    found = loaded.segmenter.segment(loaded.encoder.encode(image), PROMPTS)

    for prompt, mask, score in zip(PROMPTS, found.masks, found.scores, strict=True):
        points = np.array([point.xy for point in prompt.points]) if prompt.points else None
        masks, scores, _ = predictor.predict(
            point_coords=points,
            point_labels=None if points is None else np.ones(len(points)),
            box=np.array(prompt.box.xyxy),
            multimask_output=True,
        )
        best = int(scores.argmax())
        # Decoding several objects at once rounds differently in the last bit.
        assert (masks[best].astype(bool) != mask).mean() < 0.001
        assert score == pytest.approx(scores[best], abs=1e-4)


def test_every_object_gets_the_mask_it_would_get_alone(
    loaded: LoadedSegmenter, image: RgbImage
) -> None:
    embedding = loaded.encoder.encode(image)
    prompts = PROMPTS * 5  # more than one batch

    together = loaded.segmenter.segment(embedding, prompts)
    alone = [loaded.segmenter.segment(embedding, [prompt]) for prompt in PROMPTS]

    assert together.masks.shape == (20, 60, 80)
    for index, mask in enumerate(together.masks):
        assert (mask != alone[index % 4].masks[0]).mean() < 0.001


def test_no_prompts_give_no_masks(loaded: LoadedSegmenter, image: RgbImage) -> None:
    found = loaded.segmenter.segment(loaded.encoder.encode(image), [])

    assert (len(found), found.size_wh) == (0, (80, 60))


def test_an_embedding_is_a_value(loaded: LoadedSegmenter, image: RgbImage) -> None:
    first = loaded.encoder.encode(image)
    before = loaded.segmenter.segment(first, PROMPTS)
    loaded.encoder.encode(255 - image)
    after = loaded.segmenter.segment(first, PROMPTS)

    assert first.size_wh == (80, 60)
    assert [tuple(f.shape) for f in first.high_res_feats] == [(1, 4, 32, 32), (1, 8, 16, 16)]
    assert np.array_equal(before.masks, after.masks)


def test_features_of_another_backend_are_taken_as_arrays(
    loaded: LoadedSegmenter, image: RgbImage
) -> None:
    embedding = loaded.encoder.encode(image)
    arrays: Any = [f.numpy() for f in (embedding.image_embed, *embedding.high_res_feats)]
    copy = Embedding(arrays[0], tuple(arrays[1:]), embedding.size_wh)

    assert np.array_equal(
        loaded.segmenter.segment(copy, PROMPTS).masks,
        loaded.segmenter.segment(embedding, PROMPTS).masks,
    )


def test_a_read_only_image_is_encoded_and_not_changed(
    loaded: LoadedSegmenter, image: RgbImage
) -> None:
    before = image.copy()
    image.setflags(write=False)

    loaded.encoder.encode(image)

    assert np.array_equal(image, before)


def test_an_image_of_one_pixel_is_an_image(loaded: LoadedSegmenter) -> None:
    embedding = loaded.encoder.encode(np.zeros((1, 1, 3), np.uint8))

    found = loaded.segmenter.segment(embedding, [ObjectPrompt(Box(0, 0, 1, 1), (Point(0, 0),))])

    assert found.masks.shape == (1, 1, 1)


def test_the_wrong_image_is_refused(loaded: LoadedSegmenter) -> None:
    with pytest.raises(ShapeError):
        loaded.encoder.encode(np.zeros((4, 4), np.uint8))


def test_a_failing_decoder_is_a_segmentation_error(loaded: LoadedSegmenter) -> None:
    wrong = Embedding(np.zeros((1, 5, 8, 8), np.float32), (), (80, 60))

    with pytest.raises(SegmentationError, match="mask decoder"):
        loaded.segmenter.segment(wrong, PROMPTS)


def test_scores_that_are_not_finite_are_refused(loaded: LoadedSegmenter, image: RgbImage) -> None:
    good = loaded.encoder.encode(image)
    broken = Embedding(good.image_embed * float("nan"), good.high_res_feats, good.size_wh)

    with pytest.raises(SegmentationError, match="not finite"):
        loaded.segmenter.segment(broken, PROMPTS)


def test_metas_own_format_gives_the_same_masks(
    loaded: LoadedSegmenter, image: RgbImage, tmp_path: Path
) -> None:
    other = load_segmenter(str(save_tiny_segmenter(tmp_path / "sam", as_pt=True)))

    found = [
        each.segmenter.segment(each.encoder.encode(image), PROMPTS).masks
        for each in (loaded, other)
    ]

    # The safetensors are in half precision; the .pt file is not.
    assert (found[0] != found[1]).mean() < 0.02
    assert other.weights_hash != loaded.weights_hash


@pytest.fixture
def folder(tiny_model: Path, tmp_path: Path) -> Path:
    """A segmenter that a test may damage."""
    return Path(shutil.copytree(tiny_model / "segmenter", tmp_path / "segmenter"))


def test_a_folder_must_hold_one_of_each(folder: Path) -> None:
    shutil.copy(folder / "sam2.yaml", folder / "other.yaml")
    with pytest.raises(ConfigError, match=r"exactly one configuration.*other\.yaml"):
        load_segmenter(str(folder))
    (folder / "other.yaml").unlink()
    (folder / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"exactly one weights file.*none"):
        load_segmenter(str(folder))


@pytest.mark.parametrize("keep", [0, 4, 100, 5000])
def test_a_weights_file_that_is_cut_off_is_damaged(folder: Path, keep: int) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:keep])

    with pytest.raises(ModelLoadError, match="missing or damaged"):
        load_segmenter(str(folder))


class Payload:
    def __reduce__(self) -> tuple[Any, ...]:
        return (exec, ("raise SystemExit('code of a weights file was run')",))


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"not a pickle", id="text"),
        pytest.param(pickle.dumps(Payload()), id="code"),
    ],
)
def test_a_pt_file_is_read_as_data_only(folder: Path, data: bytes) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.pt").write_bytes(data)

    with pytest.raises(ModelLoadError, match="missing or damaged"):
        load_segmenter(str(folder))


def test_a_pt_file_of_something_else_is_refused(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({"epoch": 3}, folder / "model.pt")

    with pytest.raises(ModelLoadError, match="holds no state dict"):
        load_segmenter(str(folder))


def test_weights_of_another_model_do_not_fit(folder: Path) -> None:
    weights = folder / "model.safetensors"
    state = load_file(weights)
    state["no_mem_embed"] = torch.zeros(1, 1, 7)
    state["further"] = state.pop("image_encoder.trunk.pos_embed")
    save_file(state, weights)

    with pytest.raises(ModelLoadError) as caught:
        load_segmenter(str(folder))

    message = str(caught.value)
    assert "1 missing (such as image_encoder.trunk.pos_embed)" in message
    assert "1 unknown (such as further)" in message
    assert "1 of another shape (such as no_mem_embed [1, 1, 7] for [1, 1, 32])" in message


@pytest.fixture
def on_meta(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Build models without memory; sam2 reads its drop rates off a tensor, which needs some."""
    monkeypatch.setattr(torch, "linspace", partial(torch.linspace, device="cpu"))
    with torch.device("meta"):
        yield


@pytest.mark.usefixtures("on_meta")
@pytest.mark.parametrize(
    ("config", "millions"),
    [
        ("configs/sam2/sam2_hiera_t.yaml", 38.9),
        ("configs/sam2/sam2_hiera_l.yaml", 224.4),
        ("configs/sam2.1/sam2.1_hiera_t.yaml", 38.9),
        ("configs/sam2.1/sam2.1_hiera_l.yaml", 224.4),
    ],
)
def test_the_full_size_models_have_the_published_parameters(config: str, millions: float) -> None:
    ours = build_sam2(package_config(config)).state_dict()
    theirs = instantiate(OmegaConf.load(package_config(config)).model).state_dict()

    assert {n: t.shape for n, t in ours.items()} == {n: t.shape for n, t in theirs.items()}
    assert sum(t.numel() for t in ours.values()) / 1e6 == pytest.approx(millions, abs=0.1)


@pytest.mark.usefixtures("on_meta")
def test_the_large_model_has_the_names_of_metas_checkpoint() -> None:
    state = build_sam2(package_config("configs/sam2/sam2_hiera_l.yaml")).state_dict()

    # As listed by the published sam2_hiera_large.pt.
    published = {
        "maskmem_tpos_enc": (7, 1, 1, 64),
        "no_mem_embed": (1, 1, 256),
        "no_mem_pos_enc": (1, 1, 256),
        "no_obj_ptr": (1, 256),
        "image_encoder.trunk.pos_embed": (1, 144, 7, 7),
        "image_encoder.trunk.pos_embed_window": (1, 144, 8, 8),
        "image_encoder.trunk.patch_embed.proj.weight": (144, 3, 7, 7),
        "image_encoder.trunk.blocks.47.mlp.layers.1.weight": (1152, 4608),
        "image_encoder.neck.convs.0.conv.weight": (256, 1152, 1, 1),
        "sam_prompt_encoder.point_embeddings.3.weight": (1, 256),
        "sam_mask_decoder.iou_token.weight": (1, 256),
        "sam_mask_decoder.mask_tokens.weight": (4, 256),
        "sam_mask_decoder.conv_s0.weight": (32, 256, 1, 1),
        "sam_mask_decoder.pred_obj_score_head.layers.2.weight": (1, 256),
        "memory_attention.layers.3.cross_attn_image.k_proj.weight": (256, 64),
        "memory_encoder.out_proj.weight": (64, 256, 1, 1),
        "obj_ptr_proj.layers.2.weight": (256, 256),
        "mask_downsample.weight": (1, 1, 4, 4),
    }
    assert {name: tuple(state[name].shape) for name in published} == published
