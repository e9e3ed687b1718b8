"""The structure of the code is as agreed, and the check notices what is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.setup.scripts import load_script

layers = load_script("check_layers")


@pytest.mark.parametrize("offence", layers.offences() or [None])
def test_the_structure_is_as_agreed(offence: str | None) -> None:
    assert offence is None


def write(folder: Path, **files: str) -> dict:
    """Write modules of a package `own`; a double underscore in a name is a folder."""
    for name, text in {"__init__": "", **files}.items():
        path = folder / "own" / f"{name if name == '__init__' else name.replace('__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        (path.parent / "__init__.py").touch()
        path.write_text(text)
    return layers.read_modules(folder, ["own"])


LATE = "def f():\n    from own.b import x\n"
FOR_TYPES = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from own.b import x\n"


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("from own.b import x\n", id="from"),
        pytest.param("import own.b\n", id="import"),
        pytest.param("from own import b\n", id="from the package"),
        pytest.param(LATE, id="inside a function"),
        pytest.param(FOR_TYPES, id="for type checking"),
    ],
)
def test_a_ring_is_found_in_every_form(tmp_path: Path, text: str) -> None:
    modules = write(tmp_path, a=text, b="import own.c\n", c="import own.a\n", d="import own.a\n")
    assert list(layers.ring_offences(modules)) == ["ring of modules: own.a, own.b, own.c"]


def test_imports_one_way_are_no_ring(tmp_path: Path) -> None:
    modules = write(tmp_path, a="import own.b, own.c\n", b="import own.c\n", c="import os\n")
    assert list(layers.ring_offences(modules)) == []


def test_folders_that_import_each_other_are_a_ring(tmp_path: Path) -> None:
    modules = write(tmp_path, x__a="import own.y.a\n", x__b="", y__a="", y__b="import own.x.b\n")
    assert list(layers.ring_offences(modules)) == ["ring of folders: own.x, own.y"]


def test_an_import_from_a_higher_layer_is_found(tmp_path: Path) -> None:
    modules = write(tmp_path, low="import own.high\n", high="", left="import own.right", right="")
    rows = ["own.high", "own.left | own.right", "own.low"]
    assert list(layers.layer_offences(modules, rows)) == [
        "layer: own.left imports own.right",
        "layer: own.low imports own.high",
    ]


def test_a_name_taken_from_a_module_that_only_imports_it_is_found(tmp_path: Path) -> None:
    modules = write(
        tmp_path,
        a="def f(): ...\n",
        b="from own.a import f\n",
        c="from own.b import f\n",
        d="from own.a import f\n",
    )
    assert list(layers.re_export_offences(modules)) == [
        "re-export: own.c imports f from own.b, which only imports it"
    ]


def test_a_large_folder_and_a_long_module_are_found(tmp_path: Path) -> None:
    modules = write(tmp_path, **({f"m{n}": "" for n in range(14)} | {"m0": "x = 1\n" * 401}))
    assert list(layers.size_offences(modules)) == [
        "size: own/ has 15 modules, at most 14",
        "size: own.m0 has 401 lines, at most 400",
    ]
