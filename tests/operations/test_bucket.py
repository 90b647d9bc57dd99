"""Worker and web server keep their files in a bucket."""

from collections.abc import Callable, Iterator
from urllib.request import Request, urlopen

import pytest
from django.conf import settings
from django.test import Client
from django.utils import timezone

from accounts.models import User
from reports import services
from reports.models import Report, Status
from tests.bucket import Server
from tests.factories import make_report, make_user
from tests.shop import Shop, wait_for

pytest_plugins = ["tests.bucket"]
pytestmark = pytest.mark.operations

Login = Callable[[User], Client]


def restart(shop: Shop) -> None:
    for name in ("worker", "web"):
        shop.kill(name)
        shop.start(name)
    shop.wait_until_ready()


@pytest.fixture
def processes_with_bucket(server: Server, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    """The shop, whose worker and web server keep their files in the bucket."""
    monkeypatch.setenv("STORAGE_URL", server.url)
    restart(shop)
    yield shop
    monkeypatch.undo()
    restart(shop)


def again(report: Report) -> Report:
    return Report.objects.get(pk=report.pk)


@pytest.mark.django_db(transaction=True)
def test_worker_writes_into_the_bucket_and_the_web_server_leads_there(
    processes_with_bucket: Shop, server: Server, login: Login
) -> None:
    client = login(make_user(is_staff=True, is_superuser=True))
    client.post("/reports/", {"kind": "sales_by_day", "format": "pdf", "start": "2026-01-01", "end": "2026-01-31"})
    wait_for(Report.objects.filter(status=Status.READY).exists, "a worker to write it")
    report = Report.objects.get()

    url = f"{settings.SITE_URL}{report.get_absolute_url()}download/"
    cookie = f"sessionid={client.cookies['sessionid'].value}"
    with urlopen(Request(url, headers={"Cookie": cookie}), timeout=10) as answer:
        data = answer.read()

    assert answer.url.startswith(server.endpoint)
    assert data.startswith(b"%PDF")
    assert (len(data), server.names()) == (report.size, [f"shop/{report.file.name}"])


@pytest.mark.django_db(transaction=True)
def test_worker_puts_a_report_off_while_the_bucket_is_away_and_writes_it_then(
    processes_with_bucket: Shop, server: Server
) -> None:
    server.stop()
    report = make_report()
    wait_for(lambda: again(report).error, "the first attempt", 120)
    put_off = again(report)

    server.begin()
    Report.objects.update(due_at=timezone.now())
    wait_for(lambda: again(report).status == Status.READY, "the second attempt")

    assert (put_off.status, put_off.attempts) == (Status.QUEUED, 1)
    assert put_off.error == "The storage cannot be reached (EndpointConnectionError)."
    assert server.names() == [f"shop/{services.file_name(report, 2)}"]
