import uuid
from collections.abc import Iterable
from datetime import date, timedelta
from typing import Any
from zoneinfo import available_timezones

from django import forms
from django.conf import settings
from django.utils import timezone
from django_celery_beat.models import CrontabSchedule

from accounts.models import User
from accounts.services import staff_with

from .models import (
    DOCUMENTS,
    FORMATS,
    MISSING,
    SCHEDULED,
    WITH_CUSTOMER,
    WITH_DATES,
    Format,
    Kind,
    Report,
    ReportSchedule,
)

EARLIEST = date(2000, 1, 1)
MAX_LENGTH = timedelta(days=3660)
REQUIRED = forms.Field.default_error_messages["required"]
# A pack can be made for the last two years.
MONTHS = 24


def offered(formats: Iterable[Format]) -> list[tuple[str, str]]:
    """Return the formats that this installation can write, as choices."""
    return [(format_.value, format_.label) for format_ in formats if format_ not in MISSING]


FOR_STAFF = offered([*DOCUMENTS, Format.PARQUET])
ABOUT_FORMATS = " ".join(
    [
        "Parquet is for order lines, which come in every format but PDF.",
        *(f"{format_.label} is not installed here: it needs requirements-{format_}.txt." for format_ in MISSING),
    ]
)
EVERY = {"day": "Every day", "week": "Every week", "month": "Every month"}
# Numbered as in a crontab.
WEEKDAYS = {"1": "Monday", "2": "Tuesday", "3": "Wednesday", "4": "Thursday", "5": "Friday", "6": "Saturday"}
WEEKDAYS |= {"0": "Sunday"}
# Zones that are named for a place; others, such as EST, are hard to recognise.
ZONES = [*sorted(name for name in available_timezones() if "/" in name and not name.startswith("Etc/")), "UTC"]


class KindSelect(forms.Select):
    """Says of each kind what it needs, so that the style sheet hides the fields that do not apply."""

    def create_option(self, name: str, value: Any, *args: Any, **options: Any) -> dict[str, Any]:
        option = super().create_option(name, value, *args, **options)
        needs = {"data-days": value in WITH_DATES, "data-customer": value in WITH_CUSTOMER}
        option["attrs"] |= {name: "yes" if needed else "no" for name, needed in needs.items()}
        return option


def mark_needed(form: forms.BaseForm, names: Iterable[str]) -> None:
    """Have no label say *(optional)* of what some kinds, or times, need."""
    for name in names:
        known: Any = form.fields[name]
        known.is_needed = True


class DaysForm(forms.ModelForm):
    """The fields of every report of a period."""

    format = forms.ChoiceField(choices=offered(DOCUMENTS))

    class Meta:
        model = Report
        fields = ["format", "start", "end", "wants_mail"]
        labels = {"start": "First day", "end": "Last day"}
        widgets = {name: forms.DateInput(format="%Y-%m-%d", attrs={"type": "date"}) for name in ("start", "end")}
        help_texts = {"end": "This day is included."}

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        if "start" in cleaned and "end" in cleaned:
            self.check_days(cleaned["start"], cleaned["end"])
        return cleaned

    def check_days(self, start: date, end: date) -> None:
        if end < start:
            self.add_error("end", "The last day is before the first day.")
        elif end > timezone.localdate():
            self.add_error("end", "The last day is in the future.")
        elif start < EARLIEST:
            self.add_error("start", f"The first day is before {EARLIEST:%Y}.")
        elif end - start > MAX_LENGTH:
            self.add_error("end", "This is more than ten years. Make several reports of shorter periods.")


class ReportForm(DaysForm):
    """The reports that staff may make; the kind decides which fields are required."""

    kind = forms.ChoiceField(
        label="What",
        choices=[(kind.value, kind.label) for kind in Kind if kind != Kind.PERSONAL_DATA],
        widget=KindSelect,
    )
    format = forms.ChoiceField(choices=FOR_STAFF, help_text=ABOUT_FORMATS)
    customer = forms.EmailField(label="Customer", required=False, help_text="The e-mail address of the customer.")

    class Meta(DaysForm.Meta):
        fields = ["kind", "format", "start", "end", "customer", "wants_mail"]
        help_texts = {"end": "This day is included. A stock report needs no days: it shows today's stock."}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name in ("start", "end"):
            self.fields[name].required = False
        mark_needed(self, ["start", "end", "customer"])

    def clean_customer(self) -> User | None:
        email = self.cleaned_data["customer"]
        person = User.objects.filter(email=email).first() if email else None
        if email and person is None:
            raise forms.ValidationError("No customer has this address.")
        return person

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = self.cleaned_data
        if "kind" not in cleaned:
            return cleaned
        check_format(self, Kind(cleaned["kind"]), cleaned.get("format"))
        self.check_customer(cleaned)
        if cleaned["kind"] not in WITH_DATES:
            return cleaned | {"start": None, "end": None}
        for name in ("start", "end"):
            if cleaned.get(name, "") is None:
                self.add_error(name, REQUIRED)
        return super().clean()

    def check_customer(self, cleaned: dict[str, Any]) -> None:
        if cleaned["kind"] not in WITH_CUSTOMER:
            cleaned["customer"] = None
        elif cleaned.get("customer", "") is None:
            self.add_error("customer", REQUIRED)


def check_format(form: forms.BaseForm, kind: Kind, chosen: str | None) -> None:
    if chosen and chosen not in FORMATS[kind]:
        possible = ", ".join(label for _, label in offered(FORMATS[kind]))
        form.add_error("format", f"{kind.label}: this format is not available. Choose one of these: {possible}.")


