"""Run all of it: `python -m benchmarks --orders 5000`. See README.md."""

import argparse
import logging

from myproject import embedded

from . import environment

import django  # isort: skip


def main() -> None:
    options = read_options()
    with environment.servers() as postgres:
        django.setup()
        logging.getLogger().setLevel(logging.ERROR)
        run(options, postgres)


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks", description="The shop beside the tutorial's way, as ratios.")
    parser.add_argument("--orders", type=int, default=5000, help="orders in the backlog")
    parser.add_argument(
        "--rows",
        type=int,
        default=1_000_000,
        help="orders behind the dashboard, of three lines each, and lines in an export",
    )
    parser.add_argument("--only", default="", help="one scenario, such as gateway_slow")
    return parser.parse_args()


def run(options: argparse.Namespace, postgres: embedded.Postgres) -> None:
    from django.core.management import call_command

    from . import backlog, connections, dashboard, exports, report, scenarios

    call_command("migrate", verbosity=0)
    backlog.stock_up()
    report.write(report.head())
    for scenario in (scenarios.gateway_inside, scenarios.gateway_slow, scenarios.gateway_real):
        if options.only in ("", scenario.__name__):
            report.show(scenario(options.orders))
    if options.only in ("", scenarios.one_click.__name__):
        report.show(scenarios.one_click())
    for measure in (exports.exports, exports.progress):
        if options.only in ("", measure.__name__):
            report.show(measure(options.rows))
    if options.only in ("", connections.connections.__name__):
        report.show(connections.connections(postgres))
    # Last: it replaces the orders of the others.
    if options.only in ("", dashboard.dashboard.__name__):
        report.show(dashboard.dashboard(options.rows))


if __name__ == "__main__":
    main()
