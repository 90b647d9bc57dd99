"""STORAGE_URL in the words of django-storages; boto3 is loaded by the first file, and only where there is a bucket."""

from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from django.core.exceptions import ImproperlyConfigured

SCHEMES = {"s3": "https", "s3+http": "http"}
FORM = "s3://key:secret@host/bucket/prefix?region=name"


def storage(url: str) -> dict[str, Any]:
    """Return an entry of STORAGES for the bucket at that address; for none, the one of the disk."""
    if not url:
        return {"BACKEND": "django.core.files.storage.FileSystemStorage"}
    parts = urlsplit(url)
    bucket, _, prefix = parts.path.strip("/").partition("/")
    if parts.scheme not in SCHEMES or not parts.hostname or not bucket:
        raise ImproperlyConfigured(f"STORAGE_URL must be {FORM}; s3+http:// is the same without TLS.")
    options = {
        "endpoint_url": f"{SCHEMES[parts.scheme]}://{parts.netloc.rpartition('@')[2]}",
        "bucket_name": bucket,
        "location": prefix,
        "region_name": parse_qs(parts.query).get("region", ["us-east-1"])[0],
    }
    # Without them boto3 looks for its own: AWS_ACCESS_KEY_ID, the role of the machine.
    if parts.username and parts.password:
        options |= {"access_key": unquote(parts.username), "secret_key": unquote(parts.password)}
    return {"BACKEND": "myproject.storage.bucket.Bucket", "OPTIONS": options}
