"""Descriptions, names and weight files."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from segzero_core import ConfigError, ModelDescription, ModelLoadError, SegZero
from segzero_core.checkpoints.description import BUILT_IN
from segzero_core.checkpoints.registry import bundled_folder, find_model
from segzero_core.checkpoints.sam2_checkpoint import find_sam2
from segzero_core.checkpoints.weights import weights_hash
from segzero_core.loading import choose_device

GOOD: dict[str, Any] = {
    "name": "m",
    "prompt_template": "multi_object",
    "templates": ["multi_object", "single_object"],
    "seen_size_wh": [336, 252],
    "coordinates": "absolute",
    "segmenter": "facebook/sam2-hiera-large",
    "max_new_tokens": 400,
}


def test_a_description_is_read_from_its_file(tmp_path: Path) -> None:
    (tmp_path / "segzero.json").write_text(json.dumps(GOOD))

    description = ModelDescription.from_file(tmp_path / "segzero.json")

    assert description.templates == ("multi_object", "single_object")
    assert description.frame_wh == description.seen_size_wh == (336, 252)


def test_normalised_coordinates_have_a_frame_of_their_own() -> None:
    values = GOOD | {"coordinates": "normalized_1000"}

    assert ModelDescription.from_values(values, "test").frame_wh == (1000, 1000)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", ""),
        ("name", 3),
        ("prompt_template", "none"),
        ("templates", []),
        ("templates", "multi_object"),
        ("templates", ["two_objects"]),
        ("seen_size_wh", [840]),
        ("seen_size_wh", [840, 0]),
        ("seen_size_wh", [840.0, 840]),
        ("seen_size_wh", [True, 840]),
        ("seen_size_wh", [10**9, 840]),
        ("seen_size_wh", None),
        ("coordinates", "relative"),
        ("segmenter", None),
        ("max_new_tokens", 0),
        ("max_new_tokens", True),
        ("max_new_tokens", "many"),
    ],
)
def test_a_wrong_field_is_named(field: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"test: {field}: expected"):
        ModelDescription.from_values(GOOD | {field: value}, "test")


def test_missing_and_unknown_fields_are_named() -> None:
    with pytest.raises(ConfigError, match=r"'segmenter'.*missing"):
        ModelDescription.from_values({k: v for k, v in GOOD.items() if k != "segmenter"}, "test")
    with pytest.raises(ConfigError, match=r"unknown fields.*'sise'"):
        ModelDescription.from_values(GOOD | {"sise": 1}, "test")
    with pytest.raises(ConfigError, match="expected an object, got list"):
        ModelDescription.from_values([], "test")


@pytest.mark.parametrize("text", ["", "{", "\xff", "[" * 100_000], ids=["", "{", "ff", "deep"])
def test_a_damaged_description_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "segzero.json").write_bytes(text.encode("latin-1"))

    with pytest.raises(ConfigError, match=r"segzero\.json(:| cannot be read)"):
        find_model(str(tmp_path))


def test_a_folder_without_a_description_says_what_to_write(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r'no segzero\.json.*"seen_size_wh": \[840, 840\]'):
        find_model(str(tmp_path))


def test_a_folder_may_hold_the_reasoner_or_both_parts(tiny_model: Path) -> None:
    both, alone = find_model(str(tiny_model)), find_model(str(tiny_model / "reasoner"))

    assert both.reasoner == alone.reasoner == tiny_model / "reasoner"
    assert both.segmenter == alone.segmenter == str(tiny_model / "segmenter")


def test_a_segmenter_that_is_nowhere_is_refused(tmp_path: Path) -> None:
    (tmp_path / "segzero.json").write_text(json.dumps(GOOD | {"segmenter": "../nothing"}))

    with pytest.raises(ConfigError, match="neither a folder relative to it nor a Hub id"):
        find_model(str(tmp_path))


def test_a_missing_folder_is_refused() -> None:
    with pytest.raises(ModelLoadError, match="there is no such folder"):
        SegZero.load("/no/such/model")


def test_a_bundled_name_wins_over_a_folder_of_that_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tabletop").mkdir()
    monkeypatch.chdir(tmp_path)

    try:
        found = find_model("tabletop").reasoner
    except ModelLoadError as error:
        assert "comes with the package" in str(error)  # noqa: PT017 - not every checkout has it
    else:
        assert tmp_path not in found.parents


def test_a_bundle_is_found_where_cmake_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "share" / "segzero_ros" / "models" / "other"
    (folder / "reasoner").mkdir(parents=True)
    monkeypatch.setenv("AMENT_PREFIX_PATH", f"/nowhere:{tmp_path}")

    assert bundled_folder("other") == folder


@pytest.mark.parametrize(
    ("model", "template"),
    [
        ("Ricky06662/Seg-Zero-3B", "single_object"),
        ("Ricky06662/Seg-Zero-7B", "single_object"),
        ("Ricky06662/Seg-Zero-7B-Best-on-ReasonSegTest", "single_object"),
        ("Ricky06662/VisionReasoner-7B", "multi_object"),
        ("Ricky06662/Visurf-7B-Best-on-gRefCOCO", "multi_object_spaced"),
        ("Ricky06662/Visurf-7B-NoThink-Best-on-gRefCOCO", "multi_object_spaced"),
        ("Qwen/Qwen2.5-VL-3B-Instruct", "multi_object"),
        ("Qwen/Qwen2.5-VL-7B-Instruct", "multi_object"),
    ],
)
def test_published_models_have_descriptions(model: str, template: str) -> None:
    description = BUILT_IN[model]

    assert description.prompt_template == template
    assert description.frame_wh == (840, 840)
    assert description.segmenter == "facebook/sam2-hiera-large"


@pytest.mark.parametrize("kind", ["Instruct", "Thinking"])
@pytest.mark.parametrize("size", ["2B", "4B", "8B"])
def test_qwen3_vl_is_asked_in_its_own_form(size: str, kind: str) -> None:
    description = BUILT_IN[f"Qwen/Qwen3-VL-{size}-{kind}"]

    assert description.prompt_template == "qwen_native"
    assert (description.seen_size_wh, description.frame_wh) == ((1024, 1024), (1000, 1000))
    assert description.opens_thinking == (kind == "Thinking")


@pytest.mark.parametrize(
    ("model", "asked"),
    [
        ("Ricky06662/VisionReasoner-7B", "where is the red mug"),
        ("Ricky06662/Visurf-7B-Best-on-gRefCOCO", "where is the red mug?"),
        ("Qwen/Qwen3-VL-8B-Instruct", '"Where is the Red mug?"'),
    ],
)
def test_a_query_is_put_into_the_words_that_the_authors_use(model: str, asked: str) -> None:
    assert BUILT_IN[model].asked('"Where is the Red mug?"') == asked


def test_a_query_of_nothing_but_stripped_characters_stays() -> None:
    assert BUILT_IN["Ricky06662/VisionReasoner-7B"].asked("?!") == "?!"


@pytest.mark.parametrize("model", ["Ricky06662/Seg-Zero-7B", "nobody/nothing"])
def test_a_hub_id_without_network_fails_in_seconds(model: str) -> None:
    start = time.perf_counter()
    with pytest.raises(ModelLoadError, match=f"{model} is neither a folder here nor whole"):
        SegZero.load(model)
    assert time.perf_counter() - start < 15


def cached_snapshot(cache: Path, repo: str, files: dict[str, bytes]) -> Path:
    """Lay files out as the Hub's client does after a download."""
    folder = cache / f"models--{repo.replace('/', '--')}"
    snapshot = folder / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("abc")
    for name, data in files.items():
        (snapshot / name).write_bytes(data)
    return snapshot


