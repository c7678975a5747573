#!/usr/bin/env python3
"""A month of a fleet on fleetlog's topics, and whether ledger, aggregates and views are what was planned.

usage: month.py send BROKERS TOPIC_PREFIX DATABASE_URL TASKS SEED
       month.py compare DATABASE_URL

`send` needs the topics, the tables and the schemas (fleetlog topics apply, migrate, schemas publish), and puts what it
expects into the database, schema `expected`. `compare` is for when the projections have taken everything (fleetlog run
--once): it prints a line for each comparison and the times of typical queries; exit code 1 if anything differs.
"""

import io
import json
import pathlib
import statistics
import sys
import time

import confluent_kafka
import fastavro
import psycopg

import plan

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "chaos"))
import recount_log  # noqa: E402  framing, schemas and partitioner as they are documented

EXPECTED = """
CREATE SCHEMA expected;
CREATE TABLE expected.ledger (
    task_id text, site_uid text, unit_uid text, task_type text, priority int, external_id text, status text,
    created_ms bigint, assigned_ms bigint, started_ms bigint, finished_ms bigint, wait_ms bigint, work_ms bigint,
    total_ms bigint, failure_reason text, step_count int, steps_finished int, assignments int, pauses int,
    created_recorded_ms bigint, finished_recorded_ms bigint);
CREATE TABLE expected.hours (
    site_uid text, task_type text, hour_s bigint, created bigint, completed bigint, failed bigint, cancelled bigint,
    rejected bigint, avg_total_ms numeric, p95_total_ms numeric);
CREATE TABLE expected.timeline (task_id text, events bigint, took_ms bigint);
CREATE TABLE expected.days (
    site_uid text, unit_uid text, day_s bigint, known_ms bigint, online_ms bigint, disconnects bigint);
CREATE TABLE expected.fleet (
    site_uid text, unit_uid text, connection text, reason text, task_id text, task_status text);
CREATE TABLE expected.facts (events bigint, set_aside bigint);
"""
MS = "(extract(epoch FROM {}) * 1000)::bigint"
# What is compared: rows of the schema `expected`, and the same asked of what people read. Averages to a microsecond.
COMPARED = {
    "t_app_task_ledger2": ("TABLE expected.ledger", f"""
        SELECT task_id, site_uid, unit_uid, task_type, priority, external_id, status, {MS.format("created_at")},
               {MS.format("assigned_at")}, {MS.format("started_at")}, {MS.format("finished_at")}, wait_ms, work_ms, total_ms,
               failure_reason, step_count, steps_finished, assignments, pauses, {MS.format("created_recorded_at")},
               {MS.format("finished_recorded_at")}
        FROM t_app_task_ledger2"""),
    "task_hourly_stats": (
        """SELECT site_uid, task_type, hour_s, created, completed, failed, cancelled, rejected,
                  round(avg_total_ms, 3) AS avg_total_ms, round(p95_total_ms, 3) AS p95_total_ms FROM expected.hours""",
        """SELECT site_uid, task_type, extract(epoch FROM hour)::bigint, created, completed, failed, cancelled, rejected,
                  round(avg_total_ms::numeric, 3), round(p95_total_ms::numeric, 3) FROM task_hourly_stats"""),
    "task_timeline": ("TABLE expected.timeline", """
        SELECT task_id, max(number), (array_agg(since_first_ms ORDER BY number DESC))[1] FROM task_timeline GROUP BY task_id"""),
    "unit_availability_daily": ("TABLE expected.days", f"""
        SELECT site_uid, unit_uid, extract(epoch FROM day)::bigint, round(known_s * 1000)::bigint,
               round(online_s * 1000)::bigint, disconnects
        FROM unit_availability_daily WHERE extract(epoch FROM day) < {(plan.START_MS + plan.MONTH_MS) // 1000}"""),
    "fleet_now": ("TABLE expected.fleet",
                  "SELECT site_uid, unit_uid, connection, reason, task_id, task_status FROM fleet_now"),
}
DAY = "'2026-10-14'"
QUERIES = {
    "a site's tasks of a day, newest first": f"""
        SELECT * FROM t_app_task_ledger2 WHERE site_uid = '503' AND created_at >= {DAY}
        AND created_at < {DAY}::timestamptz + interval '1 day' ORDER BY created_at DESC LIMIT 100""",
    "a unit's last tasks": """
        SELECT * FROM t_app_task_ledger2 WHERE unit_uid = '0042' ORDER BY created_at DESC LIMIT 20""",
    "what a site still has to do, most urgent first": """
        SELECT * FROM t_app_task_ledger2 WHERE site_uid = '503'
        AND status IN ('created', 'assigned', 'started', 'paused') ORDER BY priority DESC, created_at LIMIT 50""",
    "why a site's tasks of a day failed": f"""
        SELECT failure_reason, count(*) FROM t_app_task_ledger2 WHERE site_uid = '503' AND created_at >= {DAY}
        AND created_at < {DAY}::timestamptz + interval '1 day' AND status = 'failed' GROUP BY failure_reason""",
    "a site's week by the hour": f"""
        SELECT * FROM task_hourly_stats WHERE site_uid = '503' AND hour >= {DAY}
        AND hour < {DAY}::timestamptz + interval '7 days' ORDER BY hour""",
    "a task step by step": "SELECT * FROM task_timeline WHERE task_id = 'month-0000042' ORDER BY number",
}


