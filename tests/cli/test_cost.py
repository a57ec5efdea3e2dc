"""`qartsr cost` as a user types it."""

from __future__ import annotations

import argparse
import json

import pytest

from qartsr.cli import cost
from qartsr.errors import QartsrError


def run(*words: str) -> None:
    parser = argparse.ArgumentParser()
    cost.register(parser.add_subparsers())
    args = parser.parse_args(["cost", *words])
    args.run(args)


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    run("--model", "sample", "--size", "64", "--bits", "w4a4", "--json")
    values = json.loads(capsys.readouterr().out)
    assert [row["bits"] for row in values["rows"]] == ["fp", "w4a4"]
    assert (values["model"], values["size"], values["rank"]) == ("sample", 64, 4)


def test_tables(capsys: pytest.CaptureFixture[str]) -> None:
    run("--model", "sample", "--size", "32", "--rank", "0")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "sample, 32 x 32 output, low-rank branches of rank 0"
    first = [line.split()[0] for line in lines[2:7]]
    assert first == ["bits", "fp", "w4a4", "w3a3", "w2a2"]
    assert max(map(len, lines)) <= 120


def test_a_folder_without_a_model_is_one_sentence() -> None:
    with pytest.raises(QartsrError, match="neither a known model nor a folder"):
        run("--model", "nowhere")


def test_unknown_bits_are_one_sentence() -> None:
    with pytest.raises(QartsrError, match="unknown bit-width 'w9a9'"):
        run("--model", "sample", "--bits", "w9a9")


@pytest.mark.parametrize("rank", ["-1", "1025", "four"])
def test_impossible_ranks_are_refused(rank: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run("--rank", rank)
    assert f"{rank} is not in 0..1024" in capsys.readouterr().err or rank.startswith("-")
