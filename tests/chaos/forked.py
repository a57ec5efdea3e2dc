"""Stages and commands forked from a process that has imported everything, so that a trial costs what the work costs.

The code, the process that is killed and the files are the real ones. What DVC does before a stage, which is to take
away its outputs, is done here; with DVC itself around the stage: stages.py.
"""

from __future__ import annotations

import atexit
import functools
import importlib
import multiprocessing
import os
import re
import resource
import shlex
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from typing import NamedTuple

import networkx  # type: ignore[import-untyped]
import numpy as np
from dvc.repo import Repo
from mlflow.tracking import MlflowClient
from PIL import Image

from qartsr.cli import main
from qartsr.files import sha256_file
from qartsr.release import fetch, model_name, package_tags, promote, publish, rollback
from qartsr.runtime.graphs import import_openvino
from stages._stage import stage
from tests.chaos.damage import Trial
from tests.chaos.services import services
from tests.chaos.stages import LEFT_OUT, PER_SEED, TRACE, environment, mounted_read_only
from tests.pipeline.conftest import copy_project, tiny
from tests.relay import Relay
from tests.release.conftest import BITS, GATE, make_package

_IMPORTED = (
    __name__,
    *(f"stages.{path.stem}" for path in (Path(__file__).parents[2] / "stages").glob("[a-z]*.py")),
    *(
        "qartsr.bulk",
        "qartsr.engines",
        "qartsr.export",
        "qartsr.metrics",
        "qartsr.upscale",
        "onnx",
        "boto3",
    ),
)
import_openvino()  # as the project does; by itself it starts a thread, and a process forked while that imports hangs
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(list(_IMPORTED))
KILLS: Counter[str] = Counter()
"""of processes that were alive"""


class Plan(NamedTuple):
    """A stage or a command, and what it makes undisturbed."""

    words: list[str]
    """a module of a stage or ``qartsr``, and its arguments"""
    outputs: list[Path]
    inside: str = ""
    """folder of the project to stand in"""
    seconds: float = 0.0
    hashes: dict[str, str] = {}  # noqa: RUF012  (it is replaced, never changed)


def _child(words: list[str], folder: Path, variables: dict[str, str], most: int | None, said: Connection) -> None:
    os.setsid()
    os.dup2(said.fileno(), 1)
    os.dup2(said.fileno(), 2)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(variables)
    if most is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    sys.argv = words
    match words[0]:
        case "qartsr":
            sys.exit(main(words[1:]))
        case "release":
            release(words[1], Path(words[2]), words[3])
        case name:
            stage(importlib.import_module(name).main)


class Run:
    """One process."""

    def __init__(
        self, words: list[str], inside: str = "", most: int | None = None, more: dict[str, str] | None = None
    ) -> None:
        """``most``: bytes that a file may have. ``more``: environment."""
        self._said, said = _CONTEXT.Pipe(duplex=False)
        variables = environment(**(more or {}))
        self.process = _CONTEXT.Process(target=_child, args=(words, project() / inside, variables, most, said))
        self.process.start()
        said.close()

    def kill(self, seconds: float) -> bool:
        """After so long, and whether it was still alive."""
        self.process.join(seconds)
        alive = self.process.is_alive()
        if alive:
            try:
                os.killpg(self.process.pid or 0, signal.SIGKILL)
            except ProcessLookupError:  # it has no session of its own yet
                self.process.kill()
        self.end()
        return alive

    def end(self) -> tuple[int | None, str]:
        """Exit status, and what it said."""
        text = b""
        while part := os.read(self._said.fileno(), 1 << 16):
            text += part
        self.process.join()
        self._said.close()
        return self.process.exitcode, text.decode(errors="replace")


