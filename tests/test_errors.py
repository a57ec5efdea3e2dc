"""One sentence, ended once."""

from __future__ import annotations

import pickle

import pytest

from qartsr.errors import QartsrError


@pytest.mark.parametrize(("do", "end"), [("do that", "do that."), ("did you mean 'b'?", "did you mean 'b'?")])
def test_a_sentence_ends_once(do: str, end: str) -> None:
    error = QartsrError("is wrong", "here", do)
    assert str(error) == str(pickle.loads(pickle.dumps(error))) == f"here: is wrong; {end}"
