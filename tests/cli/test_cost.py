"""``qartsr cost`` as a user types it."""

from __future__ import annotations

import json

import pytest

from tests.cli.conftest import Qartsr


def test_json(qartsr: Qartsr) -> None:
    said = qartsr("cost", "--model", "sample", "--size", "64", "--bits", "w4a4", "--json")
    values = json.loads(said.out)
    assert [row["bits"] for row in values["rows"]] == ["fp", "w4a4"]
    assert (values["model"], values["size"], values["rank"]) == ("sample", 64, 4)


def test_tables(qartsr: Qartsr) -> None:
    lines = qartsr("cost", "--model", "sample", "--size", "32", "--rank", "0").out.splitlines()
    assert lines[0] == "sample, 32 x 32 output, low-rank branches of rank 0"
    first = [line.split()[0] for line in lines[2:7]]
    assert first == ["bits", "fp", "w4a4", "w3a3", "w2a2"]
    assert max(map(len, lines)) <= 120


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--model", "nowhere"), "neither a known model nor a folder"),
        (("--model", "sample", "--bits", "w9a9"), "unknown bit-width 'w9a9'"),
    ],
)
def test_what_cannot_be_counted_is_one_sentence(qartsr: Qartsr, words: tuple[str, ...], sentence: str) -> None:
    said = qartsr("cost", *words)
    assert said.status == 1
    assert sentence in said.err and len(said.err.strip().splitlines()) == 1


def test_an_impossible_rank_is_refused_with_both_ends(qartsr: Qartsr) -> None:
    said = qartsr("cost", "--rank", "1025")
    assert said.status == 2 and "argument --rank: 1025 is no whole number in 0..1024" in said.err
