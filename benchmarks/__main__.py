"""Run all of it: `python -m benchmarks --orders 5000`. See README.md."""

import argparse
from collections.abc import Callable
from pathlib import Path

from myproject import embedded

from . import environment

import django  # isort: skip


def main() -> None:
    options = read_options()
    with environment.servers() as postgres:
        django.setup()
        run(options, postgres)


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks", description="The shop beside the tutorial's way, as ratios.")
    parser.add_argument("--orders", type=int, default=5000, help="orders in the backlog")
    parser.add_argument(
        "--rows",
        type=int,
        default=1_000_000,
        help="orders of the shop that has grown, and lines in an export",
    )
    parser.add_argument("--only", nargs="*", default=[], help="some scenarios, such as gateway_slow")
    parser.add_argument("--json", type=Path, help="a file for the raw figures")
    return parser.parse_args()


def run(options: argparse.Namespace, postgres: embedded.Postgres) -> None:
    from django.core.management import call_command

    from . import backlog, connections, exports, growth, report, scenarios, web

    measures: dict[str, Callable[[], list[report.Row]]] = {
        "gateway_inside": lambda: scenarios.gateway_inside(options.orders),
        "gateway_slow": lambda: scenarios.gateway_slow(options.orders),
        "gateway_real": lambda: scenarios.gateway_real(options.orders),
        "one_click": scenarios.one_click,
        "exports": lambda: exports.exports(options.rows),
        "progress": lambda: exports.progress(options.rows),
        "connections": lambda: connections.connections(postgres),
        "web": web.web,
        # Last: it goes on in databases of its own.
        "growth": lambda: growth.growth(options.rows),
    }
    call_command("migrate", verbosity=0)
    backlog.stock_up()
    circumstances = report.circumstances()
    report.write(report.head(circumstances))
    rows: list[report.Row] = []
    for name, measure in measures.items():
        if not options.only or name in options.only:
            measured = measure()
            report.show(measured)
            rows += measured
    if options.json:
        report.keep(options.json, circumstances, rows)


if __name__ == "__main__":
    main()
