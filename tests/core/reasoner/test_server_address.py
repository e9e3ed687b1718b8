"""The address of a reasoner on a server: what it names, and what is refused."""

from __future__ import annotations

import pytest

from segzero_core import ConfigError
from segzero_core.reasoner.server_address import ServerAddress, is_server_address


@pytest.mark.parametrize(
    ("name", "url", "served", "described"),
    [
        ("http://h:8000/v1#Qwen/Q", "http://h:8000/v1", "Qwen/Q", "Qwen/Q"),
        ("https://h/v1/#a=Qwen/Q", "https://h/v1", "a", "Qwen/Q"),
        ("http://[::1]:80/v1#m", "http://[::1]:80/v1", "m", "m"),
    ],
)
def test_an_address_names_server_and_model(
    name: str, url: str, served: str, described: str
) -> None:
    address = ServerAddress.parse(name)

    assert (address.url, address.served_name, address.described_as) == (url, served, described)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("http://h:8000/v1", "names a server and no model"),
        ("http://me:secret@h/v1#m", "SEGZERO_API_KEY"),
        ("http:///v1#m", "no address"),
        ("http://h:99999/v1#m", "no address|out of range|Port"),
        ("http://h/v1?key=secret#m", "no address"),
        ("http://h/v1#" + "m" * 3000, "no address"),
        ("http://h/v1#a\nb", "no name"),
        ("ftp://h/v1#m", "no address"),
    ],
)
def test_an_address_that_is_none_is_refused_without_repeating_secrets(
    name: str, words: str
) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        ServerAddress.parse(name)
    assert "secret@" not in str(caught.value)


@pytest.mark.parametrize("name", ["tabletop", "Qwen/Qwen3-VL-8B-Instruct", "/models/http"])
def test_other_names_are_no_addresses(name: str) -> None:
    assert not is_server_address(name)
