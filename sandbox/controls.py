"""The page, and the same as JSON, that switches faults on and off."""

import json
from typing import Any

from .faults import LIMITS, UnusableSetting
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
            wanted = json.loads(self.request.body)
            if not isinstance(wanted, dict):
                raise UnusableSetting('Send an object such as {"drop_answer": {"next": 1}}.')
            self.world.faults.change(wanted)
        except ValueError as error:
            self.set_status(400)
            self.write_json({"error": str(error)})
        else:
            self.write_json(self.world.faults.state())

    def change_by_form(self) -> None:
        try:
            if self.get_body_argument("reset", ""):
                self.world.faults.reset()
            else:
                self.world.faults.change(self.form())
        except UnusableSetting as error:
            self.set_status(400)
            self.show(str(error))
        else:
            self.redirect("/controls", status=303)

    def form(self) -> dict[str, Any]:
        """Return the form's fields as the JSON would have them; an empty field means nought."""
        wanted: dict[str, Any] = {}
        for name in self.request.body_arguments:
            fault, _, field = name.partition(".")
            value = self.get_body_argument(name).strip()
            if field in LIMITS:
                wanted.setdefault(fault, {})[field] = _number(value or "0")
            elif name == "seed":
                wanted["seed"] = _number(value) if value else None
        return wanted

    def show(self, error: str = "") -> None:
        self.render("controls.html", faults=self.world.faults, counterparts=self.world.counterparts, error=error)


class ControlsAsJson(Page):
    def get(self) -> None:
        self.write_json(self.world.faults.state())


def _number(text: str) -> float:
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        raise UnusableSetting(f"{text!r} is not a number.") from None
