"""Very many images on a Ray cluster of two nodes on this machine, of which actors, a node and the driver are killed."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from qartsr.bulk import NAME
from qartsr.files import sha256_bytes
from qartsr.remote import open_store
from tests.conftest import ROOT
from tests.packing.test_damage import real
from tests.pipelines.alive import until
from tests.relay import closed_port

pytestmark = [pytest.mark.slow, pytest.mark.cluster]
pytest.importorskip("ray", reason="Ray is not installed; pip install 'qartsr[ray]' -c constraints.txt")

COUNT = int(os.environ.get("QARTSR_RAY_IMAGES", "500"))
HEAD, OTHER, PORT = "127.0.0.3", "127.0.0.2", 16379


def _node(address: str, ports: int, *words: str) -> None:
    """Ray gives a node 30 seconds to start, which are too few on a busy machine: three tries."""
    memory = ["--num-cpus=2", "--object-store-memory=100000000"]
    places = [f"--min-worker-port={ports}", f"--max-worker-port={ports + 99}", f"--node-ip-address={address}"]
    program = str(Path(sys.executable).with_name("ray"))
    for _ in range(3):
        said = subprocess.run(
            [program, "start", *words, *memory, *places, "--disable-usage-stats"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if said.returncode == 0:
            return
        for pid in _pids(f"--node_ip_address={address}"):
            os.kill(pid, signal.SIGKILL)
    raise AssertionError(said.stdout + said.stderr)


def _pids(*parts: str) -> list[int]:
    """Processes whose command line has all these words."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            text = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if all(part in text for part in parts):
            found.append(int(path.parent.name))
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ray")


@pytest.fixture(scope="module")
def cluster(folder: Path) -> Iterator[str]:
    os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": uuid.uuid4().hex + uuid.uuid4().hex}
    try:
        _node(HEAD, 20100, "--head", f"--port={PORT}", "--include-dashboard=false", f"--temp-dir={folder}/r")
        _node(OTHER, 20200, f"--address={HEAD}:{PORT}")
        yield f"{HEAD}:{PORT}"
    finally:
        for words in (f"{folder}/r", f"--address={HEAD}:{PORT}"):  # its own, and the server for drivers from elsewhere
            for pid in _pids(words):
                os.kill(pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def source(servers: dict[str, str]) -> str:
    """A prefix of small pictures, all different."""
    rng, store, place = np.random.default_rng(0), open_store(), uuid.uuid4().hex

    for number in range(COUNT):
        buffer = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(buffer, "PNG")
        store.write(buffer.getvalue(), "qartsr", f"{place}/in/{number:04}.png")
    return place


class Run:
    """A driver, and what lies in its output."""

    def __init__(self, folder: Path, place: str, address: str, actors: int) -> None:
        (folder / "model.safetensors").write_bytes(real())
        self.place, self.target = place, f"{place}/{uuid.uuid4().hex}"
        ends = [f"s3://qartsr/{place}/in/", f"s3://qartsr/{self.target}/"]
        words = ["upscale", *ends, "--model", str(folder / "model.safetensors"), "--engine", "simulated", "--json"]
        self._command = [sys.executable, "-m", "qartsr.cli", *words, "--cluster", "ray", "--actors", str(actors)]
        self._environment = {**os.environ, "RAY_ADDRESS": address, "OMP_NUM_THREADS": "1"}
        self._cache, self._log = folder / "cache", folder / "driver.log"

    def start(self, cache: str = "first") -> subprocess.Popen[str]:
        environment = {**self._environment, "XDG_CACHE_HOME": str(self._cache / self.target.replace("/", "-") / cache)}
        with self._log.open("a") as log:
            return subprocess.Popen(
                self._command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=log, env=environment
            )

    def made(self) -> int:
        keys = (key for key, _ in open_store().listed("qartsr", f"{self.target}/"))
        return sum(key.endswith(".png") for key in keys)

    def check(self, process: subprocess.Popen[str]) -> dict[str, int]:
        """Every image is there, by the bytes that its one row names."""
        out, _ = process.communicate(timeout=1500)
        assert process.returncode == 0, self._log.read_text()[-3000:]
        store = open_store()
        rows = [json.loads(line) for line in store.read("qartsr", f"{self.target}/{NAME}").splitlines()]
        assert [row["name"] for row in rows] == [f"{number:04}.png" for number in range(COUNT)], "one row each"
        assert self.made() == COUNT
        for row in rows[:: max(1, COUNT // 50)]:
            assert sha256_bytes(store.read("qartsr", f"{self.target}/{row['output']}")) == row["sha256"]
        assert not list(store.listed("qartsr", f"{self.target}/{NAME}.")), "parts were left"
        return json.loads(out)  # type: ignore[no-any-return]


@pytest.fixture()
def run(cluster: str, folder: Path, source: str) -> Callable[[int], Run]:
    return lambda actors: Run(folder, source, cluster, actors)


@pytest.mark.parametrize("actors", [1, 2, 4])
def test_throughput(run: Callable[[int], Run], actors: int) -> None:
    asked = run(actors)
    process = asked.start()
    assert until(lambda: asked.made() > 0, 600)
    begun, first = time.monotonic(), asked.made()
    assert until(lambda: asked.made() >= COUNT, 1200)
    seconds = time.monotonic() - begun
    assert asked.check(process)["made"] == COUNT
    print(f"{actors} actors: {(COUNT - first) / seconds:.2f} images/s")


def test_an_actor_that_is_killed(run: Callable[[int], Run]) -> None:
    asked = run(2)
    process = asked.start()
    assert until(lambda: asked.made() >= COUNT // 10, 900)
    actors = _pids("ray::MapWorker")
    assert len(actors) == 2
    os.kill(actors[0], signal.SIGKILL)
    assert asked.check(process)["made"] == COUNT


def test_a_driver_that_is_killed(run: Callable[[int], Run]) -> None:
    """Begun again on another machine, which knows of it from the bucket."""
    asked = run(2)
    process = asked.start()
    assert until(lambda: asked.made() >= COUNT // 3, 900)
    process.kill()
    process.communicate()
    assert until(lambda: not _pids("ray::MapWorker"), 60), "its actors end with it"
    between = asked.made()
    assert between < COUNT
    tally = asked.check(asked.start("second"))
    assert tally["made"] + tally["skipped"] == COUNT
    print(f"{between} made before, {tally['skipped']} of them known from the bucket")


def test_a_node_that_is_killed(run: Callable[[int], Run]) -> None:
    asked = run(4)
    process = asked.start()
    assert until(lambda: asked.made() >= COUNT // 10, 900)
    (raylet,) = _pids("raylet/raylet", f"--node_ip_address={OTHER}")
    os.kill(raylet, signal.SIGKILL)
    assert asked.check(process)["made"] == COUNT


def test_an_address_without_a_cluster_is_one_sentence(tmp_path: Path) -> None:
    """At once; Ray itself tries for minutes."""
    (tmp_path / "model.safetensors").write_bytes(real())
    (tmp_path / "in").mkdir()
    words = [
        "upscale",
        tmp_path / "in",
        tmp_path / "out",
        "--model",
        tmp_path / "model.safetensors",
        "--cluster",
        "ray",
    ]
    command = [sys.executable, "-m", "qartsr.cli", *map(str, words), "--engine", "simulated"]
    with closed_port() as nobody:
        address = nobody.removeprefix("http://")
        environment = {**os.environ, "RAY_ADDRESS": address}
        said = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert said.returncode == 1
    assert f"error: {address}: the Ray cluster does not answer ([Errno 111] Connection refused)" in said.stderr