class ScheduleForm(forms.ModelForm):
    """A schedule and its times; `crontab` returns the times as django-celery-beat stores them."""

    kind = forms.ChoiceField(label="What", choices=[(kind.value, kind.label) for kind in SCHEDULED], widget=KindSelect)
    format = forms.ChoiceField(choices=FOR_STAFF, help_text=ABOUT_FORMATS)
    recipients = forms.ModelMultipleChoiceField(
        queryset=User.objects.none(),
        widget=forms.CheckboxSelectMultiple,
        error_messages={
            "required": "Choose at least one person.",
            "invalid_choice": "One of these people is no longer on the shop's staff. Choose again.",
            "invalid_pk_value": "One of these people is not known. Choose again.",
        },
    )
    every = forms.ChoiceField(label="How often", choices=list(EVERY.items()), initial="week")
    weekday = forms.ChoiceField(
        required=False, choices=list(WEEKDAYS.items()), initial="1", help_text="When it runs every week."
    )
    day = forms.IntegerField(
        label="Day of the month", required=False, initial=1, help_text="When it runs every month: 1 to 28."
    )
    at = forms.TimeField(
        label="Time",
        initial="08:00",
        widget=forms.TimeInput(format="%H:%M", attrs={"type": "time"}),
        error_messages={"invalid": "Enter a time, such as 08:00."},
    )
    time_zone = forms.ChoiceField(
        choices=[(name, name.replace("_", " ")) for name in ZONES],
        error_messages={"invalid_choice": "There is no time zone %(value)s."},
    )

    class Meta:
        model = ReportSchedule
        fields = ["name", "kind", "format", "period"]
        widgets = {"name": forms.TextInput(attrs={"placeholder": "Sales for the Monday meeting"})}
        help_texts = {"period": "Whole days, counted back from the day on which it runs. The stock is that day's."}

    field_order = ["name", "kind", "format", "period", "every", "weekday", "day", "at", "time_zone", "recipients"]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        known: Any = self.fields
        known["recipients"].queryset = staff_with("reports.view_report").order_by("name", "email")
        self.initial.setdefault("time_zone", settings.TIME_ZONE)
        mark_needed(self, ["weekday", "day"])
        if not self.instance._state.adding:
            self.initial["recipients"] = self.instance.recipients.all()
            self.initial.update(times(self.instance.periodic_task.crontab))

    def clean_day(self) -> int | None:
        day: int | None = self.cleaned_data["day"]
        if day is not None and not 1 <= day <= 28:
            raise forms.ValidationError("Choose a day from 1 to 28: not every month has a 29th, 30th or 31st.")
        return day

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        needed = {"week": "weekday", "month": "day"}.get(cleaned.get("every", ""))
        if needed and needed not in self.errors and not cleaned.get(needed):
            self.add_error(needed, f"Say on which day it runs every {cleaned['every']}.")
        if "kind" in cleaned:
            check_format(self, Kind(cleaned["kind"]), cleaned.get("format"))
        return cleaned

    def crontab(self) -> dict[str, str]:
        chosen = self.cleaned_data
        return {
            "minute": str(chosen["at"].minute),
            "hour": str(chosen["at"].hour),
            "day_of_week": chosen["weekday"] if chosen["every"] == "week" else "*",
            "day_of_month": str(chosen["day"]) if chosen["every"] == "month" else "*",
            "month_of_year": "*",
            "timezone": chosen["time_zone"],
        }


class NewScheduleForm(ScheduleForm):
    """Creates one schedule per rendered form and content: a second submit of the same is harmless."""

    token = forms.UUIDField(required=False, widget=forms.HiddenInput, initial=uuid.uuid4)

    def clean_token(self) -> uuid.UUID:
        # Forms of the previous release have no token.
        token: uuid.UUID = self.cleaned_data["token"] or self.instance.pk
        widgets = {name: field.widget for name, field in self.fields.items() if name != "token"}
        said = [str(widget.value_from_datadict(self.data, self.files, name)) for name, widget in widgets.items()]
        self.instance.pk = uuid.uuid5(token, repr(said))
        return token


def times(crontab: CrontabSchedule | None) -> dict[str, Any]:
    """Return the form fields for the crontab; one that was edited in the admin may not fit into them."""
    if crontab is None:
        return {}
    weekly, monthly = crontab.day_of_week != "*", crontab.day_of_month != "*"
    is_time = crontab.hour.isdecimal() and crontab.minute.isdecimal()
    return {
        "every": "month" if monthly else "week" if weekly else "day",
        "weekday": crontab.day_of_week if weekly else "1",
        "day": crontab.day_of_month if monthly else "1",
        "at": f"{int(crontab.hour):02}:{int(crontab.minute):02}" if is_time else "",
        "time_zone": str(crontab.timezone),
    }


def months_over() -> list[date]:
    """Return the first days of past months, newest first."""
    first, found = timezone.localdate().replace(day=1), []
    for _ in range(MONTHS):
        first = (first - timedelta(days=1)).replace(day=1)
        found.append(first)
    return found


class PackForm(forms.Form):
    month = forms.TypedChoiceField(
        coerce=date.fromisoformat, error_messages={"invalid_choice": "Choose one of the months that are over."}
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        known: Any = self.fields
        known["month"].choices = [(str(month), f"{month:%B %Y}") for month in months_over()]
