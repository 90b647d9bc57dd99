"""Pages of lists that grow."""

from django.core.paginator import Page, Paginator
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.functional import cached_property

# How far a list is paged: beyond that it is searched.
MAX_LISTED = 10_000


class FirstRows(Paginator):
    """Pages the first rows of a list: to count millions of them takes longer than all the rest of the page."""

    @cached_property
    def count(self) -> int:
        return self.object_list.order_by()[:MAX_LISTED].count()  # type: ignore[attr-defined]

    @property
    def counted(self) -> str:
        """The number of rows in words."""
        return f"{self.count:,} or more" if self.count == MAX_LISTED else f"{self.count:,}"


def page_of(request: HttpRequest, rows: QuerySet, size: int) -> Page:
    """Return the page that the request asks for by `page`; the nearest one if there is none."""
    return FirstRows(rows, size).get_page(request.GET.get("page"))
