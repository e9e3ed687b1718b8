"""The drawing of the packages in docs/architecture.md is current."""

from __future__ import annotations

import sys

import pytest

from tests.setup.scripts import load_script

sys.modules.setdefault("check_layers", load_script("check_layers"))
house = load_script("draw_house")


def test_an_arrow_that_follows_from_others_is_left_out() -> None:
    graph = {"a": {"b", "c"}, "b": {"c"}}
    assert house.reachable(graph, "a") == {"b", "c"}
    assert house.diagram({"own.a": {"own.b"}}, "own.").splitlines()[2] == "    a --> b"


def test_the_drawing_is_current(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["draw_house.py", "--check"])
    assert house.main() == 0
