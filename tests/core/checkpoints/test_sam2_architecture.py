"""A segmenter's configuration is data: it builds a SAM 2 or is refused, and runs nothing."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from segzero_core import ConfigError, ModelLoadError, load_segmenter
from segzero_core.checkpoints.sam2_architecture import build_sam2, config_text, state_shapes
from segzero_core.checkpoints.sam2_checkpoint import package_config
from tests.tiny_models import save_tiny_segmenter, tiny_sam2_config

SAM2 = "sam2.modeling.sam2_base.SAM2Base"


class Payload:
    """Leaves a mark where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self._mark,))


def write_config(path: Path, section: Any) -> Path:
    path.write_text(config_text({"model": section}))
    return path


@pytest.mark.parametrize("field", ["image_size", "no_such_field"])
def test_an_escaped_interpolation_runs_nothing(tmp_path: Path, field: str) -> None:
    """What is escaped once becomes live when a configuration is resolved twice."""
    mark, payload = tmp_path / "it-ran", tmp_path / "notes.txt"
    payload.write_bytes(pickle.dumps(Payload(mark)))
    folder = save_tiny_segmenter(tmp_path / "segmenter")
    section = tiny_sam2_config()
    call = f"{{_target_: torch.load, f: {payload}, weights_only: false}}"
    section[field] = f"\\${{oc.create:{call}}}"
    write_config(folder / "sam2.yaml", section)

    with pytest.raises(ConfigError, match="interpolations"):
        load_segmenter(str(folder))
    assert not mark.exists()


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "builtins.eval",
        "subprocess.Popen",
        "torch.load",
        "torch.nn.ReLU",
        "sam2.modeling.sam2_base.torch.load",  # spelled as if it were sam2's
        "sam2.modeling.memory_encoder.Fuser",  # sam2's, and not what belongs there
        "sam2.modeling.nothing.Module",
        "",
        None,
        [SAM2],
    ],
    ids=str,
)
def test_only_the_class_that_belongs_there_is_built(tmp_path: Path, target: object) -> None:
    section = tiny_sam2_config()
    section["memory_encoder"]["fuser"]["layer"]["_target_"] = target

    with pytest.raises(ConfigError, match=r"fuser\.layer: _target_ .* is not sam2\.modeling"):
        build_sam2(write_config(tmp_path / "sam2.yaml", section))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        pytest.param("image_size", -5, id="negative"),
        pytest.param("image_size", 10**9, id="huge"),
        pytest.param("image_size", "512", id="text for a number"),
        pytest.param("image_size", True, id="flag for a number"),
        pytest.param("sigmoid_scale_for_mem_enc", float("nan"), id="not a number"),
        pytest.param("sigmoid_scale_for_mem_enc", float("inf"), id="infinite"),
        pytest.param("num_maskmem", {"_target_": "os.getcwd"}, id="section for a number"),
        pytest.param("pred_obj_scores", 1, id="number for a flag"),
        pytest.param("compile_image_encoder", True, id="compiles"),
        pytest.param("image_encoder.trunk.stages", [1] * 1000, id="long list"),
        pytest.param("image_encoder.trunk.stages", "1111", id="text for a list"),
        pytest.param("image_encoder.trunk", None, id="nothing for a module"),
        pytest.param("image_encoder.trunk.norm_layer", "torch.nn.LayerNorm", id="a class"),
        pytest.param("image_encoder.trunk.weights_path", "x.pt", id="a pickle to load"),
        pytest.param("image_encoder.neck.fpn_interp_model", "lanczos", id="unknown word"),
        pytest.param("_partial_", True, id="hydra's own words"),
    ],
)
def test_an_argument_out_of_its_range_is_named(tmp_path: Path, path: str, value: object) -> None:
    section = tiny_sam2_config()
    *parents, name = path.split(".")
    place = section
    for parent in parents:
        place = place[parent]
    place[name] = value

    with pytest.raises(ConfigError, match=rf"sam2\.yaml: model.*{name}") as caught:
        build_sam2(write_config(tmp_path / "sam2.yaml", section))
    assert len(str(caught.value)) < 3000


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("model: 3", id="no section"),
        pytest.param("model: {a: 1}", id="no target"),
        pytest.param("[1, 2]", id="list"),
        pytest.param("a: [", id="broken yaml"),
        pytest.param("\x00", id="binary"),
        pytest.param("model: {_target_: torch.nn.ReLU}", id="another module"),
        pytest.param(f"model: {{_target_: {SAM2}}}", id="arguments missing"),
        pytest.param("model: ${model}", id="circle"),
        pytest.param("model: !!python/object/apply:os.getcwd []", id="python tag"),
        pytest.param("model: &a {b: *a}", id="alias of itself"),
        pytest.param("{" * 5000, id="deep"),
        pytest.param("# " + "x" * 200_000, id="large"),
    ],
)
def test_a_configuration_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "sam2.yaml"
    path.write_text(text)

    with pytest.raises(ConfigError, match=r"sam2\.yaml"):
        build_sam2(path)


def test_yaml_aliases_do_not_multiply(tmp_path: Path) -> None:
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    path = tmp_path / "sam2.yaml"
    path.write_text("\n".join(lines))

    with pytest.raises(ConfigError, match="aliases"):
        build_sam2(path)


def test_a_model_larger_than_its_weights_is_refused_before_memory_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_tiny_segmenter(tmp_path / "segmenter")
    section = tiny_sam2_config()
    section["memory_attention"]["layer"]["dim_feedforward"] = 16384
    write_config(folder / "sam2.yaml", section)
    built: list[object] = []
    monkeypatch.setattr(
        "segzero_core.checkpoints.sam2_checkpoint.build_sam2", lambda path: built.append(path)
    )

    with pytest.raises(ModelLoadError, match="of another shape"):
        load_segmenter(str(folder))
    assert not built


@pytest.mark.parametrize("version", ["2", "2.1"])
@pytest.mark.parametrize("letter", ["t", "s", "b+", "l"])
def test_shapes_are_reported_without_memory(version: str, letter: str) -> None:
    config = package_config(f"configs/sam{version}/sam{version}_hiera_{letter}.yaml")

    shapes = state_shapes(config)

    assert shapes["image_encoder.trunk.patch_embed.proj.weight"][1:] == (3, 7, 7)
    assert sum(shape.numel() for shape in shapes.values()) > 3e7


def test_building_twice_gives_the_same_module(tmp_path: Path) -> None:
    path = write_config(tmp_path / "sam2.yaml", tiny_sam2_config())
    torch.manual_seed(0)
    first = build_sam2(path).state_dict()
    torch.manual_seed(0)
    again = build_sam2(path).state_dict()

    assert all(torch.equal(tensor, again[name]) for name, tensor in first.items())
