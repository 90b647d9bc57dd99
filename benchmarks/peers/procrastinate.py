from procrastinate import App, PsycopgConnector

from . import work

NEEDS = "a periodic task of your own that retries `get_stalled_jobs`; a sweep does that, too"
WORKERS = ["-m procrastinate --app benchmarks.peers.procrastinate.app worker --concurrency 1"] * 2
REDELIVERS = 0
app = App(connector=PsycopgConnector(conninfo=work.DATABASE))


@app.task(name="process")
def process(order_id: int) -> None:
    work.process(order_id)


def prepare() -> None:
    app.open()
    app.schema_manager.apply_schema()


def enqueue(order_id: int) -> None:
    process.defer(order_id=order_id)


def waiting() -> int:
    return work.count("SELECT count(*) FROM procrastinate_jobs WHERE status IN ('todo', 'doing')")
