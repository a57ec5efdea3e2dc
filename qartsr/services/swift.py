"""OpenStack Swift with its S3 interface: a real object store in four small processes, without root.

One replica on one device: a folder. The S3 interface signs, lists, uploads in parts and honours conditional writes.
"""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from qartsr.errors import QartsrError
from qartsr.files import write_text
from qartsr.remote import open_store
from qartsr.services.ports import HOST
from qartsr.services.service import Service, python

KEY, SECRET, REGION = "test:tester", "testing", "us-east-1"
BUCKETS = ("qartsr", "qartsr-mlflow")

_PARTS = {"proxy": 0, "object": 1, "container": 2, "account": 3}
"""Server -> its port, counted from the first."""

_COMMON = """\
[DEFAULT]
swift_dir = {folder}
devices = {folder}/devices
mount_check = false
bind_ip = {host}
bind_port = {port}
bind_timeout = 2
# 0: the server is one process; its master would only add another.
workers = 0
log_level = WARNING
# Not a socket, so nothing reaches the machine's syslog; -v writes to the log of the process.
log_address = /dev/null
# One copy and no daemons to mend it later: rather wait for a busy machine than give up.
conn_timeout = 10
node_timeout = 60
fallocate_reserve = 0
"""

_BACKEND = """
[pipeline:main]
pipeline = healthcheck {part}-server
[filter:healthcheck]
use = egg:swift#healthcheck
[app:{part}-server]
use = egg:swift#{part}
conn_timeout = 10
node_timeout = 60
container_update_timeout = 60
"""

_PROXY = """
[pipeline:main]
pipeline = {filters} proxy-server
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
conn_timeout = 10
node_timeout = 60
recoverable_node_timeout = 60
# The only node is never set aside after errors: there is no other to ask.
error_suppression_limit = 1000000
error_suppression_interval = 1
"""

_FILTERS = {
    "catch_errors": "",
    "gatekeeper": "",
    "healthcheck": "",
    "listing_formats": "",
    "bulk": "",
    "s3api": f"location = {REGION}",
    "tempauth": f"user_test_tester = {SECRET} .admin",
    "copy": "",
    "slo": "",
    "dlo": "",
    "versioned_writes": "allow_object_versioning = true",
    "symlink": "",
}
"""Filter -> its settings, in the order a request passes them."""

_CLUSTER = """\
[swift-hash]
swift_hash_path_prefix = qartsr
swift_hash_path_suffix = qartsr
[storage-policy:0]
name = default
default = yes
"""


def s3_service(folder: Path, port: int) -> Service:
    """The object store with its configuration and data in ``folder``, on ``port`` and the three after it."""
    address = f"http://{HOST}:{port}"
    return Service(
        address=address,
        commands={part: python(f"swift.{_module(part)}", str(folder / f"{part}.conf"), "-v") for part in _PARTS},
        environment={},
        health=tuple(f"http://{HOST}:{port + offset}/healthcheck" for offset in _PARTS.values()),
        variables={
            "AWS_ENDPOINT_URL_S3": address,
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": REGION,
        },
        prepare=lambda: _configure(folder, port),
        furnish=lambda: _make_buckets(address),
    )


def _module(part: str) -> str:
    return {"object": "obj"}.get(part, part) + ".server"


def _configure(folder: Path, port: int) -> None:
    """Write the configurations and build the rings, which name the ports."""
    device = folder / "devices" / "d1"
    device.mkdir(parents=True, exist_ok=True)
    _demand_attributes(device)
    write_text(folder / "swift.conf", _CLUSTER)
    for part, offset in _PARTS.items():
        body = _proxy() if part == "proxy" else _BACKEND.format(part=part)
        write_text(folder / f"{part}.conf", _COMMON.format(folder=folder, host=HOST, port=port + offset) + body)
    ports = [f"{part}={port + offset}" for part, offset in _PARTS.items() if part != "proxy"]
    command = [sys.executable, "-P", str(Path(__file__).with_name("rings.py")), str(folder), HOST, *ports]
    rings = subprocess.run(command, capture_output=True, text=True)
    if rings.returncode:
        raise QartsrError(
            f"its rings could not be built ({rings.stderr.strip()[-500:]})", str(folder), "see whether swift is whole"
        )


def _proxy() -> str:
    sections = (f"[filter:{name}]\nuse = egg:swift#{name}\n{settings}\n" for name, settings in _FILTERS.items())
    return _PROXY.format(filters=" ".join(_FILTERS)) + "".join(sections)


def _demand_attributes(folder: Path) -> None:
    """Swift keeps an object's metadata in extended attributes of its file."""
    try:
        with tempfile.NamedTemporaryFile(dir=folder) as file:
            os.setxattr(file.name, "user.qartsr", b"1")
    except (OSError, AttributeError) as error:
        if isinstance(error, OSError) and error.errno not in (errno.ENOTSUP, errno.EPERM):
            raise
        raise QartsrError(
            "the file system keeps no extended attributes, which the local object store needs",
            str(folder),
            "choose a folder on another disk with --root, or use another S3 store (see docs/operations.md)",
        ) from error


def _make_buckets(address: str) -> None:
    store = open_store(address, KEY, SECRET, REGION)
    for bucket in BUCKETS:
        store.make_bucket(bucket)
