"""``qartsr serve`` in a storm of requests, sound, damaged, large, slow and cut off: afterwards it is what it was."""

from __future__ import annotations

import atexit
import base64
import functools
import http.client
import io
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import NamedTuple

import numpy as np
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

from tests.chaos.damage import Trial, damaged
from tests.chaos.stages import TRACE
from tests.conftest import ROOT
from tests.pipelines.alive import until

_CLIENTS, _REQUESTS = 16, 12
"""of a storm; of each client"""
_LIMITS = {"--max-waiting": 6, "--max-megabytes": 1, "--max-pixels": 2000}
_MAY: dict[str, set[int]] = {
    "sound": {200, 429},
    "two in one": {200, 429},
    "damaged": {200, 400, 413, 429},
    "of many pixels": {413, 429},
    "of many bytes": {413, 429, 0},  # 0: it hangs up while the rest is sent
    "no HTTP": {400, 0},
    "nowhere": {404},
    "looking on": {200},
}
"""what may be answered to each kind of request; to one that is cut off, nothing"""
SAID: Counter[str] = Counter()
"""answers"""


class Server(NamedTuple):
    """One process, for the whole campaign."""

    process: subprocess.Popen[bytes]
    place: tuple[str, int]
    log: Path
    answers: dict[bytes, bytes]
    """picture files, and what each becomes"""
    memory: list[int]
    """MB after each storm"""

    def ask(self, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
        """Status and answer; 0 where the server hung up."""
        line = http.client.HTTPConnection(*self.place, timeout=900)
        try:
            line.request(method, path, body or None)
            answer = line.getresponse()
            return answer.status, answer.read()
        except (ConnectionError, http.client.RemoteDisconnected):
            return 0, b""
        finally:
            line.close()

    def inside(self) -> float:
        """Requests that the server counts as being there."""
        families = text_string_to_metric_families(self.ask("GET", "/metrics")[1].decode())
        return next(each.value for family in families for each in family.samples if "inside" in each.name)

    def megabytes(self, field: str) -> int:
        """VmRSS or VmHWM."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition(f"{field}:")[2].split()[0]) // 1024


def _picture(width: int, height: int) -> bytes:
    buffer, pixels = io.BytesIO(), np.random.default_rng(width).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@functools.cache
def server() -> Server:
    """The package that comes with the repository, by the engine that `qartsr serve` takes."""
    folder = Path(tempfile.mkdtemp(prefix="chaos-served-"))
    words = ["serve", str(ROOT / "weights" / "w4a4"), "--port", "0", "--threads", "1", "--log", "json"]
    for option, value in _LIMITS.items():
        words += [option, str(value)]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "qartsr.cli", *words], stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )
    atexit.register(process.kill)
    assert until(lambda: "the model is loaded" in (folder / "log").read_text(), 600), (folder / "log").read_text()
    host, port = json.loads((folder / "log").read_text().splitlines()[0])["address"].removeprefix("http://").split(":")
    made = Server(process, (host, int(port)), folder / "log", {}, [])
    for size in ((24, 16), (16, 24), (32, 32)):
        status, png = made.ask("POST", "/upscale", _picture(*size))
        assert status == 200, png
        made.answers[_picture(*size)] = png
    return made


def _sound(random: Random) -> tuple[int, bytes]:
    picture, made = random.choice(list(server().answers.items()))
    status, png = server().ask("POST", "/upscale", picture)
    assert status != 200 or png == made, "another picture"
    return status, png


def _two(random: Random) -> tuple[int, bytes]:
    picture, made = random.choice(list(server().answers.items())[:2])
    rows = [{"image": base64.b64encode(picture).decode()}] * 2
    status, body = server().ask("POST", "/invocations", json.dumps({"dataframe_records": rows}).encode())
    if status == 200:
        assert [base64.b64decode(row["image"]) for row in json.loads(body)["predictions"]] == [made, made]
    return status, body


def _cut(random: Random) -> tuple[int, bytes]:
    """Half a request, or a whole one that nobody waits for."""
    picture = random.choice(list(server().answers))
    text = b"POST /upscale HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(picture), picture)
    with socket.create_connection(server().place) as line:
        line.sendall(text[: random.choice((len(text), random.randrange(len(text))))])
        line.settimeout(random.random())
        try:
            line.recv(1)
        except (TimeoutError, ConnectionError):
            return -1, b""
    return -1, b""


def _junk(random: Random) -> tuple[int, bytes]:
    with socket.create_connection(server().place, timeout=60) as line:
        try:
            line.sendall(random.randbytes(200) + b"\r\n\r\n")
            said = line.recv(1000)
        except ConnectionError:
            return 0, b""
    return int(said.split()[1]) if said else 0, said


def _odd(random: Random) -> tuple[int, bytes]:
    return server().ask("POST", "/upscale", damaged(random.choice(list(server().answers)), random))


_ASK: dict[str, Callable[[Random], tuple[int, bytes]]] = {
    "sound": _sound,
    "two in one": _two,
    "damaged": _odd,
    "of many pixels": lambda random: server().ask("POST", "/upscale", _picture(80, 60)),
    "of many bytes": lambda random: server().ask("POST", "/upscale", bytes((1 << 20) + 1)),
    "no HTTP": _junk,
    "nowhere": lambda random: server().ask("GET", "/" + random.randbytes(20).hex()),
    "looking on": lambda random: server().ask("GET", random.choice(("/metrics", "/readyz", "/healthz"))),
    "cut off": _cut,
}


def _client(random: Random) -> Counter[str]:
    found: Counter[str] = Counter()
    for _ in range(_REQUESTS):
        kind = random.choice(list(_ASK))
        status, body = _ASK[kind](random)
        assert kind not in _MAY or status in _MAY[kind], f"{kind}: {status} {body[:300]!r}"
        if status >= 400 and kind not in ("no HTTP", "nowhere"):
            assert json.loads(body)["message"], kind
        found[f"{kind} {status}" if kind in _MAY else kind] += 1
    return found


def storm(random: Random, folder: Path) -> None:
    """Whatever came: nobody is inside, it is ready, and gives the same pictures."""
    kept = server()
    with ThreadPoolExecutor(_CLIENTS) as pool:
        for found in pool.map(_client, [Random(random.random()) for _ in range(_CLIENTS)]):
            SAID.update(found)
    assert until(lambda: kept.inside() == 0, 120), "somebody who has gone is still inside"
    assert kept.ask("GET", "/readyz")[0] == 200 and kept.process.poll() is None
    assert all(kept.ask("POST", "/upscale", picture) == (200, made) for picture, made in kept.answers.items())
    assert TRACE not in kept.log.read_text(), kept.log.read_text()[-3000:]
    kept.memory.append(kept.megabytes("VmRSS"))
    assert kept.memory[-1] < 1.5 * kept.memory[0], f"MB after each storm: {kept.memory}"


def told() -> str:
    """What was answered, and what the server took."""
    if not SAID:
        return ""
    said = ", ".join(f"{what} {count}" for what, count in SAID.most_common())
    first, last = server().memory[0], server().memory[-1]
    return f"answers: {said}; the server has {first} MB after a storm, {last} MB after {len(server().memory)}"


SERVED: dict[str, Trial] = {"a server under load": storm}
