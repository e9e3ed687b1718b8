"""Runs our commands in this process: a start of Python and torch for each takes most of the time.

That the commands can be started is tested elsewhere; here is tested that they fit together.
"""

from __future__ import annotations

import importlib
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from importlib.util import find_spec
from typing import Any

_run = subprocess.run


def run(command: Sequence[str], **how: Any) -> subprocess.CompletedProcess[Any]:
    """Take the place of `subprocess.run` for our own `python -m …`; do all else as it is.

    A training keeps a process of its own, because its memory ends with it.
    """
    _, flag, module, first, *_ = [*command, "", "", ""]
    is_ours = flag == "-m" and module.startswith(("training.", "worlds."))
    if not is_ours or module == "training.cli" or first == "train":
        return _run(command, **how)
    spec = find_spec(module)
    assert spec is not None, module
    if spec.submodule_search_locations is not None:
        module += ".__main__"
    with ExitStack() as stack:
        if "stdout" in how:
            stack.enter_context(redirect_stdout(how["stdout"]))
            stack.enter_context(redirect_stderr(how["stderr"]))
        try:
            code = importlib.import_module(module).main(list(command[3:]))
        except SystemExit as end:
            code = end.code
    return subprocess.CompletedProcess(list(command), int(code or 0))
