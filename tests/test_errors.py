"""One sentence, ended once."""

from __future__ import annotations

import pickle

import pytest

from qartsr.errors import DivergedError, QartsrError


@pytest.mark.parametrize(("do", "end"), [("do that", "do that."), ("did you mean 'b'?", "did you mean 'b'?")])
def test_a_sentence_ends_once(do: str, end: str) -> None:
    for kind in (QartsrError, DivergedError):
        error = kind("is wrong", "here", do)
        again = pickle.loads(pickle.dumps(error))
        assert str(error) == str(again) == f"here: is wrong; {end}" and type(again) is kind


@pytest.mark.parametrize("letter", ["a", "\0"])
def test_what_a_file_holds_is_not_quoted_by_the_page(letter: str) -> None:
    said = str(QartsrError(f"dtype {letter * 10_000} is none", "here", "do that"))
    assert len(said) < 1100 and said.startswith("here: dtype ") and said.endswith(" is none; do that.")
