"""The history's orders in a few statements over whole tables: row by row, a large one would take hours.

`demo_history` has each order's fate and the times of its life; all other rows follow from it, a batch at a time, of
which `demo_item` are the lines and `demo_order` the orders. No statement of a batch names a table that it fills:
those grow. Random numbers start from the same seed, so that two histories look alike.
"""

# Until the transaction ends. Where the shop is no superuser, each statement checks its own keys.
UNCHECKED = """
SELECT FROM accounts_user FOR KEY SHARE;
SELECT FROM orders_product FOR KEY SHARE;
SET CONSTRAINTS ALL IMMEDIATE;
SELECT CASE WHEN rolsuper THEN set_config('session_replication_role', 'replica', true) END
FROM pg_roles WHERE rolname = current_user
"""

# How to drop each index, and how to make it again: all but primary keys; none where the shop does not own its tables.
INDEXES = """
SELECT CASE WHEN conname IS NULL THEN format('DROP INDEX %s', indexrelid::regclass)
            ELSE format('ALTER TABLE %s DROP CONSTRAINT %I', indrelid::regclass, conname) END,
       CASE WHEN conname IS NULL THEN pg_get_indexdef(indexrelid)
            ELSE format('ALTER TABLE %s ADD CONSTRAINT %I %s', indrelid::regclass, conname,
                        pg_get_constraintdef(pg_constraint.oid)) END
FROM pg_index JOIN pg_class ON pg_class.oid = indrelid AND pg_has_role(relowner, 'USAGE')
LEFT JOIN pg_constraint ON conindid = indexrelid AND contype = 'u'
WHERE NOT indisprimary AND indrelid IN (
  'orders_order'::regclass, 'orders_orderitem'::regclass, 'orders_payment'::regclass, 'orders_orderevent'::regclass
)
ORDER BY 1
"""

SEED = "SELECT setseed(0.42)"

GOODS = """
CREATE TEMP TABLE demo_goods ON COMMIT DROP AS
SELECT row_number() OVER (ORDER BY md5(sku)) - 1 AS place, id, name, price, count(*) OVER () AS kinds
FROM orders_product WHERE is_active
"""

# `dice` decides the fate, `first` what is bought: some things far more often than others. What a person does afterwards
# comes hours or days later, unless that would be in the future.
ORDERS = """
CREATE TEMP TABLE demo_history ON COMMIT DROP AS
SELECT nextval(pg_get_serial_sequence('orders_order', 'id')) AS pk,
       n, placed, customer, dice, lines, first,
       placed + waited AS reserved,
       placed + waited + charged AS ended,
       placed + waited + charged + mailed AS confirmed,
       charged > interval '4 seconds' AS is_slow,
       CASE WHEN dice < 0.90 THEN 'completed'
            WHEN dice < 0.92 THEN 'retried'
            WHEN dice < 0.95 AND placed < %(now)s - interval '5 days' THEN 'refunded'
            WHEN dice < 0.95 THEN 'completed'
            WHEN dice < 0.975 THEN 'again'
            WHEN dice < 0.985 THEN 'declined'
            WHEN dice < 0.993 AND placed < %(now)s - interval '1 day' THEN 'cancelled'
            WHEN dice < 0.993 THEN 'completed'
            ELSE 'rejected' END AS fate,
       NULL::timestamptz AS changed
FROM (
  SELECT n, start + (n - before - random()) / (upto - before) * interval '1 hour' AS placed,
         (%(people)s::bigint[])[1 + floor(power(random(), 1.3) * cardinality(%(people)s::bigint[]))::int] AS customer,
         random() AS dice,
         1 + floor(random() * 5)::int AS lines,
         floor(power(random(), 1.6) * (SELECT max(kinds) FROM demo_goods))::int AS first,
         (12 + 90 * power(random(), 4)) * interval '1 millisecond' AS waited,
         CASE WHEN random() < 0.03 THEN 5000 ELSE 0 END * interval '1 millisecond'
           + (70 + 600 * power(random(), 3)) * interval '1 millisecond' AS charged,
         (25 + 140 * power(random(), 3)) * interval '1 millisecond' AS mailed
  FROM unnest(%(starts)s::timestamptz[], %(before)s::int[], %(upto)s::int[]) AS hour (start, before, upto),
       generate_series(before + 1, upto) AS n
) AS drawn
"""

