"""A ROS graph of one's own, so that a demo or a test neither hears nor disturbs a robot."""

from __future__ import annotations

import random
import socket
from typing import Final

DOMAINS: Final = range(30, 100)
"""Below 102 all ports of a domain lie under the ephemeral ports of Linux."""

_PORT_BASE: Final = 7400
_DOMAIN_GAIN: Final = 250
_UNICAST_DISCOVERY_OFFSET: Final = 10


def free_domain_id() -> int:
    """Find a domain in which no participant of this machine listens.

    A DDS participant binds a port that follows from the domain (RTPS 2.2, 9.6.1.1); where the
    first participant's is free, the domain is. Somebody may still take it before the caller does.

    Raises:
        RuntimeError: All domains are in use.
    """
    # From a random place, because two callers at the same moment would otherwise agree.
    start = random.randrange(len(DOMAINS))
    for domain in [*DOMAINS[start:], *DOMAINS[:start]]:
        port = _PORT_BASE + _DOMAIN_GAIN * domain + _UNICAST_DISCOVERY_OFFSET
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind(("", port))
            except OSError:
                continue
        return domain
    raise RuntimeError(f"all ROS domains from {DOMAINS.start} to {DOMAINS.stop - 1} are in use")


def isolated_environment() -> dict[str, str]:
    """Return environment variables that keep a process in an unused domain of this machine."""
    return {
        "ROS_DOMAIN_ID": str(free_domain_id()),
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
    }
