"""A bucket on an S3-compatible server, a process of its own.

A test module asks for the fixture with `pytest_plugins = ["tests.bucket"]`. It has imported this module
by then, too late for pytest to rewrite it: PYTEST_DONT_REWRITE.
"""

import subprocess
import sys
from collections.abc import Iterator
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import urlopen

import boto3
import pytest
from django.conf import settings

from tests.bucket_server import KEY, RESET, SECRET
from tests.ports import free_port
from tests.shop import wait_for

REGION, NAME = "eu-central-1", "files"


class Server:
    """The process; `stop` and `begin` take it away and bring it back, empty."""

    def __init__(self) -> None:
        self.port = free_port()
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self.url = f"s3+http://{KEY}:{quote(SECRET, '')}@127.0.0.1:{self.port}/{NAME}/shop?region={REGION}"
        keys = {"aws_access_key_id": KEY, "aws_secret_access_key": SECRET, "region_name": REGION}
        self.client: Any = boto3.client("s3", endpoint_url=self.endpoint, **keys)

    def start(self) -> None:
        with (settings.VAR_DIR / "bucket.log").open("ab") as log:
            command = [sys.executable, "-m", "tests.bucket_server", str(self.port)]
            self.process = subprocess.Popen(command, cwd=settings.BASE_DIR, stdout=log, stderr=log)
        wait_for(self.answers, "the bucket's server")

    def begin(self) -> None:
        """Have one bucket, with nothing in it, whatever the test before has left."""
        if self.process.poll() is not None:
            self.start()
        urlopen(f"{self.endpoint}{RESET}", b"", timeout=5).close()
        self.make_bucket()

    def make_bucket(self) -> None:
        self.client.create_bucket(Bucket=NAME, CreateBucketConfiguration={"LocationConstraint": REGION})

    def answers(self) -> bool:
        try:
            with urlopen(self.endpoint, timeout=5):
                return True
        except HTTPError:
            return True
        except OSError:
            return False

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(10)

    def names(self) -> list[str]:
        return sorted(entry["Key"] for entry in self.client.list_objects_v2(Bucket=NAME).get("Contents", []))

    def uploads(self) -> list[Any]:
        """What was begun and is neither whole nor given up."""
        uploads: list[Any] = self.client.list_multipart_uploads(Bucket=NAME).get("Uploads", [])
        return uploads

    def content(self, key: str) -> bytes:
        content: bytes = self.client.get_object(Bucket=NAME, Key=key)["Body"].read()
        return content


@pytest.fixture(scope="module")
def started_server() -> Iterator[Server]:
    server = Server()
    server.start()
    yield server
    server.stop()


@pytest.fixture
def server(started_server: Server) -> Server:
    started_server.begin()
    return started_server
