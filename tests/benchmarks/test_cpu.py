"""``benchmarks.cpu`` keeps what it has measured, and a package that a group does not use costs it nothing."""

from __future__ import annotations

import argparse
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks import cpu
from benchmarks.machine import versions

ARGS = {"arch": "sample", "size": 64, "rounds": 2, "threads": 1, "groups": ["torch"], "parts": ["encoder", "decoder"]}


class Pool:
    """Measures in this process; the part it is told to fails."""

    failing, measured = "", list[str]()

    def __init__(self, *_: object, **__: object) -> None: ...

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None: ...

    def submit(self, _: object, bench: object, group: str, part: str, *more: int) -> Any:
        if part == self.failing:
            raise RuntimeError("killed")
        self.measured.append(part)
        return SimpleNamespace(result=lambda: ({"ours w4a4": [1.0, 2.0], "torch fp32": [3.0, 4.0]}, 0, 1e9))


def test_a_second_run_goes_on_where_the_first_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "ProcessPoolExecutor", Pool)
    bench: Any = SimpleNamespace(package=lambda bits: SimpleNamespace(size=1))
    args = argparse.Namespace(**ARGS, out=tmp_path)
    monkeypatch.setattr(Pool, "failing", "decoder")
    with pytest.raises(RuntimeError):
        cpu.measure(bench, args)
    monkeypatch.setattr(Pool, "failing", "")
    result = cpu.measure(bench, args)
    assert Pool.measured == ["encoder", "decoder"]
    assert result["groups"]["torch"]["torch fp32"]["total"]["all"] == [6.0, 8.0]
    cpu.measure(bench, argparse.Namespace(**{**ARGS, "rounds": 3}, out=tmp_path))
    assert Pool.measured == ["encoder", "decoder"] * 2


def test_a_missing_package_has_a_version_too() -> None:
    assert versions("no-such-package")["no-such-package"] == "not installed"
