"""Every page of the admin, and what must not be done there."""

import json
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from allauth.account.models import EmailAddress
from allauth.mfa.models import Authenticator
from django.contrib import admin
from django.contrib.auth.models import Group, Permission
from django.contrib.messages import get_messages
from django.db.models import Model
from django.test import Client, RequestFactory
from django.urls import reverse
from django.utils import timezone
from django_celery_beat.models import (
    ClockedSchedule,
    CrontabSchedule,
    IntervalSchedule,
    PeriodicTask,
    SolarSchedule,
)
from django_celery_results.models import GroupResult, TaskResult

from accounts.models import AccountMail, ApiToken, CrmContact, Erasure, Notification, User
from myproject.alerting.models import Alert, DeadLetter
from orders.models import (
    Digest,
    InventoryDifference,
    InventorySync,
    Order,
    OrderEvent,
    Payment,
    Product,
    ProductImport,
    Status,
)
from reports import planning
from reports.models import Pack, Report, ReportSchedule
from tests.broker import Broker
from tests.factories import (
    make_alert,
    make_contact,
    make_digest,
    make_erasure,
    make_import,
    make_mail,
    make_notification,
    make_pack,
    make_product,
    make_report,
    make_schedule,
    make_user,
    place_order,
    put,
)

pytest_plugins = ["tests.broker"]
pytestmark = pytest.mark.django_db


def make_periodic_task() -> PeriodicTask:
    interval = IntervalSchedule.objects.create(every=5, period=IntervalSchedule.SECONDS)
    return PeriodicTask.objects.create(name="Beat", task="myproject.tasks.heartbeat", interval=interval)


def make_result(**fields: Any) -> TaskResult:
    return TaskResult.objects.create(task_id="t-1", task_name="orders.tasks.process_order", status="SUCCESS", **fields)


def make_address() -> EmailAddress:
    person = make_user()
    return EmailAddress.objects.create(user=person, email=person.email)


def make_difference() -> InventoryDifference:
    return InventoryDifference.objects.create(sync=InventorySync.objects.open_one(), kind="oversold", sku="LIT-001")


ROWS: dict[type[Model], Callable[[], Model]] = {
    User: make_user,
    Group: lambda: Group.objects.create(name="Clerks"),
    EmailAddress: make_address,
    AccountMail: make_mail,
    Notification: make_notification,
    CrmContact: make_contact,
    Erasure: make_erasure,
    Product: make_product,
    Order: place_order,
    Payment: lambda: place_order().payments.get(),
    OrderEvent: lambda: place_order().events.get(),
    Digest: make_digest,
    ProductImport: make_import,
    InventorySync: InventorySync.objects.open_one,
    InventoryDifference: make_difference,
    Report: make_report,
    ReportSchedule: make_schedule,
    Pack: make_pack,
    Alert: make_alert,
    DeadLetter: lambda: DeadLetter.objects.create(
        kind="unknown task", queue="orders", reason="unknown", raw=b"x", size=1
    ),
    Authenticator: lambda: Authenticator.objects.create(user=make_user(), type=Authenticator.Type.TOTP, data={}),
    TaskResult: make_result,
    GroupResult: lambda: GroupResult.objects.create(group_id="g-1"),
    PeriodicTask: make_periodic_task,
    IntervalSchedule: lambda: IntervalSchedule.objects.create(every=5, period=IntervalSchedule.SECONDS),
    CrontabSchedule: lambda: CrontabSchedule.objects.create(hour="3"),
    SolarSchedule: lambda: SolarSchedule.objects.create(event="sunset", latitude=52, longitude=13),
    ClockedSchedule: lambda: ClockedSchedule.objects.create(clocked_time=timezone.now()),
}
NOT_OURS_TO_CHANGE = [
    Order,
    Payment,
    OrderEvent,
    Report,
    ReportSchedule,
    Pack,
    AccountMail,
    Notification,
    CrmContact,
    TaskResult,
    Digest,
    ProductImport,
    InventorySync,
    InventoryDifference,
    Alert,
    Erasure,
]


