"""MLflow's documented REST API, version 2.0, in plain HTTP.

MLflow's own client costs 4.4 s of processor time to import (it brings pandas and its model flavours), in every one of
some twenty stages; a call here costs nothing but the call. The tests read everything back with MLflow's own client.
"""

from __future__ import annotations

import base64
import configparser
import http.client
import json
import os
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from qartsr.errors import QartsrError
from qartsr.remote.address import demand_bare, split_user, without_secrets
from qartsr.remote.limit import within

_AGAIN = (429, 502, 503, 504)
_FINAL = (400, 404, 409, 413, 422)
TRACKING, REGISTRY = "MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"
CERTIFICATE, OURS = "MLFLOW_TRACKING_SERVER_CERT_PATH", "MLFLOW_TRACKING_CLIENT_CERT_PATH"
_LIMIT, _LONGEST = "MLFLOW_HTTP_REQUEST_TIMEOUT", 3600
_UNKNOWN = ("MLFLOW_TRACKING_AWS_SIGV4", "MLFLOW_TRACKING_AUTH")
"""Ways to authenticate that MLflow's client has from other packages."""
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


class RefusedError(QartsrError):
    """The server is there and says no: asking again would not help."""


class SilentError(QartsrError):
    """The server does not answer."""


def open_mlflow(most: float = _LONGEST, variable: str = TRACKING) -> Mlflow:
    """The server that an environment variable names, MLFLOW_TRACKING_URI or MLFLOW_REGISTRY_URI.

    As in MLflow's own client, the latter falls back to the former, a user and password in the address are used, and
    MLFLOW_HTTP_REQUEST_TIMEOUT says how many seconds a read may take (10), but not more than ``most``. Raises
    QartsrError when it is unset or not an http(s) address, a certificate is none, or another way to authenticate is
    asked for.
    """
    variable, address = _named(variable)
    if not address:
        raise QartsrError(
            "is not set, so there is no model registry to ask",
            TRACKING,
            "load that of the local services (`make services`, `set -a; . .services/env; set +a`) or name a server",
        )
    if not _is_http(address):
        raise QartsrError(
            f"{without_secrets(address)} is not the address of an MLflow server",
            variable,
            "begin it with http:// or https:// and a host",
        )
    demand_bare(address, variable, "a token goes into MLFLOW_TRACKING_TOKEN")
    for name in _UNKNOWN:
        if _told(name).lower() not in ("", "0", "false"):
            do = "unset it and set MLFLOW_TRACKING_TOKEN, or _USERNAME and _PASSWORD, or name a proxy that signs"
            raise QartsrError("asks for a way to authenticate that qartsr does not have", name, do)
    return Mlflow(address.rstrip("/"), min(most, _seconds()))


def _seconds() -> float:
    told = _told(_LIMIT) or "10"
    if not told.isdecimal() or not 0 < int(told) <= _LONGEST:
        raise QartsrError(f"{told!r} is no number of seconds", _LIMIT, f"set it to one of 1 to {_LONGEST}")
    return float(told)


def registry_address() -> str:
    """Of the server that has the registry, without user and password, for links to it; empty where none is named."""
    return split_user(_named(REGISTRY)[1])[0]


def _named(variable: str) -> tuple[str, str]:
    """The variable that counts, and what it says."""
    variable = variable if _told(variable) else TRACKING
    return variable, _told(variable)


def _told(variable: str) -> str:
    """An environment variable without the line's end that a secret's file brings along."""
    return os.environ.get(variable, "").strip()


