"""The admin site: what holds for every admin on it, ours and those of other packages."""

import errno
import json
import logging
from collections.abc import Iterable, Iterator
from functools import wraps
from hashlib import sha256
from typing import Any

from celery.schedules import ParseException
from django.contrib import admin, messages
from django.contrib.admin import actions
from django.contrib.admin.utils import flatten_fieldsets
from django.core.exceptions import BadRequest, FieldDoesNotExist, ValidationError
from django.db.models import Field
from django.db.models.constants import LOOKUP_SEP
from django.db.utils import DataError
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.shortcuts import redirect

from myproject.web.once import once
from myproject.web.pages import View

log = logging.getLogger(__name__)

# What a filter of the page asks of its own field; a longer list, such as Django's, answers questions about any part.
LOOKUPS = {"exact", "in", "isnull", "isempty", "gt", "gte", "lt", "lte", "year", "month", "day"}
# What Django, the fields of other packages and Celery's crontab raise at values that they cannot read.
UNREADABLE = (DataError, FieldDoesNotExist, OverflowError, ParseException, ValidationError, ValueError)


class Changed(Exception):
    """What the page said would be deleted is no longer all that would go, or no longer so."""


class Guarded(admin.ModelAdmin):
    """Answers no question about what its pages do not show, neither by a filter, a search nor a sort order.

    And deletes nothing but what the page has listed before.
    """

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        """Raises `Changed`."""
        found = super().get_deleted_objects(objs, request)
        # The list of rows asks first, and confirms in a second form; the page of one row is asked by GET.
        is_confirmed = "post" in request.POST or (request.method == "POST" and "action" not in request.POST)
        listed, _, *obstacles = found
        if is_confirmed and not any(obstacles) and request.POST.get("seen") != digest_of(listed):
            raise Changed("Nothing was deleted, since what the page listed has changed. Please look again.")
        return found

    def delete_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().delete_view(request, *args, **kwargs)
        except Changed as error:
            self.message_user(request, str(error), messages.ERROR)
            return redirect(request.get_full_path())

    def render_delete_form(self, request: HttpRequest, context: Any) -> Any:
        return super().render_delete_form(request, context | {"seen": digest_of(context["deleted_objects"])})

    def lookup_allowed(self, lookup: str, value: Any, request: HttpRequest | None = None) -> bool:
        # Django's own allows every field of the model, by every lookup: a regular expression spells out a secret.
        filters = self.get_list_filter(request) if request else self.list_filter
        return any(_asks(path, lookup) for path in filter(None, [self.date_hierarchy, *map(_path, filters)]))

    def get_search_fields(self, request: HttpRequest) -> list[str]:
        return [name for name in super().get_search_fields(request) if self.shows(request, name.lstrip("^=@"))]

    def get_list_filter(self, request: HttpRequest) -> list[Any]:
        named = [(row, _path(row)) for row in super().get_list_filter(request)]
        return [row for row, path in named if callable(row) or self.shows(request, path)]

    def shows(self, request: HttpRequest, path: str) -> bool:
        """Whether the pages show this field; one of another model is shown by that model's own, to who may see it."""
        first, _, rest = path.partition(LOOKUP_SEP)
        field = self._field(first)
        if rest and field is not None and field.related_model:
            other = self.admin_site._registry.get(field.related_model)
            return isinstance(other, Guarded) and other.has_view_permission(request) and other.shows(request, rest)
        columns = {getattr(column, "__name__", column) for column in self.get_list_display(request)}
        return first == "pk" or first in columns | set(self.fields_of_form(request)) or self._is_key(field)

    def fields_of_form(self, request: HttpRequest) -> Iterable[Any]:
        return flatten_fieldsets(self.get_fieldsets(request, self.model()))

    def _field(self, name: str) -> "Field[Any, Any] | None":
        try:
            field: Any = self.opts.get_field(name)
        except FieldDoesNotExist:
            return None
        return field if isinstance(field, Field) else None

    def _is_key(self, field: "Field[Any, Any] | None") -> bool:
        # It stands in the address of each row's page.
        return field is not None and field.primary_key


@wraps(actions.delete_selected)
def delete_selected(page: Any, request: HttpRequest, rows: Any) -> Any:
    try:
        answer: Any = actions.delete_selected(page, request, rows)
    except Changed as error:
        page.message_user(request, str(error), messages.ERROR)
        return None
    if answer is not None:
        answer.context_data["seen"] = digest_of(answer.context_data["deletable_objects"])
    return answer


def digest_of(listed: Iterable[Any]) -> str:
    """Return a digest of all that a page lists, whatever the order in which the database has found it."""
    return sha256(json.dumps(sorted(_flat(listed))).encode()).hexdigest()


def _flat(listed: Iterable[Any]) -> Iterator[str]:
    for row in listed:
        if isinstance(row, str):
            yield row
        else:
            yield from _flat(row)


def _path(filter_: Any) -> str:
    """Return the field that a filter is about, or the parameter of one that is about none."""
    named = filter_[0] if isinstance(filter_, list | tuple) else filter_
    return named if isinstance(named, str) else str(getattr(named, "parameter_name", ""))


def _asks(path: str, lookup: str) -> bool:
    """Whether the lookup is one that the filter of this field has in its own links."""
    if lookup == path:
        return True
    if not lookup.startswith(path + LOOKUP_SEP):
        return False
    asked = lookup.removeprefix(path + LOOKUP_SEP).split(LOOKUP_SEP)
    return asked[-1] in LOOKUPS and (len(asked) == 1 or asked[:-1] in (["id"], ["pk"]))


class AdminSite(admin.AdminSite):
    """Guards every admin where it is registered, so that one of another package cannot be forgotten."""

    site_header = site_title = "Lantern & Loom"
    # Lists need the width; the breadcrumbs lead back, and the shop's own bar to what is used most.
    enable_nav_sidebar = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.add_action(delete_selected, "delete_selected")

    def register(self, model_or_iterable: Any, admin_class: Any = None, **options: Any) -> None:
        base: Any = admin_class or admin.ModelAdmin
        guarded = type(base)(base.__name__, (Guarded, base), {"__module__": base.__module__, "__doc__": base.__doc__})
        super().register(model_or_iterable, guarded, **options)

    def admin_view(self, view: Any, cacheable: bool = False) -> Any:
        return super().admin_view(_readable(once(view)), cacheable)

    def password_change(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        # The shop's own page counts wrong passwords, and tells the person.
        return redirect("account_change_password")

    password_change_done = password_change


def _readable(view: View) -> View:
    """Answer 400 to what is no number, date, field or schedule, or too long, where Django's admin ends in a 500."""

    @wraps(view)
    def read(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        try:
            return view(request, *args, **kwargs)
        except (*UNREADABLE, OSError) as error:
            # The name of a time zone is looked up as that of a file.
            if isinstance(error, OSError) and error.errno != errno.ENAMETOOLONG:
                raise
            log.warning("The admin could not read a request", exc_info=True)
            raise BadRequest("The admin could not read this.") from error

    return read
