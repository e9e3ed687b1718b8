"""The set-up: what is missing is said in one line, and what is done is not done again."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections import namedtuple
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def setup_env(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module, with its environment in a temporary folder and without root's apt-get."""
    spec = importlib.util.spec_from_file_location("setup_env", ROOT / "scripts" / "setup_env.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "setup_env", module)
    spec.loader.exec_module(module)
    for name, path in (("VENV", ""), ("PYTHON", "bin/python"), ("LOG", "setup.log")):
        monkeypatch.setattr(module, name, tmp_path / path)
    monkeypatch.setattr(module.os, "geteuid", lambda: 1000)
    return module


def need_named(module: ModuleType, word: str) -> object:
    (need,) = [need for need in module.system_needs() if word in need.what]
    return need


@pytest.mark.parametrize(
    ("word", "missing", "package"),
    [
        ("compiler", "has_compiler", "build-essential"),
        ("Python.h", "has_headers", "-dev"),
        ("venv module", "has_venv", "-venv"),
    ],
)
def test_what_is_missing_is_said_with_the_command_that_gets_it(
    setup_env: ModuleType, monkeypatch: pytest.MonkeyPatch, word: str, missing: str, package: str
) -> None:
    monkeypatch.setattr(setup_env, missing, lambda: False)
    with pytest.raises(setup_env.SetupError, match=f"apt-get install .*{package}") as caught:
        setup_env.require(need_named(setup_env, word))
    assert "\n" not in str(caught.value)


def test_root_installs_what_is_missing_with_apt_get(
    setup_env: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[list[str]] = []
    present = iter([False, True])
    monkeypatch.setattr(setup_env.os, "geteuid", lambda: 0)
    monkeypatch.setattr(setup_env.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(
        setup_env.subprocess, "run", lambda command, **_: commands.append(list(command))
    )
    need = setup_env.SystemNeed("a renderer", ("libosmesa6",), lambda: next(present))
    setup_env.require(need)
    assert [command[2] for command in commands] == ["update", "install"]
    assert "libosmesa6" in commands[-1]


def test_a_compiler_is_looked_for_on_the_path(
    setup_env: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(setup_env.shutil, "which", lambda _: None)
    assert not setup_env.has_compiler()


def test_a_full_disk_is_noticed_before_the_download(
    setup_env: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    usage = namedtuple("usage", "free")(2_000_000_000)
    monkeypatch.setattr(setup_env.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(setup_env.SetupError, match=r"2\.0 GB of disk space left") as caught:
        setup_env.require_disk_space(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_step_is_done_once_for_the_same_key(setup_env: ModuleType) -> None:
    done: list[str] = []
    for key in ("a", "a", "b"):
        setup_env.once("step", key, lambda key=key: done.append(key))
    assert done == ["a", "b"]


def test_a_failed_step_is_done_again(setup_env: ModuleType) -> None:
    def fail() -> None:
        raise setup_env.SetupError("no network")

    done: list[str] = []
    setup_env.once("step", "a", lambda: None)
    with pytest.raises(setup_env.SetupError):
        setup_env.once("step", "b", fail)
    setup_env.once("step", "a", lambda: done.append("again"))
    assert done == ["again"]


def test_a_failed_command_is_reported_by_its_error_and_the_log(setup_env: ModuleType) -> None:
    command = [sys.executable, "-c", "print('ERROR: no such package'); raise SystemExit(3)"]
    with pytest.raises(setup_env.SetupError, match=r"no such package.*reachable.*setup\.log"):
        setup_env.run(command, hint="is the package index reachable?")


def test_a_fingerprint_changes_with_a_file(
    setup_env: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(setup_env, "ROOT", tmp_path)
    file = tmp_path / "Status.msg"
    file.write_text("uint8 state\n")
    before = setup_env.fingerprint("key", files=[file])
    assert before == setup_env.fingerprint("key", files=[file])
    file.write_text("uint16 state\n")
    assert before != setup_env.fingerprint("key", files=[file])


def test_the_wheels_are_installed_with_the_tested_versions(setup_env: ModuleType) -> None:
    assert setup_env.constraints(distribution=False) == ROOT / "constraints.txt"


@pytest.mark.parametrize(
    ("system_numpy", "expected"), [("1.26.4\n", "numpy>=1.26,<2"), ("2.2.0\n", "numpy==2.")]
)
def test_a_distribution_keeps_its_ros_and_its_numpy(
    setup_env: ModuleType, monkeypatch: pytest.MonkeyPatch, system_numpy: str, expected: str
) -> None:
    answer = SimpleNamespace(stdout=system_numpy)
    monkeypatch.setattr(setup_env.subprocess, "run", lambda *_, **__: answer)
    text = setup_env.constraints(distribution=True).read_text()
    assert expected in text
    assert "torch==2.12.1" in text
    assert "ros-" not in text


@pytest.mark.parametrize("script", ["setup.sh", "in_env.sh"])
def test_a_script_of_the_shell_is_well_formed(script: str) -> None:
    checked = subprocess.run(["bash", "-n", str(ROOT / "scripts" / script)], capture_output=True)
    assert checked.returncode == 0, checked.stderr
