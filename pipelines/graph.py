"""DVC's own graph: which stages there are, who waits for whom, and what is stale. Nothing of it is repeated here."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Set
from pathlib import Path

import yaml

from qartsr.errors import QartsrError

DVC = (sys.executable, "-m", "dvc", "--wait-for-lock")

Graph = Mapping[str, Set[str]]
"""Stage name -> the stages it waits for."""

_LOG = logging.getLogger("prefect")
_PAUSE = 2.0
"""Seconds between two looks at a folder where another process works."""
_READS = 3
"""Of a dvc.lock that cannot be read: ``dvc dag`` takes no lock, and DVC writes the file in place."""
_NODE = re.compile(r'^"([^"]+)";$')
_EDGE = re.compile(r'^"([^"]+)" -> "([^"]+)";$')


def read_graph(folder: Path) -> Graph:
    """The graph of the pipeline in ``folder``, without those of other folders in the same DVC project."""
    graph = parse_dot(_dvc(folder, "dag", "--dot"))
    return {name: {other for other in before if _own(other)} for name, before in graph.items() if _own(name)}


def _own(stage: str) -> bool:
    """DVC writes a stage of another file ``FOLDER/dvc.yaml:NAME``."""
    return ":" not in stage


def read_frozen(folder: Path) -> Set[str]:
    """Stages that DVC does not run again; they are only asked whether their outputs are there."""
    definition = yaml.safe_load((folder / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    return frozenset(name for name, stage in definition.items() if stage.get("frozen"))


def parse_dot(text: str) -> Graph:
    """Read what ``dvc dag --dot`` prints."""
    graph: dict[str, set[str]] = {}
    for line in map(str.strip, text.splitlines()):
        if node := _NODE.match(line):
            graph.setdefault(node[1], set())
        elif edge := _EDGE.match(line):
            graph.setdefault(edge[1], set())
            graph.setdefault(edge[2], set()).add(edge[1])
    return graph


def read_changed(folder: Path) -> Set[str]:
    """Stages whose own dependencies, parameters, command or outputs differ from dvc.lock."""
    if not (folder / "dvc.yaml").is_file():  # DVC finds nothing stale there
        raise QartsrError("there is none", str(folder / "dvc.yaml"), "run it in the folder of a DVC project")
    return frozenset(filter(_own, json.loads(_dvc(folder, "status", "--json"))))


def fetch_runs(folder: Path) -> None:
    """Learn from the DVC remote what other machines have made from which inputs."""
    _dvc(folder, "fetch", "--run-cache")


def push_runs(folder: Path) -> None:
    """Tell the DVC remote what was made here."""
    _dvc(folder, "push", "--run-cache")


def stale(
    graph: Graph, changed: Set[str], targets: Iterable[str] = (), frozen: Set[str] = frozenset()
) -> dict[str, Set[str]]:
    """The stages that may have to run, each with the stale stages it waits for, in an order that respects both.

    ``targets`` limits them to these stages and what they need; ``quantize`` means ``quantize@w4a4`` and its siblings.
    A ``frozen`` stage is stale when it has changed itself, never because of another, and makes no other stale; it keeps
    its place in the order. Raises QartsrError for a target that is no stage.
    """
    wanted = _ancestors(graph, _named(graph, targets) if targets else set(graph))
    chosen: dict[str, Set[str]] = {}
    for name in _ordered(graph):
        upstream = graph[name] & chosen.keys()
        causes = set() if base_name(name) in frozen else {other for other in upstream if base_name(other) not in frozen}
        if name in wanted and (name in changed or causes):
            chosen[name] = upstream
    return chosen


def base_name(stage: str) -> str:
    """``quantize`` of ``quantize@w4a4``."""
    return stage.split("@", 1)[0]


def _named(graph: Graph, targets: Iterable[str]) -> set[str]:
    names: set[str] = set()
    for target in targets:
        found = {name for name in graph if target in (name, base_name(name))}
        if not found:
            raise QartsrError(f"there is no stage {target!r}", "dvc.yaml", f"choose from {', '.join(graph)}")
        names |= found
    return names


def _ancestors(graph: Graph, names: set[str]) -> set[str]:
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting.extend(graph[name])
    return found


def _ordered(graph: Graph) -> list[str]:
    """Topological order; among equals, the order in which DVC lists them."""
    order: dict[str, None] = {}
    while len(order) < len(graph):
        order.update(dict.fromkeys(name for name in graph if name not in order and graph[name] <= order.keys()))
    return list(order)


def busy(said: str) -> bool:
    """Whether DVC refuses because another process works on the same files, which ``--wait-for-lock`` does not cover."""
    return "is busy, it is being blocked by" in said or "Unable to acquire lock" in said


def _dvc(folder: Path, *arguments: str) -> str:
    unread = 0
    while True:
        result = subprocess.run([*DVC, *arguments], cwd=folder, capture_output=True, encoding="utf-8", errors="replace")
        if not result.returncode:
            break
        if busy(result.stderr):
            _LOG.info("%s: another DVC process works here; waiting for it", folder)
        elif "dvc.lock" in result.stderr and unread < _READS - 1:  # another process may be writing it
            unread += 1
        else:
            break
        time.sleep(_PAUSE)
    if result.returncode:
        said = " ".join(result.stderr.partition("Traceback (most recent call last)")[0].split())
        raise QartsrError(f"DVC: {said}", "dvc " + " ".join(arguments), _mend(said))
    return result.stdout


def _mend(said: str) -> str:
    """What to do about a complaint of DVC's."""
    if "configuration error" in said:
        return "mend .dvc/config or .dvc/config.local"
    if "remote" in said or "s3://" in said:
        return "check the DVC remote, its address and credentials"
    if "dvc.lock" in said:
        return "mend dvc.lock, or delete it: the next run looks its results up in the run cache"
    if "not inside of a DVC repository" in said or ".dvc" in said or "git" in said.lower():
        return "run it in a clone of the repository, with its .git and .dvc"
    return "mend dvc.yaml or params.yaml"