@functools.cache
def project() -> Path:
    """The pipeline; kept while the campaign lasts."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    folder = copy_project(Path(tempfile.mkdtemp(prefix="chaos-")), {**tiny(), "bits": ["w4a4"]})
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    Repo.init(str(folder), force=True).close()
    for name in ("configs", "experiments"):
        (folder / "elsewhere").mkdir(exist_ok=True)
        (folder / "elsewhere" / name).symlink_to(folder / name)
    rng = np.random.default_rng(0)
    for name in ("in", "ref", "out"):
        (folder / name).mkdir()
        for number in range(6 * (name != "out")):
            Image.fromarray(rng.integers(0, 256, (24, 32, 3), np.uint8)).save(folder / name / f"{number}.png")
    return folder


@functools.cache
def stages() -> dict[str, Plan]:
    """The stages, in an order that DVC may take."""
    found = {}
    with Repo(str(project())) as repo:
        for each in networkx.dfs_postorder_nodes(repo.index.graph):
            if not each.name.startswith(LEFT_OUT):
                outputs = [Path(out.fs_path).relative_to(project()) for out in each.outs]
                found[each.name] = Plan(shlex.split(each.cmd.partition(" -m ")[2]), outputs)
    return found


@functools.cache
def commands() -> dict[str, Plan]:
    """The commands that write files."""
    package = "weights/w4a4/model.safetensors"
    upscale = f"upscale in out/pictures --model {package} --engine simulated --device cpu -q"
    lines = {
        "configure": ("configure sample --force", "elsewhere/params.yaml"),
        "upscale": (upscale, "out/pictures"),
        "upscale --manifest": (f"{upscale} --manifest out/log", "out/pictures out/log"),
        "evaluate": ("evaluate --pred in --ref ref --metrics psnr,ssim --csv out/a --json out/b", "out/a out/b"),
        "init-random": ("init-random out/model --arch sample --force", "out/model"),
        "export --to onnx": (f"export {package} out/x.onnx --to onnx", "out/x.onnx"),
        "export --to openvino": (f"export {package} out/x.xml --to openvino", "out/x.xml out/x.bin"),
    }
    return {
        name: Plan(["qartsr", *line.split()], list(map(Path, paths.split())), "elsewhere" * (name == "configure"))
        for name, (line, paths) in lines.items()
    }


def one_more(plans: dict[str, Plan], number: int) -> None:
    """Before each trial one more is run undisturbed, where a seed's trials have not come that far yet."""
    for name in list(plans)[: number % PER_SEED + 1]:
        if not plans[name].hashes:
            plans[name] = _undisturbed(plans[name])


def _undisturbed(plan: Plan) -> Plan:
    begun = time.monotonic()
    status, said = _whole(plan)
    assert status == 0, said
    return plan._replace(seconds=time.monotonic() - begun, hashes=_hashes(plan))


def _whole(plan: Plan, most: int | None = None) -> tuple[int | None, str]:
    if plan.words[0] != "qartsr":
        _clear(plan)
    return Run(plan.words, plan.inside, most).end()


def _clear(plan: Plan) -> None:
    for output in plan.outputs:
        path = project() / output
        if path.is_dir():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)


def _hashes(plan: Plan) -> dict[str, str]:
    """Of each file under a name that is not hidden; of a manifest, which has times, its names."""
    found = {}
    for output in plan.outputs:
        root = project() / output
        for path in sorted(root.rglob("*")) if root.is_dir() else [root]:
            if path.is_file() and not path.name.startswith("."):
                name = str(path.relative_to(project()))
                found[name] = _names(path) if path.name == "log" else sha256_file(path)
    return found


def _names(log: Path) -> str:
    """A line that was cut short is no row."""
    rows = re.findall(r'"name": ?"([^"]+)"', log.read_text())
    return " ".join(sorted(rows))


def _heals(name: str, plan: Plan) -> None:
    """Run again, it ends with the bytes of an undisturbed run."""
    status, said = _whole(plan)
    assert status == 0 and TRACE not in said, f"{name}: {said[-3000:]}"
    assert _hashes(plan) == plan.hashes, f"{name}: other bytes"


def _choose(plans: dict[str, Plan], random: Random) -> tuple[str, Plan]:
    """Of those that were run: the short ones, and those killed least, more often."""
    known = {name: plan for name, plan in plans.items() if plan.hashes}
    weights = [1 / (0.5 + plan.seconds) / (1 + KILLS[name]) ** 2 for name, plan in known.items()]
    name = random.choices(list(known), weights)[0]
    return name, known[name]


def _killed(plans: dict[str, Plan], random: Random) -> None:
    name, plan = _choose(plans, random)
    _clear(plan)
    for _ in range(random.randrange(1, 3)):
        span = plan.seconds
        if plan.words[0] != "qartsr":
            _clear(plan)
        while not Run(plan.words, plan.inside).kill(random.random() * span):
            span /= 2  # it was over
        KILLS[name] += 1
        if plan.words[0] == "qartsr":
            found = {file: value for file, value in _hashes(plan).items() if not file.endswith("/log")}
            assert found.items() <= plan.hashes.items(), f"{name}: half a file"
    _heals(name, plan)


def full(random: Random, folder: Path) -> None:
    """No file may grow beyond some bytes: no traceback, and the next run with room makes up for it."""
    name, plan = _choose(stages() | commands(), random)
    _clear(plan)
    status, said = _whole(plan, random.choice((0, 1000, 30_000, 300_000)))
    _fails(name, status, said)
    assert status or _hashes(plan) == plan.hashes, f"{name}: cut short, and nothing said"
    _heals(name, plan)


