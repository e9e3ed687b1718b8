"""Checks the structure of the code: import layers, import rings, re-exports and sizes.

    python scripts/check_layers.py

Every import statement counts, also those inside functions and for type checking. The layers stand
in pyproject.toml, `[tool.layers]`: a module imports only from its own row and from the rows below.
Names of one row may import one another, though not in a ring; names on two sides of a `|` may not.
Standard library only.
"""

from __future__ import annotations

import ast
import sys
import tomllib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MAX_MODULES = 14
MAX_LINES = 400


@dataclass
class Module:
    """What a module defines and imports.

    Attributes:
        path: Its file.
        lines: How many it has.
        defined: Names at its top level that it does not import.
        imported: Names at its top level that it imports from our own modules.
        imports: Our own modules that it imports, with the names taken from each.
    """

    path: Path
    lines: int
    defined: set[str] = field(default_factory=set)
    imported: set[str] = field(default_factory=set)
    imports: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))

    @property
    def is_package(self) -> bool:
        """Whether it is a package's `__init__`."""
        return self.path.name == "__init__.py"


def read_modules(root: Path, packages: Iterable[str]) -> dict[str, Module]:
    """Parse all modules of some top-level packages, by their dotted names."""
    trees = {}
    for package in packages:
        for path in sorted((root / package).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            text = path.read_text(encoding="utf-8")
            trees[name] = (Module(path, len(text.splitlines())), ast.parse(text))
    for module, tree in trees.values():
        for source, name, top_level in _imports(tree):
            # `from package import module` imports the module, not the package.
            target = f"{source}.{name}" if f"{source}.{name}" in trees else source
            if target in trees:
                module.imports[target] |= {name} if target == source and name else set()
            if top_level and name and source.partition(".")[0] in packages:
                module.imported.add(name)
        module.defined = _defined(tree)
    return {name: module for name, (module, _) in trees.items()}


def _imports(tree: ast.Module) -> Iterator[tuple[str, str, bool]]:
    """Yield source, name (empty for `import source`) and whether it is outside of functions."""
    inner = {
        id(child)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for child in ast.walk(function)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, "", id(node) not in inner
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                yield node.module, alias.name, id(node) not in inner


def _defined(tree: ast.Module) -> set[str]:
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return names


def find_rings(graph: Mapping[str, Iterable[str]]) -> list[list[str]]:
    """Return the strongly connected components of more than one node (Tarjan's algorithm)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    rings = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for target in graph.get(node, ()):
            if target not in index:
                visit(target)
            if target in stack:
                low[node] = min(low[node], low[target])
        if low[node] == index[node]:
            at = stack.index(node)
            if len(stack) - at > 1:
                rings.append(sorted(stack[at:]))
            del stack[at:]

    for node in graph:
        if node not in index:
            visit(node)
    return rings


def ring_offences(modules: Mapping[str, Module]) -> Iterator[str]:
    """Yield rings of modules, and rings of folders that no ring of modules explains."""
    graph = {name: set(module.imports) - {name} for name, module in modules.items()}
    rings = find_rings(graph)
    for ring in rings:
        yield f"ring of modules: {', '.join(ring)}"
    folders: dict[str, set[str]] = defaultdict(set)
    for name, targets in graph.items():
        for target in targets:
            pair = _folders_apart(modules, name, target)
            if pair:
                folders[pair[0]].add(pair[1])
    for ring in find_rings(folders):
        if not any(all(_within(name, ring) for name in found) for found in rings):
            yield f"ring of folders: {', '.join(ring)}"


def _folders_apart(modules: Mapping[str, Module], a: str, b: str) -> tuple[str, str] | None:
    """Return the folders of two modules where neither lies inside the other."""
    homes = [name if modules[name].is_package else name.rpartition(".")[0] for name in (a, b)]
    if any(_within(home, [other]) for home, other in (homes, homes[::-1])):
        return None
    return homes[0], homes[1]


def layer_offences(modules: Mapping[str, Module], rows: Iterable[str]) -> Iterator[str]:
    """Yield imports against the layers, whose rows are given from the top down."""
    places = {
        name: (number, side)
        for number, row in enumerate(rows)
        for side, names in enumerate(row.split("|"))
        for name in names.split()
    }

    def place(module: str) -> tuple[int, int] | None:
        return next((at for name, at in places.items() if _within(module, [name])), None)

    for name, module in modules.items():
        own = place(name)
        for target in module.imports:
            other = place(target)
            if own is None or other is None:
                continue
            if other[0] < own[0] or (other[0] == own[0] and other[1] != own[1]):
                yield f"layer: {name} imports {target}"


def re_export_offences(modules: Mapping[str, Module]) -> Iterator[str]:
    """Yield names that are imported from a module which has them from another one."""
    for name, module in modules.items():
        for source, names in module.imports.items():
            there = modules[source]
            if there.is_package:
                continue
            for taken in sorted((names & there.imported) - there.defined):
                yield f"re-export: {name} imports {taken} from {source}, which only imports it"


def size_offences(modules: Mapping[str, Module]) -> Iterator[str]:
    """Yield folders with too many modules, and modules with too many lines."""
    folders: dict[Path, int] = defaultdict(int)
    for module in modules.values():
        folders[module.path.parent] += 1
    for folder, count in folders.items():
        if count > MAX_MODULES:
            yield f"size: {folder.name}/ has {count} modules, at most {MAX_MODULES}"
    for name, module in modules.items():
        if module.lines > MAX_LINES:
            yield f"size: {name} has {module.lines} lines, at most {MAX_LINES}"


def _within(name: str, packages: Iterable[str]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def offences(root: Path = ROOT) -> list[str]:
    """Return every offence of a checkout, in words."""
    settings = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    layers: dict[str, list[str]] = settings["tool"]["layers"]
    packages = [name for row in layers["repository"] for name in row.split() if name != "|"]
    modules = read_modules(root, packages)
    found = [*ring_offences(modules), *re_export_offences(modules), *size_offences(modules)]
    for rows in layers.values():
        found += layer_offences(modules, rows)
    return found


def main() -> int:
    """Print all offences; the exit code is 1 if there are any."""
    found = offences()
    for offence in found:
        print(offence)
    print(f"{len(found) or 'no'} offences against the structure")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
