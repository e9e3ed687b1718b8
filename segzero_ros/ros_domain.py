"""Claims a ROS domain, so that a demo or a test is isolated from a robot's graph."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Final

from segzero_core.errors import ConfigError

DOMAINS: Final = range(30, 100)
"""Below 102 all ports of a domain lie under the ephemeral ports of Linux."""

CLAIM_PORT_BASE: Final = 32768
"""Where ROS's own test runner (`domain_coordinator`) keeps its claims, which thus count too."""

_PORT_BASE: Final = 7400
_DOMAIN_GAIN: Final = 250


def _is_free(kind: socket.SocketKind, port: int) -> bool:
    with socket.socket(socket.AF_INET, kind) as probe:
        return _can_bind(probe, port)


def _can_bind(probe: socket.socket, port: int) -> bool:
    try:
        probe.bind(("", port))
    except OSError:
        return False
    return True


def is_silent(domain: int) -> bool:
    """Whether no DDS participant of this machine is in a domain.

    Participants bind ports that follow from the domain and their number (RTPS 2.2, 9.6.1.1). All
    numbers are looked at: of a session that was killed, any process may have been left over.
    """
    first = _PORT_BASE + _DOMAIN_GAIN * domain
    return all(_is_free(socket.SOCK_DGRAM, port) for port in range(first, first + _DOMAIN_GAIN))


@contextmanager
def claimed_domain() -> Iterator[int]:
    """Hold a domain in which nobody is, and which nobody else who asks gets meanwhile.

    The claim is a bound socket: the system makes it exclusive, shows it to every container that
    shares this network, and takes it back when the process ends, however it ends.

    Raises:
        ConfigError: All domains are in use.
    """
    # From a random place, so that a domain is not used again right after its last session.
    start = random.randrange(len(DOMAINS))
    with ExitStack() as claims:
        for domain in [*DOMAINS[start:], *DOMAINS[:start]]:
            claim = claims.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
            if _can_bind(claim, CLAIM_PORT_BASE + domain) and is_silent(domain):
                break
            claim.close()
        else:
            raise ConfigError(
                f"all ROS domains from {DOMAINS.start} to {DOMAINS.stop - 1} are in use on this "
                "machine; end what is left over there"
            )
        yield domain


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
