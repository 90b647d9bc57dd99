"""Mail as the tutorials send it."""

from django.core.mail import send_mail

from accounts.models import User
from lab.naive.app import app
from orders.models import Order


@app.task
def send_confirmation(order_id: int) -> None:
    """Send one mail."""
    order = Order.objects.get(pk=order_id)
    send_mail(f"Your order {order}", "It is on its way.", None, [order.customer.email])


@app.task
def send_digest(user_id: int) -> None:
    """Send one person the news."""
    send_mail("This week", "New lamps.", None, [User.objects.get(pk=user_id).email])


@app.task
def queue_digests() -> int:
    """Queue a mail for each person."""
    people = User.objects.filter(wants_digest=True)
    for person in people:
        send_digest.delay(person.pk)
    return len(people)


@app.task
def send_digests() -> None:
    """Send everybody the news."""
    for person in User.objects.filter(wants_digest=True):
        send_mail("This week", "New lamps.", None, [person.email])
