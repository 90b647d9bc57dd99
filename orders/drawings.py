"""Which drawing shows a product that has no picture: that of the first words known in its name, or its category."""

import re
from collections.abc import Iterator

# From the particular to the general: a *reading lamp* is no *lamp* of any kind, and a book about lamps is a book.
DRAWINGS = {
    "patient loom": "book-loom",
    "lamps of": "book-lamps",
    "soup": "book-soup",
    "hedges": "book-hedges",
    "clockmaker": "book-clock",
    "almanac": "book-drawer",
    "queues": "book-queues",
    "night garden": "book-moon",
    "books": "books",
    "book": "book-moon",
    "lantern": "lantern",
    "pendant": "pendant",
    "shade": "paper-moon",
    "candle": "candles",
    "table light": "night-light",
    "floor lamp": "floor-lamp",
    "torch": "torch",
    "lamp": "reading-lamp",
    "throw": "throw",
    "towel": "towel",
    "cushion": "cushion",
    "blanket": "blanket",
    "picnic": "picnic",
    "bottle cover": "hot-bottle",
    "mat": "mat",
    "runner": "runner",
    "apron": "apron",
    "mug": "mug",
    "cup": "pen-cup",
    "kettle": "kettle",
    "spoon": "spoons",
    "teapot": "teapot",
    "board": "board",
    "cellar": "cellar",
    "carafe": "carafe",
    "skillet": "skillet",
    "notebook": "notebook",
    "ruler": "ruler",
    "timer": "timer",
    "tray": "tray",
    "pencil": "pencils",
    "knife": "knife",
    "desk pad": "desk-pad",
    "watering can": "watering-can",
    "pot": "plant-pot",
    "trowel": "trowel",
    "seed": "seeds",
    "twine": "twine",
    "cloche": "cloche",
    "basket": "basket",
    "lighting": "pendant",
    "textiles": "blanket",
    "kitchen": "mug",
    "desk": "notebook",
    "garden": "plant-pot",
}
OTHERS = "box"
# What a thing is made of decides its colour; else its SKU does.
HUES = {
    "copper": 22,
    "terracotta": 14,
    "cherrywood": 12,
    "walnut": 26,
    "alder": 28,
    "ash handle": 34,
    "miller": 30,
    "slate": 205,
    "smoke": 215,
    "fjord": 214,
    "meadow": 95,
    "harvest": 36,
    "ember": 16,
    "thistle": 285,
}


def template_of(name: str, category: str) -> str:
    """Return the template of the drawing that resembles such a product."""
    return f"orders/drawings/{next(_known(name, category), OTHERS)}.svg"


def hue_of(sku: str, name: str) -> int:
    """Return the hue of the drawing, in degrees."""
    made_of = (hue for words, hue in HUES.items() if words in name.lower())
    return next(made_of, sum(sku.encode()) * 47 % 360)


def _known(name: str, category: str) -> Iterator[str]:
    # A book is about something, and is not that thing.
    is_book = category.lower() == "books"
    for text in [f"{name} book"] if is_book else [name, category]:
        for words, drawing in DRAWINGS.items():
            if drawing.startswith("book") == is_book and re.search(rf"\b{words}", text, re.IGNORECASE):
                yield drawing
