"""moto, an S3-compatible server that checks no signature, behind a door that does.

`python -m tests.bucket_server PORT` serves it. The door computes signatures by itself, from Amazon's description of
version 4, without a client library.
"""

import hashlib
import hmac
import sys
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from functools import reduce
from typing import Any
from urllib.parse import parse_qsl, quote

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.datastructures import EnvironHeaders
from werkzeug.serving import run_simple

# Of moto itself: forgets everything.
RESET = "/moto-api/reset"
KEY, SECRET = "AKIAIOSFODNN7EXAMPLE", "half/a+secret%"
Environ = dict[str, Any]
Application = Callable[[Environ, Any], Iterable[bytes]]


class Door:
    """Accepts requests that are signed with the secret, by header or by an address that has not expired."""

    def __init__(self, application: Application) -> None:
        self.application = application

    def __call__(self, environ: Environ, start: Any) -> Iterable[bytes]:
        if environ["PATH_INFO"] == RESET or is_signed(environ):
            return self.application(environ, start)
        start("403 Forbidden", [("Content-Type", "application/xml"), ("Connection", "close")])
        return [b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"]


def is_signed(environ: Environ) -> bool:
    query = parse_qsl(environ["QUERY_STRING"], keep_blank_values=True)
    asked, headers = dict(query), EnvironHeaders(environ)
    kind, _, words = headers.get("Authorization", "").partition(" ")
    header = dict(part.strip().split("=", 1) for part in words.split(",")) if kind == "AWS4-HMAC-SHA256" else {}
    credential = header.get("Credential") or asked.get("X-Amz-Credential", "")
    names = header.get("SignedHeaders") or asked.get("X-Amz-SignedHeaders", "")
    moment = headers.get("X-Amz-Date") or asked.get("X-Amz-Date", "")
    given = header.get("Signature") or asked.get("X-Amz-Signature", "")
    if not credential.startswith(f"{KEY}/") or not lasts(moment, int(asked.get("X-Amz-Expires", 300))):
        return False
    signed = "&".join(f"{quote(k, '')}={quote(v, '')}" for k, v in sorted(query) if k != "X-Amz-Signature")
    lines = [f"{name}:{headers.get(name, '').strip()}\n" for name in names.split(";")]
    body = headers.get("X-Amz-Content-SHA256", "UNSIGNED-PAYLOAD")
    path = quote(environ["PATH_INFO"].encode("latin-1"), "/-_.~")
    request = "\n".join([environ["REQUEST_METHOD"], path, signed, "".join(lines), names, body])
    return hmac.compare_digest(signature(credential.partition("/")[2], moment, request), given)


def lasts(moment: str, seconds: int) -> bool:
    begun = datetime.strptime(moment, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    return datetime.now(UTC) < begun + timedelta(seconds=seconds)


def signature(scope: str, moment: str, request: str) -> str:
    key = reduce(lambda key, word: digest(key, word).digest(), scope.split("/"), f"AWS4{SECRET}".encode())
    hashed = hashlib.sha256(request.encode()).hexdigest()
    return digest(key, f"AWS4-HMAC-SHA256\n{moment}\n{scope}\n{hashed}").hexdigest()


def digest(key: bytes, text: str) -> hmac.HMAC:
    return hmac.new(key, text.encode(), hashlib.sha256)


if __name__ == "__main__":
    run_simple("127.0.0.1", int(sys.argv[1]), Door(DomainDispatcherApplication(create_backend_app)), threaded=True)
