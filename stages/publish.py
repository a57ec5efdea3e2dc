"""The package uploaded to S3 under its content hash, read back, and registered as a version in MLflow."""

from __future__ import annotations

from qartsr.config import load_params
from qartsr.files import write_json
from qartsr.release import model_name, package_tags, publish
from qartsr.tracking import open_run
from stages._stage import arguments, stage


def main() -> None:
    """Publish and write the receipt; a package published before gets the receipt of its version."""
    args = arguments(__doc__, "--package", "--receipt", bits=True)
    params = load_params(args.params)
    tags = package_tags(args.package, params.profile)
    name = model_name(params.profile, args.bits)
    with open_run(params.profile, f"publish@{args.bits}", params.publish.model_dump()) as run:
        file, bucket = args.package / "model.safetensors", params.publish.bucket
        receipt = publish(file, name, tags, bucket, run.run_id)
        write_json(args.receipt, receipt._asdict())
        run.tags(receipt._asdict())
        run.artifact(args.receipt)


if __name__ == "__main__":
    stage(main)
