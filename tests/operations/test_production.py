"""From click to mail as in production: the containers of docker-compose.yml, each secret of its own, as processes."""

import re
import secrets
import socket
from collections.abc import Iterator
from html import unescape
from uuid import uuid4

import psutil
import psycopg
import pytest
import requests
from django.utils import timezone
from kombu import Connection, Producer
from redis import Redis
from redis.exceptions import AuthenticationError

from myproject.transport import certificates
from tests.containers import Machine, production
from tests.shop import wait_for

# The fixture starts servers and migrates a database.
pytestmark = [pytest.mark.operations, pytest.mark.timeout(600)]
SERVICES = ("sandbox", "web", "worker-orders", "worker-mail", "worker-reports", "worker-default", "beat")
SHOP = "shop.example.com"
LOGIN = {"login": "customer@example.com", "password": "lantern-loom"}


def dotenv() -> dict[str, str]:
    """Return the `.env` of docs/operations/docker-compose.md, with the sandbox in the place of the real services."""
    return {
        "SECRET_KEY": secrets.token_urlsafe(48),
        "POSTGRES_PASSWORD": secrets.token_urlsafe(24),
        "REDIS_PASSWORD": secrets.token_urlsafe(24),
        "METRICS_TOKEN": secrets.token_urlsafe(24),
        "STAFF_SECOND_FACTOR": "true",
        "CELERY_SECURITY_KEY": "/certificates/key.pem",
        "CELERY_SECURITY_CERTIFICATE": "/certificates/certificate.pem",
        "CELERY_SECURITY_CERT_STORE": "/certificates/trusted",
        "ALLOWED_HOSTS": f"{SHOP},127.0.0.1,web",
        "SITE_URL": f"https://{SHOP}",
        "FLOWER_URL": f"https://flower.{SHOP}",
        "BEHIND_PROXY": "true",
        "EMAIL_URL": "smtp://sandbox:1025",
        "STRIPE_API_KEY": "sk_test_sandbox",
        "STRIPE_API_BASE": "http://sandbox:8001",
        "STRIPE_WEBHOOK_SECRET": "whsec_sandbox",
        "CRM_URL": "http://sandbox:8001/crm",
        "CRM_TOKEN": "crm_test_sandbox",
        "WAREHOUSE_URL": "http://sandbox:8001/warehouse",
        "WAREHOUSE_TOKEN": "wh_test_sandbox",
        "ALERT_URLS": "json://sandbox:8001/chat",
    }


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    variables = dotenv()
    here = Machine(tmp_path_factory.mktemp("production"), production(variables), variables)
    certificates.make(here.home / "certificates", days=2)
    with here.prepared():
        here.outcome("migrate", "python", "manage.py", "seed_demo", "--empty")
        here.hurry()
        with here.running(*SERVICES):
            wait_for(lambda: status(here) == 200, "the web", 240)
            yield here


class Visitor:
    """A browser behind the proxy with TLS, which passes requests on to the web."""

    def __init__(self, machine: Machine) -> None:
        self.address = f"http://{machine.address('web', 8000)}"
        self.session = requests.Session()
        self.session.headers.update({"Host": SHOP, "X-Forwarded-Proto": "https", "Referer": f"https://{SHOP}/"})

    def get(self, path: str) -> requests.Response:
        return self.ask("GET", path)

    def ask(self, method: str, path: str, data: dict[str, str] | None = None) -> requests.Response:
        answer = self.session.request(method, self.address + path, data=data, timeout=20, allow_redirects=False)
        # The session knows only the last part of the way, which has no TLS, and would keep them to itself.
        for cookie in self.session.cookies:
            cookie.secure = False
        return answer

    def send(self, path: str, **data: str) -> requests.Response:
        """Open the page and send its main form, with these fields."""
        page = self.get(path)
        page.raise_for_status()
        form = page.text[page.text.index("<main") : page.text.index("</main>")]
        action = re.search(r'<form[^>]* action="([^"]+)"', form)
        found = re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', form)
        hidden = {name: unescape(value) for name, value in found}
        return self.ask("POST", action[1] if action else path, hidden | data)