@pytest.fixture
def office(login: Callable[[User], Client], staff: User) -> Client:
    return login(staff)


def url(model: type[Model], page: str, *args: Any) -> str:
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_{page}", args=args)


def messages_of(answer: Any) -> list[str]:
    return [str(message) for message in get_messages(answer.wsgi_request)]


# --- Every page ---


def test_each_registered_model_has_its_row_here() -> None:
    assert set(ROWS) == set(admin.site._registry)


@pytest.mark.parametrize("model", ROWS, ids=lambda model: model.__name__)
def test_pages_answer_with_a_row_present(model: type[Model], office: Client) -> None:
    row = ROWS[model]()

    pages = [url(model, "changelist"), url(model, "change", row.pk), f"{url(model, 'changelist')}?q=a"]

    assert [office.get(page).status_code for page in pages] == [200, 200, 200]


@pytest.mark.parametrize("model", ROWS, ids=lambda model: model.__name__)
def test_pages_are_closed_to_customers(model: type[Model], login: Callable[[User], Client], customer: User) -> None:
    answer = login(customer).get(url(model, "changelist"))

    assert (answer.status_code, answer["Location"].startswith("/admin/login/")) == (302, True)


@pytest.mark.parametrize("path", ["/admin/"])
def test_page_answers(path: str, office: Client) -> None:
    assert office.get(path).status_code == 200


@pytest.mark.parametrize("model", ROWS, ids=lambda model: model.__name__)
def test_page_of_a_row_refuses_a_field_without_a_name(model: type[Model], office: Client) -> None:
    row = ROWS[model]()

    assert office.get(f"{url(model, 'change', row.pk)}?_to_field=").status_code == 400


@pytest.mark.parametrize("odd", [{"day_of_month": "-1"}, {"day_of_week": ""}, {"initial-timezone": "w" * 70_000}])
def test_crontab_refuses_what_it_cannot_read(odd: dict[str, str], office: Client) -> None:
    fields = dict.fromkeys(("minute", "hour", "day_of_month", "month_of_year", "day_of_week"), "*")

    answer = office.post(url(CrontabSchedule, "add"), fields | {"timezone": "UTC"} | odd)

    assert answer.status_code in (200, 400)


# --- What is not to be changed by hand ---


@pytest.mark.parametrize("model", NOT_OURS_TO_CHANGE, ids=lambda model: model.__name__)
def test_rows_are_not_added_changed_or_deleted(model: type[Model], office: Client) -> None:
    row = ROWS[model]()
    manager = model._default_manager
    before = list(manager.values())

    answers = [
        office.post(page, {"post": "yes"}).status_code
        for page in (url(model, "add"), url(model, "change", row.pk), url(model, "delete", row.pk))
    ]

    assert answers == [403, 403, 403]
    assert list(manager.values()) == before


@pytest.mark.parametrize("model", NOT_OURS_TO_CHANGE, ids=lambda model: model.__name__)
def test_rows_are_not_deleted_by_the_action(model: type[Model], office: Client) -> None:
    row = ROWS[model]()

    office.post(url(model, "changelist"), {"action": "delete_selected", "_selected_action": [row.pk], "post": "yes"})

    assert model._default_manager.filter(pk=row.pk).exists()


@pytest.mark.parametrize("model", ROWS, ids=lambda model: model.__name__)
def test_view_permission_alone_gives_no_action(model: type[Model], login: Callable[[User], Client]) -> None:
    ROWS[model]()
    clerk = make_user(is_staff=True)
    clerk.user_permissions.set(
        Permission.objects.filter(content_type__app_label=model._meta.app_label, codename__startswith="view_")
    )

    answer = login(clerk).get(url(model, "changelist"))

    assert (answer.status_code, answer.context["action_form"]) == (200, None)


