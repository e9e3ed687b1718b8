"""Draws the packages and their imports into docs/architecture.md, as mermaid diagrams.

    python scripts/draw_house.py [--check]

An arrow means "imports". Arrows that follow from others are left out. Standard library only.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Mapping

from check_layers import ROOT, Module, read_modules

DOCUMENT = ROOT / "docs" / "architecture.md"
BEGIN, END = "<!-- drawn by scripts/draw_house.py -->", "<!-- end of the drawing -->"
ROOMS = ("segzero_core", "segzero_ros", "segzero_cli", "training")
TOP = (*ROOMS, "worlds", "benchmarks", "examples")


def room_of(name: str, depth: int) -> str:
    """Return the first `depth` parts of a module's name."""
    return ".".join(name.split(".")[:depth])


def arrows(modules: Mapping[str, Module], depth: int, inside: str = "") -> dict[str, set[str]]:
    """Return which rooms import which others, without arrows that follow from others."""
    graph: dict[str, set[str]] = defaultdict(set)
    for name, module in modules.items():
        for target in module.imports:
            rooms = [room_of(each, depth) for each in (name, target)]
            if rooms[0] != rooms[1] and all(room.startswith(inside) for room in rooms):
                graph[rooms[0]].add(rooms[1])
    return {
        room: {
            target
            for target in targets
            if not any(
                target in reachable(graph, other) and other not in reachable(graph, target)
                for other in targets - {target}
            )
        }
        for room, targets in graph.items()
    }


def reachable(graph: Mapping[str, set[str]], start: str) -> set[str]:
    """Return the rooms that can be reached over one arrow or more."""
    found: set[str] = set()
    waiting = [start]
    while waiting:
        for target in graph.get(waiting.pop(), set()) - found:
            found.add(target)
            waiting.append(target)
    return found


def diagram(graph: Mapping[str, set[str]], inside: str = "") -> str:
    """Return a mermaid diagram, the same for the same graph."""
    lines = [
        f"    {room.removeprefix(inside)} --> {target.removeprefix(inside)}"
        for room in sorted(graph)
        for target in sorted(graph[room])
    ]
    return "\n".join(["```mermaid", "graph TD", *lines, "```"])


def drawing() -> str:
    """Return the text between the marks of the document."""
    modules = read_modules(ROOT, TOP)
    parts = ["The packages:", diagram(arrows(modules, 1))]
    for package in ROOMS:
        inside = f"{package}."
        parts += [f"Inside `{package}`:", diagram(arrows(modules, 2, inside), inside)]
    return "\n\n".join([BEGIN, *parts, END])


def main() -> int:
    """Write the drawing; with --check return 1 if the document has another one."""
    text = DOCUMENT.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    current = before + drawing() + rest.partition(END)[2]
    if "--check" in sys.argv[1:]:
        if text != current:
            print(f"{DOCUMENT.relative_to(ROOT)} is not current: run make house")
        return int(text != current)
    DOCUMENT.write_text(current, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
