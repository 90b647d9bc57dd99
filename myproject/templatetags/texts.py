"""Filters that every template knows without loading them, since the settings name this module as built in."""

import re
from collections.abc import Iterator

from django import template
from django.core.paginator import Page
from django.utils.html import format_html_join
from django.utils.safestring import SafeString

from myproject import texts

register = template.Library()

register.filter("isolated", texts.isolated)


@register.filter
def breakable(name: str) -> SafeString:
    """Let a dotted name break after its dots and underscores."""
    return format_html_join("", "{}<wbr>", ((part,) for part in re.split(r"(?<=[._])", name)))


@register.filter
def page_numbers(page: Page) -> Iterator[int | str]:
    """Yield the numbers to link: the first, the last and those around this one."""
    return page.paginator.get_elided_page_range(page.number, on_each_side=2, on_ends=1)
