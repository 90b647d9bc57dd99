"""Each POST of the JSON API, sent four times at once to the real server, does what it does when sent once."""

import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests
from django.conf import settings
from django.core.cache import cache

from tests.attack.addresses import make_person
from tests.attack.scripts import BODIES, encoded, headers_of, token_of
from tests.attack.written import changed
from tests.broker import Broker
from tests.factories import make_product
from tests.production import HOST, Web

pytest_plugins = ["tests.broker"]
pytestmark = [pytest.mark.attack, pytest.mark.django_db(transaction=True), pytest.mark.timeout(600)]

TIMES = 4
PROXY = {"Host": HOST, "X-Forwarded-Proto": "https"}
OPERATIONS = [(path, name) for path, bodies in BODIES.items() for name in bodies]


def send_all(web: Web, secret: str, path: str, body: Any, keys: list[str]) -> list[requests.Response]:
    """Send the body with each of the keys, at the same moment; an empty key is none."""
    data, kind = encoded(body)
    gate = threading.Barrier(len(keys))

    def one(key: str) -> requests.Response:
        gate.wait()
        headers = PROXY | headers_of(secret, key) | {"Content-Type": kind}
        return requests.post(f"http://127.0.0.1:{web.port}/{path}", data, headers=headers, timeout=60)

    with ThreadPoolExecutor(len(keys)) as pool:
        return list(pool.map(one, keys))


def test_each_operation_sent_at_once_does_what_it_does_once(tmp_path: Path, broker: Broker) -> None:
    make_product(sku="LAMP-1", stock=1000)
    done: dict[Any, Any] = {}
    with Web(tmp_path, SECRET_KEY=settings.SECRET_KEY, CELERY_BROKER_URL=broker.url) as web:
        for (path, name), times, has_key in [(o, t, k) for o in OPERATIONS for t in (1, TIMES) for k in (True, False)]:
            cache.clear()
            secret = token_of(make_person("administrator"))
            with changed(broker) as found:
                keys = [str(uuid.uuid4()) if has_key else ""] * times
                answers = send_all(web, secret, path, BODIES[path][name], keys)
            found["answers"] = {answer.status_code for answer in answers}
            found["ids"] = len({answer.text for answer in answers})
            done[path, name, has_key, times] = found

    once = {key[:3]: found for key, found in done.items() if key[3] == 1}
    assert {key[:3]: found for key, found in done.items() if key[3] == TIMES} == once
    assert {key[:2] for key, found in once.items() if found["messages"]} == set(OPERATIONS)
    assert {code for found in once.values() for code in found["answers"]} == {202, 422}


def test_keys_that_differ_are_as_many_orders_at_once(tmp_path: Path, broker: Broker) -> None:
    make_product(sku="LAMP-1", stock=1000)
    path, secret = "api/v1/orders/", token_of(make_person("customer"))
    with Web(tmp_path, SECRET_KEY=settings.SECRET_KEY, CELERY_BROKER_URL=broker.url) as web, changed(broker) as found:
        answers = send_all(web, secret, path, BODIES[path]["an order"], [str(uuid.uuid4()) for _ in range(TIMES)])

    assert [answer.status_code for answer in answers] == [202] * TIMES
    assert found["messages"] == {"orders.tasks.process_order": TIMES}
