"""`segzero completion`: a script by which a shell completes commands and options."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Sequence

import shtab

from segzero_cli.arguments import Parser
from segzero_cli.main import COMMANDS, available_commands


def build_parser() -> Parser:
    """Describe the arguments."""
    parser = Parser(
        prog="segzero completion",
        description="Print a script that lets a shell complete commands, options and their"
        " choices. Print it again after an update.",
        examples=["bash > ~/.local/share/bash-completion/completions/segzero"],
    )
    parser.add_argument("shell", metavar="SHELL", choices=("bash", "zsh", "tcsh"))
    return parser


def main(argv: Sequence[str]) -> int:
    """Run `segzero completion` and return its exit code."""
    arguments = build_parser().parse_args(argv)
    print(shtab.complete(whole_parser(), shell=arguments.shell))
    return 0


def whole_parser() -> argparse.ArgumentParser:
    """Return one parser of all commands whose requirements are installed."""
    whole = argparse.ArgumentParser(prog="segzero")
    commands = whole.add_subparsers()
    for name in available_commands():
        module, summary = COMMANDS[name]
        try:
            own = importlib.import_module(module).build_parser()
        except ImportError:  # such as the demo without ROS
            continue
        commands.add_parser(name, parents=[own], add_help=False, help=summary)
    return whole
