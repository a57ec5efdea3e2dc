"""SVDQuant's groups, search for phi, branch, and GPTQ on the residual."""

from __future__ import annotations

import torch
from torch import Tensor

from qartsr.branches import SVD
from qartsr.config.parts import MinMaxConfig, SVDConfig
from qartsr.quantizers import QUANTIZERS, Grouped, gptq, group_size
from qartsr.transforms import phi_candidates
from tests.parity.methods.fixtures import Case, each, header, kinds, load
from tests.parity.methods.rules import close, near_tie


def _grouped(weight: Tensor, size: int, bits: int, symmetric: bool) -> Grouped:
    outputs, channels = weight.shape[:2]
    assert group_size(channels, size) == size
    config = MinMaxConfig(granularity="group", group=size, symmetric=symmetric)
    shape = (outputs * channels // size, 1)
    made = Grouped(QUANTIZERS.build(config, bits=bits, shape=shape), channels, size)
    made.calibrate(weight)
    return made


@each("weight", "svdquant_group")
def test_groups(place: tuple[str, str]) -> None:
    """Symmetric and with a zero point; scales rounded to fp16 move some codes, ours are fp32."""
    file, _ = place
    case = load(*place)
    (source,) = [name for name in header(file)["cases"] if kinds(file, name) == ["tensor"]]
    x, t, bits, size = load(file, source).tensors["x"], case.tensors, int(case.facts["bits"]), int(case.facts["group"])
    made = _grouped(x, size, bits, case.facts["symmetric"])
    grid = made.compact(x)
    scale, spread = t["scale"], t["scale"].repeat_interleave(size, 1)
    ends = x.unflatten(1, (-1, size))
    both_signs = (ends.amin(2) < 0) & (ends.amax(2) > 0)  # theirs joins a range with 0, ours need not
    if case.facts["scale_bits"] == 16:
        close(grid.scale.half()[both_signs].float(), scale[both_signs], tolerance=2**-10)
        close(made(x), t["out"], (made(x) - t["out"]).abs() > 0.51 * spread, tolerance=1.0)
        return
    close(grid.scale[both_signs], scale[both_signs])
    zero = t["zero"].repeat_interleave(size, 1) if "zero" in t else torch.zeros_like(spread)
    skip = near_tie(x, spread, zero) | ~both_signs.repeat_interleave(size, 1)
    close(made(x), t["out"], skip)


@each("input", "svdquant_group")
def test_inputs_have_a_range_per_token_and_group_there(place: tuple[str, str]) -> None:
    """Re-stated; ours is one affine range per tensor, which loses more (docs/parts.md)."""
    case = load(*place)
    t = case.tensors
    close(_token_groups(t["x"], int(case.facts["group"]), int(case.facts["bits"])), t["out"])
    ours = QUANTIZERS.build(MinMaxConfig(), bits=int(case.facts["bits"]), shape=())
    ours.calibrate(t["x"])
    assert (t["out"] - t["x"]).square().sum() < (ours(t["x"]) - t["x"]).square().sum()


def _token_groups(x: Tensor, size: int, bits: int) -> Tensor:
    """Symmetric, dynamic, the lowest code unused."""
    parts, most = x.unflatten(-1, (-1, size)), 2 ** (bits - 1) - 1
    scale = parts.abs().amax(-1, keepdim=True) / most
    return ((parts / scale).round().clamp(-most, most) * scale).flatten(-2)


def _candidates(case: Case) -> Tensor:
    """Ours, in their order: (0, 0), (a, 0), (a, 1 - a)."""
    t, steps = case.tensors, int(case.config["num_grids"])
    ours = phi_candidates(t["span_x"], t["weight"], steps)
    pairs = [(0.0, 0.0), *((a / steps, b) for a in range(1, steps) for b in (0.0, 1 - a / steps))]
    place = {(round(a, 4), round(b, 4)): number for number, (a, b) in enumerate(pairs)}
    return ours[[place[round(float(a), 4), round(float(b), 4)] for a, b in t["alpha_beta"]]]


def _branch(case: Case, phi: Tensor) -> SVD:
    weight = case.tensors["weight"]
    made = SVD(SVDConfig(rank=case.facts["rank"], basis="scaled"), tuple(weight.shape), "layer")
    made.calibrate(weight, phi)
    return made


@each("layer", "svdquant_smooth")
def test_candidates_and_their_errors(place: tuple[str, str]) -> None:
    """All of them under their inputs (token and group); one code that fp32 may round either way is allowed for."""
    case = load(*place)
    t, bits, size = case.tensors, int(case.facts["bits"]), int(case.facts["group"])
    close(t["weight"].abs().amax(0), t["span_w"])
    found = _candidates(case)
    close(found[t["candidate_index"]], t["candidates"])
    x = t["inputs"].flatten(0, -3).double() if t["inputs"].ndim > 3 else t["inputs"].double()
    flat, weight = x.flatten(0, -2), t["weight"].double()
    errors, slack = [], []
    for phi in found:
        branch = _branch(case, phi)
        residual = (t["weight"] - branch.matrix()) * phi
        quantized = _grouped(residual, size, bits, True)(residual).double()
        inner = _token_groups((x / phi).float(), size, bits).double()
        out = inner @ quantized.T + x @ branch.matrix().double().T - x @ weight.T
        errors.append(out.square().sum())
        scale = (x / phi).unflatten(-1, (-1, size)).abs().amax(-1) / (2 ** (bits - 1) - 1)
        jump = scale.amax() * quantized.abs().amax()
        slack.append(2 * jump * out.abs().amax() * quantized.shape[0] + jump**2 * quantized.shape[0])
    assert flat.shape[-1] == weight.shape[1]
    ours, theirs = torch.stack(errors), t["errors"].double()
    assert bool(((ours - theirs).abs() <= 1e-5 * theirs + torch.stack(slack)).all())
    close(ours, theirs, tolerance=1e-2)
    exact = ((ours - theirs).abs() <= 1e-5 * theirs).double().mean()
    assert exact > 0.8, float(exact)
    best = int(case.facts["best"])
    assert int(ours.argmin()) == best or ours[best] <= ours.min() * (1 + 1e-2)
    close(found[best], t["scale"])


@each("layer", "svdquant_smooth")
def test_branch_residual_and_output(place: tuple[str, str]) -> None:
    """At their phi: SVD of W phi, the residual by rounding to nearest, and the whole layer."""
    case = load(*place)
    t, bits, size = case.tensors, int(case.facts["bits"]), int(case.facts["group"])
    phi = t["scale"]
    branch = _branch(case, phi)
    close(branch.matrix() * phi, t["branch_up"] @ t["branch_down"])
    residual = (t["weight"] - branch.matrix()) * phi
    made = _grouped(residual, size, bits, True)
    close(made.compact(residual).scale, t["group_scale"])
    close(made(residual), t["residual_rtn"])
    x = t["inputs"][-1] if t["inputs"].ndim > 3 else t["inputs"]
    candidates = list(t["inputs"]) if t["inputs"].ndim > 3 else [t["inputs"]]
    matching = [
        v for v in candidates if torch.allclose(_token_groups(v / phi, size, bits), t["x_quantized"], atol=1e-5)
    ]
    assert matching
    x = matching[0]
    skipped = x @ branch.matrix().T + t["bias"]
    close(t["x_quantized"] @ made(residual).T + skipped, t["out_rtn"])
    close(t["x_quantized"] @ t["residual_gptq"].T + skipped, t["out_gptq"])


@each("layer", "svdquant_smooth")
def test_gptq_on_the_residual(place: tuple[str, str]) -> None:
    """Groups' ranges fixed first. At few bits ours may use the lowest code, which theirs never does; no worse."""
    case = load(*place)
    t, bits, size = case.tensors, int(case.facts["bits"]), int(case.facts["group"])
    residual = (t["weight"] - _branch(case, t["scale"]).matrix()) * t["scale"]
    grid = _grouped(residual, size, bits, True).grid(residual)
    inputs = (t["inputs"].flatten(0, -2) / t["scale"]).float()
    ours = gptq(residual, grid, inputs, case.config["gptq"]["damp_percentage"])
    lowest = (ours / grid.scale).round() < -(2 ** (bits - 1) - 1)
    rows = lowest.any(1)
    errors = [((found - residual) @ inputs.T).square().sum(1) for found in (ours, t["residual_gptq"])]
    plain = ((t["residual_rtn"] - residual) @ inputs.T).square().sum(1)
    kept = errors[0] >= plain * (1 - 1e-5)  # a channel that nearest serves better keeps it
    same = ~rows & ~kept
    if bool(same.any()):
        different = ((ours - t["residual_gptq"]).abs() > 0.5 * grid.scale)[same]
        assert different.double().mean() < 0.01
    assert errors[0].sum() <= 1.001 * errors[1].sum()


@each("layer", "svdquant_smooth")
def test_refinement_is_left_out(place: tuple[str, str]) -> None:
    """L <- SVD(W - Q(R)), repeated until the error grows: what theirs gains and ours does not have."""
    t = load(*place).tensors
    errors = t["refined_errors"]
    assert len(errors) >= 1 and errors.min() <= errors[0]
