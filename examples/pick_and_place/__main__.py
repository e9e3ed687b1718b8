"""Carry out an order with an arm over ROS; segzero and the arm run already.

    python -m examples.pick_and_place.ros.panda_node &               # the simulated Panda
    python -m examples.pick_and_place --episode libero_spatial 0 0   # its order, and the judge
    python -m examples.pick_and_place "put the bowl on the plate" --base panda_link0

Exit code 0: done; 1: not done, with the reason; 2: it could not be tried; 130: interrupted, the
motion cancelled.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import fields

import rclpy
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from examples.pick_and_place.client import Client
from examples.pick_and_place.interfaces import RobotError
from examples.pick_and_place.ros.eyes import RosEyes
from examples.pick_and_place.ros.robot import Names, SimulatedRobot
from segzero_core.errors import printable
from segzero_ros.executor import ExecutorThread
from segzero_ros.srv import BeginEpisode


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="pick_and_place",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("order", nargs="?", help="default: the episode's")
    parser.add_argument(
        "--episode", nargs=3, metavar=("SUITE", "TASK", "STATE"), help="of the simulated arm"
    )
    parser.add_argument("--segzero", default="/segzero", help="the node that answers")
    for each in fields(Names):
        several = {"nargs": "+"} if each.name == "fingers" else {}
        name = f"--{each.name.replace('_', '-')}"
        parser.add_argument(name, default=each.default, help=f"default: {each.default}", **several)
    parser.add_argument("--patience", type=float, default=60.0, help="for any answer [s]")
    args = parser.parse_args(argv)
    if not args.order and not args.episode:
        parser.error("an order or an --episode is needed")
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    node = Node("pick_and_place")
    names = Names(**{each.name: getattr(args, each.name) for each in fields(Names)})
    robot = SimulatedRobot(node, names, args.patience)
    eyes = RosEyes(node, args.segzero, args.patience)
    spinner = ExecutorThread(node)
    try:
        return _carry_out(args, robot, eyes)
    except (RobotError, ValueError) as error:
        print(f"pick_and_place: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\npick_and_place: interrupted", file=sys.stderr)
        return 130
    finally:
        spinner.stop()
        node.destroy_node()
        rclpy.try_shutdown()


def _carry_out(args: argparse.Namespace, robot: SimulatedRobot, eyes: RosEyes) -> int:
    order = args.order
    if args.episode:
        suite, task, state = args.episode
        request = BeginEpisode.Request(suite=suite, task=int(task), state=int(state))
        instruction = robot.begin(request)
        order = order or instruction
    print(f"“{printable(order)}”")
    outcome = Client(robot, eyes).carry_out(order)
    done = outcome.done
    print(f"{outcome.fault.value} {printable(outcome.about)}".rstrip())
    if args.episode:
        done = robot.end().succeeded
        print("the task's goal holds" if done else "the task's goal does not hold")
    return int(not done)


if __name__ == "__main__":
    sys.exit(main())
