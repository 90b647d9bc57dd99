"""The `stripe` client by itself: threads that do nothing but charge. `python -m benchmarks.client COUNT`"""

import sys
import uuid
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

import django

from . import together

THREADS = 8


def main() -> None:
    django.setup()
    from orders import payments
    from orders.models import Card, Order, Payment

    payment_list = [
        Payment(order=Order(reference=uuid.uuid4().hex[:9]), card=Card.VISA, amount=Decimal("37.50"), currency="EUR")
        for _ in range(int(sys.argv[1]))
    ]
    with ThreadPoolExecutor(THREADS) as pool:
        together.on_go(lambda: list(pool.map(payments.charge, payment_list)))


if __name__ == "__main__":
    main()
