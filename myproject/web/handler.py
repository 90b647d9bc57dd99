"""How a request is read before any middleware sees it: whatever its headers say, it is UTF-8 and holds no NUL."""

from typing import Any

from django.core.handlers.wsgi import WSGIHandler, WSGIRequest
from django.utils.functional import cached_property
from django.utils.http import parse_header_parameters


class Request(WSGIRequest):
    """Django's own lets a visitor name the codec by which address and form are read, of all that Python has.

    Some of them are for bytes only, and others make halves of surrogates, which neither a database nor a page can take.
    """

    def _set_content_type_params(self, meta: dict[str, Any]) -> None:
        try:
            self.content_type, self.content_params = parse_header_parameters(meta.get("CONTENT_TYPE", ""))
        except ValueError:
            # A parameter in an encoding that there is not.
            self.content_type, self.content_params = "", {}

    @cached_property
    def COOKIES(self) -> dict[str, str]:  # type: ignore[override]
        # A quoted cookie may spell out any byte: `\000`.
        return {name: value for name, value in super().COOKIES.items() if "\0" not in value}


class Handler(WSGIHandler):
    request_class = Request
