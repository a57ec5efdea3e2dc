"""What is remembered of a started service between one command and the next: ``run/NAME.json``."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from qartsr.files import write_text
from qartsr.services.daemon import alive, end, listening


class Record(BaseModel):
    """Port, token and process ids of one service."""

    model_config = ConfigDict(frozen=True)

    port: int
    token: str
    pids: dict[str, int]

    def with_process(self, process: str, pid: int) -> Record:
        """The same with one more process."""
        return Record(port=self.port, token=self.token, pids={**self.pids, process: pid})

    def without_processes(self) -> Record:
        """The same after a stop: the port is kept for the next start."""
        return Record(port=self.port, token=self.token, pids={})

    def dead(self) -> tuple[str, ...]:
        """Names of the processes that do not run any more."""
        return tuple(process for process, pid in self.pids.items() if not alive(pid, self.token))

    def alive(self) -> bool:
        """Whether it was started and every process runs."""
        return bool(self.pids) and not self.dead()

    def listens(self, ports: int) -> bool:
        """Whether these very processes hold the service's ``ports`` ports, and not a stranger who came first."""
        return set(range(self.port, self.port + ports)) <= listening(self.token)

    def end(self) -> bool:
        """Stop every process, and whatever it started; whether there was any."""
        return end(self.pids.values(), self.token)

    def write(self, root: Path, name: str) -> None:
        """Remember it."""
        write_text(_path(root, name), self.model_dump_json(indent=2) + "\n")


def read_record(root: Path, name: str) -> Record | None:
    """The record of a service, or None when it was never started (or its file is damaged)."""
    try:
        return Record.model_validate_json(_path(root, name).read_text(encoding="utf-8"))
    except (OSError, ValidationError):
        return None


def _path(root: Path, name: str) -> Path:
    return root / "run" / f"{name}.json"
