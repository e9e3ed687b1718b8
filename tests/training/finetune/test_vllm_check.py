"""The comparison of vLLM's completions with the trainer's, both played by fakes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from training.finetune.vllm_check import RolloutError, check_rollouts


class FakeVllm:
    """Answers a prompt of a given length with given tokens, greedily or not at all."""

    def __init__(self, prompt: int, tokens: list[int]) -> None:
        self.temperature = 0.7
        self._prompt, self._tokens = prompt, tokens

    def sync_weights(self) -> None:
        pass

    def generate(self, **_: Any) -> tuple[list[list[int]], list[list[int]], None]:
        assert self.temperature == 0.0
        return [[0] * self._prompt], [self._tokens], None


def trainer_with(vllm: FakeVllm) -> Any:
    def generate(input_ids: torch.Tensor, **_: Any) -> torch.Tensor:
        return torch.cat([input_ids, torch.tensor([[7, 8]])], dim=1)

    return SimpleNamespace(
        vllm_generation=vllm,
        model=SimpleNamespace(generate=generate),
        accelerator=SimpleNamespace(device="cpu", unwrap_model=lambda model: model),
        processing_class=SimpleNamespace(tokenizer=SimpleNamespace(decode=str)),
        _tokenize_prompts=lambda messages: ([[1, 2, 3]], None, {}),
    )


def test_equal_completions_pass_and_the_temperature_is_restored() -> None:
    vllm = FakeVllm(3, [7, 8])
    check_rollouts(trainer_with(vllm), ["a question"])
    assert vllm.temperature == 0.7


@pytest.mark.parametrize(
    ("vllm", "complaint"),
    [
        pytest.param(FakeVllm(5, [7, 8]), "counts 5 tokens in a prompt that has 3", id="prompt"),
        pytest.param(FakeVllm(3, [7, 9]), "cannot be trusted", id="text"),
    ],
)
def test_another_prompt_or_text_stops_the_run(vllm: FakeVllm, complaint: str) -> None:
    with pytest.raises(RolloutError, match=complaint):
        check_rollouts(trainer_with(vllm), ["a question"])
