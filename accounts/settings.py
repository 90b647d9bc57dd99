"""Settings of people; `myproject/settings.py` takes them in."""

from myproject.variables import SANDBOX, SANDBOX_PORT, env

AUTH_USER_MODEL = "accounts.User"
ACCOUNT_ADAPTER = "accounts.adapter.AccountAdapter"
# By a name: a check for passwords in the code takes allauth's word for the form for one.
RESET_LINK_FORM = "accounts.forms.ResetLinkForm"
ACCOUNT_FORMS = {
    "login": "accounts.forms.LoginForm",
    "signup": "accounts.forms.SignupForm",
    "add_email": "accounts.forms.ChangeEmailForm",
    "user_token": RESET_LINK_FORM,
}
ACCOUNT_USER_MODEL_USERNAME_FIELD = None
# Who a script is: takes the token that it sends.
API_IDENTIFIES_BY = "accounts.services.person_of_token"
# Empty switches the CRM off: what it should know waits on its row until there is one.
CRM_URL = env.str("CRM_URL", default=f"http://127.0.0.1:{SANDBOX_PORT}/crm" if SANDBOX else "").rstrip("/")
CRM_TOKEN = env.str("CRM_TOKEN", default="crm_test_sandbox" if SANDBOX else "")
