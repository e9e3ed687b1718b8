"""Progress of long work: a bar in a terminal, plain lines in a log."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Final

from tqdm import tqdm

LINE_S: Final = 10.0
"""Between two lines in a log [s]."""
_LINE: Final = "{desc}: {n_fmt}/{total_fmt} {unit}, {elapsed}"


class ProgressBar(tqdm):  # type: ignore[misc] # tqdm has no types
    """A `tqdm` that writes no carriage return into what is no terminal.

    In a file or a pipe it writes a line of its own at most every `LINE_S`, and one at the end.
    """

    disable: bool | None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        file: Any = kwargs.get("file") or sys.stderr
        self.is_plain = not file.isatty()
        if self.is_plain:
            kwargs |= {"mininterval": LINE_S, "delay": LINE_S, "bar_format": _LINE}
            kwargs.setdefault("desc", "progress")
        super().__init__(*args, **kwargs)

    @staticmethod
    def status_printer(file: Any) -> Callable[[str], None]:
        """Return what writes a state of the bar; see `tqdm`."""
        if file.isatty():
            printer: Callable[[str], None] = tqdm.status_printer(file)
            return printer

        def write_line(text: str) -> None:
            file.write(f"{text.strip()}\n")
            file.flush()

        return write_line

    def clear(self, *args: Any, **kwargs: Any) -> None:
        """Make room for another line, which a log has."""
        if not self.is_plain:
            super().clear(*args, **kwargs)

    def close(self) -> None:
        """End, with a last line in a log."""
        if not self.is_plain:
            super().close()
        elif not self.disable:
            self.disable = True
            self._decr_instances(self)
            self.display()

    @classmethod
    def write(cls, s: str, file: Any = None, end: str = "\n", nolock: bool = False) -> None:  # noqa: FBT001, FBT002
        """Write a line beside the bars."""
        out = file or sys.stdout
        if out.isatty():
            super().write(s, out, end, nolock)
        else:
            print(s, file=out, end=end, flush=True)
