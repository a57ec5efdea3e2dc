"""MLflow's REST interface: answers, refusals, and servers that are away, slow, or something else."""

from __future__ import annotations

import base64
import json
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from qartsr.errors import QartsrError, printable
from qartsr.remote import REGISTRY, Mlflow, RefusedError, open_mlflow, open_store, registry_address
from qartsr.remote.address import split_user, version_page, without_users
from qartsr.remote.mlflow import _authorization
from tests.relay import Relay, Trickle, closed_port


class Script(HTTPServer):
    """Answers one request after another as it is told, and notes the authorization of each."""

    def __init__(self, *answers: tuple[int, str]) -> None:
        super().__init__(("127.0.0.1", 0), _Reader)
        self.answers, self.heard = list(answers), list[str]()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def __enter__(self) -> Script:
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.shutdown()
        self.server_close()


class _Reader(BaseHTTPRequestHandler):
    server: Script

    def do_GET(self) -> None:
        self.server.heard.append(self.headers.get("Authorization", ""))
        status, body = self.server.answers.pop(0)
        self.send_response(status)
        if 300 <= status < 400:
            self.send_header("Location", body)
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def refused(sentence: str, seconds: float = 30.0) -> Iterator[None]:
    began = time.monotonic()
    with pytest.raises(QartsrError, match=sentence) as error:
        yield
    assert time.monotonic() - began < seconds
    assert len(str(error.value).splitlines()) == 1


def _ask(server: Mlflow) -> None:
    server.get("experiments/get-by-name", {"experiment_name": "none"}, absent=True)


@pytest.mark.services
def test_absence_and_presence_can_be_expected(servers: dict[str, str]) -> None:
    server, name = open_mlflow(), f"test-{uuid.uuid4()}"
    query = {"experiment_name": name}
    assert server.get("experiments/get-by-name", query, absent=True) == {}
    with pytest.raises(RefusedError, match=r"MLflow refuses \(RESOURCE_DOES_NOT_EXIST: .*see the server's log"):
        server.get("experiments/get-by-name", query)
    number = server.post("experiments/create", {"name": name})["experiment_id"]
    assert server.post("experiments/create", {"name": name}, present=True) == {}
    with pytest.raises(RefusedError, match="RESOURCE_ALREADY_EXISTS"):
        server.post("experiments/create", {"name": name})
    assert server.get("experiments/get-by-name", query)["experiment"]["experiment_id"] == number
    assert server.delete("model-versions/delete", {"name": name, "version": "1"}) == {}


