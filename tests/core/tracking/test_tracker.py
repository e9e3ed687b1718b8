"""Tracking: against sam2's offline predictor, without end, and with bad frames."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from segzero_core import (
    ConfigError,
    InputError,
    RgbImage,
    Segmentation,
    SegmentationError,
    View,
    load_segmenter,
)
from segzero_core.checkpoints.sam2_checkpoint import at_side, image_side, read_tracking_facts
from segzero_core.segmenter.sam2 import LoadedSegmenter
from segzero_core.testing.fakes import fake_segzero
from segzero_core.tracking.refinement import Detection, MaskRefiner
from segzero_core.tracking.scene_change import color_histogram, compare_scenes
from segzero_core.tracking.tracker import Sam2Tracker

SIZE_WH = (80, 60)
FRAMES = 24  # more than the 16 frames that the model looks back


@pytest.fixture(scope="module")
def loaded(tiny_model: Path) -> LoadedSegmenter:
    return load_segmenter(str(tiny_model / "segmenter"))


@pytest.fixture
def model(loaded: LoadedSegmenter) -> Any:
    return loaded.segmenter.model


@pytest.fixture
def always_visible(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Untrained, the model says by chance that nothing is there: nothing to compare."""
    _fix_object_score(model, monkeypatch, 10.0)


def _fix_object_score(model: Any, monkeypatch: pytest.MonkeyPatch, value: float) -> None:
    head = model.sam_mask_decoder.pred_obj_score_head
    monkeypatch.setattr(head, "forward", lambda tokens: tokens[:, :1] * 0 + value)


@pytest.fixture
def frames() -> list[RgbImage]:
    return [_frame(frame) for frame in range(FRAMES)]


def _frame(frame: int) -> RgbImage:
    """A ball on a table that is never quite the same."""
    noise = np.random.default_rng(frame).integers(-12, 12, (SIZE_WH[1], SIZE_WH[0], 3))
    table = np.full((SIZE_WH[1], SIZE_WH[0], 3), (150, 120, 80), np.uint8)
    cv2.rectangle(table, (4, 40), (30, 55), (40, 60, 160), -1)
    cv2.circle(table, (20 + frame, 25), 10, (200, 40, 30), -1)
    return np.clip(table + noise, 0, 255).astype(np.uint8)


def _answer(*boxes: tuple[int, int, int, int]) -> Segmentation:
    masks = np.zeros((len(boxes), SIZE_WH[1], SIZE_WH[0]), np.bool_)
    for mask, (x_min, y_min, x_max, y_max) in zip(masks, boxes, strict=True):
        mask[y_min:y_max, x_min:x_max] = True
    return Segmentation(masks, np.full(len(boxes), 0.9, np.float32))


BALL, BOOK = (10, 15, 31, 36), (4, 40, 31, 56)


