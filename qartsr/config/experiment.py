"""Configuration of the experiments: every method a row of data, trained under one budget and measured alike.

A row (``method``) names the parts of its layers and its training phases. Steps, batch and calibration pairs belong to
none: each phase takes a share of the one budget, and the learning rates that are tried are the same for all rows.
"""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from qartsr.config.base import Config, Count, Rate, Seed, Side, Timestep
from qartsr.config.bits import BitName
from qartsr.config.data import ClipsConfig, DegradationConfig
from qartsr.config.method import CommonConfig, MethodRow
from qartsr.config.retrain import RetrainConfig
from qartsr.config.schema import AlignKind, ComputeConfig
from qartsr.config.training import LPIPSConfig


class BudgetConfig(Config):
    """What every trained row gets, no more and no less."""

    steps: Count = Field(ge=1)
    batch: Count = Field(ge=1)
    pairs: Count = Field(ge=2, description="calibration crops of each seed, the last quarter kept to choose the rate")
    lr_size: Side = Field(description="side of their LR in pixels; HR is 4x")
    frames: Literal[1, 2] = Field(1, description="2, for a model of clips: pairs have the frame before too")
    length: Count = Field(1, ge=1, le=64, description="pairs in a row that are one clip; pairs is a multiple of it")
    rates: tuple[Rate, ...] = Field(min_length=1, description="learning rates every trained row tries on seeds[0]")
    search: float = Field(1.0, gt=0, le=1, description="share of the steps that a rate is tried with")
    more_rates: int = Field(0, ge=0, le=8, description="tried at most beyond an end, while the best lies there")

    @field_validator("rates")
    @classmethod
    def _ascending(cls, rates: tuple[float, ...]) -> tuple[float, ...]:
        if any(low >= high for low, high in pairwise((0.0, *rates))):
            raise ValueError("rates are positive and ascend, so that it is known what lies beyond an end")
        return rates

    @model_validator(mode="after")
    def _whole_clips(self) -> BudgetConfig:
        if self.pairs % self.length or self.pairs < 2 * self.length:
            raise ValueError(f"{self.pairs} pairs are not two or more clips of {self.length}")
        return self

    @model_validator(mode="after")
    def _beyond_an_end(self) -> BudgetConfig:
        if self.more_rates and len(self.rates) < 2:
            raise ValueError("more_rates goes on in the steps of rates, which need at least two")
        return self


class BackbonesConfig(Config):
    """Floating-point backbones, each retrained equally long; ``probed`` ones only serve the theorem's measurement."""

    timesteps: tuple[Timestep, ...] = Field(min_length=1, description="those that tables name")
    probed: tuple[Timestep, ...] = ()
    retrain: RetrainConfig


class TestSetConfig(Config):
    """One test set: the most detailed window of every image, or clip, degraded in one way."""

    images: Literal["photographs", "structures", "clips"] = Field(
        "photographs", description="the test split; drawn gratings, roofs and letters; or the first frames of clips"
    )
    clips: ClipsConfig | None = Field(None, description="of images clips: their files and frames")
    degradation: DegradationConfig
    stands_for: str = Field(description="the data set of the paper that it plays")

    @model_validator(mode="after")
    def _named_clips(self) -> TestSetConfig:
        if (self.clips is not None) != (self.images == "clips"):
            raise ValueError("clips: images of kind clips name their files and frames, others none")
        if self.clips and len({Path(file).stem for file in self.clips.files}) < len(self.clips.files):
            raise ValueError("clips.files: two have the same name, by which results are kept")
        return self

    @property
    def length(self) -> int:
        """Images in a row that are one clip; 1: each stands alone."""
        return self.clips.frames if self.clips else 1


class TablesConfig(Config):
    """Rows of the tables, in order. Every name stands under ``methods``; lists are what DVC spreads its stages over."""

    table1_bits: tuple[BitName, ...] = ()
    table3: tuple[str, ...] = Field(min_length=1)
    table3_bits: tuple[BitName, ...] = Field(min_length=1)
    table4: tuple[str, ...] = Field((), description="ablations that are not rows of table 3")
    table4_bits: tuple[BitName, ...] = ()
    longer: tuple[str, ...] = Field((), description="rows of table 4 again, with more steps; the first: whole")
    longer_bits: tuple[BitName, ...] = ()
    longer_times: int = Field(4, ge=2, le=1000, description="times the budget's steps")
    ablation: tuple[str, ...] = Field((), description="of clips: rows of table 3 that are QuantVSR's ablation")
    ablation_bits: BitName = "w4a4"


