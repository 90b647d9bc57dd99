from allauth.account.forms import SignupForm as AllauthSignupForm
from django import forms

from .models import User


class PreferencesForm(forms.ModelForm):
    class Meta:
        model = User
        fields = ["wants_digest"]

    def save(self, commit: bool = True) -> User:
        # Only what was asked: tasks write other columns of this row meanwhile.
        self.instance.save(update_fields=self.Meta.fields)
        return self.instance


class SignupForm(AllauthSignupForm):
    name = forms.CharField(label="Your name", max_length=100, required=False)
    wants_digest = User._meta.get_field("wants_digest").formfield(label="Send me the weekly digest")
    field_order = ["email", "name", "password1", "password2", "wants_digest"]
