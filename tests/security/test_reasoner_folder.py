"""One malicious reasoner folder for each row of docs/security.md: nothing of it runs."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segzero_core import ConfigError, ModelLoadError, SegZero, SegZeroError
from segzero_core.checkpoints.registry import find_model
from segzero_core.errors import InputError

IMAGE = np.zeros((84, 112, 3), np.uint8)


def change(path: Path, **fields: Any) -> None:
    values = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(values | fields))


def refused(folder: Path, error: type[SegZeroError] = ConfigError) -> str:
    with pytest.raises(error) as caught:
        SegZero.load(str(folder), device="cpu")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_folder_is_good_without_an_attack(model: Path) -> None:
    loaded = SegZero.load(str(model), device="cpu")
    assert len(loaded.segment(IMAGE, "the red mug").segmentation) == 1


@pytest.mark.parametrize(
    "file",
    ["config.json", "tokenizer_config.json", "processor_config.json", "preprocessor_config.json"],
)
def test_auto_map_is_refused_and_its_module_is_not_imported(
    model: Path, reasoner: Path, witness: Path, file: str
) -> None:
    (reasoner / "evil.py").write_text(f"open({str(witness)!r}, 'w')\nEvil = dict\n")
    name = "AutoModelForImageTextToText" if file == "config.json" else "AutoProcessor"
    change(reasoner / file, auto_map={name: "evil.Evil"})
    assert "auto_map names code" in refused(model)
    assert not witness.exists()


@pytest.mark.parametrize("field", ["attn_implementation", "_attn_implementation"])
def test_kernels_of_the_hub_are_not_chosen_by_a_file(
    model: Path, reasoner: Path, field: str
) -> None:
    change(reasoner / "config.json", **{field: "somebody/kernels"})
    assert "names code" in refused(model)


def test_a_quantizer_is_not_chosen_by_a_file(model: Path, reasoner: Path) -> None:
    change(reasoner / "config.json", quantization_config={"quant_method": "gptq", "bits": 4})
    assert "quantization_config" in refused(model)


def test_an_adapter_is_refused(model: Path, reasoner: Path) -> None:
    change(reasoner / "adapter_config.json", base_model_name_or_path="somebody/model")
    assert "adapters are not read" in refused(model)


@pytest.mark.timeout(60)
def test_further_chat_templates_are_refused_unread(model: Path, reasoner: Path) -> None:
    (reasoner / "additional_chat_templates").mkdir()
    with (reasoner / "additional_chat_templates" / "tool.jinja").open("wb") as huge:
        huge.truncate(3_000_000_000)
    assert "a model has one chat template" in refused(model)


@pytest.mark.parametrize("file", ["config.json", "generation_config.json"])
def test_values_nested_without_end_are_refused(model: Path, reasoner: Path, file: str) -> None:
    (reasoner / file).write_text('{"a":' * 100_000 + "1" + "}" * 100_000)
    assert "nested too deep" in refused(model)


def test_a_header_of_weights_is_no_larger_than_it_may_be(model: Path, reasoner: Path) -> None:
    with (reasoner / "model.safetensors").open("wb") as weights:
        weights.write((10**9).to_bytes(8, "little"))
        weights.truncate(10**9 + 8)
    assert "header too large" in refused(model, ModelLoadError)


def test_a_reply_is_as_long_as_the_description_says(model: Path, reasoner: Path) -> None:
    change(reasoner / "generation_config.json", max_new_tokens=10**9, min_new_tokens=10**9)
    loaded = SegZero.load(str(model), device="cpu")
    assert len(loaded.segment(IMAGE, "the red mug").segmentation) == 1


@pytest.mark.parametrize(
    "name", ["pytorch_model.bin", "model.pt", "training_args.bin", "model.pkl", "optimizer.pt"]
)
def test_a_pickle_under_any_name_is_not_read(
    model: Path, reasoner: Path, payload: Any, witness: Path, name: str
) -> None:
    (reasoner / name).write_bytes(pickle.dumps(payload))
    SegZero.load(str(model), device="cpu")
    (reasoner / "model.safetensors").unlink()
    assert "no *.safetensors" in refused(model, ModelLoadError)
    assert not witness.exists()


def test_a_pickle_in_the_place_of_the_weights_is_refused(
    model: Path, reasoner: Path, payload: Any, witness: Path
) -> None:
    (reasoner / "model.safetensors").write_bytes(pickle.dumps(payload))
    refused(model, ModelLoadError)
    assert not witness.exists()


@pytest.mark.parametrize(
    ("file", "section", "field", "value"),
    [
        ("config.json", "text_config", "num_hidden_layers", 10**9),
        ("config.json", "text_config", "hidden_size", 10**12),
        ("config.json", "vision_config", "depth", 10**6),
        ("config.json", "vision_config", "patch_size", -1),
        ("processor_config.json", "size", "shortest_edge", 10**12),
        ("processor_config.json", "image_processor", "temporal_patch_size", 10**6),
        ("preprocessor_config.json", "size", "min_pixels", 10**12),
        ("preprocessor_config.json", "image_processor", "patch_size", float("nan")),
        ("generation_config.json", "deeply", "num_beams", 10**6),
        ("generation_config.json", "deeply", "num_return_sequences", 10**6),
    ],
)
def test_numbers_that_would_take_all_memory_are_named(
    model: Path, reasoner: Path, file: str, section: str, field: str, value: Any
) -> None:
    change(reasoner / file, **{section: [{field: value}]})
    assert f"{file}: {field}: expected 0 to" in refused(model)


def test_code_that_generation_asks_for_is_refused(model: Path, reasoner: Path) -> None:
    change(reasoner / "generation_config.json", custom_generate="somebody/generate")
    assert "custom_generate names code" in refused(model)


@pytest.mark.parametrize("name", ["../../elsewhere.safetensors", "/etc/passwd", "evil.bin"])
def test_shards_lie_in_the_folder(model: Path, reasoner: Path, name: str) -> None:
    change(reasoner / "model.safetensors.index.json", weight_map={"a": name})
    assert "no safetensors file of this folder" in refused(model)


@pytest.mark.parametrize(
    "file",
    ["config.json", "segzero.json", "tokenizer.json", "model.safetensors", "chat_template.jinja"],
)
@pytest.mark.timeout(60)
def test_a_pipe_is_not_waited_for(model: Path, reasoner: Path, file: str) -> None:
    (reasoner / file).unlink(missing_ok=True)
    os.mkfifo(reasoner / file)
    assert "no regular file" in refused(model, SegZeroError)


@pytest.mark.parametrize(
    ("file", "megabytes"), [("tokenizer.json", 50), ("config.json", 11), ("vocab.json", 50)]
)
def test_a_huge_file_is_refused_before_it_is_parsed(
    model: Path, reasoner: Path, file: str, megabytes: int
) -> None:
    with (reasoner / file).open("wb") as written:
        written.truncate(megabytes * 1_000_000)
    assert "bytes, at most" in refused(model, ModelLoadError)


@pytest.mark.parametrize("path", ["../../../../..", "../../other", "/" + "x" * 5000, "x" * 5000])
def test_a_description_does_not_lead_out(model: Path, reasoner: Path, path: str) -> None:
    shutil.copytree(model / "segmenter", model.parent / "other")
    change(reasoner / "segzero.json", segmenter=path)
    message = refused(model)
    assert len(message) < 500
    assert "segmenter" in message


@pytest.mark.parametrize(
    ("field", "value"),
    [("max_new_tokens", 10**18), ("name", "n" * 5000), ("name", "a\x1b[2J"), ("name", "a\0")],
)
def test_fields_of_a_description_have_limits(
    model: Path, reasoner: Path, field: str, value: Any
) -> None:
    change(reasoner / "segzero.json", **{field: value})
    assert f"{field}: expected" in refused(model)


def test_a_processor_class_that_is_none_is_one_line(model: Path, reasoner: Path) -> None:
    for file in ("processor_config.json", "tokenizer_config.json"):
        change(reasoner / file, processor_class="Qwen2TokenizerFast")
    refused(model, ModelLoadError)


def test_files_of_engines_and_graphs_are_not_read(model: Path, witness: Path) -> None:
    """They are code of a kind; only those of the own cache are loaded."""
    for part in (model, model / "reasoner", model / "segmenter"):
        for name in ("encoder.onnx", "encoder.engine", "encoder.trt", "weights.data"):
            os.mkfifo(part / name)  # whoever opens it waits for ever
    assert SegZero.load(str(model), device="cpu").identity.weights_hash


@pytest.mark.parametrize("name", ["~nosuchuser/model", "a\0b", "m" * 5000, "..\ud800"])
def test_a_name_that_is_none_is_one_line(name: str) -> None:
    with pytest.raises((ModelLoadError, ConfigError, InputError)) as caught:
        find_model(name)
    assert "\n" not in str(caught.value)
