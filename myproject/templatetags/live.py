from typing import Any

from django import template
from django.utils.html import format_html
from django.utils.safestring import SafeString

from myproject.live import tokens

register = template.Library()

# Seconds between two looks at a list where there is no push.
SELDOM = 20


@register.simple_tag(takes_context=True)
def live(context: dict[str, Any], url: str, *channel: object, every: int = 0) -> SafeString:
    """Write the attributes of an element that asks for itself again when its channel has news (static/live.js).

    `every` says after how many seconds it also asks where there is no push; 0: it then waits for push to come back.
    """
    token = tokens.sign(context["request"].user.pk, *channel)
    attributes = 'data-live="{}" data-every="{}" hx-get="{}" hx-trigger="ask" hx-swap="outerHTML"'
    return format_html(attributes, token, every, url)


@register.simple_tag(takes_context=True)
def live_list(context: dict[str, Any], element: str, *channel: object) -> SafeString:
    """Write the id and the attributes of a list that takes itself from its whole page when its channel has news."""
    attributes = live(context, context["request"].get_full_path(), *channel, every=SELDOM)
    return format_html('id="{}" hx-select="#{}" {}', element, element, attributes)
