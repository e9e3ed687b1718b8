"""Makes `import training` find this package's own `training`.

The package `sam2` installs a top-level package called `training` too. In a checkout ours lies
beside this package; in a wheel it is packed below it, so that the two never share a folder.
"""

from __future__ import annotations

import sys
from pathlib import Path

PACKED = Path(__file__).parent / "_packages"


def prefer_own_packages() -> None:
    """Put the folder that holds our `training` first on the module search path."""
    root = str(PACKED if PACKED.is_dir() else Path(__file__).resolve().parent.parent)
    if root not in sys.path[:1]:
        sys.path.insert(0, root)


def train() -> int:
    """Run `segzero-train`."""
    prefer_own_packages()
    from training.cli import main

    return main()
