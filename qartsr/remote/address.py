"""Addresses that carry a user and a password, which no message may show."""

from __future__ import annotations

import base64
import re
import urllib.parse

from qartsr.errors import QartsrError

_HOST = re.compile(r"([\w.~%-]*|\[[\da-fA-F:.]+\])(:\d*)?")
_HEAD = re.compile(r"(?i)[a-z][a-z0-9+.-]*://|https?:/?|/*")
"""What an address begins with, and what is left of it where somebody mistyped it."""
_USER = re.compile(r"(?<=://)[^\s\"'<>]*@")


def split_user(address: str) -> tuple[str, str]:
    """The address without user and password, and the header that authorizes with them; empty without.

    A password may hold ``/``, ``?`` and ``#`` as they are, where what comes before them is no host and port.
    """
    found = _HEAD.match(address)
    head = found[0] if found else ""
    rest = address[len(head) :]
    place = re.split("[/?#]", rest, maxsplit=1)[0]
    if "@" not in place and not _HOST.fullmatch(place):
        place = rest
    user, at, host = place.rpartition("@")
    if not at:
        return address, ""
    name, _, password = user.partition(":")
    pair = f"{urllib.parse.unquote(name)}:{urllib.parse.unquote(password)}"
    return f"{head}{host}{rest[len(place) :]}", "Basic " + base64.b64encode(pair.encode()).decode()


def demand_bare(address: str, variable: str, do: str) -> None:
    """Raise QartsrError for an address with a query or a fragment, which often is a password."""
    plain = split_user(address)[0]
    bare = re.split("[?#]", plain, maxsplit=1)[0]
    if bare != plain:
        shown = "the address" if "@" in plain else bare
        raise QartsrError(f"{shown} is followed by a query", variable, f"end it where its path ends; {do}")


def without_secrets(address: str) -> str:
    """What may be told of something that is no address: without all that can be a user, a password or a query."""
    head = re.match(r"(?i)[a-z][a-z0-9+.-]*://", address)
    before, _, rest = address.rpartition("@")
    plain = f"{head[0]}{rest}" if head and before else rest
    return re.split("[?#]", plain, maxsplit=1)[0] or "what it says"


def without_users(text: str) -> str:
    """``text`` of another library with the addresses in it shown as :func:`split_user` shows them."""
    return _USER.sub("", text)


def version_page(server: str, model: str, version: int | str) -> str:
    """Of a registered version on an MLflow server, without user and password; empty where the address is none of http.

    It goes into pages and records that others read.
    """
    if not server.startswith(("http://", "https://")):
        return ""
    return f"{split_user(server)[0].rstrip('/')}/#/models/{urllib.parse.quote(model, safe='')}/versions/{version}"
