"""`segzero doctor`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from segzero_cli.doctor import checks
from segzero_cli.doctor.findings import Finding, Mark
from segzero_core import ModelLoadError


@pytest.mark.parametrize(("mark", "code"), [(Mark.OK, 0), (Mark.ABSENT, 0), (Mark.FAILED, 1)])
def test_only_what_is_needed_fails_the_check(
    run: Callable, monkeypatch: pytest.MonkeyPatch, mark: Mark, code: int
) -> None:
    monkeypatch.setattr(checks, "CHECKS", (lambda: Finding(mark, "widget", "is so"),))

    ran = run("doctor")

    assert ran.code == code
    assert ran.out == f"{mark.value:<4} widget       is so\n"


def test_what_is_installed_is_named_with_its_version() -> None:
    assert {checks.check_python().mark, checks.check_torch().mark} == {Mark.OK}
    assert checks.check_module("numpy", "numpy").text == np.__version__


def test_opencv_is_checked() -> None:
    assert any(check().subject == "opencv-python-headless" for check in checks.CHECKS[:4])


def test_what_is_missing_comes_with_advice() -> None:
    finding = checks.check_module("no_such_module", "widget", "pip install widget")

    assert str(finding) == "FAIL widget       No module named 'no_such_module'; pip install widget"


@pytest.fixture
def bundle(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(
        "segzero_core.checkpoints.registry._bundled_places", lambda name: iter([tiny_model])
    )
    return tiny_model


def test_the_bundle_is_named_by_the_hash_of_its_results(bundle: Path) -> None:
    from segzero_core import SegZero

    finding = checks.check_bundle("tabletop")

    assert finding.mark is Mark.OK
    assert finding.text.startswith(SegZero.load("tabletop", device="cpu").identity.weights_hash)
    assert str(bundle) in finding.text


def test_a_missing_bundle_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "segzero_core.checkpoints.registry._bundled_places", lambda name: iter([Path("/no")])
    )

    finding = checks.check_bundle("tabletop")

    assert finding.mark is Mark.FAILED
    assert "Install the package again" in finding.text


def test_a_damaged_bundle_fails(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def damaged(folder: object) -> str:
        raise ModelLoadError("model.safetensors is damaged")

    monkeypatch.setattr(checks, "reasoner_hash", damaged)

    assert checks.check_bundle("tabletop").mark is Mark.FAILED


def test_a_renderer_that_crashes_is_only_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    monkeypatch.setattr(checks, "_RENDER", "import os; os.abort()")

    finding = checks.check_renderer()

    assert finding.mark is Mark.ABSENT
    assert "libosmesa6" in finding.text


def test_a_renderer_that_works_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUJOCO_GL", "egl")
    monkeypatch.setattr(checks, "_RENDER", "import os; assert os.environ['MUJOCO_GL'] == 'egl'")

    assert checks.check_renderer() == Finding(Mark.OK, "renderer", "mujoco with MUJOCO_GL=egl")


def test_tensorrt_is_not_touched_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    finding = checks.check_tensorrt("tensorrt")

    assert finding.mark is Mark.ABSENT
    assert "no GPU" in finding.text


def test_what_liberos_world_lacks_is_reported_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worlds.libero.package.MODULES", ("json", "no_such_module"))

    finding = checks.check_libero()

    assert finding.mark is Mark.ABSENT
    assert "no_such_module missing" in finding.text
    assert "make libero-setup" in finding.text
