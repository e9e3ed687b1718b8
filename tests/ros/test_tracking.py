"""~/tracks: what follows an answer, with a scripted tracker, and once with the bundled weights."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lifecycle_msgs.msg import Transition
from rclpy.parameter import Parameter
from std_msgs.msg import Header
from std_srvs.srv import Trigger

from segzero_core.checkpoints.registry import bundled_folder
from segzero_core.errors import SegmentationError
from segzero_core.geometry import box_from_mask
from segzero_core.images.encodings import array_from_msg
from segzero_core.pipeline import SegZero
from segzero_core.segmenter.sam2 import Sam2Segmenter, load_segmenter
from segzero_core.testing.fakes import (
    BoxSegmenter,
    FakeEncoder,
    ScriptedReasoner,
    fake_description,
)
from segzero_core.tracking.scene_change import View
from segzero_core.tracking.tracker import Track, Tracks
from segzero_core.types import ModelIdentity, RgbImage, Segmentation
from segzero_ros import qos
from segzero_ros.conversions.images import msg_from_array
from segzero_ros.diagnostics.guard import Guard
from segzero_ros.diagnostics.health import Health
from segzero_ros.msg import SegmentationResult, Status, TrackArray
from segzero_ros.tracking import TrackingWorker
from tests.ros.scripted import NOTHING, SIZE_WH, TWO_OBJECTS, GatedReasoner

OK = SegmentationResult.OK


class ScriptedTracker:
    """Keeps the masks of the answer where they were.

    Attributes:
        gate: Waited for in every step.
        inside: Set while a step waits.
        view: What every image is said to be.
        error: Raised by every step, where there is one.
        steps: How many images were followed.
    """

    def __init__(self) -> None:
        self.gate, self.inside = threading.Event(), threading.Event()
        self.gate.set()
        self.view, self.error, self.steps = View.SAME, None, 0
        self._masks: Any = None
        self._label = ""

    def start(self, image: RgbImage, segmentation: Segmentation, label: str = "") -> Tracks:
        self._masks, self._label = segmentation.masks, label
        return self._tracks()

    def step(self, image: RgbImage) -> Tracks:
        self.inside.set()
        assert self.gate.wait(30.0)
        self.inside.clear()
        self.steps += 1
        if self.error is not None:
            raise self.error
        return self._tracks()

    def reset(self) -> None:
        self._masks = None

    def _tracks(self) -> Tracks:
        seen = self.view is View.SAME
        tracks = []
        for index, mask in enumerate(self._masks, start=1):
            own = mask.copy() if seen else np.zeros_like(mask)
            tracks.append(
                Track(index, self._label, own, box_from_mask(own), 0.75 if seen else 0.0)
            )
        return Tracks(tuple(tracks), self.view, SIZE_WH)


class FollowingSegmenter(BoxSegmenter):
    """Fills boxes, and hands out one tracker again and again."""

    def __init__(self) -> None:
        self.tracker = ScriptedTracker()
        self.made = 0

    def new_tracker(self) -> ScriptedTracker:
        self.made += 1
        return self.tracker


class Listener:
    """Hears ~/tracks and calls ~/reset_tracking."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._reset = client.node.create_client(Trigger, "/segzero/reset_tracking")
        self._subscription = client.node.create_subscription(
            TrackArray, "/segzero/tracks", lambda msg: client.heard.add("tracks", msg), qos.RESULT
        )

    def connect(self, node: Any) -> None:
        self._client.wait_until(lambda: node.output.is_subscribed("tracks"))

    def wait_for(self, header: Any) -> TrackArray:
        """Return the tracks in the image with this header."""
        return self._client.heard.wait("tracks", lambda msg: msg.header == header)

    def reset(self) -> Any:
        self._client.wait_until(self._reset.service_is_ready)
        done = threading.Event()
        future = self._reset.call_async(Trigger.Request())
        future.add_done_callback(lambda _: done.set())
        assert done.wait(30.0)
        return future.result()