def test_admin_confirms_no_more_than_a_form_can_send(office: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("myproject.web.admin.MAX_CONFIRMED", 1)
    order, _ = (put(place_order(), Status.COMPLETED) for _ in range(2))
    asked = {"action": "refund", "_selected_action": [order.pk], "select_across": "1"}

    answer = office.post(url(Order, "changelist"), asked)

    assert (answer.status_code, messages_of(answer)) == (302, ["Please choose at most 1 at a time."])


def test_mails_keep_their_one_time_link_to_themselves(office: Client) -> None:
    row = make_mail(text="https://shop/reset/SECRET", html="<a href='https://shop/reset/SECRET'>x</a>")

    assert "SECRET" not in office.get(url(AccountMail, "change", row.pk)).content.decode()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("make", "task"),
    [
        (make_user, "accounts.tasks.send_welcome_email"),
        (make_mail, "accounts.tasks.send_account_email"),
        (make_notification, "accounts.tasks.send_notification_email"),
        (lambda: put(place_order(), Status.COMPLETED), "orders.tasks.send_order_confirmation"),
    ],
)
def test_mail_that_failed_is_sent_again(make: Callable[[], Any], task: str, office: Client, broker: Broker) -> None:
    failed, fine = make(), make()
    type(failed).objects.filter(pk=failed.pk).update(mail_due_at=None, mail_error="550 No such mailbox")
    model = type(failed)

    page = office.get(url(model, "change", failed.pk)).content.decode()
    answer = office.post(url(model, "changelist"), {"action": "send_again", "_selected_action": [failed.pk, fine.pk]})

    failed.refresh_from_db()
    assert "550 No such mailbox" in page
    assert (failed.mail_due_at is None, failed.mail_error) == (False, "")
    assert [name for _, name, _ in broker.messages()] == [task]
    assert messages_of(answer) == ["1 will be sent again; of others no mail has failed."]


def test_confirmation_is_not_sent_again_when_the_order_was_refunded(office: Client, broker: Broker) -> None:
    order = put(place_order(), Status.REFUNDED)
    Order.objects.update(mail_error="550 No such mailbox")

    office.post(url(Order, "changelist"), {"action": "send_again", "_selected_action": [order.pk]})

    order.refresh_from_db()
    assert (order.mail_due_at, broker.messages()) == (None, [])


# --- Products ---


def product_form(product: Product, **fields: Any) -> dict[str, Any]:
    facts = {name: getattr(product, name) for name in ("sku", "name", "category", "description", "price")}
    return facts | {"is_active": "on", "adjust_stock": 0} | fields


@pytest.mark.parametrize(("by", "stock"), [(5, 15), (-10, 0), (0, 10), ("", 10)])
def test_product_stock_is_adjusted_by_a_difference(by: object, stock: int, office: Client) -> None:
    product = make_product(stock=10)

    answer = office.post(url(Product, "change", product.pk), product_form(product, adjust_stock=by))

    product.refresh_from_db()
    assert (answer.status_code, product.stock) == (302, stock)


@pytest.mark.parametrize(
    ("by", "message"),
    [
        (-11, "There are only 10 to take away."),
        ("many", "Enter a whole number."),
        (10**12, "Ensure this value is less than or equal to 1000000."),
    ],
)
def test_product_stock_is_kept_when_the_difference_is_impossible(by: object, message: str, office: Client) -> None:
    product = make_product(stock=10)

    answer = office.post(url(Product, "change", product.pk), product_form(product, adjust_stock=by))

    product.refresh_from_db()
    assert answer.context["adminform"].form.errors == {"adjust_stock": [message]}
    assert product.stock == 10


