"""Goods look like themselves."""

import csv
from xml.etree import ElementTree

import pytest
from django.conf import settings
from django.template.loader import get_template
from django.test import Client

from orders import drawings
from tests.factories import make_product

with (settings.BASE_DIR / "orders" / "catalogue.csv").open(newline="") as rows:
    CATALOGUE = [(row["name"], row["category"]) for row in csv.DictReader(rows)]


def test_each_product_of_the_catalogue_has_a_drawing_of_its_own() -> None:
    chosen = [drawings.template_of(*product) for product in CATALOGUE]

    assert len(set(chosen)) == len(CATALOGUE) == 48
    assert f"orders/drawings/{drawings.OTHERS}.svg" not in chosen


def test_each_drawing_is_there_and_each_file_is_used() -> None:
    named = {*drawings.DRAWINGS.values(), drawings.OTHERS}
    folder = settings.BASE_DIR / "templates" / "orders" / "drawings"

    files = {path.stem for path in folder.iterdir()}

    assert files == named
    assert all(get_template(f"orders/drawings/{name}.svg") for name in named)


@pytest.mark.parametrize(
    ("name", "category", "drawing"),
    [
        ("Big Kettle", "Kitchen", "kettle"),
        ("The Kettle", "Books", "book-moon"),
        ("Thing", "Garden", "plant-pot"),
        ("Pot", "?", "plant-pot"),
        ("Despot", "Toys", "box"),
    ],
)
def test_words_of_the_name_decide_before_the_category(name: str, category: str, drawing: str) -> None:
    assert drawings.template_of(name, category) == f"orders/drawings/{drawing}.svg"


@pytest.mark.django_db
def test_picture_is_an_svg_with_the_name_as_its_title() -> None:
    product = make_product(name="Copper <Kettle>", category="Kitchen")

    answer = Client().get(f"/products/{product.slug}.svg")

    root = ElementTree.fromstring(answer.content)
    assert answer["Content-Type"] == "image/svg+xml"
    assert root[0].text == "Copper <Kettle>"
    assert "hsl(22," in answer.content.decode()
