"""Types of command line arguments that several commands share."""

from __future__ import annotations

import argparse
from dataclasses import fields
from typing import Any, TypeVar

Settings = TypeVar("Settings")


def positive(text: str) -> int:
    """Read a whole number of 1 or more, for `type=` of argparse."""
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number of 1 or more")
    return int(text)


def add_options(parser: argparse.ArgumentParser, settings: Any, **helps: str) -> None:
    """Add an option for each named field of a dataclass; its value is the default.

    Args:
        parser: Gets the options.
        settings: An instance of the dataclass.
        **helps: The help text of each option, by the name of the field.
    """
    for name, text in helps.items():
        value = getattr(settings, name)
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, type=type(value), default=value, help=text)


def settings_from(args: argparse.Namespace, kind: type[Settings]) -> Settings:
    """Make a dataclass from the parsed options that have the names of its fields."""
    names = (item.name for item in fields(kind) if item.name in args)  # type: ignore[arg-type]
    return kind(**{name: getattr(args, name) for name in names})
