"""Runs a script over data from outside in a process of its own, with limits of time and memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

_WALL_S: Final = 600.0
"""However busy the machine is."""
_START: Final = """
import json, resource, runpy, sys
seconds, memory, script, path = json.loads(sys.argv[1])
for limit, value in ((resource.RLIMIT_CPU, seconds), (resource.RLIMIT_AS, memory),
                     (resource.RLIMIT_CORE, 0)):
    hard = resource.getrlimit(limit)[1]
    resource.setrlimit(limit, (value if hard < 0 else min(value, hard),) * 2)
sys.path[:] = path
runpy.run_path(script, run_name="__main__")
"""


class IsolatedError(Exception):
    """The script failed or went over a limit; the message says how."""


def run_isolated(script: Path, data: bytes, cpu_s: int, memory_bytes: int) -> Any:
    """Run a script that reads standard input, and return the JSON value that it writes.

    Args:
        script: A Python file.
        data: Its standard input.
        cpu_s: Processor time that it may take [s].
        memory_bytes: Address space that it may take.

    Raises:
        IsolatedError: It failed, crashed, or took too much.
    """
    limits = json.dumps([cpu_s, memory_bytes, str(script), sys.path])
    command = [sys.executable, "-I", "-c", _START, limits]
    try:
        ended = subprocess.run(
            command, input=data, capture_output=True, timeout=_WALL_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise IsolatedError(f"it did not end within {_WALL_S:g} s") from error
    if ended.returncode < 0:
        raise IsolatedError(
            f"it crashed (signal {-ended.returncode}) or took more than {cpu_s} s of the processor"
        )
    if ended.returncode:
        lines = ended.stderr.decode(errors="replace").strip().splitlines()
        raise IsolatedError(lines[-1][:300] if lines else f"exit code {ended.returncode}")
    return json.loads(ended.stdout)