class TrackingPipeline(SegZero):
    """A pipeline whose segmenter hands out the tracker."""

    def new_tracker(self) -> ScriptedTracker:
        return self.segmenter.new_tracker()


def _pipeline(segmenter: FollowingSegmenter, reasoner: Any = None) -> SegZero:
    identity = ModelIdentity("scripted", "0" * 16, "fake")
    return TrackingPipeline(
        reasoner or ScriptedReasoner(TWO_OBJECTS), FakeEncoder(), segmenter, identity
    )


@pytest.fixture
def segmenter() -> FollowingSegmenter:
    return FollowingSegmenter()


@pytest.fixture
def following(
    start_node: Callable[..., Any], client: Any, segmenter: FollowingSegmenter
) -> tuple[Any, Any, Listener]:
    """A node that follows two objects, a client, and somebody who listens to the tracks."""
    node = start_node(_pipeline(segmenter))
    listener = Listener(client)
    client.connect()
    listener.connect(node)
    client.send_image(node, SIZE_WH)
    client.ask_and_wait("the mugs", OK)
    return node, client, listener


def _idle(node: Any, client: Any) -> None:
    client.wait_until(lambda: node.queries.is_idle)


def test_the_objects_of_an_answer_are_followed_into_the_next_image(following: Any) -> None:
    node, client, listener = following
    _idle(node, client)
    header = client.send_image(node, SIZE_WH)
    tracks = listener.wait_for(header)
    assert tracks.query_id == client.heard.all("result")[-1].query_id
    assert tracks.latency_ms > 0.0
    first, second = tracks.tracks
    assert (first.id, first.label, first.lost) == (1, "the mugs", False)
    assert list(first.box_xyxy) == [10, 10, 30, 40]
    assert (first.mask_x_offset, first.mask_y_offset) == (10, 10)
    assert array_from_msg(first.mask).shape == (30, 20)
    assert first.mask.header == header
    assert first.area_px == 600
    assert first.score == pytest.approx(0.75)
    assert second.id == 2


def test_every_image_is_followed_when_there_is_time(following: Any) -> None:
    node, client, listener = following
    _idle(node, client)
    for _ in range(3):
        tracks = listener.wait_for(client.send_image(node, SIZE_WH))
        assert [track.lost for track in tracks.tracks] == [False, False]


def test_nothing_is_computed_for_nobody(
    start_node: Callable[..., Any], client: Any, segmenter: FollowingSegmenter
) -> None:
    node = start_node(_pipeline(segmenter))
    client.connect()
    client.send_image(node, SIZE_WH)
    client.ask_and_wait("the mugs", OK)
    _idle(node, client)
    client.send_image(node, SIZE_WH)
    assert segmenter.made == 0
    # Whoever comes later is served from then on.
    listener = Listener(client)
    listener.connect(node)
    listener.wait_for(client.send_image(node, SIZE_WH))
    assert segmenter.made == 1


def test_images_that_come_too_fast_are_skipped_and_not_queued(
    following: Any, segmenter: FollowingSegmenter
) -> None:
    node, client, listener = following
    _idle(node, client)
    segmenter.tracker.gate.clear()
    client.send_image(node, SIZE_WH)
    assert segmenter.tracker.inside.wait(30.0)
    skipped = [client.send_image(node, SIZE_WH) for _ in range(4)]
    newest = client.send_image(node, SIZE_WH)
    segmenter.tracker.gate.set()
    listener.wait_for(newest)
    heard = [msg.header for msg in client.heard.all("tracks")]
    assert not any(header in heard for header in skipped)
    assert segmenter.tracker.steps == 2


