"""`segzero view`: shows what a running node sees, thinks and finds in the viewer Rerun."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from segzero_cli.arguments import RECORDING_SUFFIX, Parser, check_output_path, positive


def build_parser() -> Parser:
    """Describe the arguments."""
    parser = Parser(
        prog="segzero view",
        description="Follow a running node over ROS 2 in the viewer Rerun: camera, masks, boxes, "
        "reasoning, depth, objects in space and grasps. Ctrl-C ends it.",
        examples=["", "--save robot.rrd --seconds 60", "--connect rerun+http://laptop:9876/proxy"],
    )
    parser.add_argument("--node", default="/segzero", help="full name (default: /segzero)")
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--save",
        type=Path,
        metavar="OUT.rrd",
        help="write a file instead of starting a viewer; one that is there is replaced",
    )
    where.add_argument("--connect", metavar="URL", help="show it in a viewer that runs already")
    parser.add_argument(
        "--rate", type=float, default=10.0, metavar="HZ", help="at most so many images (10)"
    )
    parser.add_argument("--seconds", type=positive, metavar="N", help="end after this long")
    parser.add_argument("--patience", type=float, default=10.0, help="to find the node [s] (10)")
    return parser


def main(argv: Sequence[str]) -> int:
    """Follow the node until it is interrupted; return the exit code."""
    arguments = build_parser().parse_args(argv)
    from segzero_cli.recording import Recording

    if arguments.save is not None:
        check_output_path(arguments.save, RECORDING_SUFFIX)
    from segzero_cli.view.follower import follow

    follower = follow(
        arguments.node,
        lambda: Recording("arrived", with_space=True, path=arguments.save, url=arguments.connect),
        rate_hz=arguments.rate,
        seconds=arguments.seconds,
        patience_s=arguments.patience,
    )
    where = f": {arguments.save}" if arguments.save else ""
    print(f"{follower.images} images, {follower.answers} answers{where}", flush=True)
    return 0