class FlowStepsConfig(Config):
    """A transformer's flow in several steps, each with input bits of its own (Q-DiT4SR's VaTMP)."""

    method: str = Field(description="a row whose inputs have a range per token: nothing of it is calibrated")
    steps: Count = Field(8, ge=2, le=100)
    stretches: Count = Field(3, ge=1, description="of steps in a row that have the same bits")


_SET = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
"""A name of a file, too."""


class Experiments(Config):
    """The whole of experiments/params.yaml."""

    compute: ComputeConfig = ComputeConfig()
    seeds: tuple[Seed, ...] = Field(min_length=1, description="each draws its own calibration pairs and their order")
    lpips: LPIPSConfig = LPIPSConfig()
    train_align: AlignKind = Field("wavelet", description="colour fix the training losses look through")
    data: DegradationConfig = Field(description="how LR of the calibration pairs is made")
    sets: dict[str, TestSetConfig] = Field(min_length=1)
    crop: Side = Field(ge=48, multiple_of=16, description="side of every test window in pixels")
    backbones: BackbonesConfig
    common: CommonConfig
    budget: BudgetConfig
    tables: TablesConfig
    methods: dict[str, MethodRow]
    flow: FlowStepsConfig | None = None

    @model_validator(mode="after")
    def _names_tell_apart(self) -> Experiments:
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("seeds: one stands twice, and the spread over seeds would be too small")
        for name in self.sets:
            if name == "all" or not _SET.fullmatch(name):
                raise ValueError(f"sets.{name}: name it with letters, digits, - and _, and not all, the mean over sets")
        if self.tables.table1_bits and "maxmin" not in self.methods:
            raise ValueError("methods has no maxmin, with whose layers table1 measures timesteps")
        return self

    @model_validator(mode="after")
    def _names_exist(self) -> Experiments:
        of_flow = [self.flow.method] if self.flow else []
        for name in (*self.tables.table3, *self.tables.table4, *self.tables.longer, *of_flow):
            if name not in self.methods:
                raise ValueError(f"the tables name {name!r}, which is not under methods")
        if "qartsr" not in self.tables.table3 or (self.tables.longer and "qartsr" not in self.tables.longer):
            raise ValueError("tables.table3 and tables.longer are compared with qartsr and must name it")
        if extra := set(self.tables.ablation) - set(self.tables.table3):
            raise ValueError(f"tables.ablation has {', '.join(sorted(extra))}, which table3 does not train")
        if self.tables.ablation and self.tables.ablation_bits not in self.tables.table3_bits:
            raise ValueError(f"tables.ablation_bits {self.tables.ablation_bits} is not among table3_bits")
        for key, bits in (("table4_bits", self.tables.table4_bits), ("longer_bits", self.tables.longer_bits)):
            if extra := set(bits) - set(self.tables.table3_bits):
                raise ValueError(f"tables.{key} has {', '.join(sorted(extra))}, whose rate table3_bits does not choose")
        of_clips = {config.images == "clips" for config in self.sets.values()}
        if of_clips != {self.budget.frames > 1}:
            raise ValueError("sets: all are clips for a model of clips (budget.frames 2), none for a model of images")
        if len({bool(names) for names in (self.tables.table1_bits, self.tables.table4, self.tables.longer)}) > 1:
            raise ValueError("tables: table1_bits, table4 and longer name at least one each, or none at all")
        for name, row in self.methods.items():
            if getattr(row.rank_policy, "frames", 1) not in (1, self.budget.length):
                raise ValueError(f"methods.{name}.rank_policy.frames is neither 1 nor budget.length")
            if row.timestep not in self.backbones.timesteps:
                raise ValueError(f"methods.{name}.timestep {row.timestep} is not among backbones.timesteps")
            if not row.says:
                raise ValueError(f"methods.{name}.says is empty; say in a sentence what the row is")
            if any(phase.steps or phase.batch or phase.lr for phase in row.phases):
                raise ValueError(f"methods.{name}: steps, batch and lr are the budget's; a phase names its share")
        return self
