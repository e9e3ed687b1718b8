"""Which object a pixel shows."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import pytest

from worlds.common.camera_pose import CameraPose
from worlds.common.renderer import Renderer, open_gl
from worlds.common.simulator import mujoco

WORLD = """
<mujoco>
  <worldbody>
    <light pos="0 0 2"/>
    <geom name="table" type="plane" size="1 1 0.1"/>
    <body name="stove">
      <geom name="stove" type="box" size="0.2 0.2 0.02"/>
      <site name="coil" type="cylinder" size="0.1 0.001" pos="0 0 0.021" rgba="1 0 0 1"/>
    </body>
    <site name="mark" type="cylinder" size="0.05 0.001" pos="0.4 0 0.001" rgba="0 1 0 1"/>
  </worldbody>
</mujoco>
"""


@pytest.fixture
def renderer() -> Iterator[Renderer]:
    gl = open_gl()
    model = mujoco.MjModel.from_xml_string(WORLD)
    model.vis.global_.offwidth, model.vis.global_.offheight = 640, 480
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    with Renderer(SimpleNamespace(model=model, data=data), 0.01, 10.0, 100) as made:
        yield made
    gl.free()


def test_a_site_is_a_part_of_the_object_that_it_is_on(renderer: Renderer) -> None:
    above = CameraPose(np.array([0.0, 0.0, 1.5]), np.diag([1.0, -1.0, -1.0]), 1.0)
    table, stove = np.array([0]), np.array([1])
    seen = renderer.instances(above, [table, stove])
    assert set(np.unique(seen)) <= {0, 1, 2}
    rows, columns = np.nonzero(seen == 2)
    hull = seen[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    assert (hull == 2).all()  # no hole where the coil is
    right = 320 + round(0.4 / 1.5 * above.intrinsics()["fx"])
    assert seen[240, right] == 0  # the mark on the table is nobody's
    assert seen[240, right + 40] == 1
