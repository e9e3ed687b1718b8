"""Runs the commands of README.md and the tutorials, so that what a reader types works.

    python scripts/check_docs.py [PAGE ...]

The blocks of a page (```bash, ```console, ```python) run in order, in one shell, in a copy of the
checkout. Above a block may stand a mark:

    *Needs: GPU, network.*      it is not run; the known needs are in `NEEDS`
    *Runs until Ctrl-C. Ready when it says "done".*    it runs in the background until the page
                                ends; what follows waits until it says so

`make setup` is taken as done: `.venv` is that of this checkout. There is no network: proxies lead
nowhere. It fails when a command fails, a mark is unknown or stands over nothing, or a page hides
commands in indented text.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NEEDS = {
    "GPU": "an NVIDIA GPU",
    "ROS installation": "the ros2 command and packages beside the wheels of make setup",
    "camera": "a camera and its driver",
    "extra libero": "make libero-setup",
    "network": "the package index, the Hub or another machine",
    "server": "a model server on a GPU",
    "time": "minutes or hours",
    "your data": "images or data sets of your own",
}
LANGUAGES = ("bash", "console", "python")
READY = r"Runs until Ctrl-C\. Ready when it says \"(?P<says>[^*\"]+)\""
MARK = re.compile(rf"\*(?:Needs: (?P<needs>[^*]+)|{READY})\.\*")
PAGE_TIMEOUT_S = 900.0
FINISH_TIMEOUT_S = 20.0


class DocsError(Exception):
    """A page cannot be checked, or a command of it failed."""


@dataclass(frozen=True)
class Block:
    """Commands of a page."""

    line: int  # of the fence
    language: str
    text: str
    needs: tuple[str, ...] = ()
    says: str = ""  # what a command that runs until Ctrl-C says when it is ready

    def script(self) -> str:
        """Return what a shell runs."""
        if self.language == "python":
            return f"python - <<'END_OF_BLOCK'\n{self.text}\nEND_OF_BLOCK"
        if self.language == "console":  # lines without a prompt are output
            lines = self.text.splitlines()
            return "\n".join(line[2:] for line in lines if line.startswith("$ "))
        return self.text


def read_blocks(page: str, text: str) -> Iterator[Block]:
    """Yield the blocks of a page.

    Raises:
        DocsError: A mark is unknown or stands over nothing, or commands are indented.
    """
    lines, at = text.splitlines(), 0
    mark: re.Match[str] | None = None
    while at < len(lines):
        line, at = lines[at], at + 1
        if line.startswith("    ") and re.match(r"\s+(segzero|make|python|pip|ros2)\b", line):
            raise DocsError(f"{page}:{at}: a command in indented text is not checked; fence it")
        if line.startswith("```"):
            end = next((n for n in range(at, len(lines)) if lines[n].rstrip() == "```"), None)
            if end is None:
                raise DocsError(f"{page}:{at}: the block does not end")
            language = line[3:].strip()
            if language in LANGUAGES:
                yield marked_block(page, at, language, "\n".join(lines[at:end]), mark)
            elif mark:
                raise DocsError(f"{page}:{at}: a mark over a block that is not run")
            mark, at = None, end + 1
        elif line.strip():
            if mark:
                raise DocsError(f"{page}:{at - 1}: the mark stands over no block")
            mark = MARK.fullmatch(line.strip())
            if not mark and line.startswith(("*Needs", "*Runs until")):
                raise DocsError(f"{page}:{at}: this mark cannot be read: {line.strip()}")
    if mark:
        raise DocsError(f"{page}:{at}: the mark stands over no block")


def marked_block(
    page: str, line: int, language: str, text: str, mark: re.Match[str] | None
) -> Block:
    """Return a block with what its mark says."""
    if mark is None:
        return Block(line, language, text)
    needs = tuple(need.strip() for need in (mark["needs"] or "").split(",") if need.strip())
    for need in needs:
        if need not in NEEDS:
            known = ", ".join(NEEDS)
            raise DocsError(f"{page}:{line}: the need {need!r} is none of {known}")
    return Block(line, language, text, needs, mark["says"] or "")


def page_script(blocks: Sequence[Block]) -> str:
    """Return the script of a page; it writes a line into $CHECK_LOG before each block."""
    parts = ["set -eEuo pipefail", "kept=()"]
    for number, block in enumerate(blocks):
        parts.append(f'echo "{number} $(date +%s.%N)" >>"$CHECK_LOG"')
        if block.says:
            log = f'"$CHECK_LOG.{number}"'
            parts.append(f'(\n{block.script()}\n) >{log} 2>&1 &\nkept+=("$!")')
            ready = f"grep -qF {shlex.quote(block.says)} {log}"
            parts.append(f'until {ready}; do kill -0 "$!"; sleep 0.2; done')
        else:
            parts.append(block.script())
    parts.append('for pid in "${kept[@]}"; do kill -0 "$pid"; done')
    return "\n".join(parts) + "\n"


def copy_checkout(folder: Path) -> None:
    """Copy the tracked files, with the changes in them, and link the environment."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
    folder.mkdir()
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    (folder / ".venv").symlink_to((ROOT / ".venv").resolve())


