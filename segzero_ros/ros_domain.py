"""Claims a ROS domain, so that a demo or a test is isolated from a robot's graph."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Final

from segzero_core.errors import ConfigError

DOMAINS: Final = range(30, 100)
"""Below 102 all ports of a domain lie under the ephemeral ports of Linux."""

CLAIM_PORT_BASE: Final = 32768
"""Where ROS's own test runner (`domain_coordinator`) keeps its claims, which thus count too."""

_PORT_BASE: Final = 7400
_DOMAIN_GAIN: Final = 250


def _bind(kind: socket.SocketKind, port: int) -> socket.socket | None:
    """Return a socket at a port; None where another program holds it."""
    bound = socket.socket(socket.AF_INET, kind)
    try:
        bound.bind(("", port))
    except OSError:
        bound.close()
        return None
    return bound


def is_silent(domain: int) -> bool:
    """Whether no DDS participant of this machine is in a domain.

    Participants bind ports that follow from the domain and their number (RTPS 2.2, 9.6.1.1). All
    numbers are looked at: of a session that was killed, any process may have been left over.
    """
    first = _PORT_BASE + _DOMAIN_GAIN * domain
    for port in range(first, first + _DOMAIN_GAIN):
        if (probe := _bind(socket.SOCK_DGRAM, port)) is None:
            return False
        probe.close()
    return True


@contextmanager
def claimed_domain() -> Iterator[int]:
    """Claim an unused domain that no other caller gets at the same time.

    The claim is a bound socket: the system makes it exclusive, shows it to every container that
    shares this network, and takes it back when the process ends, however it ends.

    Raises:
        ConfigError: All domains are in use.
    """
    # From a random place, so that a domain is not used again right after its last session.
    start = random.randrange(len(DOMAINS))
    for domain in [*DOMAINS[start:], *DOMAINS[:start]]:
        with _bind(socket.SOCK_STREAM, CLAIM_PORT_BASE + domain) or nullcontext() as claim:
            if claim is not None and is_silent(domain):
                yield domain
                return
    raise ConfigError(
        f"all ROS domains from {DOMAINS.start} to {DOMAINS.stop - 1} are in use on this machine; "
        "end what is left over there"
    )


@contextmanager
def isolated_environment() -> Iterator[dict[str, str]]:
    """Give environment variables that keep processes in a domain of their own, while it is held.

    Peers are looked for on the loopback device by name, not by multicast, which containers often
    lack.
    """
    with claimed_domain() as domain:
        yield {
            "ROS_DOMAIN_ID": str(domain),
            "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
            "ROS_STATIC_PEERS": "",
        }
