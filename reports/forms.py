from typing import Any

from django import forms
from django.utils import timezone

from .models import Report


class ReportForm(forms.ModelForm):
    class Meta:
        model = Report
        fields = ["start", "end"]
        labels = {"start": "First day", "end": "Last day"}
        widgets = {name: forms.DateInput(format="%Y-%m-%d", attrs={"type": "date"}) for name in fields}
        help_texts = {"end": "This day is included."}

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        start, end = cleaned.get("start"), cleaned.get("end")
        if start and end and end < start:
            self.add_error("end", "The last day is before the first day.")
        elif end and end > timezone.localdate():
            self.add_error("end", "The last day is still to come.")
        return cleaned
