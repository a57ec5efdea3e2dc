"""The S3 store that the AWS environment variables name, with a few verbs and errors in one sentence."""

from __future__ import annotations

import hashlib
import json
import os
import re
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from qartsr.errors import QartsrError, short
from qartsr.remote.address import demand_bare, split_user, without_secrets, without_users
from qartsr.remote.limit import TooSlowError, within

_BLOCK = 1 << 20
_ANSWER = 40.0
"""Seconds for an answer, retries included; an object may take longer, by its size."""
_ABSENT = ("404", "NoSuchKey", "NotFound")


def split_uri(uri: str) -> tuple[str, str]:
    """``s3://bucket/key`` -> (bucket, key). Raises QartsrError for any other address."""
    parts = urllib.parse.urlsplit(uri)
    if parts.scheme != "s3" or not parts.netloc:
        raise QartsrError("is not an S3 address", uri, "use a version that `qartsr publish` registered")
    return parts.netloc, parts.path.strip("/")


def open_store(endpoint: str = "", key: str = "", secret: str = "", region: str = "") -> Store:
    """A store; what is not given comes from the AWS environment variables. Nothing is sent yet.

    MLFLOW_S3_ENDPOINT_URL goes first, as with MLflow, whose server reads what is written here, and MLflow's other
    settings of S3 are followed. Raises QartsrError when the endpoint is no address or a setting cannot be read.
    """
    import boto3.session  # half a second, which a run without a store need not pay
    from botocore.config import Config
    from botocore.exceptions import InvalidRegionError, InvalidS3AddressingStyleError, ProfileNotFound

    told = {"the endpoint": endpoint, **{name: _told(name) for name in _ENDPOINTS}}
    place = next((name for name, said in told.items() if said), "the endpoint")
    address = split_user(told[place])[0]
    demand_bare(address, place, "credentials go into AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
    region = region or _told("AWS_DEFAULT_REGION")
    extra = _extra()
    verify = False if _told("MLFLOW_S3_IGNORE_TLS").lower() in ("true", "1") else None

    def client(read: float, attempts: int) -> Any:
        retries = {"mode": "standard", "total_max_attempts": attempts}
        told: dict[str, Any] = {"proxies": {}} if _loopback(address) else {}
        if _told(_STYLE):  # else what ~/.aws/config says
            told["s3"] = {"addressing_style": _told(_STYLE)}
        config = Config(connect_timeout=3, read_timeout=read, retries=retries, **told)
        made = session.client("s3", endpoint_url=address or None, config=config, verify=verify)
        made.meta.events.register_first("before-parameter-build.s3", partial(_add_settings, extra))
        return made

    shown = address or "the S3 store"
    if address and not re.match("(?i)https?://[^/]", address):
        raise QartsrError("is not the address of an S3 store", without_secrets(address), _SCHEME)
    with _sentences(shown):
        try:
            session = boto3.session.Session(*_credentials(key, secret), region_name=region or None)
            return Store(client(30, 3), client(5, 1), shown)
        except InvalidRegionError as error:
            raise QartsrError(
                f"{region or session.region_name!r} is not the name of a region", "AWS_DEFAULT_REGION", _REGION
            ) from error
        except ProfileNotFound as error:
            name = _told("AWS_PROFILE") or _told("AWS_DEFAULT_PROFILE")
            do = "unset it, or write the profile into ~/.aws/config"
            raise QartsrError(f"there is no profile {name!r}", "AWS_PROFILE", do) from error
        except InvalidS3AddressingStyleError as error:
            do = "set it to auto, path or virtual"
            raise QartsrError(f"{_told(_STYLE)!r} is no way to address", _STYLE, do) from error
        except ValueError as error:
            raise QartsrError("is not the address of an S3 store", shown, _SCHEME) from error


def _told(variable: str) -> str:
    """An environment variable without the line's end that a secret's file brings along."""
    return os.environ.get(variable, "").strip()


def _extra() -> dict[str, Any]:
    """What MLflow adds to every upload, encryption for example."""
    told = _told(_EXTRA)
    try:
        found = json.loads(told) if told else {}
    except ValueError:
        found = None
    do = 'write it like {"ServerSideEncryption": "aws:kms"}'
    if not isinstance(found, dict):
        raise QartsrError("is no JSON object", _EXTRA, do)
    from boto3.s3.transfer import S3Transfer

    for name, value in found.items():
        if name not in S3Transfer.ALLOWED_UPLOAD_ARGS or not isinstance(value, str | bool | dict):
            raise QartsrError(f"{short(name)}: {short(value)} is nothing that an upload takes", _EXTRA, do)
    return found


def _add_settings(extra: Mapping[str, Any], params: dict[str, Any], model: Any, **_: Any) -> None:
    """Of MLflow, to whatever operation knows them."""
    owner = _told("MLFLOW_S3_EXPECTED_BUCKET_OWNER")
    added = {**(extra if model.name in _UPLOADS else {}), **({"ExpectedBucketOwner": owner} if owner else {})}
    for name in added.keys() & model.input_shape.members:
        params.setdefault(name, added[name])


def _credentials(key: str, secret: str) -> tuple[str | None, ...]:
    """Key, secret and session token: those given, or those of the environment; nothing leaves the search to boto3."""
    if key:
        return key, secret or None
    told = [_told(name) for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")]
    return tuple(each or None for each in told) if told[0] and told[1] else ()


class Store:
    """Verbs on objects. Every failure is a QartsrError that names the store or the object."""

    def __init__(self, client: Any, probe: Any, address: str) -> None:
        """``probe`` is a client with short time limits, asked first."""
        self._client, self._probe, self.address = client, probe, address

    def demand(self, bucket: str) -> None:
        """Raise QartsrError within some seconds unless the store answers and has ``bucket``."""
        with _sentences(self.address, bucket):
            within(_ANSWER, lambda: self._probe.head_bucket(Bucket=bucket))

    def make_bucket(self, bucket: str) -> None:
        """Create ``bucket`` unless it is there."""
        have = self._client.exceptions
        with _sentences(self.address, bucket), suppress(have.BucketAlreadyOwnedByYou, have.BucketAlreadyExists):
            within(_ANSWER, lambda: self._client.create_bucket(Bucket=bucket))

    def upload(self, file: Path, bucket: str, key: str) -> None:
        """Send ``file``, in parts when it is large. The object appears whole or not at all."""
        from boto3.s3.transfer import TransferConfig

        one = TransferConfig(use_threads=False)  # threads of its own would be waited for at the program's end
        with _sentences(f"s3://{bucket}/{key}", bucket):
            size = file.stat().st_size
            within(_ANSWER, lambda: self._client.upload_file(str(file), bucket, key, Config=one), size)

    def sha256(self, bucket: str, key: str) -> str:
        """Hex SHA-256 of the bytes the store gives back; empty when there is no such object."""
        digest = hashlib.sha256()
        with _sentences(f"s3://{bucket}/{key}", bucket):
            try:
                self._read(bucket, key, digest.update)
            except self._client.exceptions.NoSuchKey:
                return ""
        return digest.hexdigest()

    def download(self, bucket: str, key: str, file: Path) -> None:
        """Receive an object into ``file``."""
        with _sentences(f"s3://{bucket}/{key}", bucket), file.open("wb") as handle:
            self._read(bucket, key, handle.write)

    def read(self, bucket: str, key: str) -> bytes:
        """The bytes of an object."""
        blocks = list[bytes]()
        with _sentences(f"s3://{bucket}/{key}", bucket):
            self._read(bucket, key, blocks.append)
        return b"".join(blocks)

    def write(self, data: bytes, bucket: str, key: str) -> None:
        """Make an object of ``data``; it appears whole or not at all."""
        with _sentences(f"s3://{bucket}/{key}", bucket):
            within(_ANSWER, lambda: self._client.put_object(Bucket=bucket, Key=key, Body=data), len(data))

    def remove(self, bucket: str, key: str) -> None:
        """Delete an object, if it is there."""
        with _sentences(f"s3://{bucket}/{key}", bucket):
            within(_ANSWER, lambda: self._client.delete_object(Bucket=bucket, Key=key))

    def listed(self, bucket: str, prefix: str) -> Iterator[tuple[str, str]]:
        """Key and ETag of every object whose key begins with ``prefix``, a thousand asked for at a time."""
        more: dict[str, str] = {}
        while True:
            with _sentences(f"s3://{bucket}/{prefix}", bucket):
                words = {"Bucket": bucket, "Prefix": prefix, **more}
                page = within(_ANSWER, partial(self._client.list_objects_v2, **words))
            for entry in page.get("Contents", []):
                yield entry["Key"], str(entry.get("ETag", "")).strip('"')
            if not page.get("IsTruncated"):
                return
            more = {"ContinuationToken": page["NextContinuationToken"]}

    def _read(self, bucket: str, key: str, take: Callable[[bytes], object]) -> None:
        """Hand an object on, block by block."""
        answer = within(_ANSWER, lambda: self._client.get_object(Bucket=bucket, Key=key))

        def read() -> None:
            for block in answer["Body"].iter_chunks(_BLOCK):
                take(block)

        within(_ANSWER, read, int(answer["ContentLength"]))


@contextmanager
def _sentences(where: str, bucket: str = "") -> Iterator[None]:
    """Turn whatever boto3 raises into a QartsrError."""
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import (
        BotoCoreError,
        ClientError,
        ConnectionError,
        HTTPClientError,
        NoCredentialsError,
        PartialCredentialsError,
    )

    try:
        yield
    except (NoCredentialsError, PartialCredentialsError) as error:
        raise QartsrError("no credentials for the S3 store were found", where, _CREDENTIALS) from error
    except (ConnectionError, HTTPClientError) as error:
        raise QartsrError(f"the S3 store does not answer ({without_users(str(error))})", where, _ENDPOINT) from error
    except ClientError as error:
        raise _refused(error.response, where, bucket) from error
    except (BotoCoreError, Boto3Error) as error:
        cause = error.__cause__ or error.__context__
        if isinstance(cause, ClientError):  # of an upload
            raise _refused(cause.response, where, bucket) from error
        raise QartsrError(f"the S3 client failed ({without_users(str(error))})", where, _ENDPOINT) from error
    except TooSlowError as error:
        raise QartsrError(f"the S3 store is too slow ({error})", where, "try again, or look after it") from error
    except OSError as error:  # of the file here
        file = error.filename or "the local file"
        raise QartsrError(f"{file} fails ({error.strerror})", where, "check its folder and the disk space") from error


def _refused(response: dict[str, Any], where: str, bucket: str) -> QartsrError:
    code = str(response["Error"]["Code"])
    headers = response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    region = headers.get("x-amz-bucket-region") or response["Error"].get("Region")
    if code in _ELSEWHERE:
        there = f"; the bucket is in {region}" if region else ""
        return QartsrError(f"the S3 store refuses ({code}{there})", where, f"check the region: {_REGION}")
    if code in _ABSENT and not any(name.startswith("x-amz-") or name == "x-trans-id" for name in headers):
        return QartsrError(f"answers, but not as an S3 store ({code})", where, _ADDRESS)
    if code in ("403", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch"):
        return QartsrError(f"the S3 store refuses the credentials ({code})", where, _CREDENTIALS)
    if code in ("RequestTimeTooSkewed", "RequestExpired"):
        return QartsrError(f"the S3 store finds this machine's clock wrong ({code})", where, "set it, or the store's")
    if code == "NoSuchBucket" or (code in _ABSENT and not where.startswith("s3://")):
        return QartsrError(f"there is no bucket {bucket!r}", where, "create it, or name another in params.yaml")
    if code in _ABSENT:
        return QartsrError("there is no such object", where, "publish the model again")
    message = str(response["Error"].get("Message", "")).strip().rstrip(".")
    return QartsrError(f"the S3 store refuses ({code}: {message})", where, "see the store's log")


def _loopback(address: str) -> bool:
    return urllib.parse.urlsplit(address).hostname in ("127.0.0.1", "localhost", "::1")


_EXTRA, _STYLE = "MLFLOW_S3_UPLOAD_EXTRA_ARGS", "MLFLOW_BOTO_CLIENT_ADDRESSING_STYLE"
_UPLOADS = ("PutObject", "CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload")
_ENDPOINTS = ("MLFLOW_S3_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
_ELSEWHERE = ("301", "400", "PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException")
_REGION = "set AWS_DEFAULT_REGION to one such as eu-central-1"
_ADDRESS = f"check {_ENDPOINTS[1]} (or {_ENDPOINTS[0]}): another server is there"
_SCHEME = "begin AWS_ENDPOINT_URL_S3 with http:// or https:// and a host"
_ENDPOINT = "start the local services with `make services`, or check AWS_ENDPOINT_URL_S3 and the store"
_CREDENTIALS = "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or `set -a; . .services/env; set +a`"
