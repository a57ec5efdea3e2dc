"""RPQ: order, caching, what trains, what never changes, and the loss of a hand-made step."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from qartsr.config import Bits, load_params
from qartsr.config.method import ModulesPhase
from qartsr.config.training import ImageLossConfig, LPIPSConfig, RoleRates
from qartsr.models import OneStepSR, State, run_segments
from qartsr.quantize import Plan, Statistics, apply, initialise, observe, plan
from qartsr.training.checkpoint import Checkpoint
from qartsr.training.loop import Curves
from qartsr.training.optimizer import Setting
from qartsr.training.rpq import module_order, reconstruct
from qartsr.training.teacher_cache import ActivationCache
from tests.conftest import ROOT
from tests.packing.tiny import tiny_model

RATES = RoleRates(transform=1, skip=1, adapter=1, quantizer=1)
SETTING = Setting(LPIPSConfig(), "none", 1.0, 0)
Prepared = tuple[Plan, Statistics]


def _config(order: str = "reverse", steps: int = 1, train_quantized: bool = True) -> ModulesPhase:
    return ModulesPhase.model_validate(
        {
            "order": order,
            "steps": steps,
            "batch": 2,
            "lr": 1e-3,
            "rates": RATES.model_dump(),
            "loss": ImageLossConfig(lpips=0.0, mse=1.0).model_dump(),
            "train_quantized": train_quantized,
        }
    )


@pytest.fixture(scope="module")
def model() -> OneStepSR:
    """The smallest model; no test changes it."""
    return tiny_model()


@pytest.fixture(scope="module")
def lq() -> Tensor:
    return torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(3)) * 2 - 1


@pytest.fixture(scope="module")
def prepared(model: OneStepSR, lq: Tensor) -> Prepared:
    params = load_params(ROOT / "configs" / "osediff.yaml")  # min-max start: quick
    return plan(model, params.method.planned(params.common), Bits(4, 4)), observe(model, lq.split(2))


def _reconstruct(
    model: OneStepSR, prepared: Prepared, lq: Tensor, folder: Path, config: ModulesPhase
) -> tuple[OneStepSR, Curves]:
    curves = Curves(lambda values, step: None)
    student = reconstruct(model, *prepared, lq, config, SETTING, curves, Checkpoint(folder, 60.0))
    return student, curves


class Run(NamedTuple):
    """One whole run in reverse order, and how many samples entered the teacher's first layer."""

    student: OneStepSR
    curves: Curves
    seen: int


@pytest.fixture(scope="module")
def run(
    model: OneStepSR, prepared: Prepared, lq: Tensor, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[int], Run]:
    """Runs by their steps per module, each made once for all tests."""

    @functools.cache
    def made(steps: int) -> Run:
        seen: list[int] = []
        hook = model.vae.encoder.conv_in.register_forward_hook(lambda *call: seen.append(len(call[1][0])))
        # it travels into the copy, whose encoder is quantized last: then QuantLayer replaces this module
        student, curves = _reconstruct(model, prepared, lq, tmp_path_factory.mktemp("run"), _config(steps=steps))
        hook.remove()
        return Run(student, curves, sum(seen))

    return made


def test_modules_come_in_reverse_inference_order(model: OneStepSR, run: Callable[[int], Run]) -> None:
    assert [row["module"] for row in run(1).curves.rows] == [unit.name for unit in reversed(model.segments())]


def test_original_weights_never_change(model: OneStepSR, run: Callable[[int], Run]) -> None:
    after, teacher = run(2).student.state_dict(), model.state_dict()
    for name, value in tiny_model().state_dict().items():
        assert torch.equal(after[name], value) and torch.equal(teacher[name], value), name


def test_quantized_parts_do_train(run: Callable[[int], Run]) -> None:
    once = dict(run(1).student.named_parameters())
    changed = [n for n, p in run(2).student.named_parameters() if not torch.equal(p, once[n])]
    for role in ("transform", "skip", "adapter", "weight_quantizer", "input_quantizer"):
        assert any(f".{role}." in name for name in changed), role


