"""The extra: what is missing is told in one line; its texts are found."""

from __future__ import annotations

import pytest

from worlds.libero import package
from worlds.libero.package import (
    LiberoMissingError,
    benchmark_texts,
    language_of,
    normalized,
    require,
)
from worlds.libero.render import main as render


def test_what_is_missing_is_one_line_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(package, "MODULES", ("json", "no_such_module"))

    with pytest.raises(LiberoMissingError) as caught:
        require()

    assert str(caught.value) == (
        "LIBERO is not installed (no_such_module missing): run make libero-setup"
    )


def test_rendering_without_the_extra_ends_with_that_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(package, "MODULES", ("no_such_module",))

    assert render(["--seed", "0", "--count", "1", "--out", str(tmp_path)]) == 2
    assert "make libero-setup" in capsys.readouterr().err


def test_a_text_is_normalised_to_its_words() -> None:
    assert normalized(" Put the Bowl, on-the  plate!") == "put the bowl on the plate"


def test_the_instruction_of_a_task_file_is_its_language(tmp_path) -> None:
    path = tmp_path / "a.bddl"
    path.write_text("(define (problem X)\n  (:language  Pick the  jar)\n  (:regions))")
    assert language_of(path) == "Pick the jar"
    path.write_text("(define (problem X))")
    with pytest.raises(ValueError, match="no \\(:language"):
        language_of(path)


@pytest.mark.libero
def test_every_instruction_of_the_package_is_known() -> None:
    texts = benchmark_texts()

    assert len(texts) > 150
    assert "pick the alphabet soup and place it in the basket" in texts  # as files state it
    assert "pick up the alphabet soup and place it in the basket" in texts  # as names say it
