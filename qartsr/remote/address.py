"""Addresses that carry a user and a password."""

from __future__ import annotations

import base64
import urllib.parse


def split_user(address: str) -> tuple[str, str]:
    """The address without user and password, which no message may show, and the header that authorizes with them."""
    head, mark, rest = address.partition("://")
    place, slash, path = rest.partition("/")
    user, at, host = place.rpartition("@")
    if not at:
        return address, ""
    name, _, password = user.partition(":")
    pair = f"{urllib.parse.unquote(name)}:{urllib.parse.unquote(password)}"
    return f"{head}{mark}{host}{slash}{path}", "Basic " + base64.b64encode(pair.encode()).decode()
