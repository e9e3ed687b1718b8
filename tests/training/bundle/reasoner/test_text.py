"""The small reasoner: texts, tokens, the packed forward pass, and a training run in small."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText, AutoProcessor

from segzero_core import parse_completion
from segzero_core.checkpoints.weights import weights_hash
from training.bundle.reasoner.data import (
    CHOICE,
    WORD,
    Packer,
    Tables,
    ask_choice,
    cell_owners,
    encode_question,
    until_choice,
)
from training.bundle.reasoner.forward import CELLS, PREFIX, build_model, think
from training.bundle.reasoner.text import CHOSEN, Prompt, write_completion
from training.bundle.reasoner.tokenizer import SEEN_SIZE, build_processor, build_tokenizer, corpus
from training.bundle.reasoner.train import Losses
from training.bundle.reasoner.train import main as reasoner
from worlds.tabletop import Scene
from worlds.tabletop.queries import ask, ask_absent
from worlds.tabletop.render import main as render
from worlds.tabletop.scene import Query
from worlds.tabletop.vocabulary import QUERY_KINDS


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("training_scenes")
    assert render(["--seed", "0", "--count", "6", "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def objects(scenes: Path) -> list:
    paths = sorted(scenes.glob("*/scene.json"))
    return [Scene.from_json(path.read_text()).objects for path in paths]


@pytest.fixture(scope="module")
def processor(objects: list, tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("processor")
    build_processor(build_tokenizer(corpus(objects * 20, 0))).save_pretrained(folder)
    return AutoProcessor.from_pretrained(folder)


@pytest.mark.parametrize("template", ["multi_object", "single_object"])
def test_every_written_answer_is_read_back_by_the_parser(objects: list, template: str) -> None:
    rng = np.random.default_rng(0)
    prompts = {
        o.id: Prompt((o.id, 20, 40 + o.id, 60), ((10 + o.id, 30), (12, 33)))
        for things in objects
        for o in things
    }
    for things in objects:
        for kind in QUERY_KINDS:
            query = ask(rng, things, kind)
            if query is None or (kind == "many" and template == "single_object"):
                continue
            pieces = write_completion(things, query, prompts, (640, 480), template)
            reasoning = parse_completion("".join(piece.text for piece in pieces))
            assert len(reasoning.prompts) == len(query.ids)
            assert {int(p.box.x_min) for p in reasoning.prompts} == set(query.ids)
            assert reasoning.thinking.startswith("The question asks for")


def test_an_unknown_word_is_answered_with_nothing_and_says_so(objects: list) -> None:
    rng = np.random.default_rng(1)
    query = None
    while query is None or query.topic[0] != "unknown":
        query = ask(rng, objects[0], "none")
    text = "".join(
        p.text for p in write_completion(objects[0], query, {}, (640, 480), "multi_object")
    )
    assert "do not know" in text
    assert text.endswith("<answer>[]</answer>")


def test_tokens_of_the_pieces_are_the_tokens_of_the_whole_text(objects: list, processor) -> None:
    rng = np.random.default_rng(2)
    prompts = {o.id: Prompt((1, 20, 300, 336), ((10, 30), (12, 33))) for o in objects[0]}
    for kind in QUERY_KINDS:
        query = ask(rng, objects[0], kind)
        pieces = write_completion(objects[0], query, prompts, (640, 480), "multi_object")
        ids, *_ = encode_question(processor.tokenizer, query.text, pieces, "multi_object")
        whole = processor.tokenizer.decode(ids)
        assert processor.tokenizer(whole)["input_ids"] == ids
        assert "".join(p.text for p in pieces) in whole


def test_every_number_of_an_answer_is_one_token(processor) -> None:
    for number in range(SEEN_SIZE + 1):
        assert len(processor.tokenizer(str(number))["input_ids"]) == 1


def test_every_object_owns_a_cell_and_no_cell_shows_bare_table(scenes: Path) -> None:
    for path in sorted(scenes.iterdir()):
        instances = np.asarray(Image.open(path / "instances.png")).astype(np.uint16)
        owners = cell_owners(instances)
        assert owners.shape == (CELLS**2,)
        assert set(np.unique(owners)) - {0} == set(np.unique(instances)) - {0}
        rows, columns = instances.shape
        for cell in np.flatnonzero(owners):
            top, left = cell // CELLS * rows // CELLS, cell % CELLS * columns // CELLS
            block = instances[top : top + rows // CELLS, left : left + columns // CELLS]
            assert (block == owners[cell]).any()


def test_the_packed_pass_equals_that_of_transformers(scenes: Path, processor) -> None:
    tokenizer = processor.tokenizer
    model = build_model(tokenizer, 0).eval()
    for weight in model.parameters():  # fresh blocks are zero; give every path something to say
        if not weight.abs().max():
            torch.nn.init.normal_(weight, std=0.05)
    samples = iter(Tables([scenes], tokenizer, questions=3, seed=0))
    pair = [next(samples), next(samples)]
    batch = Packer(tokenizer, groups=2)(pair)
    tokens = pair[1].questions[1][0]
    group, row = next(
        (g, int(rows[0]))
        for g, asked in enumerate(batch.packed.asked)
        if asked.ids.shape[1] >= len(tokens)
        if len(rows := (asked.ids[:, : len(tokens)] == torch.tensor(tokens)).all(1).nonzero())
    )
    with torch.no_grad():
        thoughts = think(model, batch.packed)
        ours = thoughts.last[group][row, : len(tokens)] @ model.get_input_embeddings().weight.T
        ids = torch.cat([batch.packed.prefix, torch.tensor(tokens)])[None]
        seen = processor.image_processor(
            images=[Image.fromarray(pair[1].image)], return_tensors="pt"
        )
        image = (ids == model.config.image_token_id).int()
        theirs = model(input_ids=ids, mm_token_type_ids=image, **seen).logits
    start = len(PREFIX) + CELLS**2
    torch.testing.assert_close(ours, theirs[0, start:], atol=1e-4, rtol=1e-4)


@pytest.mark.slow
def test_all_stages_train_resume_and_export(scenes: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    common = ["--run", str(run), "--data", str(scenes), "--batch", "2", "--workers", "0"]
    common += ["--log-every", "1", "--save-every", "1", "--questions", "2"]
    assert reasoner(["train", *common, "--stage", "dense", "--steps", "2"]) == 0
    init = ["--init", str(run / "dense.safetensors")]
    assert reasoner(["train", *common, *init, "--steps", "1"]) == 0
    assert reasoner(["train", *common, *init, "--steps", "2"]) == 0
    choices = ["--stage", "choices", "--init", str(run / "text.safetensors")]
    assert reasoner(["train", *common, *choices, "--steps", "1"]) == 0
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [(row["stage"], row["step"]) for row in rows] == [
        ("dense", 1),
        ("dense", 2),
        ("text", 1),
        ("text", 2),
        ("choices", 1),
    ]
    assert "numbers" not in rows[-1]
    assert all(np.isfinite(row["loss"]) for row in rows)
    out = tmp_path / "model"
    assert reasoner(["export", "--run", str(run), "--out", str(out)]) == 0
    model = AutoModelForImageTextToText.from_pretrained(out)
    assert sum(p.numel() for p in model.parameters()) < 10_000_000
    assert json.loads((out / "segzero.json").read_text())["seen_size_wh"] == [SEEN_SIZE, SEEN_SIZE]


def test_the_average_of_checkpoints_is_their_mean(tmp_path: Path) -> None:
    paths = [tmp_path / f"{name}.safetensors" for name in "abc"]
    for path, value in zip(paths, (1.0, 2.0, 6.0), strict=True):
        save_file({"model.weight": torch.full((2,), value)}, path)
    out = tmp_path / "mean" / "text.safetensors"
    assert reasoner(["average", "--checkpoints", *map(str, paths), "--out", str(out)]) == 0
    assert load_file(out)["model.weight"].tolist() == [3.0, 3.0]
    save_file({"model.other": torch.zeros(2)}, paths[0])
    with pytest.raises(SystemExit, match="different models"):
        reasoner(["average", "--checkpoints", *map(str, paths), "--out", str(out)])


def test_checkpoints_become_a_folder_like_the_one_they_began_from(tmp_path: Path) -> None:
    base, out = tmp_path / "base", tmp_path / "out"
    base.mkdir()
    (base / "segzero.json").write_text("{}")
    save_file({"model.weight": torch.zeros(2).half()}, base / "model.safetensors")
    paths = [tmp_path / f"{name}.safetensors" for name in "ab"]
    for path, value in zip(paths, (1.0, 2.0), strict=True):
        save_file({"model.weight": torch.full((2,), value)}, path)
    command = ["repack", "--checkpoints", *map(str, paths), "--init", str(base), "--out", str(out)]
    assert reasoner(command) == 0
    weights = load_file(out / "model.safetensors")["model.weight"]
    assert weights.dtype == torch.float16
    assert weights.tolist() == [1.5, 1.5]
    assert (out / "segzero.json").is_file()
    assert len(weights_hash([out / "model.safetensors"])) == 16  # as SHA256SUMS says
    save_file({"model.other": torch.zeros(2)}, base / "model.safetensors")
    with pytest.raises(SystemExit, match="other weights"):
        reasoner(command)


def thought(things: tuple, query: Query) -> str:
    pieces = write_completion(things, query, {}, (640, 480), "multi_object")
    return parse_completion("".join(piece.text for piece in pieces)).thinking


def test_a_color_that_decides_has_its_verdict_in_the_thinking(objects: list) -> None:
    rng = np.random.default_rng(0)
    for things in objects:
        absent = ask_absent(rng, things, "color")
        assert absent is not None
        thinking = thought(things, absent)
        assert " (no)" in thinking
        assert " (yes)" not in thinking
        assert thinking.endswith("Nothing fits.")


def test_where_only_the_choice_is_learned_the_text_ends_with_it(objects: list, processor) -> None:
    rng = np.random.default_rng(3)
    prompts = {o.id: Prompt((1, 20, 300, 336), ((10, 30), (12, 33))) for o in objects[0]}
    for _ in range(40):
        query = ask_choice(rng, objects[0])
        pieces = until_choice(
            write_completion(objects[0], query, prompts, (640, 480), "multi_object")
        )
        assert pieces[-1].text in CHOSEN
        assert (pieces[-1].text == "</think>") == (not query.ids)
        ids, *_ = encode_question(
            processor.tokenizer, query.text, pieces, "multi_object", closed=False
        )
        assert processor.tokenizer.decode(ids).endswith(pieces[-1].text)


def test_the_place_of_a_choice_is_marked_whichever_way_it_falls(objects: list) -> None:
    rng = np.random.default_rng(4)
    marked = {"there": set(), "absent": set()}
    for things in objects:
        prompts = {o.id: Prompt((1, 20, 300, 336), ((10, 30), (12, 33))) for o in things}
        queries = {"there": ask(rng, things, "name"), "absent": ask_absent(rng, things, "name")}
        for way, query in queries.items():
            pieces = write_completion(things, query, prompts, (640, 480), "multi_object")
            for before, piece in itertools.pairwise(pieces):
                if before.text == " I see":
                    assert before.decides
                    assert piece.decides
                    marked[way].add(piece.text.split()[0])
            assert sum(p.decides for p in pieces if p.text in (" Nothing fits.", " It is")) == 1
    assert marked["absent"] == {"no"}
    assert "a" in marked["there"]
    assert "no" not in marked["there"]


def test_a_choice_weighs_more_and_weighs_alike_both_ways() -> None:
    tokens, width = 5, 4
    embeddings = torch.nn.functional.one_hot(torch.arange(tokens), tokens)[:, :width].float()
    losses = Losses(torch.tensor([0]), embeddings, 10.0)

    def loss(targets: list[int], roles: list[int]) -> float:
        last = [torch.eye(width)[[1, 1]][None]]
        batch = SimpleNamespace(targets=[torch.tensor([targets])], roles=[torch.tensor([roles])])
        return float(losses.words(last, batch)["words"])

    right_choice, wrong_choice = loss([1, 2], [CHOICE, WORD]), loss([2, 1], [CHOICE, WORD])
    assert wrong_choice > right_choice
    assert loss([2, 1], [CHOICE, WORD]) == pytest.approx(loss([3, 1], [CHOICE, WORD]))


@pytest.mark.parametrize("way", ["name", "color", "use"])
def test_what_is_asked_for_in_vain_is_not_there(objects: list, way: str) -> None:
    rng = np.random.default_rng(1)
    for things in objects:
        query = ask_absent(rng, things, way)
        assert query is not None
        assert (query.kind, query.ids) == ("none", ())
        assert thought(things, query).endswith("Nothing fits.")