def main():
    command, *options = sys.argv[1:] or [""]
    if command == "send" and len(options) == 5:
        brokers, prefix, database, tasks, seed = options
        send(brokers, prefix, database, int(tasks), int(seed))
    elif command == "compare" and len(options) == 1:
        sys.exit(compare(options[0]))
    else:
        sys.exit(__doc__)


def send(brokers, prefix, database, tasks, seed):
    begun = time.monotonic()
    month, sender = plan.Month(tasks, seed), Sender(brokers, prefix)
    for event in month.all_events():
        sender.send(*event)
    sender.end()
    write_down(database, month)
    print(json.dumps({"tasks": tasks, "events": month.events, "set_aside": month.set_aside,
                      "seconds": round(time.monotonic() - begun, 1)}))


class Sender:
    """A producer like any other, with the schemas that lie on the topic `schemas`."""

    def __init__(self, brokers, prefix):
        self.prefix, self.failed = prefix, []
        self.producer = confluent_kafka.Producer({
            "bootstrap.servers": brokers, "enable.idempotence": True, "linger.ms": 50, "compression.type": "zstd",
            "queue.buffering.max.messages": 200_000, "partitioner": "murmur2_random",
        })
        self.schemas = {}
        for fingerprint, schema in recount_log.Cluster(brokers, prefix).schemas().items():
            known = self.schemas.get(schema["name"])
            if known is None or len(known[1]["fields"]) < len(schema["fields"]):
                self.schemas[schema["name"]] = (recount_log.SINGLE_OBJECT + fingerprint, schema)

    def send(self, recorded_ms, topic, key, event_type, event):
        head, schema = self.schemas[f"fleetlog.{topic}.{event_type}"]
        value = io.BytesIO()
        value.write(head)
        fastavro.schemaless_writer(value, schema, event)
        while True:
            try:
                self.producer.produce(f"{self.prefix}{topic}", value.getvalue(), key, timestamp=recorded_ms,
                                      on_delivery=self._delivered)
                break
            except BufferError:
                self.producer.poll(1)
        self.producer.poll(0)

    def _delivered(self, error, _message):
        if error is not None:
            self.failed.append(error)

    def end(self):
        left = self.producer.flush(120)
        if left or self.failed:
            sys.exit(f"{left} events are not acknowledged, {len(self.failed)} failed: {self.failed[:1]}")


def write_down(database, month):
    hours = [(site, kind, hour * 3600, *counts, sum(took) / len(took) if took else None,
              plan.percentile(took, 0.95) if took else None)
             for (site, kind, hour), (*counts, took) in month.hours.items()]
    days = [(site, unit, plan.START_MS // 1000 + day * 86400, *told) for (site, unit, day), told in month.days.items()]
    fleet = [(*unit, *month.working.get(unit[:2], (None, None, None))[1:]) for unit in month.connections]
    with psycopg.connect(database) as connection:
        connection.execute(EXPECTED)
        for table, rows in (("ledger", month.ledger), ("hours", hours), ("timeline", month.timeline), ("days", days),
                            ("fleet", fleet), ("facts", [(month.events, month.set_aside)])):
            with connection.cursor().copy(f"COPY expected.{table} FROM STDIN") as copy:
                for row in rows:
                    copy.write_row(row)


def compare(database):
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("SET timezone = 'UTC'")
        connection.execute("SET work_mem = '256MB'")
        differences = sum(differ(connection, what, *sides) for what, sides in COMPARED.items())
        differences += facts(connection)
        connection.execute("ANALYZE")
        for what, query in QUERIES.items():
            print(f"{what}: {milliseconds(connection, query):.1f} ms")
    print(f"{differences} differences")
    return 1 if differences else 0


def differ(connection, what, expected, found):
    """Rows that are expected and not there, or there and not expected; by how many that are the same."""
    begun = time.monotonic()
    connection.execute(f"CREATE TEMPORARY TABLE found AS SELECT * FROM ({expected}) expected WITH NO DATA")
    connection.execute(f"INSERT INTO found {found}")
    rows = connection.execute("SELECT count(*) FROM found").fetchone()[0]
    counts = []
    for title, one, other in (("missing", expected, "TABLE found"), ("not expected", "TABLE found", expected)):
        # ALL: a row that is there twice is one too many.
        odd = f"SELECT * FROM (({one}) EXCEPT ALL ({other})) odd"
        counts.append(connection.execute(f"SELECT count(*) FROM ({odd}) odd").fetchone()[0])
        for row in connection.execute(f"{odd} ORDER BY 1, 2 LIMIT 3"):
            print(f"{what}: {title}: {row}")
    connection.execute("DROP TABLE found")
    print(f"{what}: {rows} rows, {counts[0]} missing, {counts[1]} not expected ({time.monotonic() - begun:.1f} s)")
    # A comparison of nothing with nothing says nothing.
    return sum(counts) + (rows == 0)


def facts(connection):
    """Every event is one row of history; what the plan says is impossible is set aside, and nothing else."""
    found = connection.execute("""
        SELECT (SELECT count(*) FROM unit_event) + (SELECT count(*) FROM task_event),
               (SELECT count(*) FROM fleetlog_set_aside WHERE projection = 'task-ledger')""").fetchone()
    expected = connection.execute("TABLE expected.facts").fetchone()
    print(f"events and set-asides: {found}, expected {expected}")
    return int(tuple(found) != tuple(expected))


def milliseconds(connection, query):
    """The median of five, the first one not counted."""
    def once():
        begun = time.monotonic()
        connection.execute(query).fetchall()
        return (time.monotonic() - begun) * 1000
    once()
    return statistics.median(once() for _ in range(5))


if __name__ == "__main__":
    main()
