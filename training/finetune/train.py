"""Fine-tunes a reasoner with TRL's `SFTTrainer` or `GRPOTrainer`, from the last checkpoint on.

The final model, a folder that `SegZero.load` takes, is written to OUTPUT/model. The commands are
in `training.cli`.

GRPO follows Seg-Zero (arXiv:2503.06520) and the numbers of its public code. Where it differs:

- The trainer is TRL's, not verl's; DeepSpeed or FSDP by an accelerate configuration.
- Every completion is normalized by its own length (`loss_type="grpo"`). The public code computes
  the same with its micro batch of one, but its result depends on that size, and ours does not.
- TRL adds 1e-4 to the standard deviation of a group, the public code 1e-6.
- TRL's k3 estimate of the KL divergence is not clamped to [-10, 10].
- The rewards read a completion with the parser of the pipeline (`training.rewards.terms`);
  `grpo.protocol = "reference"` reads it as the public code does.
- The paper's best results come from the best of all checkpoints on the benchmark itself. We
  report the last checkpoint, or one chosen on validation data.

SFT imitates the true boxes and points without thinking, as the paper's comparison does.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForImageTextToText, AutoProcessor, TrainerState
from transformers.trainer import TRAINER_STATE_NAME
from trl import GRPOConfig, GRPOTrainer, SFTConfig, SFTTrainer

from segzero_core.checkpoints.description import ModelDescription
from segzero_core.checkpoints.registry import ModelFiles, find_model
from segzero_core.checkpoints.weights import weights_hash
from segzero_core.errors import ConfigError
from training.config import GrpoConfig, TrainConfig
from training.data.shards import read_manifest
from training.finetune.checkpoints import (
    METRICS,
    CheckpointError,
    Provenance,
    ResumesByHubNames,
    RunRecorder,
    drop_later_metrics,
    find_fault,
    finish_checkpoint,
    full_disk_message,
    git_revision,
    is_full_disk,
    last_complete,
    only_run,
    step_of,
)
from training.finetune.conversations import (
    conversation,
    grpo_columns,
    load_conversations,
    sft_columns,
)
from training.finetune.grpo import BatchScorer, reward_functions
from training.finetune.time_budget import PROCESSOR, WALL, TimeBudget
from training.finetune.vllm_check import PROBES, check_rollouts

FINAL = "model"
_VLLM_OPTIONS: dict[str, Callable[[GrpoConfig], dict[str, Any]]] = {
    "off": lambda _: {},
    "server": lambda s: {"vllm_mode": "server", "vllm_server_base_url": s.vllm_server},
    "colocate": lambda s: {"vllm_mode": "colocate", "vllm_gpu_memory_utilization": s.vllm_memory},
}


def train(method: str, config: TrainConfig) -> Path:
    """Run one training, `sft` or `grpo`, to its end and return the folder of the final model.

    Raises:
        ConfigError: The configuration does not fit the model, the data or the machine.
        InputError: The data is missing, unfinished or damaged.
        ModelLoadError: The model to begin from cannot be loaded.
        RewardError: A reward failed; names sample and term.
        CheckpointError: A checkpoint could not be written, or belongs to another run, or the
            output is in use.
    """
    for name in ("model", "data", "output"):
        if not getattr(config, name):
            raise ConfigError(f"{name}: say it in the configuration, or with --set {name}=…")
    files = find_model(config.model)
    description = _described(config, files)
    provenance = _provenance(method, config, files, description)
    output = Path(config.output)
    output.mkdir(parents=True, exist_ok=True)
    with only_run(output):
        return _train(method, config, files, description, provenance)


def _train(
    method: str,
    config: TrainConfig,
    files: ModelFiles,
    description: ModelDescription,
    provenance: Provenance,
) -> Path:
    output = Path(config.output)
    checkpoint, messages = last_complete(output, provenance)
    for message in messages:
        print(f"segzero-train: {message}", file=sys.stderr)
    drop_later_metrics(output, step_of(checkpoint) if checkpoint else 0)
    limits_s = {WALL: 60 * config.max_minutes, PROCESSOR: 60 * config.max_processor_minutes}
    budget = TimeBudget(output / METRICS, limits_s)
    if checkpoint and budget.is_spent() and find_fault(output / FINAL) is None:
        return output / FINAL  # another step would be one too many

    make = _grpo_trainer if method == "grpo" else _sft_trainer
    trainer = make(config, files, description)
    trainer.add_callback(budget)  # first: it may ask for a checkpoint, which the recorder notes
    trainer.add_callback(RunRecorder(provenance, budget))
    try:
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        trainer.save_model(str(output / FINAL))
        if trainer.is_world_process_zero():
            finish_checkpoint(output / FINAL, provenance)
        return output / FINAL
    except Exception as error:
        if not is_full_disk(error):
            raise
        raise CheckpointError(full_disk_message(output, error)) from error


def _grpo_trainer(
    config: TrainConfig, files: ModelFiles, description: ModelDescription
) -> GRPOTrainer:
    settings = config.grpo
    group = settings.completions_per_prompt
    batch = settings.prompts_per_step * group
    options = _common_options(config, batch)
    arguments = GRPOConfig(
        **options,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="constant",
        num_generations=group,
        generation_batch_size=batch,
        max_completion_length=settings.max_completion_tokens,
        temperature=settings.temperature,
        top_p=1.0,
        top_k=0,
        beta=settings.kl_weight,
        entropy_coef=settings.entropy_weight,
        epsilon=settings.clip,
        epsilon_high=settings.clip_high or None,
        num_iterations=1,
        loss_type="grpo",
        scale_rewards="group" if settings.scale_by_std else "none",
        use_vllm=settings.vllm != "off",
        **_VLLM_OPTIONS[settings.vllm](settings),
    )
    scorer = BatchScorer(config, files, device="cpu" if arguments.use_cpu else "auto")
    dataset = load_conversations(config, description, grpo_columns)
    rewards, parts = reward_functions(scorer), _parts(config, files)
    trainer = _trainer_class(config)(
        reward_funcs=rewards, args=arguments, train_dataset=dataset, **parts
    )
    if arguments.use_vllm:
        check_rollouts(trainer, [conversation(row) for row in islice(dataset, PROBES)])
    return trainer


class _Grpo(ResumesByHubNames, GRPOTrainer):
    """TRL's trainer."""


