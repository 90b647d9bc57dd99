"""Switches faults on and off, by page or by JSON."""

import json
from typing import Any

from .faults import UnusableSetting
from .pages import Page


class Controls(Page):
    def get(self) -> None:
        self.show()

    def post(self) -> None:
        if self.request.headers.get("Content-Type", "").startswith("application/json"):
            self.change_by_json()
        else:
            self.change_by_form()

    def delete(self) -> None:
        self.world.faults.reset()
        self.write_json(self.world.faults.state())

    def change_by_json(self) -> None:
        try:
            self.change(json.loads(self.request.body))
        except ValueError as error:
            self.set_status(400)
            self.write_json({"error": str(error)})
        else:
            self.write_json(self.world.faults.state())

    def change_by_form(self) -> None:
        try:
            self.change({name: self.field(name) for name in self.request.body_arguments})
        except UnusableSetting as error:
            self.set_status(400)
            self.show(str(error))
        else:
            self.redirect("/controls", status=303)

    def change(self, wanted: object) -> None:
        if not isinstance(wanted, dict):
            raise UnusableSetting('Send an object such as {"fault": "drop_answer", "count": 1}.')
        if wanted.get("reset"):
            self.world.faults.reset()
        else:
            self.world.faults.change(wanted)

    def field(self, name: str) -> Any:
        """Return a form field with the type that JSON would give it."""
        value = self.get_body_argument(name).strip()
        if name in ("fault", "reset"):
            return value
        return _number(value) if value or name != "seed" else None

    def show(self, error: str = "") -> None:
        self.render("controls.html", faults=self.world.faults, counterparts=self.world.counterparts, error=error)


class ControlsAsJson(Page):
    def get(self) -> None:
        self.write_json(self.world.faults.state())


def _number(text: str) -> float:
    try:
        return int(text) if text.lstrip("-").isdigit() else float(text or 0)
    except ValueError:
        raise UnusableSetting(f"{text!r} is not a number.") from None
