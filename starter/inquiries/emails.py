from django.conf import settings
from django.core.mail import EmailMultiAlternatives
from django.urls import reverse

from myproject.web import mails

from .models import Inquiry


def answer(inquiry: Inquiry) -> EmailMultiAlternatives:
    context = {"inquiry": inquiry, "url": settings.SITE_URL + reverse("dashboard")}
    return mails.render("inquiries/email/answer", inquiry.person.email, f"inquiry-{inquiry.pk}", context)
