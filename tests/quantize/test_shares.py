"""Budgets of ranks and of bits are kept exactly, and spent where they do most."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from qartsr.config import Bits
from qartsr.config.policies import STCAConfig, VarianceConfig, VaSMPConfig
from qartsr.errors import QartsrError
from qartsr.layer import op_of
from qartsr.quantize import Plan, plan
from qartsr.quantize.bit_budgets import Products, allocate_bits, allocate_input_bits, products, scheduled_bits
from qartsr.quantize.rank_budgets import allocate_ranks, as_voted, complexities, complexity, votes
from qartsr.quantizers import KAPPA
from tests.quantize.small import batches, method, small

SHAPE = st.tuples(st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 3])).map(lambda s: (*s, s[2]))


def _cost(shape: tuple[int, ...]) -> int:
    return shape[0] + math.prod(shape[1:])


def _full(shape: tuple[int, ...]) -> int:
    return min(shape[0], math.prod(shape[1:]))


@given(
    shapes=st.lists(SHAPE, min_size=1, max_size=12),
    seed=st.integers(0, 99),
    rank=st.integers(1, 20),
    minimum=st.integers(1, 20),
    maximum=st.integers(1, 40),
    multiple=st.integers(1, 8),
)
def test_ranks_stay_within_the_budget_and_leave_no_step_of_it(
    shapes: list[tuple[int, ...]], seed: int, rank: int, minimum: int, maximum: int, multiple: int
) -> None:
    minimum, maximum = min(minimum, maximum, rank), max(maximum, minimum)
    config = STCAConfig(minimum=minimum, maximum=maximum, multiple=multiple)
    named = {str(number): shape for number, shape in enumerate(shapes)}
    draw = torch.Generator().manual_seed(seed)
    asked = {name: int(torch.randint(minimum, maximum + 1, (), generator=draw)) for name in named}
    found = allocate_ranks(asked, named, rank, config)
    budget = sum(_cost(shape) * min(rank, _full(shape)) for shape in shapes)
    left = budget - sum(_cost(named[name]) * found[name] for name in named)
    assert left >= 0
    for name, shape in named.items():
        last = min(maximum, _full(shape))
        assert min(minimum, last) <= found[name] <= last
        assert found[name] % multiple == 0 or found[name] in (last, minimum)
        steps = [r for r in range(found[name] + 1, last + 1) if r % multiple == 0 or r == last]
        assert not steps or _cost(shape) * (steps[0] - found[name]) > left


def test_equal_layers_that_ask_for_more_get_more() -> None:
    shapes = dict.fromkeys("abc", (64, 64))
    found = allocate_ranks({"a": 16, "b": 32, "c": 48}, shapes, 32, STCAConfig(minimum=8))
    assert found == {"a": 16, "b": 32, "c": 48}
    assert set(allocate_ranks(dict.fromkeys("abc", 20), shapes, 32, STCAConfig(minimum=8)).values()) == {32}


def test_a_budget_below_the_minimum_is_refused() -> None:
    with pytest.raises(QartsrError, match="minimum ranks"):
        allocate_ranks({"a": 16}, {"a": (64, 64)}, 4, STCAConfig())


def test_votes_are_quantvsrs() -> None:
    """Thresholds over all layers and images; +1 at or above the upper, -1 at or below the lower; clipped."""
    found_by_layer = torch.tensor([[0.0, 0.0, 0.0], [5.0, 5.0, 5.0], [9.0, 9.0, 5.0], [9.0, 0.0, 5.0]]).double()
    flat = found_by_layer.flatten()
    assert (torch.quantile(flat, 0.25), torch.quantile(flat, 0.75)) == (0.0, 6.0)
    found = votes(found_by_layer, STCAConfig(minimum=2, maximum=3, multiple=1, lower=0.25, upper=0.75))
    assert found == [2, 2, 3, 2]  # -3, 0, +2, +1 - 1


def test_complexity_is_the_deviation_over_positions() -> None:
    name, model = "unet.down_blocks.0.resnets.0.conv1", small()
    images = torch.cat(batches())
    inputs: list[Tensor] = []
    model.get_submodule(name).register_forward_pre_hook(lambda m, a: inputs.append(a[0]))
    found = complexities(model, images, [name, "vae.encoder.conv_in"]).spatial
    torch.testing.assert_close(found[0], torch.cat(inputs).double().flatten(2).std(2).mean(1))
    assert found.shape == (2, 4)


def test_complexity_does_not_see_the_border_of_zeros() -> None:
    """A flat map is flat, however it will be padded; and one position has no deviation."""
    flat, conv = torch.full((1, 3, 4, 5), 7.0), op_of(torch.nn.Conv2d(3, 2, 3, padding=1))
    assert complexity(flat, conv) == 0
    assert complexity(torch.ones(1, 8), op_of(torch.nn.Linear(8, 2))).isnan()
    assert complexity(torch.randn(1, 3, 1, 1), conv).isnan()
    tokens = torch.tensor([[[0.0, 5.0], [2.0, 5.0]]])  # over tokens, not over the channels of each
    assert float(complexity(tokens, op_of(torch.nn.Linear(2, 2)))) == pytest.approx(2**0.5 / 2)


def test_layers_without_positions_vote_for_the_minimum_and_move_no_quantile() -> None:
    """The embedding layers: with them at 0 the lower quantile would be theirs and the others' votes would change."""
    seen = torch.tensor([[1.0, 2.0], [3.0, 9.0], [5.0, 9.0]]).double()
    config = STCAConfig(minimum=3, maximum=9, multiple=1, lower=0.25, upper=0.75)
    alone = votes(seen, config)
    with_nan = torch.cat([seen, torch.full((4, 2), float("nan")).double()])
    assert votes(with_nan, config) == [*alone, 3, 3, 3, 3] and alone == [3, 4, 4]
    assert votes(torch.cat([seen, torch.zeros(4, 2).double()]), config)[:3] != alone