def read_only(random: Random, folder: Path) -> None:
    """Outputs on a file system that takes nothing."""
    name, plan = _choose(stages(), random)
    _clear(plan)
    with mounted_read_only(project() / "build"), mounted_read_only(project() / "metrics"):
        status, said = Run(plan.words).end()
        _fails(name, status, said)
        assert status, f"{name}: nothing was written, and nothing said"
    _heals(name, plan)


def _fails(name: str, status: int | None, said: str) -> None:
    assert TRACE not in said, f"{name}: {said[-3000:]}"
    assert status == 0 or ((status or 0) > 0 and "error: " in said), f"{name}: {status}, {said[-3000:]}"


def untracked(random: Random, folder: Path) -> None:
    """MLflow's address goes dead under a stage, silently or not: it ends, to the same bytes."""
    name, plan = _choose(stages(), random)
    sound = services()
    _clear(plan)
    with Relay(sound["MLFLOW_TRACKING_URI"]) as relay:
        run = Run(plan.words, more={**sound, "MLFLOW_TRACKING_URI": relay.address, "MLFLOW_HTTP_REQUEST_TIMEOUT": "5"})
        run.process.join(random.random() * (1 + plan.seconds))
        (relay.mute if random.random() < 0.3 else relay.cut)()
        status, said = run.end()
    assert status == 0 and TRACE not in said, f"{name}: {said[-3000:]}"
    assert _hashes(plan) == plan.hashes, f"{name}: other bytes"


def release(act: str, package: Path, profile: str) -> None:
    """One act of publishing, in the process that is killed."""
    name = model_name(profile, BITS)
    match act:
        case "publish":
            publish(package / "model.safetensors", name, package_tags(package, profile), "qartsr")
        case "promote":
            promote(profile, BITS, GATE)
        case "rollback":
            rollback(profile, BITS)
        case "fetch":
            fetch(f"models:/{name}@champion")


def unreleased(random: Random, folder: Path) -> None:
    """Publish, promote, roll back or fetch, killed; done again, there is one version of each content and its bytes."""
    sound = {**services(), "XDG_CACHE_HOME": str(folder / "cache")}
    before, profile = {**os.environ}, f"chaos-{random.randbytes(6).hex()}-{time.time_ns()}"
    name, packages = model_name(profile, BITS), [make_package(folder / str(n)) for n in range(2)]
    acts = [("publish", 0), ("promote", 0), ("publish", 1), ("promote", 1), ("fetch", 1), ("rollback", 0)]
    broken = random.randrange(len(acts))
    os.environ.update(sound)
    client = MlflowClient()
    try:
        for number, (act, which) in enumerate(acts):
            if number == broken:
                run = Run(["release", act, str(packages[which]), profile], more=sound)
                if run.kill(random.random() * 1.5):
                    KILLS[act] += 1
            if act != "rollback" or number != broken or "leaving" in client.get_registered_model(name).aliases:
                release(act, packages[which], profile)
        hashes = [sha256_file(package / "model.safetensors") for package in packages]
        versions = {each.version: each.tags["sha256"] for each in client.search_model_versions(f"name = '{name}'")}
        assert sorted(versions.values()) == sorted(hashes), f"not one version of each: {versions}"
        aliases = {alias: versions[str(n)] for alias, n in client.get_registered_model(name).aliases.items()}
        assert sha256_file(fetch(f"models:/{name}@champion")) == aliases["champion"], "other bytes"
        orders = [hashes] if acts[broken][0] != "rollback" else [hashes, hashes[::-1]]  # it had not begun
        assert aliases.keys() == {"champion", "previous"} and list(map(aliases.get, sorted(aliases))) in orders, aliases
    finally:
        os.environ.clear()
        os.environ.update(before)


def stage_killed(random: Random, folder: Path) -> None:
    """kill -9 of a stage at any moment of its work, perhaps twice."""
    _killed(stages(), random)


def command_killed(random: Random, folder: Path) -> None:
    """The same of a command; what it leaves under a name of a result is whole."""
    _killed(commands(), random)


FORKED: dict[str, Trial] = {
    "forked commands, kill -9": command_killed,
    "forked stages, kill -9": stage_killed,
    "forked stages and commands, disk full": full,
    "forked stages, read-only": read_only,
    "forked stages, MLflow gone": untracked,
    "forked publish, promote, fetch, rollback, kill -9": unreleased,
}