# Somebody who looks around for the first time finds one of each: a card to try again, and an order for a person.
CHOSEN = """
UPDATE demo_history SET fate = chosen.fate
FROM (
  (SELECT pk, 'declined' AS fate FROM demo_history WHERE customer = %(casey)s ORDER BY placed DESC LIMIT 1)
  UNION ALL
  (SELECT pk, 'refunded' FROM demo_history WHERE customer = %(casey)s AND placed < %(now)s - interval '6 days'
   ORDER BY placed DESC LIMIT 1)
  UNION ALL
  (SELECT pk, 'flagged' FROM demo_history WHERE customer <> %(casey)s AND placed < %(now)s - interval '2 days'
   ORDER BY placed DESC LIMIT 1)
  UNION ALL
  (SELECT pk, 'cancelled' FROM demo_history WHERE customer <> %(casey)s AND placed < %(now)s - interval '3 days'
   ORDER BY placed DESC LIMIT 1)
  UNION ALL
  (SELECT pk, 'rejected' FROM demo_history WHERE customer <> %(casey)s AND placed < %(now)s - interval '4 days'
   ORDER BY placed DESC LIMIT 1)
) AS chosen WHERE chosen.pk = demo_history.pk
"""

# A retry comes when the provider's timeout is over; who pays again does so within minutes.
TIMES = """
UPDATE demo_history SET
    ended = CASE WHEN fate = 'retried' THEN ended + interval '11 seconds' ELSE ended END,
    confirmed = CASE WHEN fate = 'retried' THEN confirmed + interval '11 seconds'
                     WHEN fate = 'again' THEN confirmed + (30 + 600 * dice) * interval '1 second' ELSE confirmed END,
    changed = CASE fate WHEN 'refunded' THEN ended + (1 + 3 * random()) * interval '1 day'
                        WHEN 'cancelled' THEN ended + (1 + 20 * random()) * interval '1 hour'
                        WHEN 'flagged' THEN placed + interval '1 day' END
WHERE fate IN ('retried', 'again', 'refunded', 'cancelled', 'flagged')
"""

INDEX = "CREATE INDEX ON demo_history (n)"

BATCH = """
CREATE TEMP TABLE demo_batch AS SELECT * FROM demo_history WHERE n > %(done)s AND n <= %(done)s + %(batch)s
"""

# Different products: the goods are divided into five parts, and each further line is from the next one.
ITEMS = """
CREATE TEMP TABLE demo_item AS
SELECT pk, line, id AS product, name, price, 1 + floor(power(random(), 5) * 3)::int AS quantity
FROM (
  SELECT pk, line, first,
         (first + CASE line WHEN 1 THEN 0 ELSE (line - 1) * part + floor(random() * (part - 1)) END::int)
           %% goods AS place
  FROM demo_batch, generate_series(1, lines) AS line,
       (SELECT max(kinds) AS goods, max(kinds) / 5 AS part FROM demo_goods) AS counted
) AS wanted JOIN demo_goods USING (place)
"""

ORDER = """
CREATE TEMP TABLE demo_order AS
SELECT demo_batch.*, total,
       CASE fate WHEN 'declined' THEN %(declined)s WHEN 'cancelled' THEN 'You cancelled this order.'
                 WHEN 'rejected' THEN 'Out of stock: ' || name || ' (0 left, ' || quantity
                                      || ' ordered). You were not charged.' ELSE '' END AS reason,
       CASE WHEN fate IN ('completed', 'retried', 'refunded') THEN ended
            WHEN fate = 'again' THEN confirmed - interval '30 milliseconds' END AS completed_at
FROM demo_batch JOIN (
  SELECT pk, sum(price * quantity) AS total, min(name) FILTER (WHERE line = 1) AS name,
         min(quantity) FILTER (WHERE line = 1) AS quantity FROM demo_item GROUP BY pk
) AS sums USING (pk)
ORDER BY placed
"""

