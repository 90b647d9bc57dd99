"""Addresses of servers as variables give them: what cannot be meant is refused, and TLS verifies who answers."""

import re
import ssl
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlencode, urlsplit

from django.core.exceptions import ImproperlyConfigured

# What the query of a `rediss://`, `amqps://` or `sentinel://` may say of TLS.
TLS = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs")
ESCAPES = "within user and password write / as %2F, # as %23, ? as %3F, @ as %40, and % as %25."
VERIFY = {"required": ssl.CERT_REQUIRED, "optional": ssl.CERT_OPTIONAL, "none": ssl.CERT_NONE}


class Address(NamedTuple):
    """What Celery is told: the address, options of the transport, and of TLS; `None` without it."""

    url: str
    options: dict[str, Any] = {}
    tls: dict[str, Any] | None = None


def checked(name: str, url: str) -> str:
    """Return the address; raise `ImproperlyConfigured` where a password would be taken for a host or a path."""
    for part in url.split(";"):
        try:
            split = urlsplit(part)
            is_clear = split.port != 0 and "#" not in part and "@" not in split.path + split.query
        except ValueError:
            is_clear = False
        if not is_clear:
            raise ImproperlyConfigured(f"{name} cannot be read: {ESCAPES}")
    return url


def read(name: str, url: str) -> Address:
    """Take the address of a broker or of results apart; raises `ImproperlyConfigured`."""
    if "://" not in url:
        return Address(url)
    base, _, query = checked(name, url).partition("?")
    asked = dict(parse_qsl(query))
    options = sentinel_options(name, asked) if base.startswith("sentinel") else {}
    tls = tls_options(name, base, {key: asked.pop(key) for key in TLS if key in asked})
    url = spread(base) if base.startswith("sentinel") else base
    return Address(f"{url}?{urlencode(asked)}" if asked else url, options, tls)


def sentinel_options(name: str, asked: dict[str, str]) -> dict[str, Any]:
    if "master_name" not in asked:
        raise ImproperlyConfigured(
            f"{name} does not say which Redis the sentinels watch: "
            "sentinel://:password@host:26379;sentinel://host2:26379/0?master_name=NAME."
        )
    # Of the sentinels themselves, which may want another password than the Redis that they watch.
    own = {"password": asked.pop("sentinel_password")} if "sentinel_password" in asked else {}
    patience = {"socket_timeout": 1, "socket_connect_timeout": 1}
    return {"master_name": asked.pop("master_name"), "sentinel_kwargs": patience | own}


def spread(base: str) -> str:
    """Give each sentinel the password and the number of the database, since Celery looks at the first one only."""
    parts = [urlsplit(part) for part in base.split(";")]
    user = next((part.netloc.rpartition("@")[0] for part in parts if "@" in part.netloc), "")
    path = next((part.path for part in reversed(parts) if part.path.strip("/")), "/0")
    hosts = (part.netloc.rpartition("@")[2] for part in parts)
    return ";".join(f"sentinel://{user}{'@' if user else ''}{host}{path}" for host in hosts)


def tls_options(name: str, base: str, asked: dict[str, str]) -> dict[str, Any] | None:
    """Return what makes TLS verify the certificate, unless the address says otherwise; None without TLS."""
    scheme = base.partition("://")[0]
    if scheme not in {"rediss", "amqps"} and not asked:
        return None
    level = asked.pop("ssl_cert_reqs", "required").lower().removeprefix("cert_")
    if level not in VERIFY:
        raise ImproperlyConfigured(f"{name}: ssl_cert_reqs is {', '.join(VERIFY)}.")
    if scheme.startswith("amqp"):
        names = {re.sub("^ssl_", "", key): value for key, value in asked.items()}
        return names | {"cert_reqs": VERIFY[level], "server_hostname": urlsplit(base).hostname}
    return asked | {"ssl_cert_reqs": VERIFY[level]}
