"""What the registry says, for the pages: sentences with a few marks of Markdown, and places in the code."""

import re

from django import template
from django.utils.html import escape, format_html
from django.utils.safestring import SafeString, mark_safe

from lab import places

register = template.Library()


@register.filter
def prose(text: str) -> SafeString:
    """Return the sentence as HTML, its code and its emphasis marked."""
    html = re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text)))
    html = re.sub(r"\*([^*]+)\*", r"<em>\1</em>", html)
    return mark_safe(html)


@register.filter
def place(told: str) -> SafeString:
    """Return the place with a link to the page that shows it, where there is one."""
    if address := places.address_of(told):
        return format_html('<a href="{}"><code>{}</code></a>', address, told)
    return format_html("<code>{}</code>", told)
