"""The node with a pipeline that knows the clip's truth, for tests of the demo.

python tests/ros/demo/oracle_node.py CLIP [--wrong KIND] --ros-args ...
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from segzero_cli.demo.clip import Shot, read_clip
from segzero_core import SegZero
from segzero_core.encoders.base import Embedding
from segzero_core.prompt import clean_query
from segzero_core.testing.fakes import FakeEncoder, ScriptedReasoner, fake_description
from segzero_core.types import ModelIdentity, ObjectPrompt, Segmentation
from segzero_ros import main as node_main


def reply_about(shot: Shot, *, right: bool) -> str:
    """Answer with the true boxes, or with what is wrong for every kind of question."""
    boxes = [obj.box_xyxy for obj in shot.scene.objects if obj.id in shot.question.ids]
    if not right:
        boxes = [] if boxes else [(0, 0, 50, 50)]
    found = [
        f'{{"bbox_2d": {list(box)}, "point_2d": [{sum(box[::2]) // 2}, {sum(box[1::2]) // 2}]}}'
        for box in boxes
    ]
    return f"<think>I know the truth.</think><answer>[{', '.join(found)}]</answer>"


class OracleReasoner:
    """Answers the clip's own questions rightly, but for one kind, and finds nothing else."""

    def __init__(self, shots: list[Shot], wrong_kind: str) -> None:
        self.description = fake_description(shots[0].scene.image_size_wh)
        self._replies = {
            clean_query(shot.question.text): reply_about(
                shot, right=shot.question.kind != wrong_kind
            )
            for shot in shots
        }

    def stream(
        self, image: Any, query: str, *, cancel: threading.Event | None = None
    ) -> Iterator[str]:
        reply = self._replies.get(query, "<think>What is that?</think><answer>[]</answer>")
        return ScriptedReasoner(reply, description=self.description).stream(
            image, query, cancel=cancel
        )


class TruthSegmenter:
    """Gives each prompt the object whose box it is."""

    def __init__(self, shots: list[Shot]) -> None:
        self._masks = {
            tuple(float(edge) for edge in obj.box_xyxy): shot.instances == obj.id
            for shot in shots
            for obj in shot.scene.objects
        }

    def segment(self, embedding: Embedding, prompts: Any) -> Segmentation:
        width, height = embedding.size_wh
        masks = np.zeros((len(prompts), height, width), np.bool_)
        for mask, prompt in zip(masks, prompts, strict=True):
            assert isinstance(prompt, ObjectPrompt)
            mask[...] = self._masks.get(prompt.box.xyxy, True)
        return Segmentation(masks, np.ones(len(prompts), np.float32))


def main() -> int:
    clip, wrong_kind = Path(sys.argv[1]), ""
    if sys.argv[2] == "--wrong":
        wrong_kind = sys.argv[3]
    shots = read_clip(clip)
    identity = ModelIdentity("oracle", "0" * 16, "fake")
    reasoner = OracleReasoner(shots, wrong_kind)
    pipeline = SegZero(reasoner, FakeEncoder(), TruthSegmenter(shots), identity)
    return node_main.run_process(load=lambda _config: pipeline)


if __name__ == "__main__":
    sys.exit(main())
