"""Configuration of images: where they come from and how low resolution is made from them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from qartsr.config.base import Config


class PhotographsConfig(Config):
    """Photographs bundled in the scikit-image, scikit-learn and matplotlib wheels, split by image."""

    source: Literal["photographs"] = "photographs"
    train: tuple[str, ...] = Field(min_length=1)
    test: tuple[str, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _split_by_image(self) -> PhotographsConfig:
        both = sorted(set(self.train) & set(self.test))
        if both:
            raise ValueError(f"{', '.join(both)} stand in train and test; an image may be in one split only")
        return self


class FolderConfig(Config):
    """Folders in the layout of DIV2K, RealSR, Urban100 or DRealSR, or plain folders of images."""

    source: Literal["folder"] = "folder"
    layout: Literal["div2k", "realsr", "urban100", "drealsr", "plain"] = "plain"
    train_root: str
    test_root: str
    lr: Literal["given", "made"] = Field(
        "given", description="LR of the test split: the files of the layout, or made from HR by data.degradation"
    )


DataSourceConfig = Annotated[PhotographsConfig | FolderConfig, Field(discriminator="source")]


class BicubicConfig(Config):
    """Pillow bicubic x4 of the 8-bit image."""

    kind: Literal["bicubic"] = "bicubic"


class RealESRGANConfig(Config):
    """Two-order Real-ESRGAN degradation with OSEDiff's settings."""

    kind: Literal["realesrgan"] = "realesrgan"


DegradationConfig = Annotated[BicubicConfig | RealESRGANConfig, Field(discriminator="kind")]


class DataConfig(Config):
    """Images and degradation. LR is always HR / 4."""

    images: DataSourceConfig
    degradation: DegradationConfig = BicubicConfig()


class CalibrateConfig(Config):
    """LR/HR pairs for quantization, cut from the train split (paper: 512 pairs of 128x128)."""

    pairs: int = Field(ge=1)
    lr_size: int = Field(ge=8, description="side of the LR crop in pixels; HR is 4x")
