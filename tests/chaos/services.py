"""Publishing, promotion and fetching with a store or a registry that is away, silent, slow, cut off or lying; races."""

from __future__ import annotations

import atexit
import functools
import os
import tempfile
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from random import Random

from mlflow.tracking import MlflowClient

from qartsr.errors import QartsrError
from qartsr.files import sha256_file
from qartsr.release import Receipt, fetch, model_name, package_tags, promote, publish, rollback
from qartsr.services import start, stop
from tests.chaos.damage import Trial, refused
from tests.relay import Relay, Trickle, closed_port
from tests.release.conftest import BITS, GATE, make_package

_SERVICES = {"AWS_ENDPOINT_URL_S3": b"<Code>", "MLFLOW_TRACKING_URI": b'{"'}


@functools.cache
def services() -> dict[str, str]:
    """The store and the registry, while the campaign lasts."""
    root = Path(tempfile.mkdtemp(prefix="chaos-services-"))
    atexit.register(stop, root)
    environment = start(root, ("s3", "mlflow"))
    os.environ.update(environment)
    return environment


@contextmanager
def _fault(random: Random, variable: str) -> Iterator[str]:
    """Address of a service as it must not be."""
    sound = services()[variable]
    match random.randrange(5):
        case 0:
            with closed_port() as address:
                yield address
        case 1:
            with Relay(sound) as relay:
                relay.mute()
                yield relay.address
        case 2:
            with Relay(sound, limit=random.randrange(1, 20_000)) as relay:
                yield relay.address
        case 3:
            lie = random.choice((b"200 OK", b'{"', b"sha256", b"<Name>", b'"version"', b"READY"))
            with Relay(sound, swap=(lie, bytes(random.randrange(33, 127) for _ in lie))) as relay:
                yield relay.address
        case _:
            head = random.choice((b"", b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", b"<html>", b"\0" * 100))
            with Trickle(head, 0.5) as server:
                yield server.address


def _publish(folder: Path, profile: str) -> Receipt:
    return publish(folder / "model.safetensors", model_name(profile, BITS), package_tags(folder, profile), "qartsr")


def faulty(random: Random, folder: Path) -> None:
    """Done, or one sentence; and done afterwards, when the service is sound again: one version, the very bytes."""
    services()
    profile, package = f"chaos-{uuid.uuid4().hex[:12]}", make_package(folder / "package")
    name = model_name(profile, BITS)
    steps: list[Callable[[], object]] = [
        lambda: _publish(package, profile),
        lambda: promote(profile, BITS, GATE),
        lambda: fetch(f"models:/{name}@champion"),
    ]
    broken, variable = random.randrange(len(steps)), random.choice(list(_SERVICES))
    before = {**os.environ}
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
    try:
        for step in steps[:broken]:
            step()
        with _fault(random, variable) as address:
            os.environ[variable] = address
            refused(steps[broken])
        for name_, value in services().items():
            os.environ[name_] = value
        for step in steps:
            step()
        found = fetch(f"models:/{name}@champion")
        assert sha256_file(found) == sha256_file(package / "model.safetensors"), "other bytes"
        assert len(MlflowClient().search_model_versions(f"name = '{name}'")) == 1, "not one version"
    finally:
        os.environ.clear()
        os.environ.update(before)


def races(random: Random, folder: Path) -> None:
    """Publishers, promoters and whoever rolls back at once: one version for each content, aliases on what is there."""
    services()
    profile = f"chaos-{uuid.uuid4().hex[:12]}"
    name, packages = model_name(profile, BITS), [make_package(folder / str(n)) for n in range(2)]
    _publish(packages[0], profile)
    acts: list[Callable[[], object]] = [
        *(partial(_publish, random.choice(packages), profile) for _ in range(4)),
        *(lambda: promote(profile, BITS, GATE) for _ in range(2)),
        lambda: rollback(profile, BITS),
    ]
    random.shuffle(acts)
    with ThreadPoolExecutor(len(acts)) as pool:
        for done in [pool.submit(act) for act in acts]:
            try:
                done.result()
            except QartsrError as error:
                assert "\n" not in str(error)
    client = MlflowClient()
    versions = client.search_model_versions(f"name = '{name}'")
    hashes = [version.tags["sha256"] for version in versions]
    numbers = {int(version.version) for version in versions}
    aliases = {alias: int(number) for alias, number in client.get_registered_model(name).aliases.items()}
    assert set(aliases.values()) <= numbers, f"an alias on nothing: {aliases}, {numbers}"
    spare = [n for n in numbers if n not in aliases.values()]
    assert len(hashes) - len(set(hashes)) <= len(aliases) and len(spare) <= 2, f"twice: {hashes}, {aliases}"
    promote(profile, BITS, GATE)


SERVICES: dict[str, Trial] = {"store or registry at fault": faulty, "publish, promote, rollback at once": races}
