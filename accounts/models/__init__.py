from .crm import CrmContact, CrmContactQuerySet, CrmStatus
from .mails import AccountMail, Notification
from .people import Erasure, User, UserManager
from .tokens import ApiToken

__all__ = [
    "AccountMail",
    "ApiToken",
    "CrmContact",
    "CrmContactQuerySet",
    "CrmStatus",
    "Erasure",
    "Notification",
    "User",
    "UserManager",
]
