"""TRL's GRPO trainer for the small reasoner: an image is computed once for its whole group.

The completions of a group share their image, and in a small model most of the work is the image.
This trainer replaces two methods of TRL. They give the same numbers; a test compares them. All the
rest is TRL's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody reads
from torch import Tensor, nn
from trl import GRPOTrainer

from segzero_core.errors import ConfigError
from training.bundle.reasoner.forward import (
    KeysAndValues,
    Packed,
    QuestionGroup,
    continue_text,
    forward,
    image_cache,
)
from training.bundle.reasoner.model import PREFIX
from training.bundle.reasoner.tokenizer import MERGE, PATCH


class SharedImageTrainer(GRPOTrainer):
    """Works in one process, with the prompts of `training.bundle.reasoner.forward`."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        if self.accelerator.num_processes > 1 or self.use_vllm:
            raise ConfigError(
                "shared_pictures: works in one process without vLLM; set it to false"
            )

    def _generate_single_turn(
        self,
        prompt_ids: list[list[int]],
        images: Any,
        multimodal_fields: dict[str, Any],
        num_generations: int,
        has_tool_images: bool = False,  # noqa: FBT001, FBT002 - TRL's signature
    ) -> tuple[list[list[int]], None]:
        with torch.no_grad():
            completions = sample_prompts(
                self.model,
                prompt_ids,
                multimodal_fields["pixel_values"].to(self.accelerator.device),
                limit=self.max_completion_length,
                temperature=self.temperature,
                end_ids=self.eos_token_ids,
            )
        return completions, None

    def _get_per_token_logps_and_entropies(
        self,
        model: nn.Module,
        input_ids: Tensor,
        attention_mask: Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        compute_entropy: bool = False,  # noqa: FBT001, FBT002 - TRL's signature
        compute_aux_loss: bool = False,  # noqa: FBT001, FBT002 - TRL's signature
        pixel_values: Tensor | None = None,
        **_: Any,
    ) -> tuple[Tensor, Tensor | None, None]:
        pixels, image_index = unique_images(pixel_values, image_tokens(model, input_ids[0]))
        logps, entropies = score_completions(
            model, pixels, image_index, input_ids, attention_mask, logits_to_keep, self.temperature
        )
        return logps, (entropies if compute_entropy else None), None


def image_tokens(model: nn.Module, ids: Tensor) -> int:
    """Count the image tokens of one prompt, int64 [L]."""
    return int((ids == model.config.image_token_id).sum())


def unique_images(pixel_values: Tensor, cells: int) -> tuple[Tensor, Tensor]:
    """Find the distinct images of a batch.

    Args:
        pixel_values: float32 [N * patches, 1176], as the processor makes them of N images.
        cells: Image tokens of each.

    Returns:
        float32 [U, patches, 588], the distinct images without their doubled frame, and int64 [N],
        the index of each row's image.
    """
    each = pixel_values.view(-1, cells * MERGE**2, 3, 2, PATCH * PATCH)[:, :, :, 0].flatten(2)
    found: dict[bytes, int] = {}
    image_index = [found.setdefault(one.numpy().tobytes(), len(found)) for one in each.cpu()]
    firsts = [image_index.index(number) for number in range(len(found))]
    return each[firsts], torch.tensor(image_index, device=each.device)


