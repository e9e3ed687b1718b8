"""The command as a whole."""

from __future__ import annotations

import argparse
import importlib
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from segzero_cli import console, main
from segzero_core import ConfigError

ROOT = Path(main.__file__).resolve().parent.parent


def test_without_a_command_the_commands_are_listed(run: Callable) -> None:
    assert run().code == 2
    ran = run("--help")
    assert ran.code == 0
    assert "segment" in ran.out
    assert "doctor" in ran.out


def test_the_version_is_printed(run: Callable) -> None:
    assert run("--version").out.startswith("segzero ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(["sement"], "no command 'sement'; there are segment, doctor", id="unknown"),
        pytest.param(["segment"], "required: IMAGE, QUERY", id="nothing"),
        pytest.param(["segment", "a.png"], "required: QUERY", id="no query"),
        pytest.param(["segment", "a.png", "mug", "--nope"], "--nope", id="unknown option"),
        pytest.param(
            ["segment", "a.png", "mug", "--template", "x"], "invalid choice", id="choice"
        ),
        pytest.param(
            ["segment", "a.png", "mug", "--max-new-tokens", "x"], "invalid int", id="int"
        ),
        pytest.param(["doctor", "now"], "unrecognized", id="doctor takes nothing"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    run: Callable, arguments: list[str], message: str
) -> None:
    ran = run(*arguments)

    assert ran.code == 2
    assert ran.out == ""
    assert ran.err.startswith("segzero: error: ")
    assert ran.err.count("\n") == 1
    assert message in ran.err


def test_only_commands_that_exist_are_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(main.COMMANDS, "bench", ("benchmarks.no_such_module", "measure"))

    assert "bench" not in main.available_commands()


def test_a_command_runs_its_module_and_returns_its_code(
    run: Callable, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "other_command.py").write_text("def main(argv):\n    print(argv)\n    return 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(main.COMMANDS, "other", ("other_command", "do something"))

    ran = run("other", "--data", "x")

    assert (ran.code, ran.out) == (1, "['--data', 'x']\n")


@pytest.mark.parametrize(
    ("raised", "code", "err"),
    [
        (ConfigError("two\nlines \x1b[31m"), 2, "segzero: error: two lines \ufffd[31m\n"),
        (KeyboardInterrupt(), 130, "segzero: error: interrupted\n"),
    ],
    ids=repr,
)
def test_errors_end_the_command_quietly(
    run: Callable, monkeypatch: pytest.MonkeyPatch, raised: BaseException, code: int, err: str
) -> None:
    def fail(argv: list[str]) -> int:
        raise raised

    monkeypatch.setattr(main, "_run", fail)

    ran = run("segment")
    assert (ran.code, ran.err) == (code, err)


def test_control_characters_do_not_reach_the_terminal() -> None:
    assert console.printable("a\x1b[2J\x00\tb\n\ud800é") == "a\ufffd[2J\ufffd\tb\n\ufffdé"


def test_the_module_can_be_run(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "segzero_cli", "segment", "no.png", "mug"],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "segzero: error: image no.png: there is no such file\n"


def test_help_does_not_load_torch() -> None:
    code = (
        "import sys; from segzero_cli.main import main; main(['--help']);"
        "assert not {'torch', 'rclpy', 'mujoco'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, cwd=ROOT)


def test_our_own_training_is_found_before_that_of_sam2(tmp_path: Path) -> None:
    code = "from segzero_cli.main import available_commands;"
    code += "from segzero_cli import training_package;"
    code += "training_package.prefer_own_packages(); print(available_commands());"
    code += "import training; print(training.__path__[0])"
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    commands, path = ran.stdout.splitlines()
    assert "'evaluate'" in commands
    assert Path(path) == ROOT / "training"


def actions_of(command: str) -> dict[str, argparse.Action]:
    """The options of a command, by their names."""
    module = importlib.import_module(main.COMMANDS[command][0])
    return module.build_parser()._option_string_actions


COMMANDS = list(main.COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_has_examples_that_the_command_takes(command: str, run: Callable) -> None:
    parser = importlib.import_module(main.COMMANDS[command][0]).build_parser()
    _, _, examples = parser.format_help().partition("\nexamples:\n")

    lines = [line.partition(" > ")[0] for line in examples.splitlines()]
    assert lines
    for line in lines:
        words = shlex.split(line)
        assert words[:2] == ["segzero", command]
        parser.parse_args(words[2:])


def test_an_option_means_the_same_in_all_commands() -> None:
    meanings: dict[str, set[tuple[bool, str]]] = {}
    for command in COMMANDS:
        for name, action in actions_of(command).items():
            meanings.setdefault(name, set()).add((action.nargs == 0, action.dest))

    assert {name: found for name, found in meanings.items() if len(found) > 1} == {}


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        (["segzero", "seg"], ["segment"]),
        (["segzero", "segment", "--gr"], ["--grammar"]),
        (["segzero", "completion", "z"], ["zsh"]),
    ],
)
def test_bash_completes_commands_options_and_choices(
    run: Callable, tmp_path: Path, words: list[str], completed: list[str]
) -> None:
    script = tmp_path / "segzero.bash"
    script.write_text(run("completion", "bash").out)
    line = (
        f"source {script}; COMP_WORDS=({shlex.join(words)}); COMP_CWORD={len(words) - 1}; "
        f'_shtab_segzero segzero {words[-1]}; printf "%s\\n" "${{COMPREPLY[@]}}"'
    )
    ran = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True)

    assert [word.strip() for word in ran.stdout.split()] == completed