def status(machine: Machine) -> int:
    try:
        return Visitor(machine).get("/accounts/login/").status_code
    except (requests.ConnectionError, requests.Timeout):
        return 0


def mails(machine: Machine) -> list[str]:
    answer = requests.get(f"http://{machine.address('sandbox', 8001)}/mail.json", timeout=10)
    return [mail["subject"] for mail in answer.json()]


def test_order_goes_from_click_to_mail_in_production(machine: Machine) -> None:
    visitor = Visitor(machine)
    assert "; Secure" in visitor.send("/accounts/login/", **LOGIN).headers["Set-Cookie"]
    product = re.findall(r'href="(/products/[\w-]+/)"', visitor.get("/").text)[0]
    assert visitor.send(product, quantity="1").status_code == 302

    order = visitor.send("/checkout/", card="pm_card_visa").headers["Location"]

    wait_for(lambda: "Completed" in visitor.get(f"{order}status/").text, "the completed order")
    wait_for(lambda: any(order.split("/")[2] in subject for subject in mails(machine)), "its confirmation")


def test_report_is_written_where_nothing_else_can_be_written(machine: Machine) -> None:
    visitor, today = Visitor(machine), f"{timezone.localdate():%Y-%m-%d}"
    visitor.send("/accounts/login/", **LOGIN)

    report = visitor.send("/reports/statement/", format="pdf", start=today, end=today).headers["Location"]

    wait_for(lambda: f"{report}download/" in visitor.get(f"{report}status/").text, "the finished report")
    file = visitor.get(visitor.get(f"{report}download/").headers["Location"].removeprefix(f"https://{SHOP}"))
    assert file.content.startswith(b"%PDF")


def test_beat_runs_what_is_due_in_production(machine: Machine) -> None:
    worker = f"default@{socket.gethostname()}"

    wait_for(lambda: ("Heartbeat", worker) in machine.periodic_runs(), "a periodic task, done by its queue's worker")


def test_worker_refuses_a_message_that_is_not_signed(machine: Machine) -> None:
    headers = {"task": "myproject.tasks.add", "id": str(uuid4())}

    with Connection(machine.environment("web")["CELERY_BROKER_URL"]) as stranger:
        Producer(stranger.default_channel).publish(((2, 3), {}, {}), routing_key="default", headers=headers)

    told = "SELECT 1 FROM myproject_alert WHERE cause = 'dead letter, not signed by us' AND sent_at IS NOT NULL"
    wait_for(lambda: machine.rows(told), "somebody to be told")
    assert not machine.rows("SELECT 1 FROM django_celery_results_taskresult WHERE task_name = 'myproject.tasks.add'")


def test_metrics_are_for_prometheus_alone(machine: Machine) -> None:
    address = f"http://{machine.address('web', 8000)}/metrics"

    answers = [
        requests.get(address, headers={"Authorization": f"Bearer {token}"}, timeout=20)
        for token in ("guessed", machine.variables["METRICS_TOKEN"])
    ]

    assert [answer.status_code for answer in answers] == [401, 200]
    assert 'shop_up{part="broker"} 1.0' in answers[1].text


def test_servers_refuse_connections_without_a_password(machine: Machine) -> None:
    database = machine.environment("web")["DATABASE_URL"].replace(machine.variables["POSTGRES_PASSWORD"], "guessed")

    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(database)
    with pytest.raises(AuthenticationError), Redis(port=machine.ports["redis", 6379]) as redis:
        redis.ping()


def test_password_of_redis_is_no_argument_of_a_process(machine: Machine) -> None:
    arguments = [" ".join(process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"])]

    assert any("redis-server" in line or "celery" in line for line in arguments)
    assert not any(machine.variables["REDIS_PASSWORD"] in line for line in arguments)


def test_visitor_without_tls_is_sent_to_it(machine: Machine) -> None:
    plain = requests.get(
        f"http://{machine.address('web', 8000)}/", headers={"Host": SHOP}, timeout=20, allow_redirects=False
    )

    assert (plain.status_code, plain.headers["Location"]) == (301, f"https://{SHOP}/")
