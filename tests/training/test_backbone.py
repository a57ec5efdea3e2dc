"""One step of TRQ: two networks in alternation; memory and number of processes change nothing but rounding."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from qartsr.errors import QartsrError
from qartsr.files import sha256_file
from qartsr.losses import ImageLoss
from qartsr.training.adapter_layers import adapt_model
from qartsr.training.backbone import train_backbone
from qartsr.training.checkpoint import Checkpoint
from qartsr.training.determinism import generator
from qartsr.training.distributed import MicroBatching, Share, World
from qartsr.training.loop import Curves
from qartsr.training.vsd import NoRegulariser
from tests.training.tiny import ADAPTERS, ALONE, BATCH, CPU, CROP, batches, one_step, recipe, run, vsd


class KilledError(Exception):
    """Stands for the end of the process."""


def state(folder: Path) -> dict[str, Tensor]:
    """Values and moments of both optimizers."""
    return load_file(folder / "checkpoint.safetensors")


def gradients(folder: Path) -> dict[str, Tensor]:
    """After one step AdamW's first moment is a tenth of the clipped gradient."""
    found = {name: value for name, value in state(folder).items() if name.endswith("/exp_avg")}
    assert {name.split("/")[1].split(".")[0] for name in found} == {"unet", "vae", "student"}
    return found


def furthest(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """Largest difference, relative to the largest value of all."""
    assert found.keys() == expected.keys()
    scale = max(float(value.abs().max()) for value in expected.values())
    return max(float((found[name] - expected[name]).abs().max()) for name in expected) / scale


def test_a_step_is_the_models_update_then_the_students(tmp_path: Path) -> None:
    """Against the two updates written out one after the other, as OSEDiff makes them."""
    run(tmp_path, 2)
    model, regulariser, plan = one_step(), vsd(), recipe(2)
    adapt_model(model, ADAPTERS, generator(0, "adapters"))
    model.train().to(memory_format=torch.channels_last)
    image_loss = ImageLoss(plan.loss, plan.lpips)
    sides = [[(n, p) for n, p in model.named_parameters() if p.requires_grad], regulariser.trained()]
    settings = {"lr": 1e-3, "betas": (0.9, 0.999), "weight_decay": 1e-2}
    ours, students = (torch.optim.AdamW([p for _, p in side], **settings) for side in sides)
    for number in range(2):
        share = Share(number, BATCH, CROP, 0, BATCH)
        hr, lq = batches(share)
        z_h = model.denoise(model.encode(lq.to(memory_format=torch.channels_last)))
        losses = image_loss(model.decode(z_h).clamp(-1, 1), hr)
        losses["total"] = losses["total"] + 0.5 * regulariser.score(z_h, share)["vsd"]
        for side, optimizer in ((0, ours), (1, students)):
            loss = losses["total"] if side == 0 else regulariser.follow(z_h, share)["diffusion"]
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_([p for _, p in sides[side]], 1.0)
            optimizer.param_groups[0]["lr"] = 1e-3 * (number + 1) / 2
            optimizer.step()
    found = state(tmp_path)
    for name, parameter in [*sides[0], *sides[1]]:
        assert torch.equal(found[f"value/{name}"], parameter), name


@pytest.mark.parametrize("held", [1, 2])
def test_accumulated_gradients_are_the_whole_batchs(tmp_path: Path, held: int) -> None:
    run(tmp_path / "whole", 1)
    run(tmp_path / "parts", 1, MicroBatching(World(CPU), held))
    assert furthest(gradients(tmp_path / "parts"), gradients(tmp_path / "whole")) < 1e-5


def test_checkpointing_changes_no_gradient(tmp_path: Path) -> None:
    run(tmp_path / "plain", 1)
    run(tmp_path / "frugal", 1, MicroBatching(World(CPU), checkpointing=True))
    plain, frugal = gradients(tmp_path / "plain"), gradients(tmp_path / "frugal")
    assert all(torch.equal(frugal[name], plain[name]) for name in plain)


def test_bf16_points_the_same_way(tmp_path: Path) -> None:
    run(tmp_path / "fp32", 1)
    run(tmp_path / "bf16", 1, autocast="bf16")
    exact, rough = gradients(tmp_path / "fp32"), gradients(tmp_path / "bf16")
    for part in ("unet", "vae", "student"):
        pair = [torch.cat([v.flatten() for n, v in g.items() if f"/{part}." in n]) for g in (exact, rough)]
        assert torch.nn.functional.cosine_similarity(*pair, dim=0) > 0.95, part
    assert all(value.dtype == torch.float32 for value in state(tmp_path / "bf16").values())


def test_resumed_equals_uninterrupted(tmp_path: Path) -> None:
    means = MicroBatching(World(CPU), micro_batch=2, checkpointing=True)
    whole = run(tmp_path / "whole", 3, means)

    def until_halfway(share: Share) -> tuple[Tensor, Tensor]:
        if share.number == 1 and share.start:
            raise KilledError
        return batches(share)

    with pytest.raises(KilledError):
        run(tmp_path / "parts", 3, means, until_halfway)
    again = run(tmp_path / "parts", 3, means)
    found = again.state_dict()
    for name, value in whole.state_dict().items():
        assert torch.equal(found[name], value), name
    assert len({sha256_file(tmp_path / name / "checkpoint.safetensors") for name in ("whole", "parts")}) == 1


def test_the_latents_error_is_counted_and_slow_layers_take_shorter_steps(tmp_path: Path) -> None:
    """AdamW's first step is as long as the rate, whatever the gradient; the reference is the loss written out."""
    model, curves = one_step().requires_grad_(False), Curves(lambda values, step: None)
    model.unet.requires_grad_(True)
    before = {name: value.detach().clone() for name, value in model.unet.named_parameters()}
    hr, lq = batches(Share(0, BATCH, CROP, 0, BATCH))
    with torch.no_grad():
        target = model.encode(hr)
        expected = float((model.denoise(model.encode(lq)) - target).square().mean() / target.var())
    plan = recipe(1)._replace(latent=0.1, slow=("unet.conv_out.",), slowness=0.1, weight_decay=0.0)
    train_backbone(model, batches, plan, NoRegulariser(), ALONE, curves, Checkpoint(tmp_path, 0.0))
    row = {name: float(value) for name, value in curves.rows[0].items()}
    assert row["latent"] == pytest.approx(expected, rel=1e-3)
    assert row["total"] == pytest.approx(row["mse"] + row["l1"] + 0.1 * expected, rel=1e-3)
    moved = {name: float((value.detach() - before[name]).abs().max()) for name, value in model.unet.named_parameters()}
    assert moved["conv_out.weight"] == pytest.approx(0.5e-4, rel=0.01)
    assert moved["conv_in.weight"] == pytest.approx(0.5e-3, rel=0.01)


def test_a_batch_without_equal_parts_is_refused() -> None:
    for means in (MicroBatching(World(CPU, 0, 3)), MicroBatching(World(CPU), 3)):
        with pytest.raises(QartsrError, match="a batch of 4 has no equal parts"):
            means.shares(0, BATCH, CROP)


def test_shares_cover_the_batch_once() -> None:
    shares = [share for rank in (0, 1) for share in MicroBatching(World(CPU, rank, 2), 2).shares(5, 8, CROP)]
    assert [(share.start, share.stop) for share in shares] == [(0, 2), (2, 4), (4, 6), (6, 8)]
