"""Choosing ports."""

from __future__ import annotations

from contextlib import closing

import pytest

from qartsr.errors import QartsrError
from qartsr.services.ports import Ports, is_free
from tests.services.looking import listening


def test_a_port_in_use_is_not_free() -> None:
    with listening() as port:
        assert not is_free(port)
    assert is_free(port)


def test_the_first_place_where_all_ports_are_free() -> None:
    """Others may hold further ports of that stretch: what is taken is the first that leaves out all of them."""
    with listening() as taken, closing(Ports()) as ports:
        found = ports.take(range(taken - 2, taken + 60), 4)
        assert found > taken
        assert not any(all(is_free(port + n) for n in range(4)) for port in range(taken + 1, found - 3))


def test_a_chosen_port_is_nobody_elses_until_its_server_listens() -> None:
    with closing(Ports()) as mine, closing(Ports()) as other:
        first = mine.take(range(23100, 23200), 4)
        assert other.take(range(first, 23300), 1) == first + 4
    with closing(Ports()) as later:
        assert later.take([first], 4) == first


def test_no_place_is_one_sentence() -> None:
    with listening() as taken, closing(Ports()) as ports, pytest.raises(QartsrError, match=f"{taken}: no 1 free"):
        ports.take([taken], 1)
