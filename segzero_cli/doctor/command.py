"""`segzero doctor`: checks the installation, or with --ros a running node, one line a finding."""

from __future__ import annotations

from collections.abc import Sequence

from segzero_cli.arguments import Parser
from segzero_cli.doctor import checks
from segzero_cli.doctor.findings import Mark


def build_parser() -> Parser:
    """Describe the arguments."""
    parser = Parser(
        prog="segzero doctor",
        examples=["", "--ros --node /segzero"],
        description="Check the installation, or with --ros a running node and the graph around "
        "it. FAIL must be repaired; -- limits what can be done.",
    )
    parser.add_argument("--ros", action="store_true", help="examine the live ROS 2 graph")
    parser.add_argument("--node", default="/segzero", help="with --ros: the node to examine")
    parser.add_argument(
        "--patience", type=float, default=3.0, help="with --ros: longest wait for each check [s]"
    )
    return parser


def main(argv: Sequence[str]) -> int:
    """Run `segzero doctor`; the exit code is 1 when something that is needed fails."""
    arguments = build_parser().parse_args(argv)
    if arguments.ros:
        from segzero_cli.doctor import ros_graph

        return int(not ros_graph.run(arguments.node, arguments.patience))
    failed = False
    for check in checks.CHECKS:
        finding = check()
        failed |= finding.mark is Mark.FAILED
        print(finding, flush=True)
    return int(failed)
