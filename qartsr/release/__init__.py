"""From a package on disk to a version people use: S3 object, registered version, aliases, and back to a local file."""

from qartsr.release.fetch import fetch
from qartsr.release.promote import Check, Promotion, Rollback, promote, rollback
from qartsr.release.publish import Receipt, package_tags, publish
from qartsr.release.registry import model_name

__all__ = [
    "Check",
    "Promotion",
    "Receipt",
    "Rollback",
    "fetch",
    "model_name",
    "package_tags",
    "promote",
    "publish",
    "rollback",
]
