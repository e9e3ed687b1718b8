"""Parameters come from the settings' fields and are refused with the settings' own words."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
from rclpy.parameter import Parameter

from segzero_core.config import bounds_of, check_settings
from segzero_core.errors import ConfigError
from segzero_core.testing.fakes import fake_segzero
from segzero_ros.parameters import NodeConfig, read_config
from segzero_ros.queries.answer import load_pipeline

FIELDS = dataclasses.fields(NodeConfig)


@pytest.fixture
def node(start_node: Callable[..., Any]) -> Any:
    return start_node(fake_segzero("<answer>[]</answer>"))


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.name)
def test_every_setting_is_a_described_parameter(node: Any, field: dataclasses.Field) -> None:
    descriptor = node.describe_parameter(field.name)
    bounds = bounds_of(field)
    assert descriptor.description == field.metadata["description"]
    assert descriptor.read_only == bounds.read_only
    assert node.get_parameter(field.name).value == field.default
    ranges = [*descriptor.integer_range, *descriptor.floating_point_range]
    assert [(limits.from_value, limits.to_value) for limits in ranges] == (
        [] if bounds.minimum is None else [(bounds.minimum, bounds.maximum)]
    )


def test_parameters_make_the_settings_again(node: Any) -> None:
    assert read_config(node) == NodeConfig()


def test_a_setting_can_change_while_the_node_runs(node: Any) -> None:
    (result,) = node.set_parameters([Parameter("max_image_age_s", value=2.5)])
    assert result.successful
    assert read_config(node).max_image_age_s == 2.5


@pytest.mark.parametrize(
    ("name", "value"),
    [("model", "another"), ("device", "cuda"), ("max_image_age_s", -1.0), ("publish_overlay", 3)],
)
def test_what_cannot_change_is_refused_with_a_reason(node: Any, name: str, value: Any) -> None:
    (result,) = node.set_parameters([Parameter(name, value=value)])
    assert not result.successful
    assert result.reason
    assert read_config(node) == NodeConfig()


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        pytest.param({"max_new_tokens": 5000}, "5000 is outside 0 to 4096", id="too large"),
        pytest.param({"max_image_age_s": float("nan")}, "nan is outside", id="not a number"),
        pytest.param({"template": "poem"}, "'poem' is none of", id="no choice"),
        pytest.param({"model": " "}, "model: it is empty", id="blank"),
        pytest.param({"publish_overlay": 1}, "expected bool, got int", id="type"),
        pytest.param({"backend": "npu"}, "'npu' is none of 'auto'", id="unknown backend"),
        pytest.param({"encoder_precision": "int8"}, "'int8' is none", id="encoder precision"),
        pytest.param({"grammar": "yes"}, "expected bool, got str", id="grammar"),
        pytest.param({"device": "tpu"}, "device: 'tpu'", id="unknown device"),
    ],
)
def test_a_wrong_setting_names_itself_and_what_is_allowed(
    fields: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(ConfigError, match=complaint):
        NodeConfig(**fields)


def test_the_model_is_loaded_as_the_parameters_say(monkeypatch: pytest.MonkeyPatch) -> None:
    reported: dict[str, Any] = {}
    load = lambda model, **options: reported.update(options)  # noqa: E731
    monkeypatch.setattr("segzero_core.SegZero.load", load)

    load_pipeline(
        NodeConfig(backend="torch", encoder_precision="fp32", precision="bfloat16", grammar=True)
    )

    assert (reported["backend"], reported["encoder_precision"]) == ("torch", "fp32")
    assert (reported["precision"], reported["grammar"]) == ("bfloat16", True)


def test_a_whole_number_is_taken_for_a_float() -> None:
    config = NodeConfig(max_image_age_s=2)
    check_settings(config)
    assert isinstance(config.max_image_age_s, float)
