"""Measures the reward of a model's sampled completions for held-out questions.

    python -m training.finetune.reward_statistics --model MODEL --data DATA --samples FILE.jsonl

The rewards that a training logs are of other questions at every step, and their noise hides a
small rise. Here every model gets the same questions, several replies each, drawn at the
temperature of the training, so that two models can be compared question by question.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from segzero_core.checkpoints.registry import find_model
from segzero_core.errors import InputError
from segzero_core.terminal.progress_bar import ProgressBar
from training.arguments import new_parser, positive, run_command
from training.config import TrainConfig, load_config
from training.evaluation.predictions import write_whole
from training.finetune.conversations import (
    TRUTH_COLUMNS,
    conversation,
    grpo_columns,
    load_conversations,
)
from training.finetune.grpo import BatchScorer
from training.finetune.shared_image_sampling import sample_prompts

QUESTIONS_AT_ONCE = 8


def sampled_rewards(config: TrainConfig, questions: int, replies: int) -> Iterator[dict[str, Any]]:
    """Ask held-out questions and score the replies as the configuration's training would.

    Model, data, template, rewards, temperature and seed are those of the configuration. So many
    questions at most are asked, evenly over the data.

    Yields:
        For each question `id`, `kind`, the mean `reward` and the mean of each of its `terms`.

    Raises:
        SegZeroError: The configuration, the model or the data cannot be used.
    """
    files = find_model(config.model)
    description = files.description
    rows = load_conversations(config, description, grpo_columns)
    count = min(questions, len(rows))
    chosen = [number * len(rows) // count for number in range(count)]
    kinds = rows.with_format(None)["kind"]
    model = AutoModelForImageTextToText.from_pretrained(
        files.reasoner, dtype=config.dtype, trust_remote_code=False, use_safetensors=True
    ).eval()
    processor = AutoProcessor.from_pretrained(files.reasoner, trust_remote_code=False)
    scorer = BatchScorer(config, files)
    torch.manual_seed(config.seed)
    for start in ProgressBar(range(0, len(chosen), QUESTIONS_AT_ONCE), unit="batch"):
        indices = chosen[start : start + QUESTIONS_AT_ONCE]
        batch = [rows[index] for index in indices for _ in range(replies)]
        texts = _replies(model, processor, batch[::replies], replies, config)
        columns = {name: [row[name] for row in batch] for name in (*TRUTH_COLUMNS, "original")}
        scores = scorer.scores(texts, columns)
        for place, index in enumerate(indices):
            own = slice(place * replies, (place + 1) * replies)
            yield {
                "id": batch[own.start]["source_id"],
                "kind": kinds[index],
                "reward": float(scores.totals[own].mean()),
                "terms": {
                    name: float(values[own].mean()) for name, values in scores.terms.items()
                },
            }


def _replies(
    model: torch.nn.Module,
    processor: Any,
    rows: Sequence[dict[str, Any]],
    replies: int,
    config: TrainConfig,
) -> list[str]:
    """Sample completions, grouped by question."""
    inputs = processor.apply_chat_template(
        [conversation(row) for row in rows],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
    )
    with torch.inference_mode():
        tokens = sample_prompts(
            model,
            inputs["input_ids"],
            torch.as_tensor(inputs["pixel_values"]),
            copies=replies,
            limit=config.grpo.max_completion_tokens,
            temperature=config.grpo.temperature,
            end_ids=[model.generation_config.eos_token_id, processor.tokenizer.eos_token_id],
        )
    return processor.batch_decode(tokens, skip_special_tokens=True)


def _run(args: argparse.Namespace) -> None:
    try:
        args.samples.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{args.samples.parent}: cannot be made: {error}") from error
    config = load_config(args.config, [*args.set, f"model={args.model}", f"data={args.data}"])
    rows = sampled_rewards(config, args.questions, args.replies)
    write_whole(args.samples, "".join([json.dumps(row) + "\n" for row in rows]))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; see `run_command`."""
    parser = new_parser("python -m training.finetune.reward_statistics", __doc__)
    add = parser.add_argument
    add("--model", required=True, help="folder with a reasoner, or a bundled name")
    add("--config", default="tabletop", help="of the training: template, rewards, temperature")
    add("--data", required=True, help="prepared by python -m training.data.prepare; held out")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="as segzero-train's")
    add("--samples", type=Path, required=True, help="a line of json for each question")
    add("--questions", type=positive, default=160, help="at most, evenly over the data")
    add("--replies", type=positive, default=8, help="for each question")
    args = parser.parse_args(argv)
    return run_command("sampled_rewards: error", lambda: _run(args))


if __name__ == "__main__":
    sys.exit(main())