def test_a_query_goes_before_the_tracking(
    start_node: Callable[..., Any], client: Any, segmenter: FollowingSegmenter
) -> None:
    reasoner = GatedReasoner()
    node = start_node(_pipeline(segmenter, reasoner))
    listener = Listener(client)
    client.connect()
    listener.connect(node)
    client.send_image(node, SIZE_WH)
    reasoner.gate.set()
    client.ask_and_wait("the mugs", OK)
    _idle(node, client)
    listener.wait_for(client.send_image(node, SIZE_WH))
    reasoner.gate.clear()
    reasoner.waiting.clear()
    client.ask("the other mugs")
    assert reasoner.waiting.wait(30.0)
    meanwhile = client.send_image(node, SIZE_WH)
    reasoner.gate.set()
    client.wait_until(lambda: len(client.heard.all("result")) == 2)
    _idle(node, client)
    tracks = listener.wait_for(client.send_image(node, SIZE_WH))
    assert meanwhile not in [msg.header for msg in client.heard.all("tracks")]
    assert tracks.query_id == client.heard.all("result")[1].query_id
    assert tracks.tracks[0].label == "the other mugs"


def test_an_answer_without_objects_ends_the_tracks_of_the_one_before(
    start_node: Callable[..., Any], client: Any, segmenter: FollowingSegmenter
) -> None:
    node = start_node(_pipeline(segmenter, ScriptedReasoner([TWO_OBJECTS, NOTHING])))
    listener = Listener(client)
    client.connect()
    listener.connect(node)
    client.send_image(node, SIZE_WH)
    client.ask_and_wait("the mugs", OK)
    client.ask_and_wait("the fruit", OK)
    _idle(node, client)
    client.send_image(node, SIZE_WH)
    assert listener.reset().message == "nothing is followed"


def test_tracking_can_be_reset(following: Any, segmenter: FollowingSegmenter) -> None:
    node, client, listener = following
    _idle(node, client)
    listener.wait_for(client.send_image(node, SIZE_WH))
    first = listener.reset()
    assert first.success
    assert first.message == "nothing is followed any more"
    assert listener.reset().message == "nothing is followed"
    steps = segmenter.tracker.steps
    client.send_image(node, SIZE_WH)
    client.ask_and_wait("the mugs", OK)  # the image was long looked at, if it was
    assert segmenter.tracker.steps == steps


def test_deactivation_ends_the_tracks(following: Any) -> None:
    node, client, listener = following
    _idle(node, client)
    listener.wait_for(client.send_image(node, SIZE_WH))
    there_and_back = (Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_ACTIVATE)
    done = node.begin_transitions(*there_and_back)
    client.wait_until(done.done)
    assert done.result()
    assert listener.reset().message == "nothing is followed"


@pytest.mark.parametrize("view", [View.BLANK, View.CUT], ids=lambda view: view.name.lower())
def test_a_image_of_something_else_is_a_status_and_no_mask(
    following: Any, segmenter: FollowingSegmenter, view: View
) -> None:
    node, client, listener = following
    _idle(node, client)
    segmenter.tracker.view = view
    tracks = listener.wait_for(client.send_image(node, SIZE_WH))
    assert [track.lost for track in tracks.tracks] == [True, True]
    assert all(len(track.mask.data) == 0 and track.area_px == 0 for track in tracks.tracks)
    client.heard.wait("status", lambda msg: view.value in msg.detail)
    segmenter.tracker.view = View.SAME
    listener.wait_for(client.send_image(node, SIZE_WH))
    client.heard.wait("status", lambda msg: msg.detail == "ready; 2 of 2 objects are followed")


def test_a_tracker_that_fails_is_reported_and_the_node_goes_on(
    following: Any, segmenter: FollowingSegmenter
) -> None:
    node, client, listener = following
    _idle(node, client)
    segmenter.tracker.error = SegmentationError("the memory broke")
    client.send_image(node, SIZE_WH)
    status = client.heard.wait("status", lambda msg: "the memory broke" in msg.detail)
    assert status.state == Status.READY
    segmenter.tracker.error = None
    client.ask_and_wait("the mugs", OK)
    _idle(node, client)
    listener.wait_for(client.send_image(node, SIZE_WH))


