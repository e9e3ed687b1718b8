"""Writes the tables of the manual that come from the code: parameters, limits, commands.

    python scripts/write_tables.py [--check]

A table stands in its page between `<!-- table: NAME -->` and `<!-- end of the table -->`. It needs
ROS, by which the parameters are declared.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import re
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
BEGIN, END = "<!-- table: {} -->", "<!-- end of the table -->"


def parameters() -> str:
    """Return the table of the node's parameters."""
    from segzero_ros.parameters import parameter_table

    return parameter_table()


def limits() -> str:
    """Return the table of `segzero_core/limits.py`: each constant and the text below it."""
    body = ast.parse((ROOT / "segzero_core" / "limits.py").read_text("utf-8")).body
    lines = ["| limit | value | of what |", "|---|---|---|"]
    for constant, text in pairwise(body):
        if isinstance(constant, ast.AnnAssign) and isinstance(text, ast.Expr):
            name, value = ast.unparse(constant.target), ast.literal_eval(constant.value)
            meaning = " ".join(ast.literal_eval(text.value).split())
            lines.append(f"| `{name}` | {value:,} | {meaning} |")
    return "\n".join(lines) + "\n"


def commands() -> str:
    """Return a section for each command: what it does, and a table of its arguments."""
    from segzero_cli.main import COMMANDS

    parts = []
    for name, (module, summary) in sorted(COMMANDS.items()):
        parser = importlib.import_module(module).build_parser()
        rows = "\n".join(["| argument | meaning |", "|---|---|", *argument_rows(parser)])
        parts.append(f"### segzero {name}\n\n{summary[0].upper()}{summary[1:]}.\n\n{rows}\n")
    return "\n".join(parts)


def argument_rows(parser: argparse.ArgumentParser) -> Iterator[str]:
    """Yield a row of the table for each argument that a parser takes."""
    for action in parser._actions:
        if isinstance(action, argparse._HelpAction):
            continue
        value = action.metavar or (action.dest.upper() if action.nargs != 0 else "")
        shown = value if isinstance(value, str) else " ".join(value)
        name = " ".join([", ".join(action.option_strings), shown]).strip()
        meaning = [(action.help or "").replace("%(default)s", str(action.default))]
        if action.choices:
            meaning.append(f"one of {', '.join(map(str, action.choices))}")
        yield f"| `{name}` | {'; '.join(filter(None, meaning))} |"


TABLES: dict[str, tuple[str, Callable[[], str]]] = {
    "parameters": ("docs/parameters.md", parameters),
    "limits": ("docs/limits.md", limits),
    "commands": ("docs/cli.md", commands),
}


def with_table(text: str, name: str, table: str) -> str:
    """Return a page with a table in the place of the one it has."""
    begin = re.escape(BEGIN.format(name))
    new, count = re.subn(
        rf"({begin}\n).*?({END})", lambda at: f"{at[1]}\n{table}\n{at[2]}", text, flags=re.DOTALL
    )
    if count != 1:
        raise ValueError(f"there must be one table {name!r}, found {count}")
    return new


def main() -> int:
    """Write the tables; with --check return 1 if a page has another one."""
    stale, check = 0, "--check" in sys.argv[1:]
    for name, (page, make) in TABLES.items():
        path = ROOT / page
        text = path.read_text("utf-8")
        current = with_table(text, name, make())
        if text != current:
            stale = 1
            if check:
                print(f"{page}: the table {name} is not current: run make tables")
            else:
                path.write_text(current, "utf-8")
    return stale if check else 0


if __name__ == "__main__":
    sys.exit(main())
