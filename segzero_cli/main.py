"""The `segzero` command: runs a subcommand and turns errors into one line and an exit code.

Exit codes: 0 the work was done (nothing found is an answer), 1 a check failed, 2 bad arguments,
input or model, 130 interrupted.
"""

from __future__ import annotations

import errno
import importlib
import importlib.util
import os
import sys
from collections.abc import Sequence

from segzero_cli import console
from segzero_cli.arguments import UsageError
from segzero_cli.training_package import prefer_own_packages
from segzero_core.errors import SegZeroError

EXIT_ERROR = 2
EXIT_INTERRUPTED = 130

# Command -> the module whose main(argv) runs it, and a summary. A module is imported only when
# its command is used, so that `segzero segment` needs neither ROS nor training code.
COMMANDS = {
    "segment": ("segzero_cli.segment", "find what a query means in an image"),
    "doctor": ("segzero_cli.doctor.command", "check the installation"),
    "web": ("segzero_cli.web.command", "open a page where a model is asked about images"),
    "check-model": (
        "segzero_cli.check_model.command",
        "ask a model about images whose boxes are known",
    ),
    "demo": ("segzero_cli.demo.command", "play a recorded camera to the node and ask it queries"),
    "export": ("segzero_cli.export", "write the image encoder to an ONNX file"),
    "build-engine": ("segzero_cli.build_engine", "build the image encoder for TensorRT"),
    "check-encoder": ("segzero_cli.check_encoder", "run every image encoder, for an issue"),
    "bench": ("segzero_cli.bench.command", "measure against the plain flow, side by side"),
    "bag": ("segzero_cli.bag.command", "ask about every image of a recorded bag"),
    "view": ("segzero_cli.view.command", "follow a running node in the viewer Rerun"),
    "completion": ("segzero_cli.completion", "print a script for the shell's completion"),
    "evaluate": (
        "training.evaluation.evaluate",
        "score a model on rendered scenes or a benchmark",
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand, by default of the process's own arguments; return the exit code."""
    console.tolerate_any_text()
    prefer_own_packages()
    try:
        code = _run(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()
        return code
    except SegZeroError as error:
        console.print_error(str(error))
        return EXIT_ERROR
    except KeyboardInterrupt:
        console.print_error("interrupted")
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader of our output, such as `head`, has ended.
        _drop_output()
        return 0
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        _drop_output()
        console.print_error(f"the output cannot be written: {error.strerror}; make room")
        return EXIT_ERROR


def _drop_output() -> None:
    """Discard unwritten output, on which the end of the interpreter would fail."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help"):
        print(_overview())
        return 0 if argv else EXIT_ERROR
    if argv[0] == "--version":
        from importlib.metadata import PackageNotFoundError, version

        try:
            print(f"segzero {version('segzero')}")
        except PackageNotFoundError:
            print("segzero (source tree)")
        return 0
    commands = available_commands()
    if argv[0] not in commands:
        raise UsageError(f"no command {argv[0]!r}; there are {', '.join(commands)}")
    module = importlib.import_module(COMMANDS[argv[0]][0])
    return int(module.main(argv[1:]) or 0)


def available_commands() -> list[str]:
    """Return the commands whose module is installed."""

    def is_installed(module: str) -> bool:
        try:
            return importlib.util.find_spec(module) is not None
        except ModuleNotFoundError:
            return False

    return [name for name, (module, _) in COMMANDS.items() if is_installed(module)]


def _overview() -> str:
    lines = [f"    {name:<13} {COMMANDS[name][1]}" for name in available_commands()]
    head = "usage: segzero COMMAND [...]\n\nAsk a query about an image in plain language.\n"
    return "\n".join([head, "commands:", *lines, "\nsegzero COMMAND --help explains each."])


if __name__ == "__main__":
    sys.exit(main())