def _offline_masks(
    model: Any, tensors: list[torch.Tensor], mask: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> list[np.ndarray]:
    """What `SAM2VideoPredictor` makes of the same frames, given all at once."""
    from sam2 import sam2_video_predictor as offline

    frames = torch.cat(tensors)
    monkeypatch.setattr(offline, "load_video_frames", lambda **_: (frames, SIZE_WH[1], SIZE_WH[0]))
    predictor = object.__new__(offline.SAM2VideoPredictor)
    predictor.__dict__.update(model.__dict__)
    predictor.fill_hole_area, predictor.non_overlap_masks = 0, False
    predictor.clear_non_cond_mem_around_input = False
    predictor.add_all_frames_to_correct_as_cond = False
    state = predictor.init_state("")
    predictor.add_new_mask(state, 0, 1, torch.tensor(mask))
    found = predictor.propagate_in_video(state)
    return [(logits[0, 0] > 0).numpy() for _, _, logits in found]


@pytest.mark.usefixtures("always_visible")
def test_the_masks_are_those_of_sam2s_offline_predictor(
    model: Any, frames: list[RgbImage], monkeypatch: pytest.MonkeyPatch
) -> None:
    from segzero_core.encoders.torch_encoder import preprocess

    answer = _answer(BALL)
    side = image_side(model)
    tensors = [preprocess(each, side, torch.device("cpu")) for each in frames]
    expected = _offline_masks(model, tensors, answer.masks[0], monkeypatch)

    tracker = Sam2Tracker(model)
    tracker.start(frames[0], answer)
    found = [tracker.step(each).tracks[0].mask for each in frames[1:]]
    assert any(mask.any() for mask in found)
    for mask, offline in zip(found, expected[1:], strict=True):
        assert (mask == offline).all()


@pytest.mark.usefixtures("always_visible")
def test_objects_followed_together_get_the_masks_they_get_alone(
    model: Any, frames: list[RgbImage]
) -> None:
    together, alone = Sam2Tracker(model), Sam2Tracker(model)
    together.start(frames[0], _answer(BOOK, BALL))
    alone.start(frames[0], _answer(BALL))
    for frame in frames[1:6]:
        first, second = together.step(frame).tracks[1], alone.step(frame).tracks[0]
        assert (first.mask == second.mask).all()
        assert first.score == second.score


def test_the_memory_stops_growing(model: Any, frames: list[RgbImage]) -> None:
    tracker = Sam2Tracker(model)
    tracker.start(frames[0], _answer(BALL))
    sizes, tensors = [], []
    for step in range(40):
        tracker.step(frames[step % 2])
        if step >= 20:
            gc.collect()
            sizes.append(tracker.remembered)
            tensors.append(sum(issubclass(type(each), torch.Tensor) for each in gc.get_objects()))
    assert set(sizes) == {1 + model.max_obj_ptrs_in_encoder}
    assert tensors[0] == tensors[-1]


@pytest.mark.usefixtures("always_visible")
def test_the_first_tracks_are_the_answer_itself(model: Any, frames: list[RgbImage]) -> None:
    tracks = Sam2Tracker(model).start(frames[0], _answer(BALL, BOOK), "the toys").tracks
    assert [(track.id, track.label, track.lost) for track in tracks] == [
        (1, "the toys", False),
        (2, "the toys", False),
    ]
    assert tracks[0].box is not None
    assert tracks[0].box.xyxy == BALL
    assert tracks[0].score == pytest.approx(0.9)
    assert not tracks[0].mask.flags.writeable


def test_an_object_that_the_model_does_not_see_is_lost_and_found_again(
    model: Any, frames: list[RgbImage], monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = Sam2Tracker(model)
    tracker.start(frames[0], _answer(BALL))
    _fix_object_score(model, monkeypatch, -5.0)
    hidden = tracker.step(frames[1]).tracks[0]
    assert hidden.lost
    assert not hidden.mask.any()
    assert hidden.score == 0
    _fix_object_score(model, monkeypatch, 5.0)
    decoder = model.sam_mask_decoder
    monkeypatch.setattr(decoder, "forward", _drawing_everything(decoder.forward))
    assert not tracker.step(frames[2]).tracks[0].lost


def _drawing_everything(forward: Callable[..., Any]) -> Callable[..., Any]:
    """Where an untrained model draws is chance."""

    def draw(**inputs: Any) -> Any:
        masks, *others = forward(**inputs)
        return (torch.full_like(masks, 4.0), *others)

    return draw


@pytest.mark.parametrize(
    ("spoil", "view"),
    [
        pytest.param(lambda image: np.zeros_like(image), View.BLANK, id="black"),
        pytest.param(lambda image: np.full_like(image, 255), View.BLANK, id="white"),
        pytest.param(lambda image: 255 - image, View.CUT, id="another place"),
        pytest.param(lambda image: image[:40], View.CUT, id="another size"),
    ],
)
@pytest.mark.usefixtures("always_visible")
def test_no_mask_is_invented_for_a_frame_of_something_else(
    model: Any, frames: list[RgbImage], spoil: Callable[[RgbImage], RgbImage], view: View
) -> None:
    tracker, undisturbed = Sam2Tracker(model), Sam2Tracker(model)
    for each in (tracker, undisturbed):
        each.start(frames[0], _answer(BALL, BOOK))
        each.step(frames[1])
    spoiled = np.ascontiguousarray(spoil(frames[2]))
    tracks = tracker.step(spoiled)
    assert tracks.view is view
    assert tracks.size_wh == (spoiled.shape[1], spoiled.shape[0])
    assert [track.lost for track in tracks.tracks] == [True, True]
    assert all(track.mask.shape == spoiled.shape[:2] for track in tracks.tracks)
    # The memory has not heard of it: the next good frame goes on as if nothing had been.
    again, expected = tracker.step(frames[3]), undisturbed.step(frames[3])
    assert again.view is View.SAME
    for one, other in zip(again.tracks, expected.tracks, strict=True):
        assert (one.mask == other.mask).all()


def test_an_object_without_a_pixel_is_lost_and_the_others_are_followed(
    model: Any, frames: list[RgbImage]
) -> None:
    tracker = Sam2Tracker(model)
    tracks = tracker.start(frames[0], _answer((0, 0, 0, 0), BALL)).tracks
    assert [track.lost for track in tracks] == [True, False]
    assert [track.id for track in tracker.step(frames[1]).tracks] == [1, 2]


@pytest.mark.parametrize(
    ("image", "answer", "complaint"),
    [
        pytest.param(_frame(0), _answer((0, 0, 0, 0)), "none has a pixel", id="empty mask"),
        pytest.param(_frame(0), Segmentation.empty(SIZE_WH), "0 objects", id="no object"),
        pytest.param(np.zeros_like(_frame(0)), _answer(BALL), "black", id="black frame"),
        pytest.param(_frame(0)[:40], _answer(BALL), "the image's size", id="another size"),
        pytest.param(_frame(0)[..., 0], _answer(BALL), "RGB image", id="gray frame"),
    ],
)
def test_what_cannot_be_followed_is_refused_with_its_reason(
    model: Any, image: RgbImage, answer: Segmentation, complaint: str
) -> None:
    with pytest.raises(InputError, match=complaint):
        Sam2Tracker(model).start(image, answer)


def test_a_tracker_without_an_answer_says_what_to_do(model: Any) -> None:
    with pytest.raises(InputError, match="call start with an answer first"):
        Sam2Tracker(model).step(_frame(0))


def test_a_reset_tracker_has_forgotten_everything(model: Any) -> None:
    tracker = Sam2Tracker(model)
    tracker.start(_frame(0), _answer(BALL))
    tracker.reset()
    assert tracker.remembered == 0
    with pytest.raises(InputError, match="nothing is followed"):
        tracker.step(_frame(1))


def test_a_failing_model_is_a_segmentation_error(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = Sam2Tracker(model)
    tracker.start(_frame(0), _answer(BALL))

    def fail(*_: object, **__: object) -> Any:
        raise RuntimeError("the attention broke")

    monkeypatch.setattr(model.memory_attention, "forward", fail)
    with pytest.raises(SegmentationError, match="the attention broke"):
        tracker.step(_frame(1))


def test_the_model_itself_is_not_changed(loaded: LoadedSegmenter, model: Any) -> None:
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    side, decoder = model.image_size, model.sam_mask_decoder
    tracker = Sam2Tracker(model, 2 * side)
    tracker.start(_frame(0), _answer(BALL))
    tracker.step(_frame(1))
    assert model.image_size == side
    assert model.sam_mask_decoder is decoder
    assert all((before[name] == tensor).all() for name, tensor in model.state_dict().items())
    assert loaded.encoder.encode(_frame(0)).image_embed.shape[-1] == side // 16


@pytest.mark.parametrize(
    ("iou", "lost", "remembered"),
    [
        pytest.param(0.95, False, 2, id="reliable"),
        pytest.param(0.4, False, 1, id="shown and not remembered"),
        pytest.param(None, True, 1, id="does not look like it"),
    ],
)
@pytest.mark.usefixtures("always_visible")
def test_a_careful_tracker_remembers_what_is_reliable(
    model: Any, iou: float | None, lost: bool, remembered: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    logits = torch.full((1, 1, 32, 32), -5.0)
    logits[..., 8:16, 8:16] = 5.0
    drawn = Detection(logits, torch.tensor(iou or 0.0), 0.9, logits[0, 0].numpy() > 0)
    monkeypatch.setattr(MaskRefiner, "refine", lambda *_: None if iou is None else drawn)
    tracker = Sam2Tracker(model, careful=True)
    tracker.start(_frame(0), _answer(BALL))
    (track,) = tracker.step(_frame(1)).tracks
    assert track.lost is lost
    assert track.score == pytest.approx(iou or 0.0)
    assert tracker.remembered == remembered


@pytest.mark.usefixtures("always_visible")
def test_a_careful_tracker_follows_with_its_own_refiner(model: Any) -> None:
    tracker = Sam2Tracker(model, careful=True)
    tracker.start(_frame(0), _answer(BALL, BOOK))
    for frame in range(1, 5):
        tracks = tracker.step(_frame(frame)).tracks
        assert all(0.0 <= track.score <= 1.0 for track in tracks)


@pytest.mark.parametrize("careful", [True, False])
@pytest.mark.usefixtures("always_visible")
def test_an_object_of_one_pixel_can_be_followed(
    model: Any, careful: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[int] = []
    track_step = type(model).track_step

    def spy(self: Any, **inputs: Any) -> Any:
        if inputs["mask_inputs"] is not None:
            given.append(int(inputs["mask_inputs"].sum()))
        return track_step(self, **inputs)

    monkeypatch.setattr(type(model), "track_step", spy)
    big = cv2.resize(_frame(0), (640, 480))
    mask = np.zeros((1, 480, 640), np.bool_)
    mask[0, 200, 300] = True
    tracker = Sam2Tracker(model, careful=careful)
    tracker.start(big, Segmentation(mask, np.ones(1, np.float32)))
    assert given == [1]
    assert 0.0 <= tracker.step(big).tracks[0].score <= 1.0


def test_a_side_that_the_features_cannot_have_is_refused(model: Any) -> None:
    with pytest.raises(ConfigError, match="no multiple of 16"):
        at_side(model, 100)


def test_the_scene_is_the_same_while_the_camera_moves() -> None:
    first = color_histogram(_frame(0))
    assert first is not None
    moved = np.ascontiguousarray(np.roll(_frame(9), 12, axis=1))
    assert compare_scenes(first, color_histogram(moved)) is View.SAME


def _with_facts(folder: Path, source: Path, text: str) -> Path:
    folder.mkdir()
    for path in source.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    config = next(folder.glob("*.yaml"))
    config.write_text(config.read_text() + text, encoding="utf-8")
    return folder


def test_a_segmenter_with_an_untrained_memory_does_not_follow(
    tiny_model: Path, tmp_path: Path
) -> None:
    facts = "\nsegzero:\n  memory: untrained\n"
    folder = _with_facts(tmp_path / "sam", tiny_model / "segmenter", facts)
    with pytest.raises(ConfigError, match="memory was never trained"):
        Sam2Tracker.load(str(folder))


def test_a_configuration_names_the_size_to_follow_in(tiny_model: Path, tmp_path: Path) -> None:
    facts = "\nsegzero:\n  memory: trained\n  tracking_side: 64\n"
    folder = _with_facts(tmp_path / "sam", tiny_model / "segmenter", facts)
    assert read_tracking_facts(next(folder.glob("*.yaml"))).memory == "trained"
    tracker = Sam2Tracker.load(str(folder))
    assert image_side(tracker._model) == 64


@pytest.mark.parametrize(
    ("facts", "complaint"),
    [
        pytest.param("segzero: yes please\n", "expected a section", id="no section"),
        pytest.param("segzero:\n  memory: maybe\n", "neither trained", id="memory"),
        pytest.param("segzero:\n  tracking_side: wide\n", "expected 64 to 4096 px", id="side"),
        pytest.param("segzero:\n  careful: often\n", "neither true nor", id="careful"),
        pytest.param("segzero:\n  trained: true\n", "unknown fields", id="unknown"),
    ],
)
def test_wrong_facts_about_following_are_refused(
    tiny_model: Path, tmp_path: Path, facts: str, complaint: str
) -> None:
    folder = _with_facts(tmp_path / "sam", tiny_model / "segmenter", f"\n{facts}")
    with pytest.raises(ConfigError, match=complaint):
        load_segmenter(str(folder))


def test_a_pipeline_whose_segmenter_cannot_follow_says_so() -> None:
    with pytest.raises(ConfigError, match="BoxSegmenter cannot follow"):
        fake_segzero("<answer>[]</answer>").new_tracker()
