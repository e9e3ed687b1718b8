"""Commands of the documentation are found, marked, run, and reported where they fail."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.setup.scripts import ROOT, load_script

docs = load_script("check_docs")
READY = '*Runs until Ctrl-C. Ready when it says "ready".*\n\n'


@pytest.fixture
def empty_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docs, "copy_checkout", lambda folder: folder.mkdir())


def run(text: str) -> list[float]:
    return docs.run_page("page.md", list(docs.read_blocks("page.md", text)))


def test_blocks_are_found_with_their_marks() -> None:
    text = "*Needs: GPU, network.*\n\n```bash\na\n```\n\n```text\nb\n```\n"
    first, second = docs.read_blocks("page.md", text + "```console\n$ c\nd\n$ e\n```\n")
    assert (first.needs, first.line, first.script()) == (("GPU", "network"), 3, "a")
    assert (second.needs, second.script()) == ((), "c\ne")


def test_a_command_that_runs_until_it_is_stopped_says_when_it_is_ready() -> None:
    (block,) = docs.read_blocks("page.md", READY + "```python\nf()\n```\n")
    assert (block.says, block.needs) == ("ready", ())


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        pytest.param("*Needs: luck.*\n\n```bash\na\n```\n", "'luck' is none of", id="unknown"),
        pytest.param("*Needs: GPU*\n\n```bash\na\n```\n", "cannot be read", id="misspelt"),
        pytest.param("*Needs: GPU.*\n\ntext\n", "stands over no block", id="over text"),
        pytest.param("*Needs: GPU.*\n", "stands over no block", id="at the end"),
        pytest.param("*Needs: GPU.*\n\n```text\na\n```\n", "not run", id="over output"),
        pytest.param("```bash\na\n", "does not end", id="open block"),
        pytest.param("    segzero web\n", "fence it", id="indented"),
    ],
)
def test_a_page_that_cannot_be_checked_is_an_error(text: str, complaint: str) -> None:
    with pytest.raises(docs.DocsError, match=complaint):
        list(docs.read_blocks("page.md", text))


@pytest.mark.usefixtures("empty_checkout")
def test_blocks_of_a_page_share_a_shell_and_a_folder() -> None:
    text = (
        "```bash\nname=a\necho 1 >$name\n```\n```python\nassert open('a').read() == '1\\n'\n```\n"
    )
    assert len(run(text + "```console\n$ test -f $name\nnothing\n```\n")) == 3


@pytest.mark.usefixtures("empty_checkout")
@pytest.mark.parametrize(
    "command", ["false", "echo $missing", "false | true", "curl -sS http://a"]
)
def test_a_command_that_fails_names_its_line(command: str) -> None:
    with pytest.raises(docs.DocsError, match=r"(?s)page\.md:4: failed.*said before"):
        run(f"```bash\necho said before\n```\n```bash\n{command}\n```\n")


@pytest.mark.usefixtures("empty_checkout")
def test_what_runs_until_it_is_stopped_is_ready_before_the_next_block_and_ends(
    tmp_path: Path,
) -> None:
    stopped = tmp_path / "stopped"
    trap = f"trap 'touch {stopped}; exit' TERM"
    background = f"{trap}\ntouch up; echo ready\nwhile :; do sleep 0.1; done"
    run(f"{READY}```bash\n{background}\n```\n```bash\ntest -f up\n```\n")
    assert stopped.exists()


@pytest.mark.usefixtures("empty_checkout")
@pytest.mark.parametrize("command", ["exit 3", "echo ready; exit 3"])
def test_what_should_run_until_it_is_stopped_may_not_end_before(command: str) -> None:
    with pytest.raises(docs.DocsError, match="failed"):
        run(f"{READY}```bash\n{command}\n```\n```bash\nwait\n```\n")


@pytest.mark.usefixtures("empty_checkout")
def test_a_page_that_does_not_end_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docs, "PAGE_TIMEOUT_S", 0.5)
    with pytest.raises(docs.DocsError, match="no end after"):
        run("```bash\nsleep 1000\n```\n")


def test_all_pages_can_be_read_and_have_commands_to_run() -> None:
    for page in docs.pages():
        blocks = list(docs.read_blocks(page, (ROOT / page).read_text("utf-8")))
        assert blocks, page


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 150