def test_product_form_does_not_overwrite_stock_that_was_sold_meanwhile(office: Client) -> None:
    product = make_product(stock=10, name="Lamp")
    stale = product_form(product, name="Lantern", stock=10)
    Product.objects.filter(pk=product.pk).adjust_stock(-4)

    office.post(url(Product, "change", product.pk), stale)

    product.refresh_from_db()
    assert (product.name, product.stock) == ("Lantern", 6)


def test_product_form_does_not_overwrite_stock_that_is_sold_while_it_is_saved(staff: User) -> None:
    product, desk, request = make_product(stock=10), admin.site._registry[Product], RequestFactory().post("/")
    request.user = staff
    form = desk.get_form(request, product, change=True)(product_form(product, name="Lantern"), instance=product)
    edited = form.save(commit=False)
    Product.objects.filter(pk=product.pk).adjust_stock(-4)

    desk.save_model(request, edited, form, change=True)

    product.refresh_from_db()
    assert (product.name, product.stock) == ("Lantern", 6)


def test_product_is_added_with_its_first_stock(office: Client) -> None:
    answer = office.post(
        url(Product, "add"),
        {
            "sku": "NEW-1",
            "name": "Lamp",
            "category": "Lighting",
            "price": "12.50",
            "is_active": "on",
            "adjust_stock": 7,
        },
    )

    product = Product.objects.get()
    assert (answer.status_code, product.stock, product.slug, product.price) == (302, 7, "lamp-new-1", Decimal("12.50"))


@pytest.mark.parametrize(("name", "skus"), [("提灯", ["灯三", "灯二"]), ("Lamp", ["B 1", "B-1"]), ("灯", ["/", "//"])])
def test_products_of_any_script_are_added_and_listed(name: str, skus: list[str], office: Client) -> None:
    for sku in skus:
        form = {"sku": sku, "name": f" {name}\u202e", "category": "灯\v具", "price": "1", "is_active": "on"}
        assert office.post(url(Product, "add"), form | {"adjust_stock": 7}).status_code == 302

    assert set(Product.objects.values_list("sku", "name", "category")) == {(sku, name, "灯 具") for sku in skus}
    assert len(set(Product.objects.values_list("slug", flat=True)) - {""}) == 2
    assert name in office.get("/").text
    for product in Product.objects.all():
        assert office.get(product.get_absolute_url()).status_code == 200


@pytest.mark.parametrize(
    ("field", "value"),
    [("price", "0"), ("price", "-1"), ("sku", "TAKEN"), ("sku", "taken"), ("name", "La\x1bmp"), ("name", "\u200b")],
)
def test_product_form_explains_what_the_database_would_refuse(field: str, value: str, office: Client) -> None:
    make_product(sku="TAKEN")
    product = make_product()

    answer = office.post(url(Product, "change", product.pk), product_form(product, **{field: value}))

    assert answer.status_code == 200
    assert answer.context["adminform"].form.errors != {}


def test_products_are_withdrawn_instead_of_deleted(office: Client) -> None:
    product = make_product()

    deleted = office.post(url(Product, "delete", product.pk), {"post": "yes"})
    withdrawn = office.post(url(Product, "changelist"), {"action": "withdraw", "_selected_action": [product.pk]})

    product.refresh_from_db()
    assert (deleted.status_code, product.is_active) == (403, False)
    assert messages_of(withdrawn) == ["1 withdrawn; orders placed before are still fulfilled."]


# --- Orders ---


@pytest.mark.django_db(transaction=True)
def test_orders_are_queued_again(office: Client, staff: User, broker: Broker) -> None:
    orders = [place_order() for _ in range(2)]

    answer = office.post(
        url(Order, "changelist"), {"action": "requeue", "_selected_action": [order.pk for order in orders]}
    )

    queued = sorted(kwargs["order_id"] for _, _, kwargs in broker.messages())
    assert queued == [order.pk for order in orders]
    assert messages_of(answer) == ["2 queued again."]
    assert list(orders[0].events.filter(kind="nudged").values_list("detail", flat=True)) == [f"by Sam (#{staff.pk})"]