LETTER = "substr('0123456789ABCDEFGHJKMNPQRSTVWXYZ', 1 + ((scattered >> {bits}) %% 32)::int, 1)"

# References are the digits of a permutation of 40 bits, so no two are equal, and they do not look like a count.
INSERT_ORDERS = """
INSERT INTO orders_order (
    id, reference, customer_id, token, status, reason, total, currency, created_at, completed_at, opened_at,
    flagged_at, flag_reason, due_at, claimed_by, mail_due_at, mail_claimed_by, mail_sent_at, mail_error
)
SELECT pk, left(letters, 4) || '-' || right(letters, 4), customer, md5(%(name)s || pk)::uuid,
       CASE WHEN fate IN ('completed', 'retried', 'again') THEN 'completed' WHEN fate = 'declined' THEN 'payment_failed'
            WHEN fate = 'flagged' THEN 'processing' ELSE fate END,
       reason, total, %(currency)s, placed, completed_at,
       CASE WHEN fate = 'again' THEN confirmed - interval '400 milliseconds' ELSE placed END,
       CASE WHEN fate = 'flagged' THEN changed END, CASE WHEN fate = 'flagged' THEN %(flagged)s ELSE '' END,
       CASE WHEN fate = 'flagged' THEN changed END, '', NULL, '',
       CASE WHEN fate IN ('completed', 'retried', 'again', 'refunded') THEN confirmed END, ''
FROM demo_order,
LATERAL (SELECT (pk * 4123456789 + %(offset)s) %% 1099511627776 AS scattered) AS permuted,
LATERAL (SELECT {letters} AS letters) AS reference
ORDER BY demo_order.placed
""".format(letters=" || ".join(LETTER.format(bits=5 * digit) for digit in range(8)))  # nosec B608

INSERT_ITEMS = """
INSERT INTO orders_orderitem (order_id, product_id, name, price, quantity)
SELECT pk, product, name, price, quantity FROM demo_item ORDER BY pk, line
"""

# Attempt 1 of each order, and the second card of those who paid again.
INSERT_PAYMENTS = """
INSERT INTO orders_payment (
    order_id, attempt, key, card, amount, currency, status, provider_id, reason, created_at,
    refund_key, refund_wanted_at, refund_claimed_by, refund_id
)
SELECT pk, attempt, md5('key' || %(name)s || pk || '/' || attempt)::uuid,
       CASE WHEN outcome = 'declined' THEN %(card_declined)s WHEN is_slow THEN %(card_slow)s ELSE %(card)s END,
       total, %(currency)s, outcome,
       CASE WHEN outcome IN ('succeeded', 'refunded') THEN 'pi_' || left(md5('pi' || %(name)s || pk), 24) ELSE '' END,
       CASE WHEN outcome = 'declined' THEN %(declined)s ELSE '' END,
       CASE attempt WHEN 1 THEN placed ELSE confirmed - interval '400 milliseconds' END,
       CASE WHEN outcome = 'refunded' THEN md5('refund' || %(name)s || pk)::uuid END,
       CASE WHEN outcome = 'refunded' THEN changed END, '',
       CASE WHEN outcome = 'refunded' THEN 're_' || left(md5('re' || %(name)s || pk), 24) ELSE '' END
FROM demo_order,
LATERAL (
  SELECT 1 AS attempt, CASE WHEN fate IN ('completed', 'retried') THEN 'succeeded'
                            WHEN fate = 'refunded' THEN 'refunded'
                            WHEN fate IN ('rejected', 'flagged') THEN 'started' ELSE 'declined' END AS outcome
  UNION ALL SELECT 2, 'succeeded' WHERE fate = 'again'
) AS attempts
ORDER BY demo_order.placed, attempt
"""

