"""The two servers production talks to: an S3 store and MLflow. Time limits and one-sentence errors stand here."""

from qartsr.remote.address import split_user, version_page
from qartsr.remote.mlflow import REGISTRY, Mlflow, RefusedError, SilentError, open_mlflow, registry_address
from qartsr.remote.s3 import Store, open_store, split_uri

__all__ = [
    "REGISTRY",
    "Mlflow",
    "RefusedError",
    "SilentError",
    "Store",
    "open_mlflow",
    "open_store",
    "registry_address",
    "split_uri",
    "split_user",
    "version_page",
]
