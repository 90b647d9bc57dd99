"""What pages of the admin have in common."""

import json
from collections.abc import Callable
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.db.models import Field, Model, QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html

from durable import trace
from durable.leases import HasLease
from myproject.texts import Unprintable, clean_words
from myproject.traces import waterfall
from myproject.web.confirming import MAX_CONFIRMED, seen_by, why_not
from myproject.web.paging import FirstRows


class EditedForm(forms.ModelForm):
    """Refuses to change what somebody else has changed since the form was opened."""

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        for name in self.changed_data:
            if self.fields[name].show_hidden_initial and self._is_stale(name, self.fields[name]):
                self.add_error(name, "Somebody else has changed this meanwhile. Load the page again.")
        return cleaned

    def _is_stale(self, name: str, field: forms.Field) -> bool:
        opened = field.hidden_widget().value_from_datadict(self.data, self.files, self.add_initial_prefix(name))
        return field.has_changed(self.get_initial_for_field(field, name), opened)


class ActingAdmin(admin.ModelAdmin):
    """Actions without explicit permissions require the change permission; in Django, view is enough."""

    paginator = FirstRows
    # The number beside what a search has found is not worth a count of all.
    show_full_result_count = False
    # By which name tasks are given the id of such a row: the list of results links to its page.
    task_argument = ""
    change_form_template = "admin/acting_change_form.html"

    def get_urls(self) -> list[URLPattern]:
        view = path("<path:object_id>/behind/", self.admin_site.admin_view(self.behind), name=self._behind)
        return [*([view] if self._has_runs else []), *super().get_urls()]

    @property
    def _behind(self) -> str:
        return f"{self.opts.app_label}_{self.opts.model_name}_behind"

    @property
    def _has_runs(self) -> bool:
        # What has a page of its own shows its runs there.
        return issubclass(self.model, HasLease) and not hasattr(self.model, "get_absolute_url")

    def behind(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Show what ran for this row."""
        row = self.get_object(request, unquote(object_id))
        if row is None or not self.has_view_permission(request, row):
            raise PermissionDenied
        back = reverse(f"{self.admin_site.name}:{self.opts.app_label}_{self.opts.model_name}_change", args=[object_id])
        return waterfall.answer(request, [trace.label_of(row)], title=str(row), back=back, is_open=False)

    def render_change_form(self, request: HttpRequest, context: Any, *args: Any, **kwargs: Any) -> HttpResponse:
        context["behind"] = f"{self.admin_site.name}:{self._behind}" if self._has_runs else ""
        return super().render_change_form(request, context, *args, **kwargs)

    # A status has its pill, as on the pages of the shop.
    @admin.display(description="status", ordering="status")
    def pill(self, row: Any) -> str:
        return format_html('<span class="pill pill-{}">{}</span>', row.status, row.get_status_display())

    def get_actions(self, request: HttpRequest) -> dict[str, Any]:
        # Django's own check: a page without editable rows still has its actions.
        may_change = admin.ModelAdmin.has_change_permission(self, request)
        actions: dict[str, Any] = super().get_actions(request)
        return {name: row for name, row in actions.items() if may_change or hasattr(row[0], "allowed_permissions")}

    def formfield_for_dbfield(self, db_field: Field, request: HttpRequest, **kwargs: Any) -> Any:
        """Have the form send back what it was opened with, by which Django tells what was edited."""
        field = super().formfield_for_dbfield(db_field, request, **kwargs)
        if field:
            # A program that sends a form without having opened it means the row as it is.
            field.show_hidden_initial = request.method == "GET" or f"initial-{db_field.name}" in request.POST
        return field

    def get_search_results(self, request: HttpRequest, rows: QuerySet[Any], term: str) -> tuple[QuerySet[Any], bool]:
        """Search for the words as they are stored, however the keyboard puts its letters together."""
        try:
            return self.search(request, rows, clean_words(term))
        except Unprintable:
            return rows.none(), False

    def search(self, request: HttpRequest, rows: QuerySet[Any], text: str) -> tuple[QuerySet[Any], bool]:
        """Return the rows found, and whether one may be among them twice; a list may have a rule of its own."""
        return super().get_search_results(request, rows, text)

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        """Write only what was edited: tasks and other people write other columns of the row meanwhile."""
        columns = {field.name: field for field in obj._meta.concrete_fields}
        edited = columns.keys() & set(form.changed_data)
        # With an edit, not without one, belongs the time of the last one.
        stamps = {name for name, field in columns.items() if edited and getattr(field, "auto_now", False)}
        obj.save(update_fields=edited | stamps if change else None)

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        if change:
            form.cleaned_data = {name: form.cleaned_data[name] for name in form.changed_data}
        super().save_related(request, form, formsets, change)

    def ask(
        self, request: HttpRequest, rows: QuerySet[Any], shown: Callable[[Any], str], **words: str
    ) -> HttpResponse | None:
        """Return the page that asks for confirmation; None where it was given for these rows as they are now.

        Call it in a transaction, which holds the rows' locks: what `shown` says of each is compared with what the page
        said, so that no one confirms what they have not read.
        """
        now = {str(row.pk): shown(row) for row in rows.select_for_update(of=["self"]).order_by("pk")}
        seen = seen_by(request)
        if seen == now:
            return None
        if changed := why_not(seen, now):
            self.message_user(request, changed, messages.ERROR)
        action = request.POST["action"]
        context = {"rows": now, "seen": json.dumps(now), "action": action, "opts": self.model._meta} | words
        return render(request, "admin/confirm.html", self.admin_site.each_context(request) | context)

    def are_too_many(self, request: HttpRequest, rows: QuerySet[Any]) -> bool:
        """Refuse selections that are too long to be read before confirming, or for one form."""
        if rows.count() <= MAX_CONFIRMED:
            return False
        self.message_user(request, f"Please choose at most {MAX_CONFIRMED} at a time.", messages.ERROR)
        return True


class ReadOnlyAdmin(ActingAdmin):
    """Shows rows that only code may write, so that no edit can violate their state machine."""

    def has_add_permission(self, request: HttpRequest, *args: Any) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


class OwesMailAdmin(ActingAdmin):
    """Shows what became of a row's mail; staff may have it sent again."""

    readonly_fields = ["mail_due_at", "mail_sent_at", "mail_error"]
    actions = ["send_again"]

    def queue_mail(self, row: Any) -> None:
        raise NotImplementedError

    @admin.action(description="Send the mail again, where it has failed")
    def send_again(self, request: HttpRequest, rows: Any) -> None:
        owed = [row for row in rows.mail_failed().order_by("pk") if row.mark_mail_due()]
        for row in owed:
            self.queue_mail(row)
        self.message_user(request, f"{len(owed)} will be sent again; of others no mail has failed.")
