from typing import Any, cast

from allauth.account.adapter import get_adapter
from allauth.account.admin import EmailAddressAdmin as BaseEmailAddressAdmin
from allauth.account.forms import ResetPasswordForm
from allauth.account.models import EmailAddress
from allauth.mfa.admin import AuthenticatorAdmin as BaseAuthenticatorAdmin
from allauth.mfa.models import Authenticator
from django import forms
from django.conf import settings
from django.contrib import admin, messages
from django.contrib.auth.admin import GroupAdmin as BaseGroupAdmin
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.models import Group, Permission
from django.core.exceptions import PermissionDenied
from django.db import connection
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse

from myproject.web.admin import ActingAdmin, EditedForm, OwesMailAdmin, ReadOnlyAdmin

from . import services, tasks
from .models import AccountMail, CrmContact, CrmContactQuerySet, CrmStatus, Erasure, Notification, User

# Fields that grant rights: only an administrator may change them.
POWERS = ["is_staff", "is_superuser", "groups", "user_permissions"]


class PersonForm(EditedForm):
    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        stays = all(cleaned.get(name, True) for name in ("is_active", "is_staff", "is_superuser"))
        if stays or not self.instance.pk:
            return cleaned
        services.hold_administrators()
        if services.is_last_administrator(self.instance):
            raise forms.ValidationError("This is the only administrator of the shop.")
        return cleaned


class NewPersonForm(forms.ModelForm):
    """The person chooses a password by a mailed link."""

    class Meta:
        model = User
        fields = ["email", "name"]

    def save(self, commit: bool = True) -> User:
        self.instance.set_unusable_password()
        person: User = super().save(commit)
        return person


