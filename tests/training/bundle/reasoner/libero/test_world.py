"""LIBERO's scenes as the reasoner's training reads them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.training.bundle.drawn_scene import write_drawn_scene
from training.bundle.reasoner.data import Packer, Scenes
from training.bundle.reasoner.libero import questions
from training.bundle.reasoner.libero.invented import invent
from training.bundle.reasoner.libero.world import WORLD
from training.bundle.reasoner.tokenizer import build_tokenizer
from worlds.libero.package import benchmark_texts, missing_modules, normalized

pytestmark = [
    pytest.mark.libero,
    pytest.mark.skipif(bool(missing_modules()), reason="needs the extra libero"),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_drawn_scene(tmp_path / "scenes" / "000007").parent


def test_questions_of_training_are_none_of_the_benchmark_and_are_one_batch(folder: Path) -> None:
    tokenizer = build_tokenizer(WORLD.texts(sorted(folder.glob("*/scene.json")), 0) * 9, WORLD)
    samples = iter(Scenes(WORLD, [folder], tokenizer, questions=12, seed=3))
    pair = [next(samples), next(samples)]
    forbidden = benchmark_texts()
    texts = [tokenizer.decode(question.ids) for sample in pair for question in sample.questions]
    assert not any(text in normalized(asked) for asked in texts for text in forbidden)
    assert any("ramekin at (" in text for text in texts)
    batch = Packer(tokenizer)(pair)
    assert batch.packed.pixels.shape[:2] == (2, 4 * 256)
    assert batch.cell_kind.shape == (2, 256)
    shown = {WORLD.kinds[k] for k in batch.cell_kind.unique().tolist() if k < len(WORLD.kinds)}
    assert shown == {"akita_black_bowl", "glazed_rim_porcelain_ramekin", "plate"}


def test_what_is_invented_is_no_text_of_the_benchmark_either(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = build_tokenizer(WORLD.texts(sorted(folder.glob("*/scene.json")), 0) * 9, WORLD)
    found = iter(("put the bowl on the stove", "put the bowl on the plate", "the plate"))
    chunks = invent(np.random.default_rng(0))[1]
    monkeypatch.setattr(questions, "invent", lambda _: (next(found), chunks))
    draw = questions.QuestionSampler(
        tokenizer, WORLD.kind_shares, choices_only=False, augment=False, invented=1.0
    )
    asked = tokenizer.decode(draw(np.random.default_rng(0), None).ids)
    assert "the plate" in asked
    assert "put the bowl" not in asked


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_in_a_mirrored_image_no_side_is_asked_for(folder: Path, share: float) -> None:
    tokenizer = build_tokenizer(WORLD.texts(sorted(folder.glob("*/scene.json")), 0) * 9, WORLD)
    world = replace(WORLD, mirror_share=share)
    relations = (0, 0, 1, 0, 0, 0, 0, 0)
    scenes = Scenes(world, [folder], tokenizer, questions=40, seed=3, shares=relations)
    drawn = next(iter(scenes)).questions
    asked = [tokenizer.decode(question.ids) for question in drawn]
    assert any("left" in text or "right" in text for text in asked) == (share == 0)
