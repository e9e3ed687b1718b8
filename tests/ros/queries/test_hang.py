"""A model that does not come back, or only slowly: the real reasoner, blocked in its forward."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lifecycle_msgs.msg import Transition
from std_srvs.srv import Trigger
from torch.nn.modules.module import register_module_forward_pre_hook

from segzero_ros.msg import SegmentationResult, Status
from segzero_ros.queries.answer import load_pipeline
from tests.ros.scripted import SIZE_WH
from tests.tiny_models import save_tiny_model

CONFIGURE, CLEANUP = Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_CLEANUP
ACTIVATE = Transition.TRANSITION_ACTIVATE
OK = SegmentationResult.OK


class Blockade:
    """Stops the next forward pass of a language model until the gate is open.

    Attributes:
        is_armed: Whether it does; loading a model runs it too.
        inside: Set when the pass is stopped; it holds every lock of the model then.
        gate: Lets it go on.
    """

    def __init__(self) -> None:
        self.is_armed = False
        self.inside, self.gate = threading.Event(), threading.Event()
        self.thread: threading.Thread | None = None

    def __call__(self, module: torch.nn.Module, _: Any) -> None:
        if self.is_armed and isinstance(module, torch.nn.Embedding):
            self.is_armed = False
            self.thread = threading.current_thread()
            self.inside.set()
            assert self.gate.wait(120.0)


@pytest.fixture
def blockade() -> Iterator[Blockade]:
    blockade = Blockade()
    handle = register_module_forward_pre_hook(blockade)
    yield blockade
    blockade.gate.set()
    handle.remove()


@pytest.fixture
def start_tiny(
    start_node: Callable[..., Any], client: Any, blockade: Blockade, tmp_path: Path
) -> Callable[..., tuple[Any, Any]]:
    """Start a node with the real model code, of a few thousand weights, and give it an image."""

    def start(**parameters: Any) -> tuple[Any, Any]:
        model = str(save_tiny_model(tmp_path))
        node = start_node(load_pipeline, model=model, device="cpu", **parameters)
        client.connect()
        client.heard.wait("status", lambda msg: msg.state == Status.READY, timeout_s=120.0)
        client.send_image(node, SIZE_WH)
        blockade.is_armed = True
        return node, client

    return start


def change(node: Any, client: Any, *transitions: int) -> bool:
    done = node.begin_transitions(*transitions)
    client.wait_until(done.done)
    return bool(done.result())


def test_a_hung_model_is_an_error_until_the_node_is_configured_anew(
    blockade: Blockade, start_tiny: Callable[..., Any]
) -> None:
    node, client = start_tiny(timeout_s=3.0, stop_grace_s=0.2)
    client.ask("the red mug")
    assert blockade.inside.wait(60.0)
    first = client.heard.wait("result")
    assert first.error_code == SegmentationResult.TIMEOUT
    assert "clean up and configure" in first.error_msg
    reported = client.heard.wait("status", lambda msg: msg.state == Status.ERROR)
    assert "did not stop within 0.2 s" in reported.detail
    for _ in range(2):
        client.ask_and_wait("the red mug", SegmentationResult.MODEL_FAILURE)
    client.wait_until(lambda: node.state_label == "inactive")
    assert not change(node, client, ACTIVATE)
    assert client.heard.all("status")[-1].state == Status.ERROR

    # The old thread still hangs, with the old model and its locks.
    client.heard.forget()
    assert change(node, client, CLEANUP, CONFIGURE, ACTIVATE)
    client.heard.wait("status", lambda msg: msg.state == Status.READY)
    client.send_image(node, SIZE_WH)
    client.ask("the red mug")
    fresh = client.heard.wait("result", timeout_s=60.0)
    assert fresh.error_code == OK, fresh.error_msg

    # What it says in the end is not heard: its query has its result.
    assert blockade.thread is not None
    blockade.gate.set()
    blockade.thread.join(60.0)
    client.ask_and_wait("the red mug", OK)
    assert len(client.heard.all("result")) == 2


def test_a_cancellation_in_a_slow_prefill_is_no_hang(
    blockade: Blockade, start_tiny: Callable[..., Any]
) -> None:
    _, client = start_tiny()
    cancel = client.node.create_client(Trigger, "/segzero/cancel")
    client.wait_until(cancel.service_is_ready)
    client.ask("the red mug")
    assert blockade.inside.wait(60.0)
    assert cancel.call_async(Trigger.Request())
    # The result does not wait for the model.
    first = client.heard.wait("result")
    assert first.error_code == SegmentationResult.CANCELLED
    assert first.error_msg == "cancelled by ~/cancel"
    client.ask("the red mug")
    client.heard.wait("reasoning", lambda msg: msg.query_id == "2")
    blockade.gate.set()
    second = client.heard.wait("result", lambda msg: msg.query_id == "2", timeout_s=60.0)
    assert second.error_code == OK, second.error_msg
    assert Status.ERROR not in [msg.state for msg in client.heard.all("status")]
