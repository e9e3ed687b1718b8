"""Domains: nobody is in the one that is claimed, and nobody else gets it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from segzero_core.errors import ConfigError
from segzero_ros import ros_domain
from segzero_ros.ros_domain import CLAIM_PORT_BASE, claimed_domain, is_silent

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def domain(monkeypatch: pytest.MonkeyPatch) -> int:
    """Leave a single domain to be claimed, one that is free now."""
    with claimed_domain() as free:
        pass
    monkeypatch.setattr(ros_domain, "DOMAINS", range(free, free + 1))
    return free


def test_tests_run_in_a_domain_of_their_own() -> None:
    assert int(os.environ["ROS_DOMAIN_ID"]) in ros_domain.DOMAINS
    assert os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] == "LOCALHOST"


def test_two_claims_at_the_same_time_get_two_domains() -> None:
    with claimed_domain() as first, claimed_domain() as second:
        assert first != second


def test_another_process_does_not_get_a_claimed_domain(domain: int) -> None:
    other = "from segzero_ros import ros_domain\n"
    other += f"ros_domain.DOMAINS = range({domain}, {domain + 1})\n"
    other += "with ros_domain.claimed_domain(): pass"
    with claimed_domain():
        done = subprocess.run(
            [sys.executable, "-c", other], cwd=ROOT, capture_output=True, text=True, check=False
        )
    assert done.returncode != 0
    assert "ConfigError" in done.stderr


def test_a_domain_can_be_claimed_again_after_its_session(domain: int) -> None:
    for _ in range(2):
        with claimed_domain() as claimed:
            assert claimed == domain


@pytest.mark.parametrize("number", [0, 7, 119], ids="participant {}".format)
def test_a_domain_in_which_a_participant_is_left_over_is_passed_over(
    domain: int, number: int
) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as left_over:
        left_over.bind(("", 7400 + 250 * domain + 10 + 2 * number))
        assert not is_silent(domain)
        with pytest.raises(ConfigError, match="are in use"), claimed_domain():
            pass


def test_a_live_node_is_noticed(client: object) -> None:
    assert not is_silent(int(os.environ["ROS_DOMAIN_ID"]))


def test_a_claim_of_the_test_runner_of_ros_counts(domain: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as claim:
        claim.bind(("", CLAIM_PORT_BASE + domain))
        with pytest.raises(ConfigError, match="are in use"), claimed_domain():
            pass
