from allauth.account.forms import SignupForm as AllauthSignupForm
from django import forms


class SignupForm(AllauthSignupForm):
    name = forms.CharField(label="Your name", max_length=100, required=False)
    field_order = ["email", "name", "password1", "password2"]
