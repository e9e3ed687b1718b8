"""What all tests share: on a CI machine nothing is skipped for want of a tool."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:
    # Each worker has a core; more threads would wait for each other. Before torch is imported.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

CI = os.environ.get("CI", "").lower() in ("1", "true", "yes")
MISSING_TOOL = ("renderer", "rclpy", "wheel", "mujoco", "could not import")


@pytest.fixture(scope="session", autouse=True)
def cache_of_the_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Fixtures that serve several tests neither read nor fill the cache of whoever runs them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEGZERO_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def cache(cache_of_the_session: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test, and every process it starts, has a cache of its own."""
    monkeypatch.setenv("SEGZERO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tell xdist what stays in one process: a file, and all tests of ROS.

    Nodes of two sessions find each other slowly when both begin and end all the time.
    """
    for item in items:
        folder = item.path.relative_to(Path(__file__).parent).parts[0]
        item.add_marker(pytest.mark.xdist_group("ros" if folder == "ros" else str(item.path)))


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
