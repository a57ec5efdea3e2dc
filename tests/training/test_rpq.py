"""RPQ: order, caching, what trains, what never changes, and the loss of a hand-made step."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor

from qartsr.config import Bits, load_params
from qartsr.config.method import ModulesPhase
from qartsr.config.training import ImageLossConfig, LPIPSConfig, RoleRates
from qartsr.models import OneStepSR, State, run_segments
from qartsr.quantize import Plan, Statistics, apply, initialise, observe, plan
from qartsr.training.checkpoint import Checkpoint
from qartsr.training.curves import Curves
from qartsr.training.cuts import Cuts
from qartsr.training.optimizer import Setting
from qartsr.training.order import module_order
from qartsr.training.rpq import reconstruct

RATES = RoleRates(transform=1, skip=1, adapter=1, quantizer=1)
SETTING = Setting(LPIPSConfig(), "none", 1.0, 0)


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


@pytest.fixture()
def lq() -> Tensor:
    return torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(3)) * 2 - 1


@pytest.fixture()
def prepared(model: OneStepSR, lq: Tensor, root: Path) -> tuple[Plan, Statistics]:
    params = load_params(root / "configs" / "osediff.yaml")  # min-max start: quick
    return plan(model, params.method.planned(params.common), Bits(4, 4)), observe(model, lq.split(2))


def _reconstruct(
    model: OneStepSR, prepared: tuple[Plan, Statistics], lq: Tensor, folder: Path, config: ModulesPhase
) -> tuple[OneStepSR, Curves]:
    curves = Curves(lambda values, step: None)
    student = reconstruct(model, *prepared, lq, config, SETTING, curves, Checkpoint(folder, 0.0))
    return student, curves


def test_modules_come_in_reverse_inference_order(
    model: OneStepSR, prepared: tuple[Plan, Statistics], lq: Tensor, tmp_path: Path
) -> None:
    _, curves = _reconstruct(model, prepared, lq, tmp_path, _config())
    assert [row["module"] for row in curves.rows] == [unit.name for unit in reversed(model.segments())]


def test_original_weights_never_change(
    model: OneStepSR, prepared: tuple[Plan, Statistics], lq: Tensor, tmp_path: Path
) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    student, _ = _reconstruct(model, prepared, lq, tmp_path, _config(steps=2))
    after = student.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())


def test_quantized_parts_do_train(
    model: OneStepSR, prepared: tuple[Plan, Statistics], lq: Tensor, tmp_path: Path
) -> None:
    trained, _ = _reconstruct(model, prepared, lq, tmp_path / "a", _config(steps=2))
    still, _ = _reconstruct(model, prepared, lq, tmp_path / "b", _config(steps=0))
    changed = [n for n, p in trained.named_parameters() if not torch.equal(p, dict(still.named_parameters())[n])]
    for role in ("transform", "skip", "adapter", "weight_quantizer", "input_quantizer"):
        assert any(f".{role}." in name for name in changed), role


@pytest.mark.parametrize("limit", [1 << 26, 4096])
def test_cuts_are_the_teachers_states(model: OneStepSR, lq: Tensor, tmp_path: Path, limit: int) -> None:
    sequence, every = model.segments(), torch.arange(len(lq))
    cuts = Cuts(tmp_path, model, sequence, lq, limit)
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
    cuts = Cuts(tmp_path, model, model.segments(), lq)
    cuts.fill()
    for index in range(len(model.segments()) + 1):
        assert torch.equal(cuts.variance(index), cuts.load(index, torch.arange(len(lq))).hidden.var())


def test_large_states_are_not_kept(model: OneStepSR, lq: Tensor, tmp_path: Path) -> None:
    def kept(folder: str, limit: int) -> int:
        Cuts(tmp_path / folder, model, model.segments(), lq, limit).fill()
        return sum(path.stat().st_size for path in (tmp_path / folder).iterdir())

    assert kept("less", 4096) < kept("more", 1 << 26) / 2


def _tensors(state: State) -> list[Tensor]:
    return [state.hidden, *(state.beside[name] for name in sorted(state.beside))]


def test_the_teacher_runs_once_per_sample(
    model: OneStepSR, prepared: tuple[Plan, Statistics], lq: Tensor, tmp_path: Path
) -> None:
    seen: list[int] = []
    model.vae.encoder.conv_in.register_forward_hook(lambda module, inputs, output: seen.append(len(inputs[0])))
    # the hook travels into the student's copy, whose encoder is quantized last: then QuantLayer replaces this module
    _reconstruct(model, prepared, lq, tmp_path, _config(steps=1))
    assert sum(seen) == len(lq)


@pytest.mark.parametrize("stop", [5, 17])
def test_killed_and_resumed_equals_uninterrupted(
    model: OneStepSR, prepared: tuple[Plan, Statistics], lq: Tensor, tmp_path: Path, stop: int
) -> None:
    whole, curves = _reconstruct(model, prepared, lq, tmp_path / "whole", _config(steps=2))

    def die(values: dict[str, float], step: int) -> None:
        if step == stop:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        reconstruct(model, *prepared, lq, _config(steps=2), SETTING, Curves(die), Checkpoint(tmp_path / "parts", 0.0))
    again, rows = _reconstruct(model, prepared, lq, tmp_path / "parts", _config(steps=2))
    assert rows.rows == curves.rows
    assert all(torch.equal(a, b) for a, b in zip(again.state_dict().values(), whole.state_dict().values(), strict=True))


def test_frozen_predecessors_stay(
    model: OneStepSR, prepared: tuple[Plan, Statistics], lq: Tensor, tmp_path: Path
) -> None:
    student, _ = _reconstruct(model, prepared, lq, tmp_path / "a", _config(steps=1, train_quantized=False))
    training, _ = _reconstruct(model, prepared, lq, tmp_path / "b", _config(steps=1, train_quantized=True))
    first = model.segments()[-1].layers
    here, there = dict(student.named_parameters()), dict(training.named_parameters())
    assert any(not torch.equal(here[n], there[n]) for n in here if n.startswith(first))


def test_forward_order_also_runs(
    model: OneStepSR, prepared: tuple[Plan, Statistics], lq: Tensor, tmp_path: Path
) -> None:
    _, curves = _reconstruct(model, prepared, lq, tmp_path, _config(order="forward"))
    assert [row["module"] for row in curves.rows] == [unit.name for unit in model.segments()]


def test_the_order_by_sensitivity_is_that_of_single_modules(
    model: OneStepSR, prepared: tuple[Plan, Statistics], lq: Tensor, tmp_path: Path
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
    cuts = Cuts(tmp_path, model, sequence, lq)
    cuts.fill()
    last, first = (
        [sequence[index].name for index in module_order(kind, model, *prepared, cuts, sequence)]
        for kind in ("sensitive_last", "sensitive_first")
    )
    assert last == expected and first == expected[::-1]