def environment(work: Path, copy: Path) -> dict[str, str]:
    """Return the variables of the shell: no network, no browser, no cache of the reader's."""
    tools = work / "tools"
    tools.mkdir()
    (tools / "make").write_text(f'#!/bin/sh\nexec {shutil.which("make")} -o setup "$@"\n')
    (tools / "make").chmod(0o755)
    nowhere = "http://127.0.0.1:9"
    return {
        **os.environ,
        "PATH": f"{tools}:{os.environ['PATH']}",
        "PYTHONPATH": str(copy),
        "XDG_CACHE_HOME": str(work / "cache"),
        "CHECK_LOG": str(work / "log"),
        "BROWSER": "true",
        "HF_HUB_OFFLINE": "1",
        "http_proxy": nowhere,
        "https_proxy": nowhere,
        "no_proxy": "127.0.0.1,localhost",
    }


def run_page(page: str, blocks: Sequence[Block]) -> list[float]:
    """Run the blocks of a page; return the seconds that each took.

    Raises:
        DocsError: A command failed; the message has the end of its output.
    """
    with tempfile.TemporaryDirectory(prefix="check_docs.") as folder:
        work = Path(folder)
        copy = work / "segzero"
        copy_checkout(copy)
        with (work / "output").open("w+") as output:
            shell = subprocess.Popen(
                ["bash", "-c", page_script(blocks)],
                cwd=copy,
                env=environment(work, copy),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                code: int | str = shell.wait(PAGE_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                code = f"no end after {PAGE_TIMEOUT_S:g} s"
            finally:
                ended = time.time()
                end_session(shell)
        log = [float(line.split()[1]) for line in (work / "log").read_text().splitlines()]
        if code != 0:
            block = blocks[len(log) - 1]
            logs = [work / "output", *sorted(work.glob("log.*"))]
            said = "\n".join(path.read_text(errors="replace")[-1500:] for path in logs)
            raise DocsError(f"{page}:{block.line}: failed ({code}):\n{block.text}\n---\n{said}")
        return [after - before for before, after in zip(log, [*log[1:], ended], strict=True)]


def end_session(shell: subprocess.Popen[bytes]) -> None:
    """End what a page has left running, first politely."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + FINISH_TIMEOUT_S
        while time.monotonic() < deadline:
            try:
                os.killpg(shell.pid, number)
            except ProcessLookupError:
                shell.wait()
                return
            shell.poll()
            time.sleep(0.2)


def check_page(page: str) -> tuple[int, int]:
    """Check a page; return how many blocks were run, and how many only carry their needs."""
    blocks = list(read_blocks(page, (ROOT / page).read_text("utf-8")))
    run = [block for block in blocks if not block.needs]
    seconds = run_page(page, run) if run else []
    for block, took in zip(run, seconds, strict=True):
        print(f"{page}:{block.line}: {took:.1f} s", flush=True)
    for block in blocks:
        if block.needs:
            print(f"{page}:{block.line}: not run, needs {', '.join(block.needs)}", flush=True)
    return len(run), len(blocks) - len(run)


def pages() -> list[str]:
    """Return the pages whose commands are run."""
    tutorials = sorted((ROOT / "docs" / "tutorials").glob("*.md"))
    return ["README.md", *(str(path.relative_to(ROOT)) for path in tutorials)]


def main() -> int:
    """Check the named pages, by default all; the exit code is 1 if one fails."""
    sys.path.insert(0, str(ROOT))
    from segzero_ros.ros_domain import isolated_environment

    ran = marked = failed = 0
    with isolated_environment() as variables:
        os.environ.update(variables)
        for page in sys.argv[1:] or pages():
            try:
                more_ran, more_marked = check_page(page)
                ran, marked = ran + more_ran, marked + more_marked
            except DocsError as error:
                failed += 1
                print(error, file=sys.stderr, flush=True)
    print(f"{ran} blocks ran, {marked} are marked with what they need, {failed} pages failed")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
