"""The recorded clip, replayed raw and compressed: the same images give the same results."""

from __future__ import annotations

import array
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as PilImage
from sensor_msgs.msg import CompressedImage

from segzero_cli.demo.clip import Shot, read_clip
from segzero_core import SegZero
from segzero_core.encoders.base import Embedding
from segzero_core.images.encodings import array_from_msg
from segzero_core.testing.fakes import ScriptedReasoner, fake_description
from segzero_core.types import ModelIdentity, Segmentation
from segzero_ros.msg import SegmentationResult

CLIP = Path(__file__).resolve().parents[3] / "demo" / "clip.mcap"
REPLY = (
    '<think>Bright.</think><answer>[{"bbox_2d": [0, 0, 640, 480], "point_2d": [9, 9]}]</answer>'
)


class PixelEncoder:
    """Keeps the pixels, so that masks depend on every one of them."""

    backend = "pixels"

    def encode(self, image: Any) -> Embedding:
        grey = image.astype(np.float32).sum(axis=2)[np.newaxis, np.newaxis]
        return Embedding(grey, (), (image.shape[1], image.shape[0]))


class BrightSegmenter:
    """Finds what is brighter than the mean."""

    def segment(self, embedding: Any, prompts: Any) -> Segmentation:
        grey = np.asarray(embedding.image_embed)[0, 0]
        masks = np.stack([grey > grey.mean()] * len(prompts))
        return Segmentation(masks, np.ones(len(masks), np.float32))


def bright_pipeline() -> SegZero:
    reasoner = ScriptedReasoner(REPLY, description=fake_description((640, 480)))
    identity = ModelIdentity("bright", "0" * 16, "pixels")
    return SegZero(reasoner, PixelEncoder(), BrightSegmenter(), identity)


def compressed(shot: Shot) -> CompressedImage:
    color = shot.camera["color"]
    png = io.BytesIO()
    PilImage.fromarray(np.ascontiguousarray(array_from_msg(color))).save(png, "PNG")
    return CompressedImage(
        header=color.header, format="png", data=array.array("B", png.getvalue())
    )


def replay(node: Any, client: Any, msgs: list[Any]) -> list[Any]:
    """Ask about each image and return what was found, and in which image."""
    answers = []
    for msg in msgs:
        client.send_msg(msg, node)
        result = client.ask_and_wait("what is bright", SegmentationResult.OK)
        answers.append((result.header, result.instances, result.image_width, result.image_height))
    return answers


def test_a_bag_gives_the_same_results_raw_and_compressed(
    graph: Any, start_node: Callable[..., Any], make_client: Callable[..., Any]
) -> None:
    shots = read_clip(CLIP)
    client = make_client()
    node = start_node(bright_pipeline())
    client.connect()
    raw = replay(node, client, [shot.camera["color"] for shot in shots])
    assert raw[0][1][0].area_px > 0
    graph.end(node)
    client.wait_until(lambda: not client.node.count_publishers("/segzero/result"))
    node = start_node(bright_pipeline(), image_transport="compressed")
    client.connect(image_topic="/image/compressed")
    assert replay(node, client, [compressed(shot) for shot in shots]) == raw
