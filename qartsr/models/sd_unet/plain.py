"""A model of Stable Diffusion's networks as a folder that diffusers loads by itself, without this library.

``DiffusionPipeline.from_pretrained(folder, trust_remote_code=True)``: UNet, VAE and scheduler are diffusers' own; the
pipeline and the prompt's embedding come as the two files of code that diffusers fetches with such a folder.
"""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

from safetensors.torch import save_file

from qartsr.errors import QartsrError
from qartsr.files import replacing_folder, write_json, write_text
from qartsr.models.folder import CONFIG, WEIGHTS, part_config
from qartsr.models.interface import Backbone
from qartsr.models.sd_unet.model import SDUNet
from qartsr.models.sd_unet.schedule import BETAS, STEPS

_CARD = """---
library_name: diffusers
pipeline_tag: image-to-image
tags: [super-resolution, diffusion, one-step]
---

# One-step super-resolution, x4

```python
from diffusers import DiffusionPipeline
from PIL import Image

pipe = DiffusionPipeline.from_pretrained("THIS FOLDER", trust_remote_code=True)
pipe(Image.open("photo.jpg")).images[0].save("photo_x4.png")
```

One run of the UNet at timestep {timestep}, colour fix `{align}`. Written by qartsr {version} in floating point; the
licence is that of the weights it was made of.
"""


def write_diffusers(model: Backbone, folder: Path) -> None:
    """Write a floating-point model; ``folder`` appears whole or not at all. Same model, same bytes.

    Raises QartsrError for a model of another kind, and for quantized layers, which diffusers has no modules for.
    """
    if not isinstance(model, SDUNet):
        raise QartsrError(f"a model of kind {model.kind} is none of Stable Diffusion's", str(folder), _DO)
    for name, part in model.named_parts().items():
        fresh = type(part).from_config(part.config)  # type: ignore[attr-defined]
        if fresh.state_dict().keys() != part.state_dict().keys():
            raise QartsrError(f"its {name} is quantized or folded, which diffusers cannot load", str(folder), _DO)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise QartsrError("is there already", str(folder), "name a new folder")
    with replacing_folder(folder) as temporary:
        for name, part in model.named_parts().items():
            (temporary / name).mkdir()
            state = {key: value.detach().cpu().contiguous() for key, value in part.state_dict().items()}
            save_file(state, temporary / name / WEIGHTS, metadata={"format": "pt"})
            write_json(temporary / name / CONFIG, part_config(part))
        _write_prompt(model, temporary / "prompt")
        noise = {"beta_start": BETAS[0], "beta_end": BETAS[1], "beta_schedule": "scaled_linear"}
        schedule = {"_class_name": "DDPMScheduler", "num_train_timesteps": STEPS, **noise}
        write_json(temporary / "scheduler" / "scheduler_config.json", schedule)
        write_text(temporary / "pipeline.py", _code("plain_pipeline.py"))
        write_json(temporary / "model_index.json", _index(model))
        words = {"timestep": model.timestep, "align": model.align, "version": version("qartsr")}
        write_text(temporary / "README.md", _CARD.format(**words))


_DO = "give a floating-point model such as the folder of stage retrain, or weights/sample"


def _write_prompt(model: SDUNet, folder: Path) -> None:
    context = model.context.detach().cpu().contiguous()
    folder.mkdir()
    save_file({"context": context}, folder / WEIGHTS, metadata={"format": "pt"})
    write_json(folder / CONFIG, {"_class_name": "FixedPrompt", "tokens": context.shape[1], "width": context.shape[2]})
    write_text(folder / "prompt.py", _code("plain_prompt.py"))


def _index(model: SDUNet) -> dict[str, object]:
    return {
        "_class_name": ["pipeline", "OneStepSuperResolution"],
        "_diffusers_version": version("diffusers"),
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "scheduler": ["diffusers", "DDPMScheduler"],
        "prompt": ["prompt", "FixedPrompt"],
        "timestep": model.timestep,
        "align": model.align,
    }


def _code(name: str) -> str:
    return (Path(__file__).parent / name).read_text(encoding="utf-8")
