"""Fast DDS' profile for images: whole ones fit into the sender's shared memory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from rclpy.utilities import get_rmw_implementation_identifier

PROFILE = Path(__file__).resolve().parents[3] / "config" / "fastdds.xml"
FULL_HD_BYTES = 1920 * 1080 * 3
LARGEST_SHARED_MEMORY = """
import re
from pathlib import Path
import rclpy
rclpy.init()
node = rclpy.create_node("camera")
ranges = re.findall(r"^(\\w+)-(\\w+) .* /dev/shm/", Path("/proc/self/maps").read_text(), re.M)
print(max((int(end, 16) - int(start, 16) for start, end in ranges), default=0))
"""


def largest_shared_memory(profile: str) -> int:
    """Return the size of the largest block that a node of another process shares [bytes]."""
    command = [sys.executable, "-c", LARGEST_SHARED_MEMORY]
    env = {**os.environ, "FASTRTPS_DEFAULT_PROFILES_FILE": profile}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    assert "XML" not in done.stderr
    return int(done.stdout.split()[-1])


@pytest.mark.skipif(
    "fastrtps" not in get_rmw_implementation_identifier(), reason="of another middleware"
)
def test_several_images_fit_with_the_profile_and_not_one_without() -> None:
    assert largest_shared_memory(str(PROFILE)) > 4 * FULL_HD_BYTES
    assert largest_shared_memory("") < 640 * 480 * 3
