from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from tests.tiny_models import TINY_SEEN_WH, save_tiny_model
from training.evaluation.retention.__main__ import main
from training.evaluation.retention.benchmarks import open_benchmark
from training.evaluation.retention.metrics import (
    exact_word,
    normalize,
    relaxed_match,
    spoken_answer,
    vqa_accuracy,
)


@pytest.mark.parametrize(
    ("answer", "truth", "right"),
    [
        ("100", "100", True),
        ("105", "100", True),
        ("95.0", "100", True),
        ("105.1", "100", False),
        ("-95", "100", False),
        ("-105", "-100", True),
        ("0", "0", True),
        ("0.001", "0", False),
        ("12%", "12", True),
        ("$1,250", "1250", True),
        ("2016.", "2016", True),
        ("Yes", "yes", True),
        ("blue", "green", False),
        ("12 apples", "12", False),
        ("nan", "nan", True),
        ("", "0", False),
    ],
)
def test_answers_about_charts_are_right_within_five_per_cent(answer, truth, right):
    assert relaxed_match(answer, truth) is right


@pytest.mark.parametrize(
    ("same", "score"),
    [
        # With k of 10 the same: k times min(1, (k - 1) / 3), 10 - k times min(1, k / 3), over 10.
        (0, 0.0),
        (1, 0.3),
        (2, 0.6),
        (3, 0.9),
        (4, 1.0),
        (10, 1.0),
    ],
)
def test_vqa_accuracy_leaves_each_person_out_once(same: int, score: float):
    truths = ["stop"] * same + ["go"] * (10 - same)
    assert vqa_accuracy("stop", truths) == pytest.approx(score)


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("The Red, mug.", "red mug"),
        ("two", "2"),
        ("None", "0"),
        ("3.5", "3.5"),
        ("100,978", "100978"),
        ("10:30", "10:30"),
        ("dont", "don't"),
        ("John's", "john's"),
        ("coca-cola", "coca cola"),
        ("a  an\nthe", ""),
        ("were", "were"),
        ("yes!", "yes"),
        ("U.S.A.", "usa"),
        ("$5", "$5"),
    ],
)
def test_answers_are_compared_in_their_normal_form(text: str, normal: str):
    assert normalize(text) == normal


def test_an_answer_may_stand_in_tags():
    assert spoken_answer("<think>1 or 2</think><answer> 2 </answer>") == "2"
    assert spoken_answer(" two ") == "two"


def test_a_table_is_described_with_the_exact_word():
    assert exact_word("Red.", "red")
    assert not exact_word("dark red", "red")


def save_image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", TINY_SEEN_WH, "red").save(path)


@pytest.fixture
def chartqa(tmp_path: Path) -> Path:
    root = tmp_path / "chartqa"
    save_image(root / "test" / "png" / "1.png")
    for kind, label in (("human", "yes"), ("augmented", "12")):
        entries = [{"imgname": "1.png", "query": f"is it {kind}?", "label": label}]
        (root / "test" / f"test_{kind}.json").write_text(json.dumps(entries))
    return root


@pytest.fixture
def textvqa(tmp_path: Path) -> Path:
    root = tmp_path / "textvqa"
    save_image(root / "train_images" / "abc.jpg")
    entry = {"question_id": 7, "image_id": "abc", "question": "what?", "answers": ["stop"] * 10}
    (root / "TextVQA_0.5.1_val.json").write_text(json.dumps({"data": [entry]}))
    return root


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """It answers `yes` to everything."""
    return save_tiny_model(tmp_path / "model", reply="<answer>yes</answer>")


def run(capsys, *args: str) -> dict:
    code = main([*args, "--json"])
    captured = capsys.readouterr()
    assert code == 0, captured.err
    return json.loads(captured.out)


@pytest.mark.parametrize("batch", ["1", "2"])
def test_chartqa_is_asked_and_scored_by_its_halves(chartqa, model, capsys, tmp_path, batch: str):
    samples = tmp_path / "replies.jsonl"
    args = ("--benchmark", "chartqa", "--root", str(chartqa), "--model", str(model))
    figures = run(capsys, *args, "--batch", batch, "--samples", str(samples))
    assert figures["accuracy"] == 0.5
    assert figures["kinds"]["human"]["accuracy"] == 1.0
    assert figures["kinds"]["augmented"]["n"] == 1
    assert "single word" in figures["suffix"]
    replies = [json.loads(line)["reply"] for line in samples.read_text().splitlines()]
    assert replies == ["<answer>yes</answer>"] * 2


def test_textvqa_is_asked_and_scored(textvqa, model, capsys):
    args = ("--benchmark", "textvqa", "--root", str(textvqa), "--model", str(model))
    assert run(capsys, *args, "--suffix", "")["accuracy"] == 0.0


def test_the_table_is_asked_the_same_every_time(scenes: Path):
    first, second = (open_benchmark("tabletop", scenes, None, None) for _ in range(2))
    assert first.questions == second.questions
    assert first.hash == second.hash
    assert {q.kind for q in first.questions} == {"color", "count", "kind"}
    assert len(first.questions) == 9


def test_the_bundled_model_can_be_asked_about_the_table(scenes: Path, capsys):
    figures = run(capsys, "--benchmark", "tabletop", "--root", str(scenes), "--limit", "2")
    assert figures["n"] == 2
    assert 0.0 <= figures["accuracy"] <= 1.0


def test_an_image_that_is_missing_is_one_line_and_code_2(chartqa, model, capsys):
    (chartqa / "test" / "png" / "1.png").unlink()
    args = ["--benchmark", "chartqa", "--root", str(chartqa), "--model", str(model)]
    assert main(args) == 2
    assert "no such file" in capsys.readouterr().err.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        pytest.param("{", "damaged", id="cut off"),
        pytest.param("{}", "damaged", id="no data"),
        pytest.param('{"data": {}}', "no list of questions", id="no list"),
        pytest.param('{"data": []}', "no question", id="empty"),
        pytest.param('{"data": [{"image_id": "a"}]}', "has no question", id="half"),
        pytest.param(
            '{"data": [{"image_id": "a", "question": "b"}]}', "has no answers", id="no answers"
        ),
        pytest.param(
            '{"data": [{"image_id": "../a", "question": "b", "answers": ["c"]}]}',
            "not inside",
            id="outside",
        ),
    ],
)
def test_damaged_questions_are_one_line_and_code_2(textvqa, capsys, text: str, complaint: str):
    (textvqa / "TextVQA_0.5.1_val.json").write_text(text)
    assert main(["--benchmark", "textvqa", "--root", str(textvqa)]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert complaint in line


@pytest.mark.parametrize("benchmark", ["chartqa", "textvqa", "tabletop"])
def test_a_missing_folder_is_one_line_and_code_2(tmp_path: Path, capsys, benchmark: str):
    assert main(["--benchmark", benchmark, "--root", str(tmp_path / "none")]) == 2
    assert "no such folder" in capsys.readouterr().err
