"""How the node keeps its memory small."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from segzero_ros.diagnostics.memory import HEAPS

ALLOCATE = """
import ctypes, sys, threading
from segzero_ros.diagnostics.memory import limit_heaps
if sys.argv[2]:
    limit_heaps()
meet, libc = threading.Barrier(6), ctypes.CDLL(None)
def work():
    libc.malloc(10_000)
    meet.wait(20)
threads = [threading.Thread(target=work) for _ in range(6)]
for each in threads:
    each.start()
for each in threads:
    each.join()
libc.fopen.restype = ctypes.c_void_p
out = ctypes.c_void_p(libc.fopen(sys.argv[1].encode(), b"w"))
libc.malloc_info(0, out)
libc.fclose(out)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="of glibc")
def test_threads_at_the_same_time_share_few_heaps(tmp_path: Path) -> None:
    def count(limited: str) -> int:
        file = tmp_path / "heaps.xml"
        subprocess.run([sys.executable, "-c", ALLOCATE, str(file), limited], check=True)
        return len(re.findall("<heap nr", file.read_text()))

    assert count("") > HEAPS
    assert count("limited") <= HEAPS
