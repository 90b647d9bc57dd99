"""The certificates that messages are signed with: made, and looked at before anybody relies on them."""

import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import NameOID

from myproject.transport.signing import SETTINGS

# RSA is the only kind that Celery takes. A longer key is slower to sign with, by the square and more.
BITS = 2048
# When the check begins to remind.
SOON = timedelta(days=30)


def make(folder: Path, days: int) -> tuple[Path, Path, Path]:
    """Write a key, its certificate and a store that trusts it; raise `FileExistsError` rather than overwrite."""
    key, certificate, store = folder / "key.pem", folder / "certificate.pem", folder / "trusted"
    store.mkdir(parents=True, exist_ok=True)
    private = rsa.generate_private_key(public_exponent=65537, key_size=BITS)
    signed = self_signed(private, days)
    pem = signed.public_bytes(Encoding.PEM)
    write_new(key, 0o600, private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    write_new(certificate, 0o644, pem)
    # Named by its number, so that old and new fit into one store.
    write_new(store / f"{signed.serial_number:x}.pem", 0o644, pem)
    return key, certificate, store


def self_signed(key: rsa.RSAPrivateKey, days: int) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tasks")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    # Clocks of other machines may be behind.
    return (
        builder.not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=days))
        .sign(key, hashes.SHA256())
    )


def write_new(path: Path, mode: int, content: bytes) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)


def problems(conf: Any) -> Iterator[str]:
    """Say why messages cannot be signed or verified; nothing where signing is off or all is well."""
    missing = [f"CELERY_{name.upper()}" for name in SETTINGS if not conf.get(name)]
    if len(missing) == len(SETTINGS):
        return
    if missing:
        yield f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not set, the others are"
        return
    key, certificate, store = (Path(conf[name]) for name in SETTINGS)
    yield from problems_of_pair(key, certificate, conf.get("security_key_password"))
    yield from problems_of_store(certificate, store)


def problems_of_pair(key: Path, certificate: Path, password: str | None) -> Iterator[str]:
    try:
        private: Any = load_pem_private_key(key.read_bytes(), password.encode() if password else None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        yield f"CELERY_SECURITY_KEY: {reason(key, error)}"
        return
    try:
        public = load(certificate).public_key()
    except (OSError, ValueError) as error:
        yield f"CELERY_SECURITY_CERTIFICATE: {reason(certificate, error)}"
        return
    if not isinstance(private, rsa.RSAPrivateKey):
        yield "CELERY_SECURITY_KEY: Celery takes keys of RSA only"
    if private.public_key() != public:
        yield "CELERY_SECURITY_KEY is not the key of CELERY_SECURITY_CERTIFICATE"


def problems_of_store(certificate: Path, store: Path) -> Iterator[str]:
    trusted = []
    for path in files(store):
        try:
            trusted.append(load(path))
        except (OSError, ValueError) as error:
            yield f"CELERY_SECURITY_CERT_STORE: {reason(path, error)}"
            continue
        # Celery refuses the whole store for it.
        if trusted[-1].not_valid_after_utc <= datetime.now(UTC):
            yield f"CELERY_SECURITY_CERT_STORE: {path} has expired; remove it"
    if not files(store):
        yield f"CELERY_SECURITY_CERT_STORE: there is nothing in {store}"
    elif certificate.is_file() and not any(certificate.read_bytes() == path.read_bytes() for path in files(store)):
        yield "CELERY_SECURITY_CERT_STORE does not hold CELERY_SECURITY_CERTIFICATE"


def ends_soon(conf: Any) -> Iterator[str]:
    """Say so when the certificate in use expires within `SOON`."""
    path = conf.get("security_certificate")
    try:
        ends = load(Path(path)).not_valid_after_utc if path else None
    except (OSError, ValueError):
        return
    if ends and ends < datetime.now(UTC) + SOON:
        yield f"CELERY_SECURITY_CERTIFICATE ends on {ends:%d %B %Y}"


def load(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def files(store: Path) -> list[Path]:
    """Return what Celery reads: all files of a folder, or those that fit a pattern; none that is hidden."""
    found = store.glob("*") if store.is_dir() else store.parent.glob(store.name)
    return sorted(path for path in found if not path.name.startswith("."))


def reason(path: Path, error: Exception) -> str:
    if isinstance(error, OSError):
        return f"{path}: {error.strerror}"
    return f"{path} cannot be read as PEM"
