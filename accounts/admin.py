from django.contrib import admin
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin

from myproject.admin import OwesMailAdmin, ReadOnlyAdmin

from . import tasks
from .models import AccountMail, Notification, User


@admin.register(User)
class UserAdmin(OwesMailAdmin, DjangoUserAdmin):
    ordering = ["email"]
    list_display = ["email", "name", "is_staff", "is_active", "date_joined", "mail_sent_at"]
    list_filter = ["is_staff", "is_active", "wants_digest"]
    search_fields = ["email", "name"]
    readonly_fields = ["last_login", "date_joined", *OwesMailAdmin.readonly_fields]
    fieldsets = [
        (None, {"fields": ["email", "name", "password"]}),
        ("Permissions", {"fields": ["is_active", "is_staff", "is_superuser", "groups", "user_permissions"]}),
        ("Mail", {"fields": ["wants_digest"]}),
        ("Dates", {"fields": ["last_login", "date_joined"]}),
        ("Welcome mail", {"fields": ["mail_due_at", "mail_sent_at", "mail_error"]}),
    ]
    add_fieldsets = [(None, {"fields": ["email", "name", "usable_password", "password1", "password2"]})]

    def queue_mail(self, row: User) -> None:
        tasks.send_welcome_email.delay_on_commit(user_id=row.pk)


@admin.register(AccountMail)
class AccountMailAdmin(OwesMailAdmin, ReadOnlyAdmin):
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
