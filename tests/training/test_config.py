"""Configurations of training: the paper's numbers, files, and settings from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from segzero_core import ConfigError
from segzero_core.prompt import MULTI_OBJECT, SINGLE_OBJECT
from training.config import CONFIGS, load_config


@pytest.mark.parametrize("size", ["3b", "7b"])
def test_the_named_configurations_hold_the_numbers_of_the_paper(size: str) -> None:
    config = load_config(f"seg-zero-{size}")
    assert config.model == f"Qwen/Qwen2.5-VL-{size.upper()}-Instruct"
    assert config.template == SINGLE_OBJECT
    assert (config.weight_decay, config.beta_1, config.beta_2) == (0.01, 0.9, 0.999)
    assert (config.max_grad_norm, config.epochs, config.micro_batch_size) == (1.0, 1.0, 1)
    assert config.bf16_mixed
    assert config.dtype == "float32"
    assert not config.freeze_vision
    grpo = config.grpo
    assert (grpo.prompts_per_step, grpo.completions_per_prompt) == (16, 8)
    assert (grpo.learning_rate, grpo.kl_weight, grpo.entropy_weight) == (1e-6, 5e-3, 1e-3)
    assert (grpo.clip, grpo.temperature, grpo.max_completion_tokens) == (0.2, 1.0, 1300)
    assert (grpo.protocol, grpo.accuracy, grpo.parts) == ("paper", "hard", ("box", "points"))


def test_vision_reasoner_differs_in_template_divergence_and_length() -> None:
    config = load_config("vision-reasoner-7b")
    assert config.template == MULTI_OBJECT
    assert (config.grpo.kl_weight, config.grpo.max_completion_tokens) == (1e-2, 2000)


def test_every_named_configuration_can_be_shown_as_json() -> None:
    for name, config in CONFIGS.items():
        assert json.loads(config.to_json())["name"] == name


def test_a_file_begins_from_a_named_configuration(tmp_path: Path) -> None:
    path = tmp_path / "my.toml"
    path.write_text('base = "seg-zero-3b"\ndata = "d"\n[grpo]\nlearning_rate = 2e-6\nclip = 1\n')
    config = load_config(str(path))
    assert (config.model, config.data) == ("Qwen/Qwen2.5-VL-3B-Instruct", "d")
    assert (config.grpo.learning_rate, config.grpo.clip) == (2e-6, 1.0)
    assert config.grpo.kl_weight == 5e-3


def test_settings_of_the_command_line_come_last() -> None:
    settings = ["data=x=y", "grpo.parts=box", "freeze_vision=false", "max_steps=7"]
    config = load_config("tabletop", [*settings, "kinds=name,none"])
    assert (config.data, config.max_steps, config.freeze_vision) == ("x=y", 7, False)
    assert (config.grpo.parts, config.kinds) == (("box",), ("name", "none"))


def test_fields_that_are_valid_only_together_can_be_set_together() -> None:
    server = "grpo.vllm_server=http://localhost:8000"
    assert load_config("tabletop", ["grpo.vllm=server", server]).grpo.vllm == "server"
    for alone in ("grpo.vllm=server", server):
        with pytest.raises(ConfigError, match="vllm_server"):
            load_config("tabletop", [alone])


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        pytest.param(["grpo"], "expected KEY=VALUE", id="no value"),
        pytest.param(["grpo=1"], "grpo: is a section", id="section"),
        pytest.param(["seed.x=1"], "seed: has no field 'x'", id="no section"),
        pytest.param(["grpo.lr=1"], "grpo.lr: no such field", id="unknown"),
        pytest.param(["max_steps=two"], "max_steps: expected a whole number", id="no number"),
        pytest.param(["max_steps=1.5"], "max_steps: expected a whole number", id="fraction"),
        pytest.param(["max_minutes=-1"], "max_minutes: expected 0 or more, got -1", id="time"),
        pytest.param(["max_processor_minutes=nan"], "expected 0 or more, got nan", id="no time"),
        pytest.param(["bf16_mixed=yes"], "bf16_mixed: expected true or false", id="no flag"),
        pytest.param(["template=other"], "template: 'other' is none of", id="template"),
        pytest.param(["grpo.protocol=mine"], "grpo.protocol: 'mine' is none of", id="protocol"),
        pytest.param(["grpo.parts=mask"], "grpo.parts: expected box, points", id="parts"),
        pytest.param(["grpo.completions_per_prompt=1"], "expected 2 or more", id="group of one"),
        pytest.param(["save_steps=0"], "save_steps: expected 1 or more", id="never saved"),
        pytest.param(["epochs=0"], "epochs: expected more than 0", id="no epoch"),
    ],
)
def test_a_wrong_setting_is_named(settings: list[str], complaint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config("tabletop", settings)
    assert complaint in str(caught.value)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        pytest.param("model = ", "cannot be read as TOML", id="broken"),
        pytest.param('base = "seg-zero-70b"', "base: no", id="unknown base"),
        pytest.param("model = 3", "model: expected a text, got '3'", id="type"),
        pytest.param("grpo = 3", "grpo: is a section: expected a table", id="section"),
        pytest.param("[grpo]\nparts = [1]", "grpo.parts: expected a list of texts", id="list"),
        pytest.param("max_steps = true", "max_steps: expected a whole number", id="flag"),
    ],
)
def test_a_wrong_file_is_named_with_its_fault(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "my.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=complaint) as caught:
        load_config(str(path))
    assert str(path) in str(caught.value)


def test_what_is_neither_a_name_nor_a_file_is_refused_with_the_names() -> None:
    with pytest.raises(ConfigError, match="neither a file nor one of debug, own-objects, seg"):
        load_config("seg-zero-70b")