@pytest.mark.services
def test_a_proxy_is_not_asked_for_this_machine(servers: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    with closed_port() as proxy:
        monkeypatch.setenv("http_proxy", proxy)
        monkeypatch.delenv("no_proxy", raising=False)
        _ask(open_mlflow())


@pytest.mark.parametrize("address", ["sqlite:///mlflow.db", "./mlruns", "127.0.0.1:5500", "http://", "http://[::1"])
def test_no_address(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    with refused("MLFLOW_TRACKING_URI: .* is not the address of an MLflow server"):
        open_mlflow()


def test_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with refused("MLFLOW_TRACKING_URI: is not set, so there is no model registry to ask"):
        open_mlflow()


def test_a_certificate_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://mlflow.example")
    monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", "/no/such.pem")
    with refused("MLFLOW_TRACKING_SERVER_CERT_PATH: /no/such.pem is not a certificate"):
        open_mlflow()


def test_nobody_there() -> None:
    with closed_port() as address, refused(f"{address}: MLflow does not answer .*Connection refused"):
        _ask(Mlflow(address, 5))


@pytest.mark.parametrize("address", ["http://127.0.0.1:abc", "http://a b"])
def test_an_address_that_cannot_be_asked(address: str) -> None:
    with refused("MLflow does not answer"):
        _ask(Mlflow(address, 5))


def test_somebody_there_who_never_answers() -> None:
    with Relay("http://127.0.0.1:1") as relay:
        relay.mute()
        with refused("MLflow does not answer .timed out"):
            _ask(Mlflow(relay.address, 0.5))


def test_somebody_there_who_speaks_something_else() -> None:
    with socket.create_server(("127.0.0.1", 0)) as stranger:

        def greet() -> None:
            with stranger.accept()[0] as guest:
                guest.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
                guest.recv(1000)

        threading.Thread(target=greet).start()
        with refused("MLflow does not answer .*SSH"):
            _ask(Mlflow(f"http://127.0.0.1:{stranger.getsockname()[1]}", 5))


@pytest.mark.parametrize("body", ["<html>welcome</html>", "[]", '"yes"'])
def test_another_web_server(body: str) -> None:
    with Script((200, body)) as server, refused("answers, but not as an MLflow server; check MLFLOW_TRACKING_URI"):
        _ask(Mlflow(server.address, 5))


@pytest.mark.parametrize("body", ["<html>no\nsuch page</html>", "[]", "{}", ""])
def test_a_refusal_that_is_not_mlflows(body: str) -> None:
    with Script((404, body)) as server, refused("MLflow refuses .HTTP 404: "):
        _ask(Mlflow(server.address, 5))


@pytest.mark.parametrize("status", [401, 403])
def test_a_forbidden_door_comes_with_a_hint(status: int) -> None:
    """403 is also what MLflow says to a host name it was not told to trust, such as a service name in a cluster."""
    with Script((status, "Invalid Host header")) as server, refused("Invalid Host header.*TOKEN.*--allowed-hosts"):
        _ask(Mlflow(server.address, 5))


def test_a_busy_server_is_asked_again() -> None:
    with Script((503, "busy"), (429, "busy"), (200, "{}")) as server:
        _ask(Mlflow(server.address, 5))
    assert server.answers == []


def test_a_server_that_stays_busy_is_asked_thrice() -> None:
    with Script(*[(503, "out of\norder")] * 4) as server, refused("MLflow refuses .HTTP 503: out of.;"):
        _ask(Mlflow(server.address, 5))
    assert len(server.answers) == 1


def test_only_a_final_refusal_is_one() -> None:
    """Metrics that are refused are dropped; those of a server in trouble are kept."""
    for status, final in ((400, True), (404, True), (401, False), (500, False)):
        answer = (status, json.dumps({"error_code": "X", "message": "y"}))
        with Script(answer) as server, pytest.raises(QartsrError) as error:
            _ask(Mlflow(server.address, 5))
        assert isinstance(error.value, RefusedError) is final


@pytest.mark.parametrize(
    ("variables", "header"),
    [
        ({"MLFLOW_TRACKING_USERNAME": "me", "MLFLOW_TRACKING_PASSWORD": "secret"}, "Basic bWU6c2VjcmV0"),
        ({"MLFLOW_TRACKING_TOKEN": "token"}, "Bearer token"),
        ({}, ""),
    ],
)
def test_credentials_go_to_the_server_and_no_further(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], header: str
) -> None:
    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with Script((200, "{}")) as elsewhere, Script((302, elsewhere.address)) as server:
        _ask(Mlflow(server.address, 5))
    assert server.heard == [header] and elsewhere.heard == [""]


def test_a_password_in_the_address_is_used_and_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """As MLflow's client does, before what the other variables say; a secret's file ends in a line's end."""
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "another")
    with Script((200, "{}"), (400, "no"), (200, "no JSON")) as server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.address.replace("//", "//jane:top%40secret@") + "\n")
        mlflow = open_mlflow()
        _ask(mlflow)
        for _ in range(2):
            with pytest.raises(QartsrError) as error:
                _ask(mlflow)
            assert "secret" not in str(error.value) and server.address in str(error.value)
    assert server.heard == ["Basic amFuZTp0b3BAc2VjcmV0"] * 3
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "ftp://jane:secret@host")
    with pytest.raises(QartsrError, match="MLFLOW_TRACKING_URI: ftp://host is not the address"):
        open_mlflow()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://host:1/?token=secret")
    with pytest.raises(QartsrError, match=r"http://host:1/ is followed by a query; .* goes into MLFLOW_TRACKING_TOKEN"):
        open_mlflow()


