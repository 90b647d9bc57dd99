"""Build one web application from the counterparts."""

from pathlib import Path
from typing import Any

from tornado.web import Application

from . import chat, crm, faults, history, mailbox, payments, warehouse
from .controls import Controls, ControlsAsJson
from .database import connect
from .faults import Faults
from .pages import NotFound, Page
from .payments.cards import CARDS
from .payments.ledger import overview
from .world import World

HERE = Path(__file__).parent
# A new counterpart is a module that defines COUNTERPART, listed here.
COUNTERPARTS = tuple(module.COUNTERPART for module in (payments, mailbox, chat, crm, warehouse))


class Home(Page):
    def get(self) -> None:
        ledger = overview(self.world.database, limit=0)
        mails = mailbox.count(self.world.database)
        self.render("home.html", world=self.world, cards=CARDS, mails=mails, **ledger)


class Health(Page):
    def get(self) -> None:
        self.write_json({"status": "ok"})


def make_world(folder: Path, slow_seconds: float) -> World:
    database = connect(folder, [faults.SCHEMA, history.SCHEMA, *(counterpart.schema for counterpart in COUNTERPARTS)])
    known = (fault for counterpart in COUNTERPARTS for fault in counterpart.faults)
    return World(database, Faults(database, known), COUNTERPARTS, slow_seconds)


def make_app(world: World) -> Application:
    routes: list[Any] = [
        (r"/", Home),
        (r"/healthz", Health),
        (r"/controls", Controls),
        (r"/controls\.json", ControlsAsJson),
        (r"/history", history.History),
    ]
    for counterpart in world.counterparts:
        routes += counterpart.routes
    return Application(
        routes,
        default_handler_class=NotFound,
        template_path=str(HERE / "templates"),
        static_path=str(HERE / "static"),
        # No access log: each endpoint logs what matters.
        log_function=lambda handler: None,
        world=world,
    )