def test_a_hub_id_in_the_cache_needs_no_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    model = "Ricky06662/Seg-Zero-7B"
    snapshot = cached_snapshot(
        tmp_path, model, {"config.json": b"{}", "model.safetensors": b"weights"}
    )

    found = find_model(model)

    assert found.reasoner == snapshot
    assert found.description == BUILT_IN[model]


def test_an_interrupted_download_is_not_taken_for_a_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    index = b'{"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}'
    files = {"model.safetensors.index.json": index, "model-1.safetensors": b""}
    cached_snapshot(tmp_path, "Ricky06662/Seg-Zero-7B", files)

    with pytest.raises(ModelLoadError, match="cannot be fetched"):
        find_model("Ricky06662/Seg-Zero-7B")


def test_a_published_segmenter_is_found_in_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    model = "facebook/sam2.1-hiera-base-plus"
    snapshot = cached_snapshot(tmp_path, model, {"sam2.1_hiera_base_plus.pt": b""})

    files = find_sam2(model)

    assert files.weights == snapshot / "sam2.1_hiera_base_plus.pt"
    assert files.config.name == "sam2.1_hiera_b+.yaml"


@pytest.mark.parametrize("name", ["facebook/sam3", "/no/such/folder"])
def test_an_unknown_segmenter_is_refused(name: str) -> None:
    with pytest.raises(ModelLoadError, match="facebook/sam2-hiera-tiny"):
        find_sam2(name)


def test_the_hash_depends_on_every_byte(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    first.write_bytes(b"1")
    second.write_bytes(b"2")

    before = weights_hash([first, second])
    second.write_bytes(b"3")

    assert len(before) == 16
    assert weights_hash([first, second]) != before


def test_a_file_that_is_not_the_listed_one_is_damaged(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"abc")
    # What `printf abc | sha256sum` prints.
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    (tmp_path / "SHA256SUMS").write_text(f"{digest}  model.safetensors\n")

    assert weights_hash([file])
    file.write_bytes(b"abd")
    with pytest.raises(ModelLoadError, match="damaged"):
        weights_hash([file])


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "meta", "", "mps", "cuda:x"])
def test_a_device_that_is_not_there_is_refused(device: str) -> None:
    with pytest.raises(ConfigError, match="device"):
        choose_device(device)


def test_auto_is_a_device() -> None:
    assert choose_device("auto") in ("cpu", "cuda")
    assert choose_device("cpu") == "cpu"