class _Sft(ResumesByHubNames, SFTTrainer):
    """TRL's trainer, which would count its tokens from 0 again, and train on what follows the end.

    The chat template of Qwen2.5-VL writes a newline behind `<|im_end|>`. No model ever says it, so
    its loss is large and would outweigh the answer's.
    """

    def compute_loss(
        self, model: torch.nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any
    ) -> Any:
        end = self.processing_class.tokenizer.eos_token_id
        inputs["labels"] = until_the_end(inputs["labels"], end)
        return super().compute_loss(model, inputs, *args, **kwargs)

    def _load_from_checkpoint(
        self, resume_from_checkpoint: str, model: torch.nn.Module | None = None
    ) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        state = TrainerState.load_from_json(str(Path(resume_from_checkpoint, TRAINER_STATE_NAME)))
        counts = [row["num_tokens"] for row in state.log_history if "num_tokens" in row]
        self._total_train_tokens = int(counts[-1]) if counts else 0


def until_the_end(labels: torch.Tensor, end_id: int) -> torch.Tensor:
    """Set labels int64 [B, L] behind each row's first `end_id` to -100: they are not learned."""
    ends = labels == end_id
    behind = (ends.cumsum(1) - ends.long()) > 0
    return labels.masked_fill(behind, -100)


def _trainer_class(config: TrainConfig) -> type[GRPOTrainer]:
    if not config.grpo.shared_pictures:
        return _Grpo
    from training.finetune.shared_image_sampling import SharedImageTrainer

    class _SharedGrpo(ResumesByHubNames, SharedImageTrainer):
        """The same with images computed once."""

    return _SharedGrpo