class Mlflow:
    """One MLflow server. ``timeout``, in seconds, is for each read of a call, and twice that for the whole.

    A busy server (429, 502-504) is asked thrice.
    """

    def __init__(self, address: str, timeout: float) -> None:
        self.address, self._own = split_user(address)
        self.timeout = timeout
        handlers: list[urllib.request.BaseHandler] = [urllib.request.HTTPSHandler(context=_tls())]
        if urllib.parse.urlsplit(self.address).hostname in _LOOPBACK:
            handlers.append(urllib.request.ProxyHandler({}))
        self._opener = urllib.request.build_opener(*handlers)

    def get(self, path: str, query: Mapping[str, str], absent: bool = False) -> dict[str, Any]:
        """GET ``path``. With ``absent``, what does not exist is an empty answer instead of an error."""
        url = f"{path}?{urllib.parse.urlencode(query)}"
        return self._json("GET", url, None, ("RESOURCE_DOES_NOT_EXIST",) if absent else ())

    def post(self, path: str, body: Mapping[str, Any], present: bool = False) -> dict[str, Any]:
        """POST ``path``. With ``present``, what exists already is an empty answer instead of an error."""
        return self._json("POST", path, body, ("RESOURCE_ALREADY_EXISTS",) if present else ())

    def delete(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """DELETE ``path``; what does not exist is deleted already."""
        return self._json("DELETE", path, body, ("RESOURCE_DOES_NOT_EXIST",))

    def put_artifact(self, path: str, file: Path) -> None:
        """Send ``file`` to the artifact proxy of a server started with --serve-artifacts."""
        url = f"{self.address}/api/2.0/mlflow-artifacts/artifacts/{urllib.parse.quote(path)}"
        self._send(urllib.request.Request(url, file.read_bytes(), method="PUT"), ())

    def _json(self, method: str, path: str, body: Mapping[str, Any] | None, expected: Sequence[str]) -> dict[str, Any]:
        data = None if body is None else json.dumps(body, allow_nan=False).encode()
        request = urllib.request.Request(f"{self.address}/api/2.0/mlflow/{path}", data, method=method)
        request.add_header("Content-Type", "application/json")
        try:
            answer = json.loads(self._send(request, expected) or b"{}")
        except ValueError as error:
            raise self._stranger() from error
        if not isinstance(answer, dict):
            raise self._stranger()
        return answer

    def _send(self, request: urllib.request.Request, expected: Sequence[str]) -> bytes:
        if value := self._own or _authorization():
            request.add_unredirected_header("Authorization", value)
        for pause in (0.5, 1.0, None):
            try:
                return within(2 * self.timeout, lambda: self._answer(request), len(_body(request)))
            except urllib.error.HTTPError as error:
                with error:
                    if pause is not None and error.code in _AGAIN:
                        time.sleep(pause)
                        continue
                    return self._refusal(error, self._reason(error), expected)
            except (
                OSError,
                http.client.HTTPException,
                ValueError,
            ) as error:  # an answer that is not HTTP, or a request
                raise self._silence(error) from error
        raise AssertionError("unreachable")

    def _answer(self, request: urllib.request.Request) -> bytes:
        with self._opener.open(request, timeout=self.timeout) as answer:
            return answer.read()

    def _reason(self, error: urllib.error.HTTPError) -> str:
        """The text of a refusal, as far as it comes."""
        try:
            return within(self.timeout, error.read).decode(errors="replace")
        except (OSError, http.client.HTTPException):
            return ""

    def _silence(self, error: Exception) -> QartsrError:
        cause = getattr(error, "reason", error)
        if isinstance(cause, ssl.SSLCertVerificationError):
            what = f"MLflow's certificate is not trusted ({cause.verify_message})"
            do = f"name its authority's PEM file in {CERTIFICATE} (or REQUESTS_CA_BUNDLE)"
            return SilentError(what, self.address, do)
        do = "start the local services with `make services`, or check MLFLOW_TRACKING_URI and the server"
        return SilentError(f"MLflow does not answer ({str(cause).strip()})", self.address, do)

    def _stranger(self) -> QartsrError:
        return QartsrError("answers, but not as an MLflow server", self.address, "check MLFLOW_TRACKING_URI")

    def _refusal(self, error: urllib.error.HTTPError, text: str, expected: Sequence[str]) -> bytes:
        """An empty answer for an expected refusal, else an error in the server's words."""
        try:
            answer = json.loads(text)
            code, message = str(answer["error_code"]), str(answer.get("message", ""))
        except (ValueError, KeyError, TypeError):
            code, message = f"HTTP {error.code}", text
        if code in expected:
            return b""
        if error.code in (401, 403):
            advice = "check MLFLOW_TRACKING_USERNAME and _PASSWORD or _TOKEN, and the server's --allowed-hosts"
        else:
            advice = "see the server's log"
        first = message.strip().splitlines()[0][:300] if message.strip() else "no reason given"
        kind = RefusedError if error.code in _FINAL else QartsrError
        raise kind(f"MLflow refuses ({code}: {first.rstrip('.')})", self.address, advice) from error


def _body(request: urllib.request.Request) -> bytes:
    return request.data if isinstance(request.data, bytes) else b""


def _is_http(address: str) -> bool:
    try:
        parts = urllib.parse.urlsplit(split_user(address)[0])
        return parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        return False


def _authorization() -> str:
    """From the environment variables that MLflow's own client reads, or its file ``~/.mlflow/credentials``."""
    names = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")
    stored = configparser.ConfigParser(interpolation=None)
    with suppress(OSError, RuntimeError, ValueError, configparser.Error):  # the second: no home
        stored.read(Path.home() / ".mlflow" / "credentials", encoding="utf-8")
    user, password = (_told(name) or stored.get("mlflow", name.lower(), fallback="") for name in names)
    token = _told("MLFLOW_TRACKING_TOKEN")
    if user and password:
        pair = f"{user}:{password}"
        return "Basic " + base64.b64encode(pair.encode()).decode()
    return f"Bearer {token}" if token else ""


def _tls() -> ssl.SSLContext:
    """Certificates are checked with those MLflow's client, and `requests` below it, would be told to use."""
    variable = next((name for name in (CERTIFICATE, "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE") if _told(name)), "")
    place = _told(variable) if variable else ""
    try:
        if _told("MLFLOW_TRACKING_INSECURE_TLS").lower() in ("true", "1"):
            context = ssl._create_unverified_context()
        elif place and Path(place).is_dir():
            context = ssl.create_default_context(capath=place)
        else:
            context = ssl.create_default_context(cafile=place or None)
        if own := _told(OURS):
            variable, place = OURS, own
            context.load_cert_chain(
                own, password=""
            )  # without one, that of an encrypted key is asked for at a terminal
    except OSError as error:
        do = "name a PEM file" + (" with a certificate and its key, not encrypted" if variable == OURS else "")
        raise QartsrError(f"{place} is not a certificate ({error.strerror})", variable, do) from error
    return context
