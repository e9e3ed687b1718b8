"""Checks that code and documentation use the words of the glossary (CONTRIBUTING.md).

    python scripts/check_words.py [FILE ...]

The words and the exceptions stand in pyproject.toml, `[tool.words]`. Standard library only.
"""

from __future__ import annotations

import io
import re
import subprocess
import sys
import tokenize
import tomllib
from collections.abc import Iterable, Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


def word_pattern(words: Iterable[str]) -> re.Pattern[str]:
    """Match whole words, also as parts of identifiers such as `last_picture` or `BagPicture`."""
    either = "|".join(f"{word}|{word.capitalize()}" for word in words)
    return re.compile(rf"(?:(?<![A-Za-z])|(?<=[a-z0-9])(?=[A-Z]))({either})(?![a-z])")


def offences(text: str, settings: dict[str, Any], *, is_code: bool) -> Iterator[tuple[int, str]]:
    """Yield line numbers and words that the glossary replaces.

    Args:
        text: Of a file.
        settings: `anywhere` and `identifiers`: word -> the word to use; `allowed`: expressions of
            public names, which are left out.
        is_code: Whether the text is Python, in whose identifiers more words are refused.
    """
    allowed = re.compile("|".join(settings["allowed"]))
    anywhere = word_pattern(settings["anywhere"])
    for number, line in enumerate(text.splitlines(), start=1):
        for match in anywhere.finditer(allowed.sub(" ", line)):
            yield number, match[1]
    if is_code:
        identifiers = word_pattern(settings["identifiers"])
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == tokenize.NAME and (match := identifiers.search(token.string)):
                yield token.start[0], match[1]


def main() -> int:
    """Print the offences of the named files, by default of all; the exit code is 1 if any."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["words"]
    listed = subprocess.run(
        ["git", "ls-files", *sys.argv[1:]], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split("\n")
    count = 0
    better = settings["anywhere"] | settings["identifiers"]
    for name in filter(None, listed):
        path = ROOT / name
        if path.suffix not in settings["suffixes"] or not path.is_file():
            continue
        if any(fnmatch(name, pattern) for pattern in settings["skipped"]):
            continue
        text = path.read_text("utf-8")
        for number, word in offences(text, settings, is_code=path.suffix == ".py"):
            print(f"{name}:{number}: {word}: use {better[word.lower()]}")
            count += 1
    print(f"{count or 'no'} words that the glossary replaces")
    return int(bool(count))


if __name__ == "__main__":
    sys.exit(main())
