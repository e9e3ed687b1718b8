"""The robot node with a fake cell, as a process: python -m tests.ros.robot.fake_arm"""

from __future__ import annotations

import sys
import threading
from typing import Any

from examples.pick_and_place.ros.panda_node import run_process
from tests.fake_cell import FakeCell, FakeCells


class SlowCell(FakeCell):
    """Takes a while for every step, so that a motion can be interrupted."""

    def act(self, *action: Any) -> None:
        threading.Event().wait(0.1)
        super().act(*action)


if __name__ == "__main__":
    sys.exit(run_process(FakeCells(SlowCell())))