def test_the_embeddings_of_a_model_get_the_least_rank() -> None:
    names = ["unet.time_embedding.linear_1", "unet.down_blocks.0.resnets.0.conv1"]
    found = complexities(small(), torch.cat(batches()), names).spatial
    assert found[0].isnan().all() and found[1].isfinite().all()


def _sizes(found: Plan) -> tuple[int, int]:
    """Numbers in the low-rank branches, and their mean rank times a hundred."""
    shapes = {name: tuple(module.weight.shape) for name, module in _layers().items()}
    ranks = {layer.name: getattr(layer.recipe.skip, "rank", 0) for layer in found.layers if not layer.float}
    return sum(_cost(shapes[n]) * min(r, _full(shapes[n])) for n, r in ranks.items()), len(set(ranks.values()))


def _layers() -> dict[str, torch.nn.Module]:
    from qartsr.quantize import quantizable

    return quantizable(small())


@pytest.mark.parametrize("skip", [{"kind": "svd", "rank": 4}, {"kind": "hsvd", "rank": 4}])
def test_a_plan_with_ranks_costs_what_the_uniform_one_costs(skip: dict[str, object]) -> None:
    policy = {"kind": "stca", "minimum": 2, "maximum": 12, "multiple": 1}
    kept = ("vae.decoder.conv_out",)
    images = torch.cat(batches())
    shared = plan(small(), method(rank_policy=policy, layer={"skip": skip}, float_layers=kept), Bits(4, 4), images)
    uniform = plan(small(), method(layer={"skip": skip}, float_layers=kept), Bits(4, 4))
    (ours, kinds), (theirs, one) = _sizes(shared), _sizes(uniform)
    assert kinds > 2 and one == 1 and 0.98 * theirs < ours <= theirs
    assert Plan.model_validate_json(shared.model_dump_json()) == shared
    with pytest.raises(QartsrError, match="calibration images"):
        plan(small(), method(rank_policy=policy, layer={"skip": skip}), Bits(4, 4))


