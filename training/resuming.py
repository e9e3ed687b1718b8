"""Loads the weights of a checkpoint by the names that `transformers` saves them under.

Qwen2.5-VL is saved with the Hub's names of its weights, which differ from those inside the module.
The trainer of `transformers` reads a checkpoint back by the module's own names, finds none of
them, warns, and goes on with the weights that it began from. Here the loader of published models
reads a checkpoint too, and anything that does not fit is an error.
"""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers import Trainer

from training.finetune.checkpoints import CheckpointError


class ResumesByHubNames(Trainer):
    """A trainer that goes on from checkpoints of Qwen2.5-VL; mixed into those of TRL."""

    def _load_from_checkpoint(
        self, resume_from_checkpoint: str, model: nn.Module | None = None
    ) -> None:
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:  # they save by the module's names
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            return
        target: Any = self.accelerator.unwrap_model(model if model is not None else self.model)
        saved, report = type(target).from_pretrained(
            resume_from_checkpoint,
            dtype=next(target.parameters()).dtype,
            use_safetensors=True,
            output_loading_info=True,
        )
        for fault in ("missing_keys", "unexpected_keys", "mismatched_keys"):
            if found := sorted(map(str, report.get(fault) or ())):
                raise CheckpointError(
                    f"{resume_from_checkpoint}: the weights do not fit: {len(found)}"
                    f" {fault.replace('_', ' ')}, such as {found[0]}"
                )
        target.load_state_dict(saved.state_dict())
