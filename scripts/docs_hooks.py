"""What MkDocs does besides for our pages: files outside of docs/ become part of the site.

The pages link to files of the repository as GitHub reads them. Those links are followed here: to
the page that a file becomes (`PAGES`), to the page of messages, or to a copy of the file under
`source/`. A link to a folder, or to a file that is not there, stays as it is and fails the build.
Diagrams become tables, because their JavaScript would come from a server; a page that loads
anything from elsewhere fails the build.
"""

from __future__ import annotations

import os.path
import re
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parent.parent
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security-policy.md",
    "models/tabletop/README.md": "models/tabletop.md",
    "models/libero/README.md": "models/libero.md",
}
"""File of the repository -> the page that it becomes."""
MESSAGES = "messages.md"
INTERFACES = ("msg", "srv", "action")
LINK = re.compile(r"(\]\()([^)\s#]+)(#[^)\s]*)?(\))")
FENCED = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
LOADED = re.compile(r"<(?:script|link|img|iframe)\b[^>]*?\b(?:src|href)=\"?https?://[^\"> ]+")
MERMAID = re.compile(r"```mermaid\ngraph TD\n(.*?)```", re.DOTALL)


def origin(uri: str) -> str:
    """Return the path in the repository of a page of the site."""
    return next((path for path, page in PAGES.items() if page == uri), f"docs/{uri}")


def targets(text: str, uri: str) -> set[str]:
    """Return the paths in the repository that a page links to."""
    links = LINK.findall(FENCED.sub("", text))
    return {resolve(link, uri) for _, link, _, _ in links if "://" not in link}


def resolve(link: str, uri: str) -> str:
    """Return the path in the repository that a relative link of a page means."""
    return os.path.normpath(os.path.join(os.path.dirname(origin(uri)), link))


def place(path: str) -> str | None:
    """Return where a path of the repository lies in the site, or None if it does not."""
    if path in PAGES:
        return PAGES[path]
    if path.split("/")[0] in INTERFACES:
        return MESSAGES
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    return f"source/{path}" if (ROOT / path).is_file() else None


def messages() -> str:
    """Return the page of the messages, services and actions, each as its file has it."""
    parts = ["# Messages, services and actions\n\nAs the files of the repository define them."]
    for folder in INTERFACES:
        for path in sorted((ROOT / folder).iterdir()):
            parts.append(f"## {path.name}\n\n```text\n{path.read_text('utf-8').rstrip()}\n```")
    return "\n\n".join(parts) + "\n"


def on_files(files: Any, *, config: Any) -> Any:
    """Add the pages and files that lie outside of docs/."""
    texts = {page: (ROOT / path).read_text("utf-8") for path, page in PAGES.items()}
    texts[MESSAGES] = messages()
    for uri, text in texts.items():
        files.append(File.generated(config, uri, content=text))
    for file in files.documentation_pages():
        for path in targets(file.content_string, file.src_uri):
            where = place(path)
            if where and where.startswith("source/") and files.get_file_from_path(where) is None:
                files.append(File.generated(config, where, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Turn links into those of the site, and diagrams into tables."""
    uri = page.file.src_uri

    def follow(link: re.Match[str]) -> str:
        if "://" in link[2]:
            return link[0]
        path = resolve(link[2], uri)
        where = place(path)
        if where is None:
            return link[0]
        anchor = link[3] or ""
        if where == MESSAGES and path not in INTERFACES:
            anchor = "#" + os.path.basename(path).lower().replace(".", "")
        return f"{link[1]}{os.path.relpath(where, os.path.dirname(uri) or '.')}{anchor}{link[4]}"

    return MERMAID.sub(import_table, LINK.sub(follow, markdown))


def import_table(diagram: re.Match[str]) -> str:
    """Return a table of the arrows of a diagram."""
    imports: dict[str, list[str]] = {}
    for start, end in re.findall(r"(\S+) --> (\S+)", diagram[1]):
        imports.setdefault(start, []).append(f"`{end}`")
    rows = [f"| `{start}` | {', '.join(ends)} |" for start, ends in imports.items()]
    return "\n".join(["| package | imports |", "|---|---|", *rows])


def on_post_page(output: str, *, page: Any, **_: Any) -> str:
    """Refuse a page that would not be whole without a network."""
    if loaded := LOADED.search(output):
        raise PluginError(f"{page.file.src_uri} loads from elsewhere: {loaded[0]}")
    return output