@given(
    sizes=st.lists(st.integers(1, 60), min_size=1, max_size=14),
    seed=st.integers(0, 99),
    bits=st.integers(2, 8),
    spread=st.integers(0, 6),
)
def test_bits_stay_within_the_budget_and_leave_no_bit_of_it(
    sizes: list[int], seed: int, bits: int, spread: int
) -> None:
    draw = torch.Generator().manual_seed(seed)
    weights = {str(n): torch.randn(2, size, generator=draw) * 2.0 ** (n % 5) for n, size in enumerate(sizes)}
    found = allocate_bits(weights, bits, VaSMPConfig(spread=spread))
    left = sum(weights[name].numel() * (bits - found[name]) for name in weights)
    assert left >= 0
    most = min(8, bits + spread)
    assert all(max(2, bits - spread) <= b <= most for b in found.values())
    assert all(found[name] == most or weights[name].numel() > left for name in weights)


@pytest.mark.parametrize("seed", range(4))
def test_bits_of_equal_layers_are_the_best_of_all(seed: int) -> None:
    """Against every way to give four layers 2 to 6 bits with mean 4."""
    draw = torch.Generator().manual_seed(seed)
    weights = {n: torch.randn(4, 30, generator=draw) * 4.0 ** float(torch.randn((), generator=draw)) for n in "abcd"}
    variances = [float(w.double().var(1, correction=0).mean()) for w in weights.values()]
    found = allocate_bits(weights, 4, VaSMPConfig(spread=2))

    def distortion(bits: tuple[int, ...]) -> float:
        return sum(v * 4.0**-b for v, b in zip(variances, bits, strict=True))

    best = min(distortion(b) for b in itertools.product(range(2, 7), repeat=4) if sum(b) <= 16)
    assert distortion(tuple(found.values())) == pytest.approx(best)


def test_bits_follow_the_closed_form_where_it_is_whole() -> None:
    """b + (log2 v - mean log2 v) / 2: four times the variance is one bit more."""
    base = torch.randn(8, 50, generator=torch.Generator().manual_seed(0))
    found = allocate_bits({"a": base / 2, "b": base, "c": base * 2}, 4, VaSMPConfig(spread=2))
    assert found == {"a": 3, "b": 4, "c": 5}
    assert set(allocate_bits({"a": base, "b": base.clone()}, 3, VaSMPConfig()).values()) == {3}


def test_a_plan_with_shared_bits_has_the_mean_of_the_bit_width() -> None:
    decided = plan(small(), method(bits_policy={"kind": "vasmp"}, edge_layers=("unet.conv_*",)), Bits(4, 4))
    sizes = {name: module.weight.numel() for name, module in _layers().items()}
    inner = [layer for layer in decided.layers if not layer.name.startswith("unet.conv_")]
    assert {layer.weight_bits for layer in decided.layers if layer not in inner} == {8}
    assert {layer.weight_bits for layer in inner} == {3, 4, 5} and {layer.input_bits for layer in inner} == {4}
    mean = sum(sizes[layer.name] * layer.weight_bits for layer in inner) / sum(sizes[layer.name] for layer in inner)
    assert 3.99 < mean <= 4
    assert Plan.model_validate_json(decided.model_dump_json()) == decided


def test_products_are_counted_over_padded_positions() -> None:
    """conv_in of 3 x 3 with a stride of 1 multiplies at every position, a border of zeros included."""
    name, images = "vae.encoder.conv_in", torch.cat([*batches(), *batches()])[:6]
    weight = _layers()[name].weight.detach()
    found = products(small(), images, [name])[name]
    assert found.multiplications == weight.numel() * images.shape[-1] * images.shape[-2]
    expected = float(weight.double().square().mean() * images.double().square().mean())
    assert found.mean_square == pytest.approx(expected)
    with pytest.raises(QartsrError, match="needs calibration images"):
        products(small(), images[:0], [name])


