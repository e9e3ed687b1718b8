"""`segzero export` and `segzero build-engine`."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

for package in ("onnx", "onnxruntime", "onnxscript"):
    pytest.importorskip(package)


def test_an_encoder_is_exported_to_where_it_is_looked_for(
    run: Callable, tiny_model: Path, cache: Path, image_file: Path
) -> None:
    ran = run("export", "--model", tiny_model)

    assert ran.code == 0
    assert "image_embed: differs from torch by at most" in ran.out
    (path,) = (cache / "encoders").glob("*.onnx")
    assert str(path) in ran.out
    answered = run(
        "segment", image_file, "mug", "--model", tiny_model, "--device", "cpu", "--json"
    )
    assert '"encoder_backend": "onnxruntime"' in answered.out


def test_a_file_of_ones_own_can_be_named(run: Callable, tiny_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "encoder.onnx"

    assert run("export", "--model", tiny_model, "--out", out, "--precision", "fp16").code == 0
    assert out.stat().st_size > 10_000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--precision", "fp8"], "none of fp32, fp16"),
        (["--config", "configs/sam2.1/sam2.1_hiera_t.yaml"], "name a file by --out"),
        (["--config", "configs/none.yaml", "--out", "x.onnx"], "no configs/none.yaml"),
        (["--segmenter", "/no/such"], "no such folder"),
    ],
    ids=str,
)
def test_a_wrong_argument_is_one_line(
    run: Callable, tiny_model: Path, arguments: list[str], message: str
) -> None:
    ran = run("export", "--model", tiny_model, *arguments)

    assert ran.code == 2
    assert message in ran.err


def test_an_engine_without_a_gpu_is_refused_before_anything_is_loaded(
    run: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setitem(sys.modules, "tensorrt", None)

    ran = run("build-engine", "--model", "no such model")

    assert ran.code == 2
    assert "torch sees no GPU" in ran.err


def test_an_engine_of_rtx_is_built_without_a_gpu(
    run: Callable, tiny_model: Path, cache: Path
) -> None:
    pytest.importorskip("tensorrt_rtx", reason="needs the extra rtx")

    ran = run("build-engine", "--rtx", "--model", tiny_model)

    assert ran.code == 0
    assert "for RTX GPUs (8.6+) with TensorRT RTX 1.7" in ran.out
    if not torch.cuda.is_available():
        assert "not run: torch sees no GPU" in ran.out
    assert len(list((cache / "engines").glob("*.engine"))) == 1


def test_a_check_of_the_encoder_says_what_ran_and_what_is_missing(
    run: Callable, tiny_model: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)

    ran = run("check-encoder", "--model", tiny_model)

    assert ran.code == 1
    rows = {tuple(line.split(" | ")[:2]): line for line in ran.out.splitlines() if "fp" in line}
    assert "| 1.0000 |" in rows["| torch", "fp32"]
    assert re.search(r"\| (1\.0000|0\.99\d\d) \| \d+\.\d \|", rows["| onnxruntime", "fp32"])
    assert "torch sees no GPU" in rows["| tensorrt", "fp16"]
    assert "pip install segzero[rtx]" in rows["| tensorrt-rtx", "fp32"]
    assert "No TensorRT engine ran here" in ran.out