# `run` names the task that wrote a line; what a person did has none.
INSERT_EVENTS = """
INSERT INTO orders_orderevent (order_id, kind, detail, created_at, task_id, worker)
SELECT pk, kind, detail, at,
       CASE WHEN run = '' THEN '' ELSE md5(run || %(name)s || pk)::uuid::text END,
       CASE WHEN run = '' THEN '' ELSE %(worker)s END
FROM demo_order,
LATERAL (VALUES
  ('placed', '', placed, '', true),
  ('processing', '', reserved, 'process', fate <> 'rejected'),
  ('rejected', reason, reserved, 'process', fate = 'rejected'),
  ('retry', %(unanswered)s, reserved + interval '10 seconds', 'process', fate IN ('retried', 'flagged')),
  ('payment_failed', %(declined)s, ended, 'process', fate IN ('declined', 'cancelled', 'again')),
  ('pending', '', confirmed - interval '400 milliseconds', '', fate = 'again'),
  ('processing', '', confirmed - interval '380 milliseconds', 'again', fate = 'again'),
  ('completed', '', completed_at, CASE fate WHEN 'again' THEN 'again' ELSE 'process' END, completed_at IS NOT NULL),
  ('confirmed', '', confirmed, 'confirm', completed_at IS NOT NULL),
  ('refund_wanted', 'by ' || %(support)s, changed, '', fate = 'refunded'),
  ('refunded', '', changed + interval '240 milliseconds', 'refund', fate = 'refunded'),
  ('cancelled', 'You cancelled this order.', changed, '', fate = 'cancelled'),
  ('flagged', %(flagged)s, changed, 'sweep', fate = 'flagged')
) AS event (kind, detail, at, run, happened)
WHERE happened ORDER BY at
"""

# The runs of their tasks in the last month, as a worker records them.
INSERT_RUNS = """
INSERT INTO myproject_run (
    task_id, task, attempt, state, why, request_id, path, clicked_at, queue, worker, pid,
    sent_at, started_at, ended_at, is_periodic, about, calls
)
SELECT md5(run || %(name)s || pk)::uuid::text, task, 1, 'SUCCESS', '', '', path, sent - clicked, queue, %(worker)s,
       4711 + pk %% 4, sent, started, ended_at, false, ARRAY['orders.order:' || pk],
       jsonb_build_array(jsonb_build_array(
           what, 'orders.order:' || pk, extract(epoch FROM asked),
           round((extract(epoch FROM ended_at - asked) * 950)::numeric, 1), false))
FROM demo_order,
LATERAL (VALUES
  ('process', 'orders.tasks.process_order', 'orders', 'POST /checkout/', interval '21 milliseconds',
   placed + interval '3 milliseconds', reserved - interval '6 milliseconds', reserved + interval '1 millisecond',
   ended + interval '7 milliseconds', %(charge)s, fate NOT IN ('rejected', 'flagged', 'retried')),
  ('confirm', 'orders.tasks.send_order_confirmation', 'mail', '', NULL, completed_at + interval '2 milliseconds',
   completed_at + interval '8 milliseconds', completed_at + interval '14 milliseconds', confirmed, %(mail)s,
   completed_at IS NOT NULL AND fate <> 'again'),
  ('refund', 'orders.tasks.refund_order', 'orders', 'POST /orders/<slug:reference>/refund/', interval '18 milliseconds',
   changed + interval '4 milliseconds', changed + interval '31 milliseconds', changed + interval '36 milliseconds',
   changed + interval '246 milliseconds', %(refund)s, fate = 'refunded')
) AS runs (run, task, queue, path, clicked, sent, started, asked, ended_at, what, happened)
WHERE happened AND placed > %(now)s - interval '31 days'
ORDER BY ended_at
"""

DROP = "DROP TABLE demo_batch, demo_item, demo_order"

# Once for the whole history, and then for each batch of it.
WHOLE = [SEED, GOODS, ORDERS, CHOSEN, TIMES, INDEX]
EACH = [BATCH, ITEMS, ORDER, INSERT_ORDERS, INSERT_ITEMS, INSERT_PAYMENTS, INSERT_EVENTS, INSERT_RUNS, DROP]

# What the warehouse had to receive, so that after all sales as much is left as there is: each week's on its Monday.
DELIVERIES = """
SELECT sku, date_trunc('week', orders_order.created_at) AS week, sum(quantity)
FROM orders_orderitem JOIN orders_order ON orders_order.id = order_id
JOIN orders_product ON orders_product.id = product_id
WHERE status IN ('processing', 'completed') GROUP BY 1, 2 ORDER BY 2, 1
"""
