"""The same work in as few SQL statements as it takes, without Django and Celery: the floor under all of this.

`python -m benchmarks.plain_sql CONNINFO`, in sets of a hundred, until no order is pending.
"""

import sys
import uuid

import psycopg

from . import together

BATCH = 100
# Stock is locked in key order, which prevents deadlocks.
RESERVE = """
WITH claimed AS (
    UPDATE orders_order SET status = 'processing', claimed_by = %(who)s, due_at = now() + interval '30 seconds'
    WHERE id IN (SELECT id FROM orders_order WHERE status IN ('pending', 'processing') AND claimed_by = ''
                 ORDER BY due_at LIMIT %(set)s FOR UPDATE SKIP LOCKED)
    RETURNING id
), noted AS (
    INSERT INTO orders_orderevent (order_id, kind, detail, task_id, worker, created_at)
    SELECT id, 'processing', '', %(who)s, '', now() FROM claimed
), wanted AS (
    SELECT product_id, sum(quantity) AS units FROM orders_orderitem
    WHERE order_id IN (SELECT id FROM claimed) GROUP BY product_id
), locked AS (
    SELECT id FROM orders_product WHERE id IN (SELECT product_id FROM wanted) ORDER BY id FOR NO KEY UPDATE
), taken AS (
    UPDATE orders_product SET stock = stock - units FROM wanted, locked
    WHERE orders_product.id = product_id AND locked.id = product_id
)
SELECT id FROM claimed
"""
COMPLETE = """
WITH completed AS (
    UPDATE orders_order SET status = 'completed', claimed_by = '', due_at = NULL,
        completed_at = now(), mail_due_at = now()
    WHERE id = ANY(%(ids)s) AND status = 'processing' RETURNING id
), noted AS (
    INSERT INTO orders_orderevent (order_id, kind, detail, task_id, worker, created_at)
    SELECT id, 'completed', '', %(who)s, '', now() FROM completed
)
UPDATE orders_payment SET status = 'succeeded', provider_id = 'pi_benchmark'
FROM completed WHERE order_id = completed.id AND orders_payment.status = 'started'
"""


def drain() -> None:
    who = uuid.uuid4().hex
    with psycopg.connect(sys.argv[1], autocommit=True) as connection:
        while rows := connection.execute(RESERVE, {"who": who, "set": BATCH}).fetchall():
            connection.execute(COMPLETE, {"who": who, "ids": [row[0] for row in rows]})


if __name__ == "__main__":
    together.on_go(drain)
