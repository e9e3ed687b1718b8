"""Shared by the commands of training: options from dataclasses, errors and exit codes."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, field, fields
from typing import Any, TypeVar

from segzero_core.errors import SegZeroError

Settings = TypeVar("Settings")


def positive(text: str) -> int:
    """Read a whole number of 1 or more, for `type=` of argparse."""
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number of 1 or more")
    return int(text)


def share(text: str) -> float:
    """Read a number of 0 to 1, for `type=` of argparse."""
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a share, a number of 0 to 1")
    return number


def new_parser(prog: str, description: str | None) -> argparse.ArgumentParser:
    """Make a parser that shows a module's docstring with its line breaks."""
    return argparse.ArgumentParser(
        prog=prog, description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def option(default: Any, help: str, **how: Any) -> Any:
    """Declare a field of a dataclass that `add_fields` turns into an option.

    Args:
        default: Default of the field and of the option; `MISSING` makes both required.
        help: The help text of the option.
        **how: Further arguments of `add_argument`; `flag` is the option's name where it differs
            from the field's.
    """
    return field(default=default, metadata={"help": help, **how})


def add_fields(
    parser: argparse.ArgumentParser,
    kind: Any,
    more: Mapping[str, Mapping[str, Any]] | None = None,
    only: Sequence[str] = (),
) -> None:
    """Add an option for every field, or those in `only`, that was declared with `option`.

    `more` holds further arguments of `add_argument`, by the name of the field.
    """
    for item in (item for item in fields(kind) if not only or item.name in only):
        how = {"default": item.default, **item.metadata, **(more or {}).get(item.name, {})}
        flag = how.pop("flag", f"--{item.name.replace('_', '-')}")
        if how["default"] is MISSING:
            how["required"] = True
        elif how["default"] is False:
            how["action"] = "store_true"
        elif isinstance(how["default"], int | float):
            how.setdefault("type", type(how["default"]))
        parser.add_argument(flag, dest=item.name, **how)


def settings_from(args: argparse.Namespace, kind: type[Settings], **values: Any) -> Settings:
    """Make a dataclass from given values and the parsed options with the names of its fields."""
    names = [item.name for item in fields(kind) if item.name in args]  # type: ignore[arg-type]
    values |= {name: getattr(args, name) for name in names}
    return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})


def run_command(
    prefix: str,
    work: Callable[[], str | None],
    stopped: str = "stopped",
    *,
    quiet: bool = False,
) -> int:
    """Do the work of a command, and print what it returns.

    Args:
        prefix: Begins the line on standard error.
        work: Returns the text to print.
        stopped: What the line says after Ctrl-C.
        quiet: Do not report errors, because another process does.

    Returns:
        0, 2 with one line on standard error when something cannot be used, or 130 when stopped.
    """
    try:
        printed = work()
    except SegZeroError as error:
        if not quiet:
            print(f"{prefix}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{prefix.removesuffix(': error')}: {stopped}", file=sys.stderr)
        return 130
    if printed is not None:
        print(printed)
    return 0
