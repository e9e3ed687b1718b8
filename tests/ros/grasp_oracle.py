"""The node with a pipeline that knows a table's truth, for tests of `make grasp`.

python -m tests.ros.grasp_oracle SEED WRONG_KIND --ros-args ...
"""

from __future__ import annotations

import sys

from segzero_cli.clip import Shot
from segzero_core import SegZero
from segzero_core.testing import FakeEncoder
from segzero_core.types import ModelIdentity
from segzero_ros import process
from tabletop.camera import Camera
from tabletop.render import render_scene
from tests.ros.oracle_node import OracleReasoner, TruthSegmenter


def main() -> int:
    with Camera() as camera:
        scene, picture = render_scene(camera, int(sys.argv[1]))
    shots = [Shot({}, scene, query, picture.instances) for query in scene.queries]
    parts = OracleReasoner(shots, sys.argv[2]), FakeEncoder(), TruthSegmenter(shots)
    pipeline = SegZero(*parts, ModelIdentity("oracle", "0" * 16, "fake"))
    return process.run_process(load=lambda _config: pipeline)


if __name__ == "__main__":
    sys.exit(main())