def test_order_page_shows_items_payments_and_events(office: Client) -> None:
    order = place_order(product=make_product(name="Storm lantern"))

    page = office.get(url(Order, "change", order.pk)).content.decode()

    assert [word in page for word in ("Storm lantern", "Visa ending 4242", "Order placed")] == [True] * 3


# --- Celery ---


@pytest.mark.parametrize(
    ("name", "make", "page"),
    [
        ("order_id", place_order, "admin:orders_order_change"),
        ("report_id", make_report, "admin:reports_report_change"),
        ("schedule_id", make_schedule, "admin:reports_reportschedule_change"),
        ("pack_id", make_pack, "admin:reports_pack_change"),
        ("user_id", make_user, "admin:accounts_user_change"),
        ("mail_id", make_mail, "admin:accounts_accountmail_change"),
        ("sync_id", InventorySync.objects.open_one, "admin:orders_inventorysync_change"),
        ("alert_id", make_alert, "admin:myproject_alert_change"),
    ],
)
def test_task_result_leads_to_the_row_it_worked_on(
    name: str, make: Callable[[], Model], page: str, office: Client
) -> None:
    row = make()
    pk: object = row.pk if isinstance(row.pk, int) else str(row.pk)
    make_result(task_kwargs=json.dumps(repr({name: pk})))

    html = office.get(url(TaskResult, "changelist")).content.decode()

    link = reverse(page, args=[row.pk])
    assert f'<a href="{link}">{name.removesuffix("_id")} {str(row.pk)[:8]}</a>' in html
    assert office.get(link).status_code == 200


@pytest.mark.parametrize("kwargs", ["", "{}", None, "garbage"])
def test_task_result_has_no_link_when_it_worked_on_no_row(kwargs: str | None, office: Client) -> None:
    make_result(task_kwargs=kwargs)

    assert office.get(url(TaskResult, "changelist")).status_code == 200


def test_periodic_task_is_run_by_its_action(office: Client, broker: Broker) -> None:
    task = make_periodic_task()

    office.post(url(PeriodicTask, "changelist"), {"action": "run_tasks", "_selected_action": [task.pk]})

    assert broker.messages() == [("default", "myproject.tasks.heartbeat", {})]


def test_periodic_task_is_edited(office: Client) -> None:
    task = make_periodic_task()
    data = {"name": "Beat", "regtask": "myproject.tasks.heartbeat", "interval": task.interval.pk, "args": "[]"}

    answer = office.post(url(PeriodicTask, "change", task.pk), data | {"kwargs": "{}", "headers": "{}", "priority": 3})

    task.refresh_from_db()
    assert (answer.status_code, task.priority, task.enabled) == (302, 3, False)


def test_task_that_is_chosen_from_the_list_is_written(office: Client) -> None:
    row = make_periodic_task()
    fields = opened(office, row) | {"regtask": "orders.tasks.check_pending_orders"}

    office.post(url(PeriodicTask, "change", row.pk), fields)

    row.refresh_from_db()
    assert row.task == "orders.tasks.check_pending_orders"


# --- Two people at one row ---


def opened(client: Client, row: Model) -> dict[str, Any]:
    """Return what a browser sends back of the form as it was opened, with what it was opened with."""
    form = client.get(url(type(row), "change", row.pk)).context["adminform"].form
    bound = [field for field in form if field.value() not in (None, False, [])]
    values = {field.html_name: field.value() for field in bound}
    sent_back = [field for field in form if field.field.show_hidden_initial]
    return values | {field.html_initial_name: "" if (was := field.value()) is None else was for field in sent_back}


def test_admin_writes_only_what_this_person_has_edited(office: Client) -> None:
    product = make_product(name="Lamp", price=1)
    mine, theirs = opened(office, product), opened(office, product)

    answers = [
        office.post(url(Product, "change", product.pk), form)
        for form in (theirs | {"name": "Rug"}, mine | {"price": "2.00"})
    ]

    product.refresh_from_db()
    assert [answer.status_code for answer in answers] == [302, 302]
    assert (product.name, product.price) == ("Rug", Decimal(2))


