"""Pages that show several rows of one thing: all of them as they were at one moment."""

from functools import wraps
from typing import Any

from django.db import connection, transaction
from django.http import HttpRequest
from django.http.response import HttpResponseBase

from .pages import View

SNAPSHOT = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"


def of_one_moment(view: View) -> View:
    """Let all queries of the view, its template included, see one snapshot; it may only read.

    Otherwise a page that asks for an order, and then for its events, may show a status from before a commit beside an
    event from after it.
    """

    @wraps(view)
    def within(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        begins = not connection.in_atomic_block
        with transaction.atomic():
            if begins:
                with connection.cursor() as cursor:
                    cursor.execute(SNAPSHOT)
            return view(request, *args, **kwargs)

    return within
