"""Reading DVC's graph and deciding what has to run."""

from __future__ import annotations

import subprocess
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines import promote, reproduce
from pipelines.graph import (
    DVC,
    Graph,
    _mend,
    base_name,
    fetch_runs,
    parse_dot,
    push_runs,
    read_changed,
    read_graph,
    stale,
)
from qartsr.errors import QartsrError
from tests.pipelines.conftest import new_repository

DIAMOND: Graph = {"a": set(), "b@x": {"a"}, "b@y": {"a"}, "c": {"b@x", "b@y"}, "alone": set()}


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """Acyclic graphs of up to eight stages, listed in any order."""
    names = [f"s{n}" for n in range(draw(st.integers(1, 8)))]
    graph = {name: draw(st.sets(st.sampled_from(names[:n]))) if n else set() for n, name in enumerate(names)}
    return {name: graph[name] for name in draw(st.permutations(names))}


def test_dot_is_read() -> None:
    text = 'strict digraph {\n"a";\n"b@x";\n"a" -> "b@x";\n"b@x" -> "c";\n}\n'
    assert parse_dot(text) == {"a": set(), "b@x": {"a"}, "c": {"b@x"}}


def test_everything_below_a_change_is_stale_and_nothing_else() -> None:
    assert stale(DIAMOND, {"b@x"}) == {"b@x": set(), "c": {"b@x"}}
    assert stale(DIAMOND, {"a"}) == {"a": set(), "b@x": {"a"}, "b@y": {"a"}, "c": {"b@x", "b@y"}}
    assert stale(DIAMOND, set()) == {}


def test_a_frozen_stage_keeps_its_place_but_passes_nothing_on() -> None:
    chain: Graph = {"data": set(), "frozen": {"data"}, "use": {"frozen"}}
    assert stale(chain, {"data"}, frozen={"frozen"}) == {"data": set()}
    assert stale(chain, {"frozen"}, frozen={"frozen"}) == {"frozen": set()}
    assert stale(chain, {"data", "frozen", "use"}, frozen={"frozen"}) == {
        "data": set(),
        "frozen": {"data"},
        "use": {"frozen"},
    }


def test_targets_bring_what_they_need_and_a_plain_name_means_all_lanes() -> None:
    assert list(stale(DIAMOND, {"a", "alone"}, ["b@y"])) == ["a", "b@y"]
    assert list(stale(DIAMOND, {"a", "alone"}, ["b"])) == ["a", "b@x", "b@y"]


def test_an_unknown_target_is_refused_by_name() -> None:
    with pytest.raises(QartsrError, match=r"no stage 'quantise'.*b@x"):
        stale(DIAMOND, {"a"}, ["quantise"])


@given(graphs(), st.data())
def test_stale_is_the_downward_closure_in_an_executable_order(graph: Graph, data: st.DataObject) -> None:
    changed = data.draw(st.sets(st.sampled_from(sorted(graph))))
    plan = stale(graph, changed)
    closure = set(changed)
    for _ in graph:
        closure |= {name for name in graph if graph[name] & closure}
    assert set(plan) == closure
    seen: set[str] = set()
    for name, upstream in plan.items():
        assert upstream == graph[name] & closure
        assert upstream <= seen
        seen.add(name)


def test_a_folder_without_a_pipeline_is_not_up_to_date(tmp_path: Path) -> None:
    with pytest.raises(QartsrError, match=r"dvc\.yaml: there is none"):
        read_changed(tmp_path)


def test_a_pipeline_is_that_of_its_folder_alone(tmp_path: Path) -> None:
    """DVC's graph and status speak of a whole project; experiments/ has another pipeline below it."""
    subprocess.run([*DVC[:3], "init", "-q", "--no-scm"], cwd=tmp_path, check=True)
    for folder in (tmp_path, tmp_path / "below"):
        folder.mkdir(exist_ok=True)
        (folder / "dvc.yaml").write_text(f"stages: {{{folder.name[:3]}: {{cmd: touch x, outs: [x]}}}}")
        assert list(read_graph(folder)) == [folder.name[:3]]
        assert read_changed(folder) == {folder.name[:3]}


def test_a_lock_that_is_being_written_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """DVC writes dvc.lock in place, and ``dvc dag`` reads it without asking for DVC's lock."""
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc" / "config").write_text("[core]\n    no_scm = True\n")
    (tmp_path / "dvc.yaml").write_text("stages: {a: {cmd: touch x, outs: [x]}}")
    lock = tmp_path / "dvc.lock"
    lock.write_text("schema: '2.0'\nstages:\n  a:\n")
    with monkeypatch.context() as once, pytest.raises(QartsrError, match=r"mend dvc\.lock, or delete it"):
        once.setattr("pipelines.graph._READS", 1)
        read_graph(tmp_path)
    whole = threading.Timer(1.5, lock.write_text, ["schema: '2.0'\nstages:\n  a:\n    cmd: touch x\n"])
    whole.start()
    assert read_graph(tmp_path) == {"a": set()}
    whole.join()


def test_advice_names_the_file_that_is_wrong() -> None:
    for said, file in (
        ("'./dvc.lock' is invalid (possible merge conflicts)", "dvc.lock"),
        ("'./dvc.yaml' is invalid (possible merge conflicts)", "dvc.yaml"),
        ("configuration error - extra keys not allowed @ data['remote']['x']", ".dvc/config"),
        ("/x is not a git repository", ".git"),
        ("you are not inside of a DVC repository", ".dvc"),
    ):
        assert file in _mend(said), said


def test_numbers_that_cannot_be_are_refused_before_a_server_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    for main, words in (
        (reproduce.main, ["--lanes", "-1"]),
        (reproduce.main, ["--lanes", "0"]),
        (promote.main, ["w4a4", "--version", "0"]),
    ):
        monkeypatch.setattr("sys.argv", ["x", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 2


def test_base_name() -> None:
    assert base_name("quantize@w4a4") == base_name("quantize") == "quantize"


@pytest.mark.long
@pytest.mark.pipeline
def test_what_one_clone_has_made_another_takes(tmp_path: Path) -> None:
    """With an empty remote as well, which is what the first run meets."""
    clones = [tmp_path / name for name in ("one", "two")]
    for clone in clones:
        clone.mkdir()
        (clone / "in").touch()
        (clone / "dvc.yaml").write_text("stages: {a: {cmd: date +%N > a.txt, deps: [in], outs: [a.txt]}}")
        new_repository(clone)
        with (clone / ".dvc" / "config").open("a") as config:
            config.write(f"    remote = store\n['remote \"store\"']\n    url = {tmp_path}/remote\n")
        fetch_runs(clone)
        subprocess.run([*DVC, "repro", "--single-item", "--pull", "a"], cwd=clone, check=True)
        push_runs(clone)
    first, second = [(clone / "a.txt").read_text() for clone in clones]
    assert first == second, "it was made again"