@pytest.mark.parametrize("password", ["p%2Fsecret", "p/secret", "p#secret?x", "a@secret"])
def test_no_message_shows_a_password(password: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Percent-encoded or as it is, in our words and in those of boto3, which quotes the whole address."""
    from urllib.parse import unquote

    header = "Basic " + base64.b64encode(f"jane:{unquote(password)}".encode()).decode()
    path = "" if set("/#?") & set(password) else "/sub?a=b@c"
    assert split_user(f"http://jane:{password}@127.0.0.1:9{path}") == (f"http://127.0.0.1:9{path}", header)
    assert without_users(f'no: "http://jane:{password}@127.0.0.1:9/b", x') == 'no: "http://127.0.0.1:9/b", x'
    for plain in ("http://h:80/a@b", "https://[::1]:80/@", "http://127.0.0.1:9", "sqlite:///a@b"):
        assert split_user(plain) == (plain, "")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://jane:{unquote(password)}@127.0.0.1:9")
    monkeypatch.delenv("MLFLOW_S3_ENDPOINT_URL", raising=False)
    with pytest.raises(QartsrError) as error:
        open_store("", "key", "word", "us-east-1").demand("bucket")
    assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    "address",
    [
        "jane:secret@h:9",
        "//jane:secret@h",
        "http:/jane:secret@h",
        "HTTP:secret@h:9",
        "ttp:///secret@h",
        "http//secret@h",
    ],
)
def test_nor_where_the_address_is_none(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_S3_ENDPOINT_URL", raising=False)
    for variable, open_it in (("MLFLOW_TRACKING_URI", open_mlflow), ("AWS_ENDPOINT_URL_S3", open_store)):
        for each in (
            address,
            "http://jane:sec ret secret@127.0.0.1:9/#secret",
            "http://127.0.0.1:9?k=secret",
            "http://jane:12#secret@h",
        ):
            monkeypatch.setenv(variable, each)
            with pytest.raises(QartsrError) as error:
                open_it()
            assert "secret" not in str(error.value) and "jane" not in str(error.value)


def test_nor_where_it_is_a_word_of_the_command_line() -> None:
    told = str(QartsrError("is not there", "s3://jane:secret@bucket/a@2x.png", "see hf://secret@host"))
    assert told == "s3://bucket/a@2x.png: is not there; see hf://host."
    for address in ("http:/jane:secret@h/x", "ttp:///secret@h", "http//jane:secret@h"):
        assert str(QartsrError("is no file", address, "look")).count("secret") == 0
    for path in ("a//b@2x.png", "c:/d@2x.png".upper(), "//host/share/a@2x.png", "models:/qartsr-w4a4@champion"):
        assert printable(path) == path


def test_the_registry_may_be_another_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracking")
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", " ")
    assert open_mlflow(variable=REGISTRY).address == "http://tracking"
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", "http://registry")
    assert open_mlflow(variable=REGISTRY).address == "http://registry"
    assert open_mlflow().address == "http://tracking"


def test_whose_certificates_are_trusted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://host")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "none.pem"))
    with pytest.raises(QartsrError, match=r"REQUESTS_CA_BUNDLE: .*none\.pem is not a certificate"):
        open_mlflow()
    monkeypatch.setenv("MLFLOW_TRACKING_INSECURE_TLS", "true")
    open_mlflow()
    monkeypatch.setenv("MLFLOW_TRACKING_CLIENT_CERT_PATH", str(tmp_path / "mine.pem"))
    with pytest.raises(QartsrError, match=r"CLIENT_CERT_PATH: .*mine\.pem is not a certificate"):
        open_mlflow()


def test_the_other_settings_of_mlflows_client(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A file of credentials, behind the environment's; a time limit; a way to authenticate that is not had here."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".mlflow").mkdir()
    (tmp_path / ".mlflow" / "credentials").write_text(
        "[mlflow]\nmlflow_tracking_username = jane\nmlflow_tracking_password = 50%\n"
    )
    for name in ("USERNAME", "PASSWORD", "TOKEN"):
        monkeypatch.delenv(f"MLFLOW_TRACKING_{name}", raising=False)
    with Script((200, "{}"), (200, "{}")) as server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.address)
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "7")
        assert open_mlflow().timeout == 7
        _ask(open_mlflow())
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "john")
        _ask(open_mlflow())
        sent = [base64.b64decode(each.removeprefix("Basic ")) for each in server.heard]
    assert sent == [b"jane:50%", b"john:50%"]
    (tmp_path / ".mlflow" / "credentials").unlink()
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "token")
    assert _authorization() == "Bearer token", "a user without a password is none"
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "soon")
    with pytest.raises(QartsrError, match="MLFLOW_HTTP_REQUEST_TIMEOUT: 'soon' is no number of seconds"):
        open_mlflow()
    monkeypatch.setenv("MLFLOW_TRACKING_AWS_SIGV4", "true")
    with pytest.raises(QartsrError, match="MLFLOW_TRACKING_AWS_SIGV4: asks for a way to authenticate"):
        open_mlflow()


def test_a_server_that_answers_byte_by_byte() -> None:
    """Each byte comes in time, the answer never would."""
    with Trickle(b"HTTP/1.0 200 OK\r\nContent-Length: 100000\r\n\r\n") as server:
        began = time.monotonic()
        with refused("MLflow does not answer .it was not over after 1 s"):
            _ask(Mlflow(server.address, 0.5))
        assert time.monotonic() - began < 5


@pytest.mark.parametrize("server", ["https://ann:se/cr@et@host:5000/", "https://host:5000"])
def test_a_version_page_shows_no_password(server: str) -> None:
    assert version_page(server, "a b/c", 3) == "https://host:5000/#/models/a%20b%2Fc/versions/3"
    assert version_page("sqlite:///x.db", "m", 1) == ""


def test_links_lead_to_the_server_that_has_the_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://ann:secret@runs:5000")
    monkeypatch.delenv("MLFLOW_REGISTRY_URI", raising=False)
    assert registry_address() == "http://runs:5000"
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", "http://models:5000\n")
    assert registry_address() == "http://models:5000"
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"):
        monkeypatch.delenv(name)
    assert registry_address() == ""