def score_completions(
    model: nn.Module,
    pixels: Tensor,
    image_index: Tensor,
    input_ids: Tensor,
    attention_mask: Tensor,
    logits_to_keep: int,
    temperature: float,
) -> tuple[Tensor, Tensor]:
    """Compute log probability and entropy of each row's last tokens: float32 [N, logits_to_keep].

    Args:
        model: The small reasoner.
        pixels: The distinct images; see `unique_images`.
        image_index: The index of each row's image.
        input_ids: int64 [N, L], prompts padded at the left, completions at the right.
        attention_mask: int64 [N, L], 0 for padding.
        logits_to_keep: Length of the completions' part.
        temperature: Divides the logits.
    """
    (count, length), device = input_ids.shape, input_ids.device
    cells = pixels.shape[1] // MERGE**2
    end = len(PREFIX) + cells
    start = attention_mask.argmax(1) + end  # of the text behind the image
    longest = int((length - start).max())
    columns = (start[:, None] + torch.arange(longest, device=device)).clamp(max=length - 1)
    nothing = torch.zeros((count, 0), dtype=torch.long, device=device)
    no_targets = torch.zeros((count, 0, 2, cells + longest), dtype=torch.bool, device=device)
    asked = QuestionGroup(input_ids.gather(1, columns), image_index, nothing, no_targets)
    first_row = input_ids[0, int(attention_mask[0].argmax()) :][:end]
    (last,) = forward(model, Packed(pixels, first_row, [asked])).last
    # The state before a token predicts it.
    kept = torch.arange(logits_to_keep, device=device)
    places = length - logits_to_keep - start[:, None] + kept - 1
    states = last.gather(1, places[..., None].expand(-1, -1, last.shape[-1]).clamp(min=0))
    logits = F.linear(states, model.get_output_embeddings().weight).float() / temperature
    logs = logits.log_softmax(-1)
    chosen = logs.gather(-1, input_ids[:, -logits_to_keep:, None])[..., 0]
    return chosen, -(logs.exp() * logs).sum(-1)


def sample_prompts(
    model: nn.Module,
    prompt_ids: Sequence[Sequence[int]],
    pixel_values: Tensor,
    *,
    copies: int = 1,
    **how: Any,
) -> list[list[int]]:
    """Draw `copies` completions of each prompt, one after the other; an image is computed once.

    For the prompts' `pixel_values` see `unique_images`; for `limit`, `temperature` and `end_ids`
    see `sample`.
    """
    first = torch.tensor(prompt_ids[0], device=pixel_values.device)
    cells = image_tokens(model, first)
    end = len(PREFIX) + cells
    pixels, image_index = unique_images(pixel_values, cells)
    of_row = image_index.repeat_interleave(copies)
    memory = [pair.of_rows(of_row) for pair in image_cache(model, pixels, first[:end])]
    texts = [ids[end:] for ids in prompt_ids for _ in range(copies)]
    return sample(model, memory, texts, **how)


def sample(
    model: nn.Module,
    memory: Sequence[KeysAndValues],
    texts: Sequence[Sequence[int]],
    *,
    limit: int,
    temperature: float,
    end_ids: Sequence[int],
) -> list[list[int]]:
    """Draw one completion for every row; return their tokens.

    Args:
        model: The small reasoner.
        memory: Keys and values of every row's image, by layer.
        texts: The prompt after the image, by row.
        limit: Length of the longest completion [tokens].
        temperature: 0 takes the most likely token.
        end_ids: Tokens that end a completion, and are part of it.
    """
    device = memory[0].keys.device
    lengths = torch.tensor([len(text) for text in texts], device=device)
    ids = [torch.tensor(text, device=device) for text in texts]
    padded = nn.utils.rnn.pad_sequence(ids, batch_first=True)
    text_memory, states = continue_text(model, memory, None, padded, torch.zeros_like(lengths))
    state = states[torch.arange(len(texts), device=device), lengths - 1]
    ends = torch.tensor(list(end_ids), device=device)
    completions: list[list[int]] = [[] for _ in texts]
    over = torch.zeros(len(texts), dtype=torch.bool, device=device)
    for _ in range(limit):
        tokens = _drawn(model, state, temperature)
        drawn = tokens.tolist()  # in one go: the GPU is synchronized once
        for row in torch.nonzero(~over).flatten().tolist():
            completions[row].append(drawn[row])
        over |= torch.isin(tokens, ends)
        if bool(over.all()):
            break
        text_memory, states = continue_text(model, memory, text_memory, tokens[:, None], lengths)
        state, lengths = states[:, 0], lengths + 1
    return completions


def _drawn(model: nn.Module, state: Tensor, temperature: float) -> Tensor:
    logits = F.linear(state, model.get_output_embeddings().weight).float()
    if temperature == 0:
        return logits.argmax(-1)
    return torch.multinomial((logits / temperature).softmax(-1), 1)[:, 0]
