"""What every page of the sandbox has in common."""

import json
from datetime import datetime
from http.client import responses
from typing import Any

from tornado.web import HTTPError, RequestHandler

from .currencies import money
from .world import World

PAGE_POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self'; frame-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
# Of a list that follows what arrives.
LIVE_POLICY = f"{PAGE_POLICY}; script-src 'self'; connect-src 'self'"


class Page(RequestHandler):
    is_live = False

    @property
    def world(self) -> World:
        world: World = self.settings["world"]
        return world

    def set_default_headers(self) -> None:
        self.set_header("Content-Security-Policy", LIVE_POLICY if self.is_live else PAGE_POLICY)
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Referrer-Policy", "same-origin")
        self.set_header("Cache-Control", "no-store")

    async def prepare(self) -> None:
        # Another site, open in the same browser, must not be able to switch faults on.
        foreign = self.request.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin")
        if foreign and self.request.method not in ("GET", "HEAD"):
            raise HTTPError(403)

    def get_template_namespace(self) -> dict[str, Any]:
        faults_on = self.world.faults.switched_on()
        return super().get_template_namespace() | {
            "money": money,
            "moment": moment,
            "faults_on": faults_on,
            "shop_url": self.world.shop_url,
        }

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        self.render("error.html", status=status_code, reason=responses.get(status_code, "Error"))

    def write_json(self, value: object) -> None:
        self.set_header("Content-Type", "application/json; charset=utf-8")
        self.finish(json.dumps(value))


class NotFound(Page):
    async def prepare(self) -> None:
        raise HTTPError(404)


def moment(seconds: float) -> str:
    """Write a Unix time as this machine's local time."""
    return datetime.fromtimestamp(seconds).astimezone().strftime("%d %b %H:%M:%S")
