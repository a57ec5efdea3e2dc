"""Start, look after and stop the local services of one folder.

The folder holds ``env`` (for clients), ``run/NAME.json`` (port, token, process ids), ``logs`` and each service's data.
"""

from __future__ import annotations

import fcntl
import importlib.util
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from qartsr.errors import QartsrError
from qartsr.files import write_text
from qartsr.services.daemon import spawn
from qartsr.services.environment import client_environment, env_lines, server_environment
from qartsr.services.mlflow import mlflow_service
from qartsr.services.ports import Ports
from qartsr.services.prefect import prefect_service
from qartsr.services.record import Record, read_record
from qartsr.services.service import Offer, Service
from qartsr.services.swift import s3_service

OFFERS: Mapping[str, Offer] = {
    "s3": Offer("swift", "services", 8500, 4, s3_service),
    "mlflow": Offer("mlflow", "pipeline", 5500, 1, mlflow_service),
    "prefect": Offer("prefect", "pipeline", 4200, 1, prefect_service),
}
_PLACES = 200
"""Ports tried from an offer's own on."""
NAMES = tuple(OFFERS)
"""In the order of starting: MLflow shows artifacts that lie in the S3 store."""

Report = Callable[[Mapping[str, str]], None]
"""Receives service -> "12 s" while it starts, its address once it is ready."""


@dataclass(frozen=True)
class Unit:
    """A service that has processes: started by us now, or found."""

    name: str
    service: Service
    record: Record

    def ready(self) -> bool:
        """Whether it answers, and not a stranger that took its port between the choice and the start."""
        return self.service.healthy() and self.record.listens(OFFERS[self.name].ports)


def start(
    root: Path, names: Iterable[str] = NAMES, report: Report = lambda states: None, timeout: float = 300.0
) -> dict[str, str]:
    """Start what is not running, side by side, wait until it answers, and return the environment of its clients.

    The environment is also written to ``root/env``. Raises QartsrError with the last lines of a server's log when it
    ends or does not answer within ``timeout`` seconds.
    """
    root, wanted = root.absolute(), _with_needs(names)
    _make(root)
    with _alone(root), closing(Ports()) as ports:
        units = {name: unit for name in NAMES if (unit := _found(root, name))}
        _bring_up(root, units, [name for name in NAMES if name in wanted], ports, report, timeout)
        environment = client_environment(_variables(units))
        write_text(root / "env", env_lines(environment))
    return environment


def stop(root: Path, names: Iterable[str] = NAMES) -> tuple[str, ...]:
    """End the services with everything they started; their data stays. Returns those that were running."""
    root, named = root.absolute(), _known(names)
    if not root.is_dir():
        return ()
    with _alone(root):
        return tuple(name for name in reversed(NAMES) if name in named and _end(root, name))


def status(root: Path) -> dict[str, str]:
    """Service -> its address when it answers, else ``stopped``, ``died`` or ``does not answer``."""
    states = dict.fromkeys(NAMES, "stopped")
    for name in NAMES:
        record = read_record(root.absolute(), name)
        if record is not None and record.pids:
            service = OFFERS[name].describe(root.absolute() / name, record.port)
            states[name] = "died" if not record.alive() else service.address if service.healthy() else "does not answer"
    return states


def log_of(root: Path, process: str) -> Path:
    """Where a process writes."""
    return root / "logs" / f"{process}.log"


def _known(names: Iterable[str]) -> set[str]:
    names = set(names)
    unknown = sorted(names - set(NAMES))
    if unknown:
        raise QartsrError(f"there is no service {unknown[0]!r}", "services", f"choose among {', '.join(NAMES)}")
    return names


def _with_needs(names: Iterable[str]) -> set[str]:
    known = _known(names)
    return known | ({"s3"} if "mlflow" in known else set())


def _make(root: Path) -> None:
    if set("#%?") & set(str(root)):
        raise QartsrError(
            "has a # % or ? in its path, which the servers read as part of an address",
            str(root),
            "choose another folder with --root",
        )
    try:
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise QartsrError(
            f"cannot be made ({error.strerror})", str(root), "choose another folder with --root"
        ) from error


def _found(root: Path, name: str) -> Unit | None:
    """The service if all its processes live."""
    record = read_record(root, name)
    if record is None or not record.alive():
        return None
    return Unit(name, OFFERS[name].describe(root / name, record.port), record)


def _end(root: Path, name: str) -> bool:
    """End a service with everything it started; whether there was anything to end."""
    record = read_record(root, name)
    if record is None:
        return False
    ended = record.end()
    record.without_processes().write(root, name)
    return ended


def _launch(root: Path, name: str, ports: Ports, variables: Mapping[str, str]) -> Unit:
    """Start the processes of a service, on its port of last time if that is free."""
    offer, last = OFFERS[name], read_record(root, name)
    if importlib.util.find_spec(offer.module) is None:
        raise QartsrError("is not installed", offer.module, f"pip install 'qartsr[{offer.extra}]' -c constraints.txt")
    if last is not None:  # what may be left of it: a child without its parent
        last.end()
    anywhere = range(offer.port, offer.port + _PLACES)
    port = ports.take(anywhere if last is None else (last.port, *anywhere), offer.ports)
    service = offer.describe(root / name, port)
    service.prepare()
    token = secrets.token_hex(16)
    record = Record(port=port, token=token, pids={})
    record.write(root, name)  # before there is anything to find by its token
    environment = server_environment({**variables, **service.environment})
    for process, command in service.commands.items():
        pid = spawn(command, environment, token, log_of(root, process))
        record = record.with_process(process, pid)
        record.write(root, name)
    return Unit(name, service, record)


def _bring_up(
    root: Path, units: dict[str, Unit], names: Iterable[str], ports: Ports, report: Report, timeout: float
) -> None:
    """Launch what is not among ``units`` and return when all of ``names`` answer; end those that do not come up."""
    began, states, pending = time.monotonic(), dict[str, str](), list(names)
    try:
        for name in pending:
            if name not in units:
                units[name] = _launch(root, name, ports, _variables(units))
        while pending:
            seconds = time.monotonic() - began
            for unit in [units[name] for name in pending]:
                states[unit.name] = f"{seconds:.0f} s"
                if unit.ready():
                    unit.service.furnish()
                    pending.remove(unit.name)
                    states[unit.name] = f"{unit.service.address} ({seconds:.0f} s)"
                elif not unit.record.alive():
                    raise _failure(root, unit, "ended while starting")
                elif seconds > timeout:
                    raise _failure(root, unit, f"did not answer within {timeout:.0f} s")
            report(states)
            time.sleep(0.1 if pending else 0)
    finally:
        for name in pending:
            _end(root, name)


def _failure(root: Path, unit: Unit, what: str) -> QartsrError:
    """The error, noted the last lines of the process that is not there, or of all of them."""
    processes = unit.record.dead() or tuple(unit.record.pids)
    log = log_of(root, processes[0])
    last = log.read_text(errors="replace").strip().splitlines()[-12:] if log.is_file() else []
    error = QartsrError(f"the {unit.name} service {what}", str(log), "read it, then start again")
    error.add_note("\n".join(["its last lines:", *(f"    {line}" for line in last)]))
    return error


def _variables(units: Mapping[str, Unit]) -> dict[str, str]:
    return {key: value for unit in units.values() for key, value in unit.service.variables.items()}


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    """One start or stop at a time."""
    with (root / "lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
