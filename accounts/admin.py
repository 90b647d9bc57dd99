from typing import Any

from allauth.account.admin import EmailAddressAdmin as BaseEmailAddressAdmin
from allauth.account.models import EmailAddress
from django.conf import settings
from django.contrib import admin
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.db.models import QuerySet
from django.http import HttpRequest

from myproject.web.admin import ActingAdmin, OwesMailAdmin, ReadOnlyAdmin

from . import services, tasks
from .models import AccountMail, CrmContact, CrmContactQuerySet, CrmStatus, Erasure, Notification, User


@admin.register(User)
class UserAdmin(OwesMailAdmin, DjangoUserAdmin):
    task_argument = "user_id"
    ordering = ["email"]
    list_display = ["email", "name", "is_staff", "is_active", "date_joined", "mail_sent_at"]
    list_filter = ["is_staff", "is_active", "wants_digest", ("deleted_at", admin.EmptyFieldListFilter)]
    search_fields = ["email", "name"]
    readonly_fields = ["last_login", "date_joined", "deleted_at", *OwesMailAdmin.readonly_fields]
    fieldsets = [
        (None, {"fields": ["email", "name", "password"]}),
        ("Permissions", {"fields": ["is_active", "is_staff", "is_superuser", "groups", "user_permissions"]}),
        ("Mail", {"fields": ["wants_digest"]}),
        ("Dates", {"fields": ["last_login", "date_joined", "deleted_at"]}),
        ("Welcome mail", {"fields": ["mail_due_at", "mail_sent_at", "mail_error"]}),
    ]
    add_fieldsets = [(None, {"fields": ["email", "name", "usable_password", "password1", "password2"]})]

    def queue_mail(self, row: User) -> None:
        tasks.send_welcome_email.delay_on_commit(user_id=row.pk)

    def has_change_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        # Nobody gives a name back to who is gone.
        return (obj is None or obj.deleted_at is None) and super().has_change_permission(request, obj)

    def save_model(self, request: HttpRequest, obj: User, form: Any, change: bool) -> None:
        super().save_model(request, obj, form, change)
        # allauth writes the new one down, unverified, when it next meets the person.
        if change and "email" in form.changed_data:
            EmailAddress.objects.filter(user=obj).delete()
        if {"email", "name"} & set(form.changed_data) and services.want_crm_sync(obj):
            tasks.sync_user_to_crm.delay_on_commit(user_id=obj.pk)

    def delete_model(self, request: HttpRequest, obj: User) -> None:
        self.delete_queryset(request, User.objects.filter(pk=obj.pk))

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[User]) -> None:
        for user in queryset:
            if services.want_crm_erasure(user):
                tasks.sync_user_to_crm.delay_on_commit(user_id=user.pk)
        super().delete_queryset(request, queryset)


admin.site.unregister(EmailAddress)


@admin.register(EmailAddress)
class EmailAddressAdmin(ActingAdmin, BaseEmailAddressAdmin):
    """allauth's own, which lets whoever may look at addresses call them verified."""


@admin.register(AccountMail)
class AccountMailAdmin(OwesMailAdmin, ReadOnlyAdmin):
    task_argument = "mail_id"
    list_display = ["subject", "to", "created_at", "mail_due_at", "mail_sent_at", "mail_error"]
    # They hold a one-time link that opens somebody's account.
    exclude = ["text", "html"]
    search_fields = ["to", "subject"]
    ordering = ["-created_at"]

    def queue_mail(self, row: AccountMail) -> None:
        tasks.send_account_email.delay_on_commit(mail_id=row.pk)


@admin.register(Notification)
class NotificationAdmin(OwesMailAdmin, ReadOnlyAdmin):
    list_display = ["subject", "person", "created_at", "mail_due_at", "mail_sent_at", "mail_error"]
    list_select_related = ["person"]
    search_fields = ["person__email", "subject"]
    ordering = ["-created_at", "-pk"]

    def queue_mail(self, row: Notification) -> None:
        tasks.send_notification_email.delay_on_commit(user_id=row.person_id)


class CouldNotBeSynchronised(admin.SimpleListFilter):
    title, parameter_name = "could not be synchronised", "unsynced"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("yes", "Yes")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        tried = queryset.exclude(status=CrmStatus.SYNCED).filter(attempts__gt=0)
        return tried if self.value() else queryset


@admin.register(CrmContact)
class CrmContactAdmin(ReadOnlyAdmin):
    list_display = [
        "external_id",
        "user",
        "status",
        "error",
        "attempts",
        "wanted_at",
        "due_at",
        "synced_at",
        "is_erased",
    ]
    list_filter = [CouldNotBeSynchronised, "status", "is_erased"]
    list_select_related = ["user"]
    search_fields = ["user__email", "error"]
    ordering = ["-wanted_at"]
    actions = ["try_again"]

    @admin.action(description="Try again")
    def try_again(self, request: HttpRequest, contacts: CrmContactQuerySet) -> None:
        ids = list(contacts.values_list("pk", flat=True))
        CrmContact.objects.filter(pk__in=ids).want()
        for pk in ids if settings.CRM_URL else []:
            tasks.sync_user_to_crm.delay_on_commit(user_id=pk)
        self.message_user(request, f"{len(ids)} will be told to the CRM again.")


@admin.register(Erasure)
class ErasureAdmin(ReadOnlyAdmin):
    list_display = ["user", "created_at", "cleared_at", "mail_due_at", "mail_sent_at", "mail_error"]
    list_select_related = ["user"]
    # They asked to be forgotten.
    exclude = ["email", "name"]
    ordering = ["-created_at"]
