"""The node with a pipeline that knows a table's truth, for tests of `make grasp`.

python -m tests.ros.demo.grasp_oracle SEED WRONG_KIND --ros-args ...
"""

from __future__ import annotations

import sys

from segzero_cli.demo.clip import Shot
from segzero_core import SegZero
from segzero_core.testing.fakes import FakeEncoder
from segzero_core.types import ModelIdentity
from segzero_ros import main as node_main
from tests.ros.demo.oracle_node import OracleReasoner, TruthSegmenter
from worlds.tabletop.camera import Camera
from worlds.tabletop.render import render_scene


def main() -> int:
    with Camera() as camera:
        scene, image = render_scene(camera, int(sys.argv[1]))
    pixels = (image.color, image.depth_mm, image.instances)
    shots = [Shot(scene, query, *pixels) for query in scene.queries]
    parts = OracleReasoner(shots, sys.argv[2]), FakeEncoder(), TruthSegmenter(shots)
    pipeline = SegZero(*parts, ModelIdentity("oracle", "0" * 16, "fake"))
    return node_main.run_process(load=lambda _config: pipeline)


if __name__ == "__main__":
    sys.exit(main())
