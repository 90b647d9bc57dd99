"""The few marks of Markdown that the registry's sentences use, for the pages."""

import re

from django import template
from django.utils.html import escape
from django.utils.safestring import SafeString, mark_safe

register = template.Library()


@register.filter
def prose(text: str) -> SafeString:
    """Return the sentence as HTML, its code and its emphasis marked."""
    html = re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text)))
    html = re.sub(r"\*([^*]+)\*", r"<em>\1</em>", html)
    return mark_safe(html)
