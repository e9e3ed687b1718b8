"""Lifecycle node whose transitions run in threads, are refused politely and never fail silently.

Why not `rclpy.lifecycle.LifecycleNode` alone; rclpy 7 (Jazzy):

- runs a transition inside the service's callback, so that nothing else is served while a model
  loads. Here the transition has a thread of its own, and the service awaits it as a coroutine.
- raises through the executor, and so ends the node, when the present state does not allow a
  transition (ros2/rclpy#1209, fixed by #1319 in rclpy 8). Here it is refused with a log line.
- swallows what a transition raises (ros2/rclpy#1673, #1696). Here the traceback is logged.
"""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable
from typing import Any, Final

from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.lifecycle import LifecycleNodeMixin, LifecycleState, TransitionCallbackReturn
from rclpy.node import Node
from rclpy.task import Future

from segzero_ros.executor import wake

SUCCESS: Final = TransitionCallbackReturn.SUCCESS

SHUTDOWNS: Final = frozenset(
    {
        Transition.TRANSITION_UNCONFIGURED_SHUTDOWN,
        Transition.TRANSITION_INACTIVE_SHUTDOWN,
        Transition.TRANSITION_ACTIVE_SHUTDOWN,
    }
)


class TransitionRefusedError(Exception):
    """A transition cannot be made now; the state stays as it was."""


def _callback(name: str, method: str = "") -> Any:
    """Return a transition's callback that calls a method and logs what it raises."""

    def callback(node: ManagedNode, _: LifecycleState) -> TransitionCallbackReturn:
        try:
            getattr(node, method or f"do_{name}")()
        except TransitionRefusedError as refusal:
            node.get_logger().error(f"{name} failed: {refusal}")
            return TransitionCallbackReturn.FAILURE
        except Exception:
            node.get_logger().error(f"{name} failed: {traceback.format_exc()}")
            return TransitionCallbackReturn.ERROR
        node.get_logger().info(f"{name}: done")
        return SUCCESS

    return callback


class ManagedNode(LifecycleNodeMixin, Node):
    """A lifecycle node whose transitions never block its executor and never fail silently.

    Subclasses define `do_configure`, `do_activate` (quick), `do_deactivate`, `do_cleanup` and
    `do_shutdown`. Each runs in a thread of its own. A `TransitionRefusedError` means that the
    transition fails and the state stays; any other exception is logged with its traceback, and
    the node goes to unconfigured by way of `do_cleanup`.
    """

    def __init__(self, name: str, **node_arguments: Any) -> None:
        self._transition_turn = threading.Lock()
        Node.__init__(self, name, **node_arguments)
        # A pending coroutine occupies its group: others must be served meanwhile.
        LifecycleNodeMixin.__init__(self, callback_group=ReentrantCallbackGroup())
        self._service_change_state.callback = self._on_change_state
        self._triggers: dict[int, Callable[[], TransitionCallbackReturn]] = {
            Transition.TRANSITION_CONFIGURE: self.trigger_configure,
            Transition.TRANSITION_CLEANUP: self.trigger_cleanup,
            Transition.TRANSITION_ACTIVATE: self.trigger_activate,
            Transition.TRANSITION_DEACTIVATE: self.trigger_deactivate,
            **dict.fromkeys(SHUTDOWNS, self.trigger_shutdown),
        }

    @property
    def state_label(self) -> str:
        """The state in words, such as `inactive`."""
        return str(self._state_machine.current_state[1])

    def change_state(self, transition_id: int) -> bool:
        """Make a transition in any thread but the executor's; say whether it succeeds."""
        if not self._transition_turn.acquire(blocking=False):
            self.get_logger().warning(
                f"transition {transition_id} refused: another one is under way "
                f"({self.state_label}); ask again when it is over"
            )
            return False
        try:
            allowed = {each[0]: each[1] for each in self._state_machine.available_transitions}
            if transition_id in allowed and transition_id in self._triggers:
                return bool(self._triggers[transition_id]() == SUCCESS)
            names = ", ".join(f"{label} ({number})" for number, label in allowed.items())
            self.get_logger().warning(
                f"transition {transition_id} refused: the node is {self.state_label}, which "
                f"allows {names or 'none'}"
            )
            return False
        except Exception:  # rclpy's own, such as a context that has been shut down
            self.get_logger().error(f"in a transition: {traceback.format_exc()}")
            return False
        finally:
            self._transition_turn.release()

    def begin_transitions(self, *transition_ids: int) -> Future:
        """Make transitions in a thread until one fails; return a future of whether all succeed."""
        done = Future(executor=self.executor)

        def run() -> None:
            done.set_result(all(map(self.change_state, transition_ids)))
            wake(self.executor)  # or a coroutine that awaits the future does not go on

        # A daemon: a load that cannot be interrupted must not keep the process alive.
        threading.Thread(target=run, name="segzero-transition", daemon=True).start()
        return done

    async def _on_change_state(
        self, request: ChangeState.Request, response: ChangeState.Response
    ) -> ChangeState.Response:
        """Serve ~/change_state, in place of rclpy's own callback."""
        wanted = request.transition.id
        if label := request.transition.label:
            # A label wins over the number, as in rclcpp.
            every = self._state_machine.available_transitions
            found = [number for number, name, *_ in every if name == label]
            if not found:
                self.get_logger().warning(
                    f"transition {label!r} refused: the node is {self.state_label}"
                )
                response.success = False
                return response
            wanted = found[0]
        response.success = bool(await self.begin_transitions(wanted))
        return response

    # rclpy calls these on its transitions.
    on_configure, on_activate = _callback("configure"), _callback("activate")
    on_deactivate, on_cleanup = _callback("deactivate"), _callback("cleanup")
    on_shutdown = _callback("shutdown")

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free everything after an exception, so that the node can be configured again."""
        outcome = _callback("error processing", "do_cleanup")(self, state)
        # Not ERROR, which the state machine does not take here; FAILURE means finalized.
        return outcome if outcome == SUCCESS else TransitionCallbackReturn.FAILURE
