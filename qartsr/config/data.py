"""Configuration of images: where they come from and how low resolution is made from them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from qartsr.config.base import Config, Count, Side


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


class ClipsConfig(Config):
    """Clips of the test split: video files or folders of frames, the truth that LR frames are made from."""

    files: tuple[str, ...] = Field(min_length=1, description="paths; the name of a clip is its file's")
    frames: Count = Field(8, ge=2, description="the first so many of each")


class DataConfig(Config):
    """Images and degradation. LR is always HR / 4."""

    images: DataSourceConfig
    degradation: DegradationConfig = BicubicConfig()
    clips: ClipsConfig | None = Field(None, description="tested as clips, beside the images; null: none")


class CalibrateConfig(Config):
    """LR/HR pairs for quantization, cut from the train split (paper: 512 pairs of 128x128)."""

    pairs: Count = Field(ge=1)
    lr_size: Side = Field(description="side of the LR crop in pixels; HR is 4x")
    frames: Literal[1, 2] = Field(
        1, description="2, for a model of clips: LR has the frame before in its first channels, of a moving window"
    )
    length: Count = Field(1, ge=1, description="pairs in a row that are one clip; pairs is a multiple of it")
    motion: float = Field(12.0, ge=0, le=1024, description="of clips: most HR pixels per frame, along each axis")

    @model_validator(mode="after")
    def _whole_clips(self) -> CalibrateConfig:
        if self.pairs % self.length:
            raise ValueError(f"pairs: {self.pairs} pairs make no clips of {self.length}")
        if self.length > 1 and self.frames == 1:
            raise ValueError("length: clips are for models of clips; set frames to 2")
        return self
