"""The forms of a page, as a browser sends them."""

from collections.abc import Iterator
from functools import cache
from io import BytesIO
from typing import NamedTuple
from urllib.parse import urljoin, urlsplit

from bs4 import BeautifulSoup, Tag
from django.urls import Resolver404, resolve
from PIL import Image

from tests.factories import PASSWORD

Pairs = tuple[tuple[str, str], ...]

# Of several buttons that save, one is enough.
SAME_BUTTON = {"_addanother", "_continue"}
# Boxes of lists, which are all ticked.
TICKED = {"_selected_action", "order", "recipients"}
# What a page that asks for confirmation sends back.
ASKED = {"post", "seen"}
FILLED = {
    "email": "new@example.com",
    "number": "1",
    "date": "2026-01-01",
    "time": "08:00",
    "password": PASSWORD,
    "checkbox": "on",
}


class Form(NamedTuple):
    path: str
    fields: Pairs
    chosen: Pairs = ()
    file: str = ""

    @property
    def route(self) -> str:
        try:
            return resolve(urlsplit(self.path).path).route
        except Resolver404:
            return self.path

    @property
    def name(self) -> str:
        """What both shops call it, and each page that has it."""
        names = sorted({name for name, _ in self.fields} - {"csrfmiddlewaretoken", "next"})
        return " ".join([self.route, *(f"{name}={value}" for name, value in self.chosen), ",".join(names)])

    @property
    def is_confirmation(self) -> bool:
        return bool(dict(self.fields).keys() & ASKED)

    def upload(self) -> dict[str, tuple[str, bytes]] | None:
        if not self.file:
            return None
        is_picture = self.file == "upload_picture"
        return {self.file: ("x.png", picture()) if is_picture else ("x.csv", PRODUCTS)}


PRODUCTS = b"sku,name,price,stock,category\nA,Lamp,1.00,1,Light\n"


@cache
def picture() -> bytes:
    written = BytesIO()
    Image.new("RGB", (400, 300), "teal").save(written, "PNG")
    return written.getvalue()


def value_of(field: Tag, known: dict[str, str]) -> str:
    if str(field["name"]) in known:
        return known[str(field["name"])]
    if field.name == "textarea":
        return field.get_text().lstrip("\r\n") or "words"
    if field.name == "select":
        chosen = field.select_one("option[selected]:not([value=''])") or field.select_one("option:not([value=''])")
        return str(chosen.get("value", "")) if chosen else ""
    if field.get("type") == "hidden":
        return str(field.get("value", ""))
    return str(field.get("value") or FILLED.get(str(field.get("type")), "word"))


def is_sent(field: Tag) -> bool:
    kind = field.get("type")
    if kind in ("submit", "button", "file", "reset", "image"):
        return False
    is_ticked = field.has_attr("checked") or field.has_attr("required") or field.get("name") in TICKED
    return kind not in ("checkbox", "radio") or is_ticked


def forms_of(page: str, text: str, known: dict[str, str]) -> Iterator[Form]:
    """Yield each form that the page sends, once for each button that differs, and for each action of the admin.

    `known` says what is written into fields of these names.
    """
    whole = BeautifulSoup(text, "html.parser")
    for form in whole.select("form"):
        if str(form.get("method", "get")).lower() != "post":
            continue
        elsewhere = f'[form="{form.get("id")}"]'
        named = form.select("input[name], select[name], textarea[name]") + whole.select(f"input[name]{elsewhere}")
        fields = [(str(field["name"]), value_of(field, known)) for field in named if is_sent(field)]
        file = next((str(field["name"]) for field in named if field.get("type") == "file"), "")
        for action, chosen in variants(form, whole.select(f"button{elsewhere}")):
            if "action" in dict(chosen) and not TICKED & dict(fields).keys():
                # Of an empty list.
                continue
            kept = [pair for pair in dict.fromkeys(fields) if pair[0] not in dict(chosen)]
            yield Form(urljoin(page, action or page), (*kept, *chosen), chosen, file)


def variants(form: Tag, outside: list[Tag]) -> list[tuple[str, Pairs]]:
    """Return where each button of the form sends it, with what the button says."""
    own = str(form.get("action") or "")
    actions = [str(option["value"]) for option in form.select("select[name=action] option") if option.get("value")]
    if actions:
        return [(own, (("action", action),)) for action in actions]
    found = []
    for button in [*form.select("button, input[type=submit]"), *outside]:
        name = str(button.get("name") or "")
        if name not in SAME_BUTTON and button.get("type") != "button":
            chosen = ((name, str(button.get("value", ""))),) if name else ()
            found.append((str(button.get("formaction") or own), chosen))
    return list(dict.fromkeys(found))