def test_admin_refuses_to_change_what_somebody_else_has_changed_meanwhile(office: Client) -> None:
    product = make_product(name="Lamp", price=1)
    mine = opened(office, product)
    Product.objects.update(price=3)

    answer = office.post(url(Product, "change", product.pk), mine | {"price": "2.00"})

    product.refresh_from_db()
    assert (answer.status_code, product.price) == (200, Decimal(3))
    assert "Somebody else has changed this meanwhile" in answer.content.decode()


def test_admin_refuses_to_change_a_schedule_that_somebody_else_has_changed_meanwhile(office: Client) -> None:
    row = make_periodic_task()
    mine = opened(office, row)
    PeriodicTask.objects.filter(pk=row.pk).update(priority=7)

    answer = office.post(url(PeriodicTask, "change", row.pk), mine | {"priority": 3})

    row.refresh_from_db()
    assert (answer.status_code, row.priority) == (200, 7)


def test_group_keeps_the_permission_that_somebody_else_has_taken_away_meanwhile(office: Client) -> None:
    """Django's own form would write the whole list as it was opened, and grant again what is gone."""
    view, change = Permission.objects.filter(content_type__model="order").order_by("codename")[1:3]
    group = Group.objects.create(name="Clerks")
    group.permissions.set([view])
    mine = opened(office, group)
    group.permissions.clear()

    refused = office.post(url(Group, "change", group.pk), mine | {"permissions": [view.pk, change.pk]})
    renamed = office.post(url(Group, "change", group.pk), mine | {"name": "Office"})

    group.refresh_from_db()
    assert "Somebody else has changed this meanwhile" in refused.content.decode()
    assert (renamed.status_code, group.name, group.permissions.count()) == (302, "Office", 0)


def test_times_that_tasks_share_keep_what_somebody_else_has_changed_meanwhile(office: Client) -> None:
    times = CrontabSchedule.objects.create(hour="3", minute="0")
    mine = opened(office, times) | {f"periodictask_set-{name}_FORMS": 0 for name in ("TOTAL", "INITIAL")}
    CrontabSchedule.objects.update(hour="5")

    refused = office.post(url(CrontabSchedule, "change", times.pk), mine | {"hour": "4"})
    answer = office.post(url(CrontabSchedule, "change", times.pk), mine | {"minute": "30"})

    times.refresh_from_db()
    assert "Somebody else has changed this meanwhile" in refused.content.decode()
    assert (answer.status_code, times.hour, times.minute) == (302, "5", "30")


def rename(row: User) -> None:
    User.objects.filter(pk=row.pk).update(name="Boss")


def make_token(person: User) -> None:
    ApiToken.objects.make(person, "Script")


@pytest.mark.parametrize("change", [make_token, rename], ids=["another row", "another name"])
@pytest.mark.parametrize("page", ["delete", "changelist"])
def test_admin_deletes_what_its_page_has_listed_and_nothing_else(
    page: str, change: Callable[[User], object], office: Client
) -> None:
    person = make_user(name="Ann")
    make_token(person)
    path = url(User, page, person.pk) if page == "delete" else url(User, page)
    chosen = {"_selected_action": [person.pk]} | ({"action": "delete_selected"} if page == "changelist" else {})

    def ask() -> dict[str, Any]:
        asked = office.get(path) if page == "delete" else office.post(path, chosen)
        assert f'name="seen" value="{asked.context["seen"]}"' in asked.content.decode()
        return chosen | {"post": "yes", "seen": asked.context["seen"]}

    old = ask()
    change(person)
    refused, unread = office.post(path, old, follow=True), office.post(path, chosen | {"post": "yes"}, follow=True)

    assert User.objects.filter(pk=person.pk).exists()
    for answer in (refused, unread):
        assert "Nothing was deleted, since what the page listed has changed" in answer.content.decode()
    office.post(path, ask())
    assert not User.objects.filter(pk=person.pk).exists()