def _sft_trainer(
    config: TrainConfig, files: ModelFiles, description: ModelDescription
) -> SFTTrainer:
    arguments = SFTConfig(
        **_common_options(config, config.sft.batch_size),
        learning_rate=config.sft.learning_rate,
        lr_scheduler_type="constant_with_warmup" if config.sft.warmup_steps else "constant",
        warmup_steps=config.sft.warmup_steps,
        max_length=None,  # a cut prompt would lose tokens of the image
        completion_only_loss=True,
        dataset_kwargs={"skip_prepare_dataset": True},
    )
    dataset = load_conversations(config, description, sft_columns)
    return _Sft(args=arguments, train_dataset=dataset, **_parts(config, files))


def _common_options(config: TrainConfig, batch: int) -> dict[str, Any]:
    """Options that both trainers of TRL share; `batch` is samples a step, over all processes."""
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    micro = min(config.micro_batch_size, batch)
    if batch % (micro * processes):
        raise ConfigError(
            f"micro_batch_size {micro} times {processes} processes does not divide the {batch}"
            " samples of a step; choose a size that does"
        )
    if config.bf16_mixed and not torch.cuda.is_available():
        raise ConfigError(
            "bf16_mixed: needs a GPU here; set bf16_mixed=false, or train a smaller model"
        )
    return {
        "output_dir": config.output,
        "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": batch // (micro * processes),
        "num_train_epochs": config.epochs,
        "max_steps": config.max_steps or -1,
        "seed": config.seed,
        "weight_decay": config.weight_decay,
        "adam_beta1": config.beta_1,
        "adam_beta2": config.beta_2,
        "max_grad_norm": config.max_grad_norm,
        "bf16": config.bf16_mixed,
        "gradient_checkpointing": config.gradient_checkpointing,
        "save_strategy": "steps",
        "save_steps": config.save_steps,
        "save_total_limit": config.keep_checkpoints or None,
        "logging_steps": config.log_steps,
        "report_to": ["tensorboard"],
        "use_cpu": not torch.cuda.is_available(),
        "remove_unused_columns": False,
        "dataloader_num_workers": 0,
    }


def _parts(config: TrainConfig, files: ModelFiles) -> dict[str, Any]:
    """Load model and processor, as arguments of a trainer."""
    model = AutoModelForImageTextToText.from_pretrained(
        files.reasoner, dtype=config.dtype, trust_remote_code=False, use_safetensors=True
    )
    if config.freeze_vision:
        model.model.visual.requires_grad_(requires_grad=False)
    processor = AutoProcessor.from_pretrained(
        files.reasoner, trust_remote_code=False, padding_side="left"
    )
    return {"model": model, "processing_class": processor}


def _described(config: TrainConfig, files: ModelFiles) -> ModelDescription:
    """Describe the trained model: as the one it began from, with the run's template."""
    templates = (*files.description.templates, config.template)
    return replace(
        files.description,
        prompt_template=config.template,
        templates=tuple(dict.fromkeys(templates)),
    )


def _provenance(
    method: str, config: TrainConfig, files: ModelFiles, description: ModelDescription
) -> Provenance:
    # Beside a checkpoint, the segmenter must be found from anywhere.
    segmenter = files.segmenter
    absolute = str(Path(segmenter).resolve()) if Path(segmenter).is_dir() else segmenter
    return Provenance(
        method=method,
        config=asdict(config),
        data_hash=read_manifest(Path(config.data)).data_hash,
        git_revision=git_revision(Path(__file__).parent),
        model_hash=weights_hash(sorted(files.reasoner.glob("*.safetensors"))),
        description={**asdict(description), "segmenter": absolute},
    )