def test_a_segmenter_that_cannot_follow_is_reported(answering: Any) -> None:
    node, client = answering
    listener = Listener(client)
    listener.connect(node)
    client.send_image(node, SIZE_WH)
    client.ask_and_wait("the mugs", OK)
    _idle(node, client)
    client.send_image(node, SIZE_WH)
    status = client.heard.wait("status", lambda msg: "BoxSegmenter cannot follow" in msg.detail)
    assert status.state == Status.READY


def test_the_parameter_switches_tracking_off(
    following: Any, segmenter: FollowingSegmenter
) -> None:
    node, client, listener = following
    _idle(node, client)
    listener.wait_for(client.send_image(node, SIZE_WH))
    node.set_parameters([Parameter("tracking", value=False)])
    client.send_image(node, SIZE_WH)
    client.ask_and_wait("the mugs", OK)  # the image was long looked at, if it was
    assert segmenter.tracker.steps == 1


def test_the_state_that_is_reported_last_is_the_state() -> None:
    """One thread reports while another one forgets the tracks."""
    inside, gate = threading.Event(), threading.Event()
    reported = []

    def on_state(state: str) -> None:
        if inside.is_set():
            gate.set()
        inside.set()
        # Opened by the other thread's report, if that does not wait for this one.
        gate.wait(0.2)
        reported.append(state)

    worker = TrackingWorker(
        ScriptedTracker, lambda _: None, lambda: True, lambda: 0.0, on_state, Guard(None, Health())
    )
    beginning = threading.Thread(target=worker.begin, args=(None,), daemon=True)
    beginning.start()
    assert inside.wait(30.0)
    worker.reset()
    beginning.join(30.0)
    assert reported[-1] == worker.state == "nothing is followed"


def test_the_bundled_segmenter_follows_over_a_rendered_clip(
    start_node: Callable[..., Any], client: Any, tmp_path: Path
) -> None:
    clips = pytest.importorskip("worlds.tabletop.clips")
    load_clip, load_frame = clips.load_clip, clips.load_frame
    command = ["--seed", "1000003", "--count", "1", "--frames", "4", "--out", str(tmp_path)]
    assert clips.main(command) == 0
    folder = tmp_path / "000000"
    clip, frames = load_clip(folder), [load_frame(folder, frame) for frame in range(4)]
    box = box_from_mask(frames[0][1] == clip.target)
    assert box is not None
    x, y = (box.x_min + box.x_max) / 2, (box.y_min + box.y_max) / 2
    reply = f'<answer>[{{"bbox_2d": {[*map(int, box.xyxy)]}, "point_2d": [{x}, {y}]}}]</answer>'
    description = fake_description((640, 480))
    reasoner = ScriptedReasoner(f"<think>That one.</think>{reply}", description=description)
    sam = load_segmenter(str(bundled_folder("tabletop") / "segmenter"))
    identity = ModelIdentity("scripted", "0" * 16, "torch")
    # How well it follows is not asked here, so its memory may be untrained.
    segmenter = Sam2Segmenter(sam.model)
    node = start_node(SegZero(reasoner, sam.encoder, segmenter, identity))
    listener = Listener(client)
    client.connect()
    listener.connect(node)
    headers = [Header(frame_id="camera") for _ in frames]
    for sec, header in enumerate(headers, start=1):
        header.stamp.sec = sec
    client.send_msg(msg_from_array(frames[0][0], "rgb8", headers[0]), node)
    client.ask_and_wait("that one", OK)
    _idle(node, client)
    for (color, _), header in zip(frames[1:], headers[1:], strict=True):
        client.send_msg(msg_from_array(color, "rgb8", header), node)
        (track,) = listener.wait_for(header).tracks
        assert track.id == 1
        assert track.label == "that one"
        if not track.lost:
            left, top, right, bottom = track.box_xyxy
            assert array_from_msg(track.mask).shape == (bottom - top, right - left)
            assert np.count_nonzero(array_from_msg(track.mask)) == track.area_px
