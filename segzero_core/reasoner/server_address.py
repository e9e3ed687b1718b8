"""The name of a reasoner on a server: `http://host:8000/v1#Qwen/Qwen3-VL-8B-Instruct`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from segzero_core.errors import ConfigError, shown

_SCHEMES: Final = ("http", "https")
_MAX_CHARS: Final = 2000
_NAME: Final = re.compile(r"[\w.:@+/~ -]{1,400}")
_EXAMPLE: Final = "http://localhost:8000/v1#Qwen/Qwen3-VL-8B-Instruct"


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """Where a reasoner is served, and how it is asked."""

    url: str  # base URL of the OpenAI protocol, such as `http://localhost:8000/v1`
    served_name: str  # what the server calls the model
    # A name whose description tells how the model is asked: a published Hub id, a bundled model,
    # or a folder with a `segzero.json`. The served name, unless the server gives the model a name
    # of its own.
    described_as: str

    @classmethod
    def parse(cls, name: str) -> ServerAddress:
        """Read `URL#SERVED_NAME` or `URL#SERVED_NAME=DESCRIBED_AS`.

        Raises:
            ConfigError: It is no such address, or it holds a user or a password.
        """
        if len(name) > _MAX_CHARS or not is_server_address(name):
            raise ConfigError(f"model {shown(name)} is no address of a server such as {_EXAMPLE}")
        url, _, fragment = name.partition("#")
        served, _, described = fragment.partition("=")
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise ConfigError(f"model {shown(url)}: {error}; expected {_EXAMPLE}") from None
        if parts.username is not None or parts.password is not None:
            # The message must not repeat it.
            raise ConfigError(
                f"model: the address of {shown(str(host))} holds a user or a password, which would"
                " stand in logs; set SEGZERO_API_KEY instead"
            )
        if not host or parts.query or (port is not None and port < 1):
            raise ConfigError(f"model {shown(url)} is no address of a server such as {_EXAMPLE}")
        for text in filter(None, (served, described or served)):
            if not _NAME.fullmatch(text):
                raise ConfigError(f"model: {shown(text)} is no name of a model")
        if not served:
            raise ConfigError(
                f"model {shown(url)} names a server and no model; write {url}#MODEL,"
                f" such as {_EXAMPLE}"
            )
        return cls(url.rstrip("/"), served, described or served)

    @property
    def host(self) -> str:
        """Host and port, for messages."""
        return urlsplit(self.url).netloc

    @property
    def is_private(self) -> bool:
        """Say whether nobody between can read what is sent: TLS, or this machine itself."""
        parts = urlsplit(self.url)
        return parts.scheme == "https" or parts.hostname in ("localhost", "127.0.0.1", "::1")

    def __str__(self) -> str:
        same = self.described_as == self.served_name
        return f"{self.url}#{self.served_name}" + ("" if same else f"={self.described_as}")


def is_server_address(name: str) -> bool:
    """Say whether a model's name is the address of a server."""
    return name.partition("://")[0].lower() in _SCHEMES and "://" in name