@given(
    layers=st.lists(st.tuples(st.integers(1, 60), st.floats(1e-4, 1e4)), min_size=1, max_size=14),
    bits=st.integers(2, 8),
    spread=st.integers(0, 6),
)
def test_input_bits_stay_within_the_budget_and_leave_no_bit_of_it(
    layers: list[tuple[int, float]], bits: int, spread: int
) -> None:
    asked = {str(n): Products(*each) for n, each in enumerate(layers)}
    found = allocate_input_bits(asked, bits, VarianceConfig(spread=spread))
    left = sum(each.multiplications * (bits - found[name]) for name, each in asked.items())
    most = min(8, bits + spread)
    assert left >= 0
    assert all(max(2, bits - spread) <= b <= most for b in found.values())
    uniform = all(b == bits for b in found.values())
    assert uniform or all(found[name] == most or each.multiplications > left for name, each in asked.items())
    energies = [
        sum(each.multiplications * each.mean_square * KAPPA[b] for each, b in zip(asked.values(), given, strict=True))
        for given in (found.values(), [bits] * len(asked))
    ]
    assert energies[0] <= energies[1]


@given(squares=st.lists(st.floats(1e-3, 1e3), min_size=4, max_size=4))
def test_input_bits_of_layers_that_multiply_alike_are_the_best_of_all(squares: list[float]) -> None:
    """Against every way to give four layers 2 to 6 bits with mean 4."""
    asked = {str(n): Products(5, square) for n, square in enumerate(squares)}
    found = allocate_input_bits(asked, 4, VarianceConfig(spread=2))

    def energy(bits: Iterable[int]) -> float:
        return sum(KAPPA[b] * square for b, square in zip(bits, squares, strict=True))

    best = min(energy(b) for b in itertools.product(range(2, 7), repeat=4) if sum(b) <= 16)
    assert energy(found.values()) == pytest.approx(best)


def test_a_plan_with_shared_input_bits_has_the_mean_of_the_bit_width_over_all_products() -> None:
    shared = method(input_bits_policy={"kind": "variance"}, edge_layers=("unet.conv_*",))
    images = torch.cat([*batches()])
    decided = plan(small(), shared, Bits(4, 4), images)
    inner = [layer for layer in decided.layers if not layer.name.startswith("unet.conv_")]
    assert {layer.input_bits for layer in decided.layers if layer not in inner} == {8}
    assert {layer.input_bits for layer in inner} == {3, 4, 5} and {layer.weight_bits for layer in inner} == {4}
    counts = {
        name: each.multiplications for name, each in products(small(), images, [layer.name for layer in inner]).items()
    }
    mean = sum(counts[layer.name] * layer.input_bits for layer in inner) / sum(counts.values())
    assert 3.98 < mean <= 4
    with pytest.raises(ValueError, match=r"layer\.input is none"):
        method(input_bits_policy={"kind": "variance"}, layer={"input": {"kind": "none"}})


def test_clips_run_whole_and_are_judged_in_space_and_time() -> None:
    """Of a clip: the mean over frames, and the mean squared difference of neighbours; of one position, nothing."""
    name, images = "vae.encoder.conv_in", torch.cat([*batches(), *batches()])[:6]
    op = op_of(small().get_submodule(name))
    found = complexities(small(), images, [name], frames=3)
    assert found.temporal is not None and found.spatial.shape == found.temporal.shape == (1, 2)
    for number, clip in enumerate(images.split(3)):
        spatial = torch.stack([complexity(frame[None], op) for frame in clip]).mean()
        assert torch.isclose(found.spatial[0, number], spatial)
        between = (clip[1:] - clip[:-1]).double().square().mean()
        assert torch.isclose(found.temporal[0, number], between)
    still = complexities(small(), images[:1].repeat(3, 1, 1, 1), [name], frames=3)
    assert still.temporal is not None and float(still.temporal) == 0
    with pytest.raises(QartsrError, match="make no clips of 4"):
        complexities(small(), images, [name], frames=4)


