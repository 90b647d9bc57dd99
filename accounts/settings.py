"""Settings of people; `myproject/settings.py` takes them in."""

from myproject.variables import SANDBOX, SANDBOX_PORT, env

AUTH_USER_MODEL = "accounts.User"
ACCOUNT_ADAPTER = "accounts.adapter.AccountAdapter"
ACCOUNT_FORMS = {"signup": "accounts.forms.SignupForm", "add_email": "accounts.forms.ChangeEmailForm"}
ACCOUNT_USER_MODEL_USERNAME_FIELD = None
# Empty switches the CRM off: what it should know waits on its row until there is one.
CRM_URL = env.str("CRM_URL", default=f"http://127.0.0.1:{SANDBOX_PORT}/crm" if SANDBOX else "").rstrip("/")
CRM_TOKEN = env.str("CRM_TOKEN", default="crm_test_sandbox" if SANDBOX else "")