def test_schedule_runs_as_its_page_said_or_not_at_all(office: Client, broker: Broker) -> None:
    row = make_periodic_task()
    form = {"action": "run_tasks", "_selected_action": [row.pk]}
    form["seen"] = office.get(url(PeriodicTask, "change", row.pk)).context["shown"]

    answers = [office.post(url(PeriodicTask, "changelist"), form)]
    PeriodicTask.objects.filter(pk=row.pk).update(task="orders.tasks.send_weekly_digest")
    answers.append(office.post(url(PeriodicTask, "changelist"), form))

    assert broker.messages() == [("default", "myproject.tasks.heartbeat", {})]
    assert messages_of(answers[1])[-1] == (
        "Beat was changed meanwhile. It would now run orders.tasks.send_weekly_digest, "
        "with [] and {}, on the queue of its task."
    )


def test_admin_leaves_alone_what_tasks_and_the_person_write(office: Client) -> None:
    person = make_user(name="Ann", wants_digest=True)
    mine = opened(office, person)
    User.objects.filter(pk=person.pk).update(wants_digest=False, mail_error="550 unknown")

    answer = office.post(url(User, "change", person.pk), mine | {"name": "Anna"})

    person.refresh_from_db()
    assert answer.status_code == 302
    assert (person.name, person.wants_digest, person.mail_error) == ("Anna", False, "550 unknown")


def test_schedule_runs_now_from_its_own_page(office: Client) -> None:
    row = make_periodic_task()

    page = office.get(url(PeriodicTask, "change", row.pk)).content.decode()

    assert '<input type="hidden" name="action" value="run_tasks">' in page
    assert f'<input type="hidden" name="_selected_action" value="{row.pk}">' in page


def test_admin_wears_the_shop_s_clothes(office: Client) -> None:
    order = place_order()

    page = office.get(url(Order, "changelist")).content.decode()

    assert '<span class="pill pill-pending">Pending</span>' in page
    assert "tokens.css" in page
    assert "theme.js" not in page
    assert order.reference in page


def test_schedule_that_is_resumed_in_the_admin_does_not_catch_up(office: Client, staff: User) -> None:
    schedule = make_schedule(staff)
    row = schedule.periodic_task
    a_month_ago = timezone.now() - timedelta(days=30)
    PeriodicTask.objects.filter(pk=row.pk).update(enabled=False, date_changed=a_month_ago)

    answer = office.post(url(PeriodicTask, "change", row.pk), opened(office, row) | {"enabled": "on"})

    schedule.periodic_task.refresh_from_db()
    assert (answer.status_code, schedule.periodic_task.enabled) == (302, True)
    assert planning.due_at(schedule) is None


def test_schedule_that_is_paused_in_the_admin_forgets_its_last_run(office: Client, staff: User) -> None:
    row = make_schedule(staff).periodic_task
    PeriodicTask.objects.filter(pk=row.pk).update(last_run_at=timezone.now())
    fields = opened(office, row)
    del fields["enabled"]

    office.post(url(PeriodicTask, "change", row.pk), fields)

    row.refresh_from_db()
    assert (row.enabled, row.last_run_at) == (False, None)


def test_schedule_whose_form_changes_nothing_keeps_its_time(office: Client, staff: User) -> None:
    row = make_schedule(staff).periodic_task
    a_month_ago = timezone.now() - timedelta(days=30)
    PeriodicTask.objects.filter(pk=row.pk).update(date_changed=a_month_ago)

    office.post(url(PeriodicTask, "change", row.pk), opened(office, row))

    row.refresh_from_db()
    assert row.date_changed == a_month_ago
