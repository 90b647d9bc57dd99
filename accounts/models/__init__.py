from .crm import CrmContact, CrmContactQuerySet, CrmStatus
from .mails import AccountMail, Notification
from .people import Erasure, User, UserManager

__all__ = [
    "AccountMail",
    "CrmContact",
    "CrmContactQuerySet",
    "CrmStatus",
    "Erasure",
    "Notification",
    "User",
    "UserManager",
]
