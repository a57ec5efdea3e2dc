"""One safetensors file of integer codes, proven equal to the trained model, with a summary and a model card."""

from __future__ import annotations

from pathlib import Path

from qartsr.config import load_params
from qartsr.files import read_json, sha256_file, write_json, write_text
from qartsr.models import Backbone, load_model
from qartsr.packing import PackedLayer, add_graphs, inspect, load_package, model_card, prove_equal, write_package
from qartsr.packing.verify import layer_facts
from qartsr.quantize import load_state
from qartsr.tracking import open_run
from qartsr.training.determinism import prepare
from stages._stage import arguments, stage


def main() -> None:
    """Write model.safetensors, summary.json, layers.json and README.md of one bit-width."""
    args = arguments(__doc__, "--model", "--state", "--metrics", "--fp", "--out", bits=True)
    params = load_params(args.params)
    with open_run(params.profile, f"package@{args.bits}", {"bits": args.bits}) as run:
        prepare(params.compute, params.compute.threads)
        model = load_model(args.model)
        decided = load_state(model, args.state)
        file = args.out / "model.safetensors"
        write_package(file, model, decided, {"profile": params.profile})
        packed = load_package(file)
        prove_equal(packed, model, params.seed)
        write_json(args.out / "layers.json", layer_facts(packed, model, params.seed))
        _add_graphs(file, packed)
        summary = {
            "bits": args.bits,
            "method": decided.method,
            "sha256": sha256_file(file),
            "bytes": file.stat().st_size,
            "metrics": read_json(args.metrics),
            "fp": read_json(args.fp),
        }
        write_json(args.out / "summary.json", summary)
        card = model_card(params.profile, params.backbone.kind, summary, inspect(file).kinds)
        write_text(args.out / "README.md", card)
        run.metrics({"bytes": summary["bytes"]}, 0)
        run.tags({"sha256": summary["sha256"]})


def _add_graphs(file: Path, packed: Backbone) -> None:
    """So that the package runs without torch, if standard graphs have all its parts."""
    from qartsr.export import inexpressible, skeleton  # torch.export: no stage needs it before

    layers = [part for part in packed.modules() if isinstance(part, PackedLayer)]
    if packed.whole_in_graphs and not any(map(inexpressible, layers)):
        add_graphs(file, skeleton(packed))


if __name__ == "__main__":
    stage(main)