@pytest.mark.parametrize("limit", [1 << 26, 1024])
def test_cuts_are_the_teachers_states(lq: Tensor, tmp_path: Path, limit: int) -> None:
    """Of a model with all kinds of segments."""
    model = tiny_model(attending=True)
    sequence, every = model.segments(), torch.arange(len(lq))
    cuts = ActivationCache(tmp_path, model, sequence, lq, limit)
    cuts.fill(batch=3)
    with torch.no_grad():
        for index in range(len(sequence) + 1):
            expected, found = run_segments(model, State(lq), sequence[:index]), cuts.load(index, every)
            pairs = zip(_tensors(found), _tensors(expected), strict=True)
            assert all(torch.allclose(one, other, atol=1e-5) for one, other in pairs)
            assert cuts.variance(index) == pytest.approx(float(expected.hidden.double().var()), rel=1e-5)
        entered = run_segments(model, cuts.load(6, torch.tensor([2, 0])), sequence[6:]).hidden
        assert torch.allclose(entered, model(lq[[2, 0]]), atol=1e-4)


def test_variances_are_torchs_to_the_bit(model: OneStepSR, lq: Tensor, tmp_path: Path) -> None:
    """So a run does not depend on how the states are kept."""
    cuts = ActivationCache(tmp_path, model, model.segments(), lq)
    cuts.fill()
    for index in range(len(model.segments()) + 1):
        assert torch.equal(cuts.variance(index), cuts.load(index, torch.arange(len(lq))).hidden.var())


def test_large_states_are_not_kept(model: OneStepSR, lq: Tensor, tmp_path: Path) -> None:
    def kept(folder: str, limit: int) -> int:
        ActivationCache(tmp_path / folder, model, model.segments(), lq, limit).fill()
        return sum(path.stat().st_size for path in (tmp_path / folder).iterdir())

    assert kept("less", 1024) < kept("more", 1 << 26) / 2


def _tensors(state: State) -> list[Tensor]:
    return [state.hidden, *(state.beside[name] for name in sorted(state.beside))]


def test_the_teacher_runs_once_per_sample(lq: Tensor, run: Callable[[int], Run]) -> None:
    assert run(1).seen == len(lq)


def test_killed_twice_and_resumed_equals_uninterrupted(
    model: OneStepSR, prepared: Prepared, lq: Tensor, run: Callable[[int], Run], tmp_path: Path
) -> None:
    for stop in (5, 17):

        def die(values: dict[str, float], step: int, stop: int = stop) -> None:
            if step == stop:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            reconstruct(model, *prepared, lq, _config(steps=2), SETTING, Curves(die), Checkpoint(tmp_path, 0.0))
    again, rows = _reconstruct(model, prepared, lq, tmp_path, _config(steps=2))
    whole = run(2).student.state_dict().values()
    assert rows.rows == run(2).curves.rows
    assert all(torch.equal(a, b) for a, b in zip(again.state_dict().values(), whole, strict=True))


def test_frozen_predecessors_stay(
    model: OneStepSR, prepared: Prepared, lq: Tensor, run: Callable[[int], Run], tmp_path: Path
) -> None:
    student, _ = _reconstruct(model, prepared, lq, tmp_path, _config(steps=1, train_quantized=False))
    first = model.segments()[-1].layers
    here, there = dict(student.named_parameters()), dict(run(1).student.named_parameters())
    assert any(not torch.equal(here[n], there[n]) for n in here if n.startswith(first))


def test_forward_order_also_runs(model: OneStepSR, prepared: Prepared, lq: Tensor, tmp_path: Path) -> None:
    _, curves = _reconstruct(model, prepared, lq, tmp_path, _config(order="forward"))
    assert [row["module"] for row in curves.rows] == [unit.name for unit in model.segments()]


def test_the_order_by_sensitivity_is_that_of_single_modules(
    model: OneStepSR, prepared: Prepared, lq: Tensor, tmp_path: Path
) -> None:
    errors = {}
    for unit in model.segments():  # whole passes of a copy with one module quantized, no cuts
        student = copy.deepcopy(model)
        apply(student, prepared[0], unit.layers)
        initialise(student, prepared[1], unit.layers)
        with torch.no_grad():
            errors[unit.name] = float((student(lq) - model(lq)).double().square().mean())
    expected = sorted(errors, key=lambda name: errors[name])
    sequence = model.segments()
    cuts = ActivationCache(tmp_path, model, sequence, lq)
    cuts.fill()
    last, first = (
        [sequence[index].name for index in module_order(kind, model, *prepared, cuts, sequence)]
        for kind in ("sensitive_last", "sensitive_first")
    )
    assert last == expected and first == expected[::-1]
