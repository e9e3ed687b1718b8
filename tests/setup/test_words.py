"""The check of the glossary's words finds them, and spares public names."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.setup.scripts import ROOT, load_script

words = load_script("check_words")
SETTINGS = {
    "anywhere": {"picture": "image"},
    "identifiers": {"thing": "object"},
    "allowed": ['"pictures"', "--picture"],
}


def found(text: str, *, is_code: bool = True) -> list[str]:
    return [word for _, word in words.offences(text, SETTINGS, is_code=is_code)]


@pytest.mark.parametrize(
    "text",
    [
        "# a picture of it",
        "last_picture = 1",
        "class BagPicture: ...",
        "'Picture'",
        "picture2 = 1",
    ],
)
def test_a_replaced_word_is_found_in_text_and_identifiers(text: str) -> None:
    assert [word.lower() for word in found(text)] == ["picture"]


@pytest.mark.parametrize("text", ["picturesque = 1", 'row["pictures"]', "--picture FILE"])
def test_other_words_and_public_names_are_spared(text: str) -> None:
    assert found(text, is_code=False) == []


def test_some_words_are_refused_in_identifiers_only() -> None:
    assert found("# the thing\nthing_id = 1\nsomething = 1\n") == ["thing"]


def test_the_glossary_holds() -> None:
    script = ROOT / "scripts" / "check_words.py"
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
