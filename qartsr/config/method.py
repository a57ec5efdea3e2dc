"""A method as a row of data, of params.yaml and of the experiments alike: parts, policies, training phases.

A phase takes a share of a budget of steps, or names its steps; batch and learning rate are the budget's unless it names
its own. In the experiments every row has the same budget, so there a phase names nothing but its share.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from qartsr.config.base import Config, Count, Factor, Rate, Timestep
from qartsr.config.parts import LayerRecipe, MethodConfig
from qartsr.config.policies import (
    BitsPolicyConfig,
    EdgeHeadroom,
    InputBitsPolicyConfig,
    RankPolicyConfig,
    Split,
    UniformConfig,
)
from qartsr.config.training import ImageLossConfig, RoleRates

ModuleOrder = Literal["reverse", "forward", "sensitive_first", "sensitive_last"]
"""How RPQ goes through the modules: from the output, from the input, or by what each one alone does to the image."""


class AbstractPhaseConfig(Config):
    """How long a phase trains, what trains in it, and the image loss."""

    share: float = Field(0.0, ge=0, le=1, description="of the budget's steps; 0: steps says how many")
    steps: Count = Field(0, description="instead of a share; of kind modules: for each module")
    batch: Count = Field(0, description="calibration pairs of a step; 0: the budget's")
    parts: int = Field(
        1, ge=1, le=4096, description="equal parts of a batch that processes may share (compute.processes)"
    )
    lr: Rate = Field(0.0, description="learning rate; 0: the budget's")
    rates: RoleRates = Field(description="multiply the learning rate")
    weight_decay: Rate = 0.0
    loss: ImageLossConfig

    @model_validator(mode="after")
    def _one_length(self) -> AbstractPhaseConfig:
        if self.share and "steps" in self.model_fields_set and self.steps:
            raise ValueError("a phase has a share of the budget or steps of its own, not both")
        if not self.share and "steps" not in self.model_fields_set:
            raise ValueError("a phase needs a share of the budget, or steps of its own")
        return self


class ModulesPhase(AbstractPhaseConfig):
    """RPQ: modules become quantized one after another, module and image loss (QArtSR section 3.3, Eq. 7 and 8).

    A share of the budget is divided evenly over the modules; what this rounds away goes to the phase after it.
    """

    kind: Literal["modules"] = "modules"
    order: ModuleOrder = "reverse"
    module_loss: Factor = Field(1.0, description="weight of the module MSE, normalised by the FP output's variance")
    train_quantized: bool = Field(True, description="modules quantized earlier keep training")
    image_every: Count = Field(
        1, ge=1, description="the image loss enters every n-th step; the others train the newest module on cached pairs"
    )


class ModelPhase(AbstractPhaseConfig):
    """ET: all modules together on the image loss; other end-to-end methods add losses inside the network."""

    kind: Literal["model"] = "model"
    latent_loss: Factor = Field(0.0, description="weight of the MSE of Z_H over the FP Z_H's variance")
    encoder_loss: Factor = Field(0.0, description="weight of the MSE of the encoder's latent over its variance")
    feature_loss: Factor = Field(
        0.0,
        description="weight of the mean over modules of the MSE of their output over the FP output's variance",
    )

    @model_validator(mode="after")
    def _something_to_learn(self) -> ModelPhase:
        if not any((*self.loss.model_dump().values(), self.latent_loss, self.encoder_loss, self.feature_loss)):
            raise ValueError("loss: all weights are 0, and there is no other loss: there is nothing to train by")
        return self


Phase = Annotated[ModulesPhase | ModelPhase, Field(discriminator="kind")]


class Budget(Config):
    """What phases have that name no share, batch or rate of their own."""

    steps: Count = Field(description="shared out by the phases' shares")
    batch: Count = Field(ge=1, description="calibration pairs of a step")
    lr: Rate = Field(gt=0, description="learning rate that the phases' rates multiply")


class CommonConfig(Config):
    """What deviates from the common bit-width, the same for all methods."""

    edge_bits: int = Field(8, ge=2, le=8, description="bits of the layers in edge_layers")
    edge_layers: tuple[str, ...] = Field((), description="shell patterns of layer names, e.g. vae.decoder.conv_out")
    edge_headroom: EdgeHeadroom = 1.0
    float_layers: tuple[str, ...] = Field((), description="shell patterns of layers kept in floating point")


class MethodRow(Config):
    """A method: what its layers are made of, and how they are trained."""

    title: str = Field(min_length=1, description="its name in tables, in a package and on its card")
    says: str = Field("", description="one sentence: what the row is and where it departs from its paper")
    timestep: Timestep | None = Field(None, description="what the backbone it is meant for is told")
    layer: LayerRecipe
    rank_policy: RankPolicyConfig = UniformConfig()
    bits_policy: BitsPolicyConfig = UniformConfig()
    input_bits_policy: InputBitsPolicyConfig = UniformConfig()
    split: Split = Field(False, description="true: inputs that join a skip connection; halves: all, weights too")
    phases: tuple[Phase, ...] = Field((), description="none: calibrated only")

    @model_validator(mode="after")
    def _phases_fit(self) -> MethodRow:
        if any(phase.kind == "modules" for phase in self.phases[1:]):
            raise ValueError("a phase of kind modules quantizes the model as it goes, so it must be the first")
        shares = [phase.share for phase in self.phases]
        if any(shares) and not all(shares):
            raise ValueError("some phases have a share and some have steps; give all of them the same")
        if any(shares) and abs(sum(shares) - 1) > 1e-9:
            raise ValueError(f"the phases' shares add up to {sum(shares):g}, not 1")
        self.planned(CommonConfig())  # its parts fit each other
        return self

    def planned(self, common: CommonConfig) -> MethodConfig:
        """All that a plan is made from: the row without its training, and the layers that deviate."""
        shared = ("layer", "rank_policy", "bits_policy", "input_bits_policy", "split")
        return MethodConfig(name=self.title, **{key: getattr(self, key) for key in shared}, **dict(common))


class Training(Config):
    """Phases one after another, and the steps that their shares are of; batch and rate of every phase are known.

    The stage ``method`` writes one for each stage that trains, so that an edit of a phase leaves those before it alone.
    """

    phases: tuple[Phase, ...]
    steps: Count = Field(description="of the budget; 0 where no phase has a share")


def training(phases: tuple[Phase, ...], budget: Budget) -> Training:
    """These phases with the budget's batch and rate where they name none."""
    known = tuple(
        phase.model_copy(update={"batch": phase.batch or budget.batch, "lr": phase.lr or budget.lr}) for phase in phases
    )
    return Training(phases=known, steps=budget.steps if any(phase.share for phase in phases) else 0)


def lasting(asked: Training, modules: int) -> tuple[Phase, ...]:
    """Its phases with steps for shares; ``modules``: how many the model has.

    Of a share of kind ``modules`` a multiple of ``modules``; the phase that completes the budget gets the rest.
    """
    found: list[Phase] = []
    spent, claimed = 0, 0.0
    for phase in asked.phases:
        steps, claimed = phase.steps, claimed + phase.share
        if phase.share:
            left = asked.steps - spent
            steps = left if abs(claimed - 1) <= 1e-9 else min(left, round(asked.steps * phase.share))
            steps = steps // modules if phase.kind == "modules" else steps
        spent += steps * (modules if phase.kind == "modules" else 1)
        found.append(phase.model_copy(update={"share": 0.0, "steps": steps}))
    return tuple(found)
