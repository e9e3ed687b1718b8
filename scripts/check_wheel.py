"""Checks that a wheel holds all modules, and that its commands for training start.

    python scripts/check_wheel.py WHEEL SOURCE

Run it outside of the checkout, in an environment with all extras: the wheel is unpacked in front
of that environment's packages. Standard library only.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

PACKED = {"training": "segzero_cli/_packages/training"}
"""Where a package lies inside the wheel, if not at the top."""
PACKAGES = ("segzero_core", "segzero_cli", "segzero_ros", "worlds", "training")
COMMANDS = {
    "segzero evaluate": "from segzero_cli.main import main; main(['evaluate', '--help'])",
    "segzero-train": "from segzero_cli.training_package import train; train()",
}


def missing_modules(wheel: Path, source: Path) -> list[str]:
    """Return the modules of a source tree that a wheel lacks."""
    packed = set(zipfile.ZipFile(wheel).namelist())
    names = []
    for package in PACKAGES:
        for path in sorted((source / package).rglob("*.py")):
            inside = path.relative_to(source / package).as_posix()
            names.append(f"{PACKED.get(package, package)}/{inside}")
    return [name for name in names if name not in packed]


def start_fault(code: str, unpacked: str) -> str:
    """Run code with --help against an unpacked wheel; return what it says if it fails."""
    code = f"import sys; sys.argv[1:] = ['--help']; {code}"
    env = {**os.environ, "PYTHONPATH": unpacked}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, cwd=unpacked, capture_output=True, text=True
    )
    return "" if done.returncode == 0 and "usage:" in done.stdout else done.stderr or done.stdout


def main() -> int:
    """Print what is wrong; the exit code is 1 if anything is."""
    wheel, source = map(Path, sys.argv[1:])
    faults = [f"the wheel lacks {name}" for name in missing_modules(wheel, source)]
    with tempfile.TemporaryDirectory() as unpacked:
        zipfile.ZipFile(wheel).extractall(unpacked)
        for command, code in COMMANDS.items():
            if fault := start_fault(code, unpacked):
                faults.append(f"{command} --help does not start from the wheel: {fault}")
    print("\n".join(faults) or f"{wheel.name} holds all modules and its commands start")
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