def test_a_vote_of_clips_needs_both() -> None:
    config = STCAConfig(minimum=2, maximum=9, multiple=1)
    spatial, temporal = torch.arange(8.0).reshape(4, 2), torch.tensor([[0.0, 7], [2, 3], [4, 5], [1, 6]])
    assert votes(spatial, config) == [2, 2, 2, 4]  # -2, 0, 0, +2, none below the minimum
    assert votes(spatial, config, temporal) == [2, 2, 2, 3]
    shapes = {"a": (64, 64), "b": (4, 64)}
    assert as_voted({"a": 20, "b": 64}, shapes, STCAConfig()) == {"a": 24, "b": 4}
    assert as_voted({"a": 19, "b": 16}, shapes, STCAConfig()) == {"a": 16, "b": 4}


@given(
    sizes=st.lists(st.integers(1, 6), min_size=1, max_size=5),
    scales=st.lists(st.floats(0.01, 100), min_size=5, max_size=5),
    bits=st.integers(2, 8),
    spread=st.integers(0, 2),
)
@settings(max_examples=40)
def test_exact_bits_meet_the_budget_and_are_the_best_that_do(
    sizes: list[int], scales: list[float], bits: int, spread: int
) -> None:
    weights = {
        str(place): torch.randn(2, 4 * size, generator=torch.Generator().manual_seed(place)) * scale
        for place, (size, scale) in enumerate(zip(sizes, scales, strict=False))
    }
    found = allocate_bits(weights, bits, VaSMPConfig(spread=spread, exact=True))
    allowed = range(max(2, bits - spread), min(8, bits + spread) + 1)

    def distortion(chosen: Iterable[int]) -> float:
        pairs = zip(weights.values(), chosen, strict=True)
        return sum(w.numel() * float(w.double().var(1, correction=0).mean()) * 4.0**-b for w, b in pairs)

    meeting = [
        chosen
        for chosen in itertools.product(allowed, repeat=len(sizes))
        if sum(n * (b - bits) for n, b in zip(sizes, chosen, strict=True)) == 0
    ]
    assert tuple(found.values()) in meeting
    assert distortion(found.values()) == pytest.approx(min(map(distortion, meeting)), rel=1e-9)


def _stretches(schedule: Sequence[int]) -> int:
    return sum(1 for _ in itertools.groupby(schedule))


@given(
    variances=st.lists(st.floats(0.01, 100), min_size=1, max_size=5),
    bits=st.integers(2, 6),
    segments=st.integers(1, 5),
)
@settings(max_examples=25)
def test_a_schedule_is_the_best_of_all(variances: list[float], bits: int, segments: int) -> None:
    found = scheduled_bits(variances, bits, segments)
    steps = len(variances)
    assert len(found) == steps and sum(found) <= bits * steps and _stretches(found) <= segments

    def error(schedule: Iterable[int]) -> float:
        return sum(v * KAPPA[b] for v, b in zip(variances, schedule, strict=True))

    tried = (s for s in itertools.product(range(2, 9), repeat=steps) if sum(s) <= bits * steps)
    assert error(found) == pytest.approx(min(error(s) for s in tried if _stretches(s) <= segments), rel=1e-9)


def test_free_stretches_are_greedy_and_few_gain() -> None:
    """24 timesteps whose variance rises, then falls."""
    variances = [0.3 + 6 * math.sin(math.pi * (t + 0.5) / 24) ** 2 for t in range(24)]
    greedy = [2] * len(variances)
    for _ in range(2 * len(variances)):
        gains = [v * (KAPPA[b] - KAPPA.get(b + 1, KAPPA[b])) for v, b in zip(variances, greedy, strict=True)]
        greedy[gains.index(max(gains))] += 1

    def error(schedule: Iterable[int]) -> float:
        return sum(v * KAPPA[b] for v, b in zip(variances, schedule, strict=True))

    one, three, free = (error(scheduled_bits(variances, 4, stretches)) for stretches in (1, 3, 24))
    assert free == pytest.approx(error(greedy), rel=1e-9) and one == pytest.approx(error([4] * 24))
    assert free < three < one
    assert scheduled_bits([3.0], 4) == (4,)
