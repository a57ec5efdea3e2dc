"""QuantVSR's ranks by complexity (STCA) and its Hadamard matrices."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from qartsr.config.policies import STCAConfig
from qartsr.layer import op_of
from qartsr.quantize.rank_budgets import complexity, temporal_complexity, votes
from tests.parity.methods.fixtures import each, header, kinds, load
from tests.parity.methods.rules import close


def _ours(x: Tensor) -> Tensor:
    """The mean over the frames of x, each an image of its own here."""
    conv = x.ndim == 4
    op = op_of(nn.Conv2d(x.shape[1], 1, 1) if conv else nn.Linear(x.shape[-1], 1))
    return torch.stack([complexity(frame, op) for frame in x.split(1)]).mean()


def _spatial(x: Tensor) -> Tensor:
    """Theirs: deviation (n - 1) over all dimensions after the second, of tokens the channels; mean over the rest."""
    rows = x.double().flatten(2) if x.ndim > 2 else x.double()[..., None]
    return rows.std(2).mean() if rows.shape[2] > 1 else torch.tensor(float("nan"))


def _agrees(ours: Tensor, theirs: Tensor) -> None:
    assert ours.isnan() == theirs.isnan()
    if not ours.isnan():
        close(ours, theirs)


@each("complexity", "quantvsr_stca")
def test_complexity(place: tuple[str, str]) -> None:
    """Of convolutions: theirs. Of tokens: theirs mistakes the axes and runs over channels, ours over tokens."""
    t = load(*place).tensors
    _agrees(_spatial(t["x"]), t["c_spatial"])
    close(temporal_complexity(t["x"]), t["c_temporal"])
    if t["x"].ndim == 3:
        close(_ours(t["x"].transpose(1, 2)), t["c_spatial"])
        close(_ours(t["x"]), _spatial(t["x"].transpose(1, 2)))
    elif t["x"].ndim == 4:
        _agrees(_ours(t["x"]), t["c_spatial"])
    else:
        assert complexity(t["x"][:1], op_of(nn.Linear(t["x"].shape[-1], 1))).isnan()


def _config(facts: dict[str, object], settings: dict[str, object]) -> STCAConfig:
    found = {key: facts.get(key, settings.get(key)) for key in ("min_rank", "max_rank", "percentile")}
    share = float(str(found["percentile"]))
    return STCAConfig(
        minimum=int(str(found["min_rank"])),
        maximum=int(str(found["max_rank"])),
        multiple=1,
        lower=share,
        upper=1 - share,
    )


def _both(spatial: Tensor, temporal: Tensor, config: STCAConfig) -> Tensor:
    return torch.tensor(votes(spatial, config, temporal))


def _eights(ranks: Tensor) -> Tensor:
    """Theirs are multiples of 8, below 4 nothing; ours are shares of a budget instead (docs/parts.md)."""
    return (ranks + 4) // 8 * 8


@each("ranks", "quantvsr_stca")
def test_votes(place: tuple[str, str]) -> None:
    """Both statistics of a sample beyond their quantiles make a vote; of images, the spatial one alone."""
    case = load(*place)
    t, config = case.tensors, _config(case.facts, case.config)
    spatial, temporal = t["c_spatial"].double(), t["c_temporal"].double()
    assert torch.equal(_eights(_both(spatial, temporal, config)), t["ranks"])
    ours = torch.tensor(votes(spatial, config))
    assert torch.equal(_both(spatial, spatial, config), ours)
    if torch.equal(spatial, temporal):
        assert torch.equal(_eights(ours), t["ranks"])


@each("observed", "quantvsr_stca")
def test_observed_layers(place: tuple[str, str]) -> None:
    """From activations to statistics, per sample; unpadded."""
    t = load(*place).tensors
    close(torch.stack([_spatial(x) for x in t["inputs"]]), t["c_spatial"])
    close(torch.stack([temporal_complexity(x) for x in t["inputs"]]), t["c_temporal"])
    tokens = t["inputs"].ndim == 4
    close(torch.stack([_ours(x.transpose(1, 2) if tokens else x) for x in t["inputs"]]), t["c_spatial"])


@each("observed", "quantvsr_stca")
def test_ranks_of_observed_layers(place: tuple[str, str]) -> None:
    """All observed layers share the quantiles; what is left out (embeddings) is in none and keeps its first rank."""
    file, _ = place
    names = [name for name in header(file)["cases"] if kinds(file, name) == ["observed"]]
    left_out = [name for name in header(file)["cases"] if kinds(file, name) == ["left out"]]
    cases = [load(file, name) for name in names]
    config = _config(cases[0].facts, cases[0].config)
    spatial, temporal = (torch.stack([c.tensors[k] for c in cases]).double() for k in ("c_spatial", "c_temporal"))
    theirs = torch.stack([c.tensors["rank"] for c in cases])
    assert torch.equal(_eights(_both(spatial, temporal, config)), theirs)
    for name in left_out:
        inputs = load(file, name).tensors["inputs"]
        of_images = torch.stack([_ours(x[:, None]) for x in inputs])  # one position each
        assert of_images.isnan().all()
        with_it = votes(torch.cat([spatial, of_images[None]]), config)
        assert with_it == [*votes(spatial, config), config.minimum]


@each("matrix", "quantvsr_hadamard")
def test_hadamard(place: tuple[str, str]) -> None:
    """diag(+-1) M, M orthogonal with entries of one size; other sizes are left as they are. No part of ours rotates."""
    case = load(*place)
    t, size = case.tensors, int(case.facts["n"])
    matrix = t["random"].double()
    if case.facts["identity"]:
        assert torch.equal(matrix, torch.eye(size).double())
        return
    close(matrix @ matrix.T, torch.eye(size).double())
    close(matrix.abs(), torch.full_like(matrix, size**-0.5))
    base = torch.ones(1, 1).double()
    while base.shape[0] < size and size & (size - 1) == 0:
        base = torch.cat([torch.cat([base, base], 1), torch.cat([base, -base], 1)])
    if base.shape[0] == size:
        signs = matrix[:, 0] * size**0.5
        close(signs[:, None] * base / size**0.5, matrix)
        close(t["x"].double() @ base / size**0.5, t["hadamard_x"])
    close(t["hadamard_x"].double().norm(dim=1), t["x"].double().norm(dim=1))
