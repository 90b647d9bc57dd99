from typing import Any

from django import forms
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render

from .models import Inquiry
from .tasks import answer_inquiry


class InquiryForm(forms.ModelForm):
    class Meta:
        model = Inquiry
        fields = ["text"]


def page(request: HttpRequest) -> HttpResponse:
    """Take a question, and list those of the person."""
    person: Any = request.user
    form = InquiryForm(request.POST or None)
    if form.is_valid():
        with transaction.atomic():
            # The row first; the message on commit says only that it is there.
            inquiry = Inquiry.objects.create(person=person, **form.cleaned_data, **Inquiry.lease.fresh())
            answer_inquiry.delay_on_commit(inquiry_id=inquiry.pk)
        return redirect("dashboard")
    inquiries = Inquiry.objects.filter(person=person).order_by("-pk")[:20]
    return render(request, "inquiries/page.html", {"form": form, "inquiries": inquiries})
