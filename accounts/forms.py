from datetime import timedelta
from typing import Any

from allauth.account.adapter import get_adapter
from allauth.account.forms import AddEmailForm, ReauthenticateForm, UserTokenForm
from allauth.account.forms import LoginForm as AllauthLoginForm
from allauth.account.forms import SignupForm as AllauthSignupForm
from allauth.account.internal.flows.email_verification import send_verification_email_to_address
from allauth.account.models import EmailAddress
from allauth.account.utils import perform_login
from django import forms
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils import timezone

from .models import ApiToken, User

# Long enough for a double click, too short to try passwords by registering.
SENT_TWICE_WITHIN = timedelta(seconds=30)


class PreferencesForm(forms.ModelForm):
    class Meta:
        model = User
        fields = ["wants_digest"]

    def save(self, commit: bool = True) -> User:
        # Only these fields: tasks may write other columns meanwhile.
        self.instance.save(update_fields=self.Meta.fields)
        return self.instance


class TokenForm(forms.ModelForm):
    class Meta:
        model = ApiToken
        fields = ["name"]
        labels = {"name": "What it is for"}


class LoginForm(AllauthLoginForm):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["remember"].label = "Remember me"


class SignupForm(AllauthSignupForm):
    name = forms.CharField(label="Your name", max_length=100, required=False)
    wants_digest = User._meta.get_field("wants_digest").formfield(label="Send me the weekly digest")
    field_order = ["email", "name", "password1", "password2", "wants_digest"]
    twin: User | None = None

    def clean_name(self) -> str:
        # By the rule of the column: to put letters together may make more of them.
        name: str = User._meta.get_field("name").clean(self.cleaned_data["name"], None)
        return name

    def validate_unique_email(self, value: str) -> str:
        """Refuse an address that is taken, unless by the same form submitted twice."""
        self.twin = just_registered(value, str(self.data.get("password1", "")))
        return value if self.twin else str(super().validate_unique_email(value))

    def try_save(self, request: HttpRequest) -> tuple[User | None, HttpResponse | None]:
        if self.twin:
            return None, perform_login(request, self.twin)
        with transaction.atomic():
            saved: tuple[User | None, HttpResponse | None] = super().try_save(request)
        return saved


def just_registered(email: str, password: str) -> User | None:
    """Return the person who registered with this address and password a moment ago."""
    since = timezone.now() - SENT_TWICE_WITHIN
    person = User.objects.filter(email=email, date_joined__gte=since).first()
    return person if person and person.check_password(password) else None


class ProfileForm(forms.ModelForm):
    class Meta:
        model = User
        fields = ["name"]
        labels = {"name": "Your name"}


class ChangeEmailForm(AddEmailForm):
    def clean_email(self) -> str:
        if self._waiting().filter(email=self.cleaned_data["email"].lower()).exists():
            # Sent twice, or the link has not come: it is sent again, as often as allauth allows.
            return str(self.cleaned_data["email"].lower())
        email: str = super().clean_email()
        # The registration page says so as well; hiding it here would only leave the person waiting for a link.
        if User.objects.filter(email=email).exists():
            raise get_adapter().validation_error("email_taken")
        return email

    def save(self, request: HttpRequest) -> EmailAddress:
        """Store the new address beside the one in use, and replace an earlier unverified one.

        allauth itself removes every unverified address, even the one in use.
        """
        with transaction.atomic():
            user = User.objects.select_for_update().get(pk=self.user.pk)
            self._waiting().exclude(email=self.cleaned_data["email"]).delete()
            address, _ = EmailAddress.objects.get_or_create(user=user, email=self.cleaned_data["email"])
            # Within the lock, so that of two requests the second finds that a mail was just sent.
            send_verification_email_to_address(request, address)
        return address

    def _waiting(self) -> QuerySet[EmailAddress]:
        return EmailAddress.objects.filter(user=self.user, verified=False).exclude(email__iexact=self.user.email)


class ResetLinkForm(UserTokenForm):
    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean()
        if not self.reset_user.is_active:
            # Who has the link would know the password of an account that is switched on again.
            raise get_adapter().validation_error("invalid_password_reset")
        return cleaned


class DeleteAccountForm(ReauthenticateForm):
    """allauth counts wrong passwords, so that a stolen session cannot guess them."""

    WORD = "delete"
    confirmation = forms.CharField(
        label=f"Type “{WORD}” to confirm", max_length=20, widget=forms.TextInput(attrs={"autocomplete": "off"})
    )

    def clean_confirmation(self) -> str:
        word: str = self.cleaned_data["confirmation"]
        if word.strip().lower() != self.WORD:
            raise forms.ValidationError(f"Please type the word “{self.WORD}”.")
        return word
