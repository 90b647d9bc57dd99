"""Files in an S3-compatible bucket, with our own errors: `FileNotFoundError`, or `TemporaryError` with a reason."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from boto3.exceptions import Boto3Error
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from django.core.files import File
from s3transfer.exceptions import RetriesExceededError
from storages.backends.s3 import S3Storage

from durable.errors import TemporaryError

# In memory; what is longer waits in a temporary file while it is read.
SPOOLED = 1024 * 1024
CLIENT = Config(
    # Others than Amazon's know no address for each bucket, nor the older signatures.
    s3={"addressing_style": "path"},
    signature_version="s3v4",
    # Nor the checksums that boto3 has added since.
    request_checksum_calculation="when_required",
    response_checksum_validation="when_required",
    # A storage that is away costs a click some seconds at most; what is worth more patience is a task.
    connect_timeout=2,
    read_timeout=20,
    retries={"mode": "standard", "total_max_attempts": 2},
)
# No threads: each holds a part of the file in memory, and none would hear of a task's time limit.
TRANSFER = TransferConfig(use_threads=False, num_download_attempts=2)


class Bucket(S3Storage):
    """A private bucket. What is saved under a name that exists replaces it, and is there whole or not at all."""

    def get_default_settings(self) -> dict[str, Any]:
        ours = {"client_config": CLIENT, "transfer_config": TRANSFER, "max_memory_size": SPOOLED}
        return super().get_default_settings() | ours

    def _open(self, name: str, mode: str = "rb") -> File:
        with our_errors(name):
            file = super()._open(name, mode)
            # Fetches it: a bucket that breaks off later would do so in the middle of an answer.
            file.open()
            return file

    def _save(self, name: str, content: File) -> str:
        with our_errors(name):
            return super()._save(name, content)

    def delete(self, name: str) -> None:
        with our_errors(name):
            super().delete(name)

    def exists(self, name: str) -> bool:
        with our_errors(name):
            return super().exists(name)

    def listdir(self, path: str) -> tuple[list[str], list[str]]:
        with our_errors(path):
            return super().listdir(path)

    def size(self, name: str) -> int:
        with our_errors(name):
            return super().size(name)

    def get_modified_time(self, name: str) -> datetime:
        with our_errors(name):
            return super().get_modified_time(name)

    def url(self, name: str, *args: Any, **kwargs: Any) -> str:
        with our_errors(name):
            return super().url(name, *args, **kwargs)


@contextmanager
def our_errors(name: str) -> Iterator[None]:
    try:
        yield
    except ClientError as error:
        code, words = error.response["Error"]["Code"], error.response["Error"].get("Message")
        if code in ("404", "NoSuchKey"):
            raise FileNotFoundError(f"There is no file {name}.") from error
        # An answer without a body has no other code than HTTP's.
        raise TemporaryError(f"The storage answers {words if code.isdecimal() and words else code}.") from error
    except (BotoCoreError, Boto3Error, RetriesExceededError) as error:
        raise TemporaryError(f"The storage cannot be reached ({type(error).__name__}).") from error
