"""Filters that every template knows without loading them, since the settings name this module as built in."""

from collections.abc import Iterator

from django import template
from django.core.paginator import Page

from myproject import texts

register = template.Library()

register.filter("isolated", texts.isolated)


@register.filter
def page_numbers(page: Page) -> Iterator[int | str]:
    """Yield the numbers to link: the first, the last and those around this one."""
    return page.paginator.get_elided_page_range(page.number, on_each_side=2, on_ends=1)