class OfPeopleAdmin(ActingAdmin):
    """For rows that belong to a person: no one gains rights by changing those of another person."""

    def person_of(self, row: Any) -> User:
        person: User = row.user
        return person

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return super().has_change_permission(request, obj) and self.may_act(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return super().has_delete_permission(request, obj) and self.may_act(request, obj)

    def may_act(self, request: HttpRequest, obj: Any) -> bool:
        return obj is None or cast(User, request.user).may_act_for(self.person_of(obj))

    def refused(self, request: HttpRequest, rows: QuerySet[Any]) -> bool:
        """Say so where one of the rows that an action was chosen for is not this person's to change."""
        if all(self.may_act(request, row) for row in rows):
            return False
        self.message_user(request, "Nothing was done: one of these accounts may do more than you.", messages.ERROR)
        return True


@admin.register(User)
class UserAdmin(OfPeopleAdmin, OwesMailAdmin, DjangoUserAdmin):
    task_argument = "user_id"
    form = PersonForm
    add_form = NewPersonForm
    add_form_template = None
    actions = [*OwesMailAdmin.actions, "send_password_link"]
    ordering = ["email"]
    list_display = ["email", "name", "is_staff", "is_active", "date_joined", "mail_sent_at"]
    list_filter = ["is_staff", "is_active", "wants_digest", ("deleted_at", admin.EmptyFieldListFilter)]
    search_fields = ["email", "name"]
    readonly_fields = ["last_login", "date_joined", "deleted_at", *OwesMailAdmin.readonly_fields]
    fieldsets = [
        (None, {"fields": ["email", "name"]}),
        ("Permissions", {"fields": ["is_active", "is_staff", "is_superuser", "groups", "user_permissions"]}),
        ("Mail", {"fields": ["wants_digest"]}),
        ("Dates", {"fields": ["last_login", "date_joined", "deleted_at"]}),
        ("Welcome mail", {"fields": ["mail_due_at", "mail_sent_at", "mail_error"]}),
    ]
    add_fieldsets = [(None, {"fields": ["email", "name"]})]

    def queue_mail(self, row: User) -> None:
        tasks.send_welcome_email.delay_on_commit(user_id=row.pk)

    def formfield_for_manytomany(self, *args: Any, **options: Any) -> Any:
        field: Any = super().formfield_for_manytomany(*args, **options)
        if field and field.queryset.model is Permission:
            # Each is named with its model.
            field.queryset = field.queryset.select_related("content_type")
        return field

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> User | None:
        person: User | None = super().get_object(request, object_id, from_field)
        if person and request.method == "POST" and connection.in_atomic_block:
            # Until the form is saved, so that it does not write to an account that its owner deletes meanwhile.
            services.hold_administrators()
            person.refresh_from_db(from_queryset=User.objects.select_for_update(no_key=True))
        return person

    def has_change_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        # A deleted account stays anonymous.
        return (obj is None or obj.deleted_at is None) and super().has_change_permission(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        # Administrators must be demoted first: that form makes sure that one of them is left.
        return not (obj and obj.is_superuser) and super().has_delete_permission(request, obj)

    def person_of(self, row: User) -> User:
        return row

    def get_readonly_fields(self, request: HttpRequest, obj: User | None = None) -> list[str]:
        return [*super().get_readonly_fields(request, obj), *(() if request.user.is_superuser else POWERS)]

    def user_change_password(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        # Django's page would set a password without notifying the person; we mail a link instead.
        raise PermissionDenied

    @admin.action(description="Mail a link to choose a new password")
    def send_password_link(self, request: HttpRequest, people: QuerySet[User]) -> None:
        if self.refused(request, people):
            return
        for person in people.filter(is_active=True):
            send_password_link(request, person)
        self.message_user(request, "Each of them is sent a link.")

    def save_model(self, request: HttpRequest, obj: User, form: Any, change: bool) -> None:
        super().save_model(request, obj, form, change)
        if not change:
            send_password_link(request, obj)
        # allauth writes the new one down, unverified, when it next meets the person.
        if change and "email" in form.changed_data:
            EmailAddress.objects.filter(user=obj).delete()
            notify_former_address(form.initial["email"], obj)
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
class EmailAddressAdmin(OfPeopleAdmin, BaseEmailAddressAdmin):
    """Restricts allauth's admin, whose action lets people with view permission mark addresses as verified."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        # An added address would be a way into the account without the person's knowledge.
        return False

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        return ["user", "email"]

    def make_verified(self, request: HttpRequest, queryset: QuerySet[EmailAddress]) -> None:
        if not self.refused(request, queryset.select_related("user")):
            super().make_verified(request, queryset)


admin.site.unregister(Authenticator)


@admin.register(Authenticator)
class AuthenticatorAdmin(OfPeopleAdmin, BaseAuthenticatorAdmin):
    """For deleting the authenticator of a lost phone; secrets are hidden, and nothing can be changed."""

    fields = ["user", "type", "created_at", "last_used_at"]

    def has_add_permission(self, request: HttpRequest, *args: Any) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def delete_model(self, request: HttpRequest, obj: Authenticator) -> None:
        self.delete_queryset(request, Authenticator.objects.filter(pk=obj.pk))

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Authenticator]) -> None:
        people = {row.user for row in queryset.select_related("user")}
        super().delete_queryset(request, queryset)
        for person in people:
            get_adapter().send_notification_mail("mfa/email/totp_deactivated", person)


admin.site.unregister(Group)


@admin.register(Group)
class GroupAdmin(ActingAdmin, BaseGroupAdmin):
    """Changing a group can grant every permission, so it takes an administrator."""

    form = EditedForm

    def has_add_permission(self, request: HttpRequest) -> bool:
        return cast(User, request.user).is_superuser

    def has_change_permission(self, request: HttpRequest, obj: Group | None = None) -> bool:
        return cast(User, request.user).is_superuser

    def has_delete_permission(self, request: HttpRequest, obj: Group | None = None) -> bool:
        return cast(User, request.user).is_superuser


@admin.register(AccountMail)
class AccountMailAdmin(OwesMailAdmin, ReadOnlyAdmin):
    task_argument = "mail_id"
    list_display = ["subject", "to", "created_at", "mail_due_at", "mail_sent_at", "mail_error"]
    # They contain one-time links that give access to an account.
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
    list_display = ["user", "status", "error", "attempts", "wanted_at", "synced_at"]
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
        self.message_user(request, f"{len(ids)} contacts will be synchronised again.")


@admin.register(Erasure)
class ErasureAdmin(ReadOnlyAdmin):
    list_display = ["user", "created_at", "cleared_at", "mail_due_at", "mail_sent_at", "mail_error"]
    list_select_related = ["user"]
    # They asked to be forgotten.
    exclude = ["email", "name"]
    ordering = ["-created_at"]


def send_password_link(request: HttpRequest, person: User) -> None:
    """Mail the person a password reset link."""
    form = ResetPasswordForm({"email": person.email})
    if form.is_valid():
        form.save(request)


def notify_former_address(email: str, person: User) -> None:
    told = {"from_email": email, "to_email": person.email}
    get_adapter().send_notification_mail("account/email/email_changed", person, told, email=email)
