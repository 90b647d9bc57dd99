"""`make lighthouse`: eight pages of the shop as it runs in production, where Node is."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings

from accounts.models import User
from orders.models import Order, Product
from tests.broker import Broker
from tests.conftest import CHROMIUM, FLAGS
from tests.looks.pages import history, session_of
from tests.ports import free_port
from tests.running import running
from tests.shop import answers, wait_for

pytest_plugins = ["tests.broker", "tests.running"]
pytestmark = [pytest.mark.looks, pytest.mark.django_db(transaction=True), pytest.mark.timeout(1800)]

LIGHTHOUSE = "lighthouse@13.5.0"
LEAST = {"accessibility": 100, "best-practices": 100, "performance": 95, "seo": 95}
# Of a cold page with all that it loads, as it comes over the wire.
MOST_BYTES = 60 * 1024


@pytest.mark.skipif(not (shutil.which("npx") and CHROMIUM), reason="needs Node and Chromium")
def test_lighthouse_gives_eight_pages_their_marks(queue: Broker, web: Callable[..., Any], tmp_path: Path) -> None:
    with history():
        staff = User.objects.get(email="staff@example.com")
    paths = ["/", "/basket/", "/accounts/login/", Product.objects.on_sale().order_by("pk")[0].get_absolute_url()]
    private = ["/orders/", Order.objects.order_by("-pk")[0].get_absolute_url(), "/dashboard/", "/reports/"]
    cookie = f"{settings.SESSION_COOKIE_NAME}={session_of(staff)}"

    push = f"127.0.0.1:{free_port()}"
    with running("python -m myproject.live", LIVE_BIND=push), web(LIVE_URL=f"http://{push}/live/"):
        wait_for(lambda: answers(f"http://{push}/healthz/ready"), "push")
        seen = {path: marks(path, "", tmp_path) for path in paths}
        seen |= {path: marks(path, cookie, tmp_path) for path in private}

    print(json.dumps(seen, indent=2))  # noqa: T201
    # A private page is not to be found by a search.
    asked = {path: {k: v for k, v in LEAST.items() if k != "seo" or path in paths} for path in seen}
    assert {path: row for path, row in seen.items() if any(row[name] < asked[path][name] for name in asked[path])} == {}
    assert {path: row["bytes"] for path, row in seen.items() if path in paths and row["bytes"] > MOST_BYTES} == {}


def marks(path: str, cookie: str, folder: Path) -> dict[str, int]:
    """Run Lighthouse on the page; return its marks, and how many bytes the page weighs."""
    told, headers = folder / "lighthouse.json", folder / "headers.json"
    headers.write_text(json.dumps({"Cookie": cookie} if cookie else {}))
    flags = " ".join(["--headless", *FLAGS])
    command = ["npx", "--yes", LIGHTHOUSE, settings.SITE_URL + path, "--quiet", "--output=json", "--preset=desktop"]
    command += [f"--output-path={told}", f"--chrome-flags={flags}", f"--extra-headers={headers}"]
    command += [f"--only-categories={','.join(LEAST)}"]
    subprocess.run(command, check=True, env=os.environ | {"CHROME_PATH": str(CHROMIUM)}, timeout=300)
    report = json.loads(told.read_text())
    weight = int(report["audits"]["total-byte-weight"]["numericValue"])
    return {name: round((row["score"] or 0) * 100) for name, row in report["categories"].items()} | {"bytes": weight}
