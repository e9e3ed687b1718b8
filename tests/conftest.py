"""What all tests share: on a CI machine nothing is skipped for want of a tool."""

from __future__ import annotations

import os

import pytest

CI = os.environ.get("CI", "").lower() in ("1", "true", "yes")
MISSING_TOOL = ("renderer", "rclpy", "wheel", "mujoco", "could not import")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):
    """Under CI, turn a skip for a missing tool into a failure: a green run must mean something."""
    outcome = yield
    report = outcome.get_result()
    if CI and report.skipped and isinstance(report.longrepr, tuple):
        reason = str(report.longrepr[2])
        if any(word in reason.lower() for word in MISSING_TOOL):
            report.outcome = "failed"
            report.longrepr = f"skipped under CI, which must have everything: {reason}"
