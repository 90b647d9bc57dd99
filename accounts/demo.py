"""The demo's people: some to log in as, and a dozen who have bought something before."""

from datetime import datetime, timedelta
from typing import Any

from django.contrib.auth.hashers import make_password
from django.contrib.auth.models import Group

from myproject.demo import Past, Told, mail_of
from myproject.groups import declared

from . import emails
from .models import CrmContact, CrmStatus, User

PASSWORD = "lantern-loom"  # noqa: S105 # nosec B105 # it is printed for everybody to read
CUSTOMER, STAFF, SUPPORT = "customer@example.com", "staff@example.com", "support@example.com"
REGULARS = [
    "Amara Nwosu",
    "Ben Lindqvist",
    "Chiara Romano",
    "Daniel Kowalski",
    "Elif Yılmaz",
    "Farid Haddad",
    "Greta Hansen",
    "Hiro Tanaka",
    "Inês Carvalho",
    "Jonas Weber",
    "Keira O’Brien",
    "Lucía Fernández",
]
# A large shop has more customers.
ORDERS_OF_EACH = 125


def fill() -> None:
    """Create the people to log in as, unless somebody is there."""
    if User.objects.exists():
        return
    # Hashed once: it is slow by intention.
    secret = {"password": make_password(PASSWORD)}
    User.objects.create(email=CUSTOMER, name="Casey Customer", **secret)
    User.objects.create(email=STAFF, name="Sam Staff", is_staff=True, is_superuser=True, **secret)
    for group in Group.objects.filter(name__in=declared()):
        name = f"Sam {group.name.title()}"
        User.objects.create(email=f"{group}@example.com", name=name, is_staff=True, **secret).groups.add(group)


def remember(past: Past) -> Told:
    """Create the regular customers, where the demo's customer is alone."""
    casey = User.objects.filter(email=CUSTOMER).first()
    if casey is None or User.objects.filter(is_staff=False).count() > 1:
        return {}
    joined = past.ago(days=past.days)
    people = [
        User(
            email=f"{first_name(name)}@example.com",
            name=name,
            password=casey.password,
            wants_digest=number % 2 == 0,
            date_joined=joined - timedelta(days=9 * number, hours=3 * number),
        )
        for number, name in enumerate(REGULARS)
    ]
    for person in people:
        person.mail_sent_at = person.date_joined + timedelta(seconds=2)
    people += [buyer(number, joined) for number in range(past.orders // ORDERS_OF_EACH - len(REGULARS))]
    User.objects.bulk_create(people, batch_size=5_000)
    User.objects.filter(pk=casey.pk).update(date_joined=joined, mail_sent_at=joined, wants_digest=True)
    casey.refresh_from_db()
    customers = [casey, *people]
    contacts = [
        CrmContact(
            external_id=person.pk,
            user=person,
            status=CrmStatus.SYNCED,
            wanted_at=person.date_joined,
            synced_at=person.mail_sent_at,
            due_at=None,
        )
        for person in customers
    ]
    CrmContact.objects.bulk_create(contacts, batch_size=5_000)
    known = customers[: 1 + len(REGULARS)]
    mails = [mail_of(emails.welcome(person), person.date_joined) for person in known]
    return {"contacts": [contact_of(person) for person in known], "mails": mails}


def buyer(number: int, joined: datetime) -> User:
    """Return one of the many others of a large shop."""
    first, last = REGULARS[number % 12].split()[0], REGULARS[number // 12 % 12].split()[1]
    name, email = f"{first} {last}", f"buyer{number}@example.com"
    return User(email=email, name=name, password=make_password(None), date_joined=joined, mail_sent_at=joined)


def first_name(name: str) -> str:
    return name.split()[0].lower().replace("ê", "e").replace("í", "i")


def contact_of(person: User) -> dict[str, Any]:
    changed = person.date_joined.isoformat()
    return {"external_id": person.pk, "email": person.email, "name": person.name, "changed_at": changed}
