#!/usr/bin/env python3
"""Recounts a run of tests/chaos: reads the log itself and compares it with what projectors made of it.

It shares nothing with fleetlog but the documents: framing, schemas (from the topic of schemas), the rule of duplicates,
the folds and the names of keys, headers and columns are written down here once more. Four files: this one reads and
compares, recount_log.py judges records, recount_folds.py folds them, recount_ledgers.py judges ledgers and dead letters.

Prints one JSON object. `lost`: acknowledged events that are not on the log, and positions without a row. `doubled`: rows
too many. `differences`: entities, places, rows or judgements that differ. `set_aside_wrong`, `dead_letters_wrong`: entries
and letters that are missing, too many, or not byte for byte.
"""

import argparse
import collections
import copy
import json
import sys
import uuid

import confluent_kafka
import psycopg
import redis

import recount_folds as folds
import recount_ledgers as ledgers
import recount_log as log

EXAMPLES_MAX = 12
PROJECTIONS = {  # what reads what
    "unit-consensus": ["telemetry"],
    "unit-status": ["robot"],
    "task-state": ["task"],
    "task-ledger": ["task"],
    "telemetry-history": ["telemetry"],
    "event-history": ["robot", "task"],
}
TABLES = {"telemetry": "telemetry", "robot": "unit_event", "task": "task_event"}


class Count:
    """What was found."""

    def __init__(self):
        self.counts = collections.Counter()
        self.examples = []

    def add(self, what, text, by=1):
        self.counts[what] += by
        if len(self.examples) < EXAMPLES_MAX:
            self.examples.append(f"{what}: {text}"[:600])

    def result(self):
        names = ("lost", "doubled", "differences", "set_aside_wrong", "dead_letters_wrong", "compared", "set_aside",
                 "redriven", "rejected_again", "duplicates", "dead_letters_twice")
        return {name: self.counts[name] for name in names} | {"examples": self.examples}


def main():
    options = arguments()
    without = [name for name in options.without.split(",") if name]
    projections = [name for name in PROJECTIONS if name not in without]
    # A topic that only those left out read is one that something was done to.
    topics = [topic for topic in TABLES if any(topic in PROJECTIONS[name] for name in projections)]
    count = Count()
    cluster = log.Cluster(options.brokers, options.prefix)
    schemas = cluster.schemas()
    records = {topic: [log.judge(record, schemas, topic) for record in cluster.read(topic)] for topic in topics}
    for topic in topics:
        log.mark_duplicates(records[topic])
        count.counts["duplicates"] += sum(record.verdict == "duplicate" for record in records[topic])
        check_expected(records[topic], count)
    # Every event that was sent, in that order.
    with open(options.sent) as lines:
        sent = {uuid.UUID(line.strip()): number for number, line in enumerate(lines)}
    for topic in topics:
        check_sent(records[topic], sent, count)
    if len(topics) == len(TABLES):
        check_acknowledged(records, sent, options, count)
    found = read_ledgers(options, records, projections, count)
    hot(options, records, projections, found, count)
    history(options, records, topics, projections, found, count)
    if folds.LEDGER.projection in projections:
        task_ledger(options, records["task"], found[(folds.LEDGER.projection, "task")], count)
    for ledger in found.values():
        ledger.surplus()
        count.counts["set_aside"] += len(ledger.asides)
    ledgers.compare_letters(cluster, options.prefix, found, topics, without, options.tails_lost, count)
    json.dump(count.result(), sys.stdout)


def arguments():
    parser = argparse.ArgumentParser()
    for name in ("brokers", "prefix", "redis", "postgres", "sent"):
        parser.add_argument(f"--{name}", required=True)
    for name in ("acknowledged", "poisons"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--without", default="")
    # Projectors rejected wrongly, and that was redriven; hot state lost its tail meanwhile.
    for name in ("redriven", "tails-lost"):
        parser.add_argument(f"--{name}", action="store_true")
    return parser.parse_args()


def check_expected(records, count):
    """What the sender of a poison record expected, against what the rules say of it."""
    for record in records:
        expected = record.expected
        verdict = record.verdict or record.reason or "well"
        if expected is None and verdict not in ("well", "duplicate"):
            count.add("differences", f"{record.place} was sent in good order, and is {verdict}: {record.detail}")
        elif expected and expected != verdict:
            count.add("differences", f"{record.place} was to be {expected}, and is {verdict}: {record.detail}")


def check_sent(records, sent, count):
    """Nothing is on the log that nobody sent, and the events of a key are there in the order in which they were sent."""
    last = collections.defaultdict(lambda: -1)
    for record in records:
        if record.expected is not None or record.verdict == "duplicate":
            continue
        number = sent.get(record.event_id)
        if number is None:
            count.add("differences", f"{record.place}: nobody sent event {record.event_id}")
        elif number < last[record.key]:
            count.add("differences", f"{record.place}: {record.key_text} was sent before an earlier event of its key")
        else:
            last[record.key] = number


def check_acknowledged(records, sent, options, count):
    every = [record for topic in records.values() for record in topic]
    missing = set(sent) - {record.event_id for record in every if record.expected is None}
    # What was not acknowledged may be missing, and nothing else.
    lost = len(missing) - (len(sent) - options.acknowledged)
    if lost > 0:
        count.add("lost", f"{len(missing)} events are missing, of {len(sent)} were {options.acknowledged} acknowledged, such as "
                          f"{next(iter(missing), None)}", lost)
    poisons = sum(record.expected is not None for record in every)
    if poisons < options.poisons:
        count.add("lost", f"{options.poisons} poisons were acknowledged, {poisons} are on the log", options.poisons - poisons)


def read_ledgers(options, records, projections, count):
    """By projection and topic."""
    client = redis.Redis.from_url(options.redis, decode_responses=True)
    hot_ones = {fold.projection for fold in folds.ALL}
    found = {}
    with psycopg.connect(options.postgres) as connection:
        for projection in projections:
            for topic in PROJECTIONS[projection]:
                store = ledgers.of_hot if projection in hot_ones else ledgers.of_sql
                entries = store(client if projection in hot_ones else connection, options.prefix, projection, topic)
                found[(projection, topic)] = ledgers.Ledger(projection, records[topic], entries, options.redriven, count)
    return found


# --- hot state ---------------------------------------------------------------------------------------------------------


def hot(options, records, projections, found_ledgers, count):
    client = redis.Redis.from_url(options.redis, decode_responses=True)
    lists = collections.defaultdict(dict)
    found_lists = set()
    for fold in folds.ALL:
        if fold.projection not in projections:
            continue
        entities = fold_all(fold, records[fold.topic], found_ledgers[(fold.projection, fold.topic)])
        compare_entities(client, options, fold, entities, count)
        for prefix in fold.list_prefixes:
            found_lists |= set(client.scan_iter(f"{escape(options.prefix)}{prefix}*", count=1000))
        for key, entity in entities.items():
            for name, score in fold.places(entity.state):
                lists[f"{options.prefix}{name}"][key] = float(score)
    for name in found_lists | set(lists):
        found = dict(client.zrange(name, 0, -1, withscores=True))
        if found != lists.get(name, {}):
            differing = set(found.items()) ^ set(lists.get(name, {}).items())
            count.add("differences", f"list {name}: {sorted(differing)[:4]}", len({member for member, _ in differing}))


def fold_all(fold, records, ledger):
    """Folds a topic, judging its ledger: the entities by key."""
    entities, without_place = {}, []
    for record in records:
        if record.verdict == "duplicate":
            continue
        entity = entities.get(record.key_text) or folds.Entity(fold.new(), record.partition, 0)
        is_aside = ledger.is_aside(record)
        reason = record.reason or fold.apply(copy.deepcopy(entity.state) if is_aside else entity.state, record)
        if is_aside and not reason and ledger.entries[record.place].reason == "no_place":
            without_place.append(record)
            continue
        ledger.judge(record, reason)
        if not reason and not is_aside:
            entity.next = record.offset + 1
            entities[record.key_text] = entity
    for record in without_place:
        ledger.judge(record, None, has_place(fold, records, ledger, entities, without_place, record))
    return entities


def has_place(fold, records, ledger, entities, without_place, record):
    """Whether an entity, folded with this event in its place, would be no older than it is."""
    of_entity = [other for other in records if other.key == record.key and other.verdict is None and not other.reason]
    before = entities.get(record.key_text)
    for placed in ([record], without_place):
        state, last = fold.new(), 0
        for other in of_entity:
            if (other in placed or not ledger.is_aside(other)) and not fold.apply(state, other):
                last = other.offset + 1
        if before is not None and last < before.next:
            return False
    return True


def escape(prefix):
    return "".join(f"\\{c}" if c in "*?[]\\" else c for c in prefix)


def compare_entities(client, options, fold, entities, count):
    prefix = options.prefix
    names = set(client.scan_iter(f"{escape(prefix)}{fold.home_prefix}*", count=1000))
    expected = {f"{prefix}{fold.home_prefix}{key}": (key, entity) for key, entity in entities.items()}
    for name in sorted(names - set(expected)):
        count.add("differences", f"{name} is there, and no event was taken for it")
    pipe = client.pipeline(transaction=False)
    for name in expected:
        pipe.hgetall(name)
    for (name, (key, entity)), found in zip(expected.items(), pipe.execute()):
        count.counts["compared"] += 1
        if not found:
            count.add("differences", f"{name} is not there")
            continue
        compare_entity(name, fold.fields(key, entity.state), entity, found, options.redriven, count)


def compare_entity(name, fields, entity, found, redriven, count):
    *place, revision = found.pop("_version", "").rsplit(":", 3)
    found.pop("_state", None)
    version = [*place, revision]
    # An entity that was folded anew has a revision: only where somebody asked for that.
    is_folded_anew = redriven and revision.isdigit()
    if place[1:] != [str(entity.partition), str(entity.next)] or (revision != "0" and not is_folded_anew):
        count.add("differences", f"{name}: version {version}, expected partition {entity.partition}, next {entity.next}")
        return
    expected = {field: value for field, value in fields.items() if value is not None}
    for field in sorted(set(expected) | set(found)):
        if not same_field(expected.get(field), found.get(field)):
            count.add("differences", f"{name}.{field} is {found.get(field)!r}, expected {expected.get(field)!r}")
            return


def same_field(expected, found):
    """Numbers as numbers, JSON as JSON, everything else as text."""
    if expected is None or found is None:
        return expected is found
    if isinstance(expected, bool):
        return found == ("true" if expected else "false")
    if isinstance(expected, (int, float)):
        return float(found) == float(expected)
    if isinstance(expected, (dict, list)):
        return json.loads(found) == expected
    return found == expected


# --- history -----------------------------------------------------------------------------------------------------------


def history(options, records, topics, projections, found_ledgers, count):
    with psycopg.connect(options.postgres) as connection:
        for topic in topics:
            projection = "telemetry-history" if topic == "telemetry" else "event-history"
            if projection not in projections:
                continue
            expected, ledger = {}, found_ledgers[(projection, topic)]
            for record in records[topic]:
                if record.verdict == "duplicate":
                    continue
                ledger.judge(record, record.reason)
                if not record.reason and not ledger.is_aside(record):
                    expected[(record.partition, record.offset)] = record
            compare_rows(connection, topic, expected, count)


def compare_rows(connection, topic, expected, count):
    columns = folds.ROW_COLUMNS[topic]
    def ms(column):
        return f"round(extract(epoch FROM {column}) * 1000)::bigint"

    query = (f"SELECT log_partition, log_offset, event_id, {ms('recorded_at')}, {ms('occurred_at')}, "
             f"site_uid, unit_uid, source, {', '.join(columns)} FROM {TABLES[topic]}")
    places, ids = collections.Counter(), collections.Counter()
    for row in connection.execute(query):
        place = row[:2]
        places[place] += 1
        ids[row[2]] += 1
        record = expected.get(place)
        if record is None:
            count.add("differences", f"{TABLES[topic]} has a row of {place}, which was not to be taken")
            continue
        count.counts["compared"] += 1
        meta = record.event["meta"]
        wanted = (record.event_id, record.timestamp_ms, log.milliseconds(meta["occurred_at"]), meta["site_uid"],
                  meta["unit_uid"], meta["source"], *(folds.row_value(record, column) for column in columns))
        if row[2:] != wanted:
            count.add("differences", f"{TABLES[topic]} {place}: {row[2:]}, expected {wanted}")
    for place in expected:
        if not places[place]:
            count.add("lost", f"{TABLES[topic]} has no row of {place}")
    for place, rows in places.items():
        if rows > 1:
            count.add("doubled", f"{TABLES[topic]} has {rows} rows of {place}", rows - 1)
    for event_id, rows in ids.items():
        # More rows of one event id than positions that were to be taken (an id of another key counts by itself).
        wanted = sum(record.event_id == event_id for record in expected.values()) if rows > 1 else 1
        if rows > wanted > 0 and not any(places[place] > 1 for place in places):
            count.add("doubled", f"{TABLES[topic]} has {rows} rows of event {event_id}", rows - wanted)


# --- the task ledger ---------------------------------------------------------------------------------------------------


def task_ledger(options, records, ledger, count):
    fold = folds.LEDGER
    entities = fold_all(fold, records, ledger)
    times = ", ".join(f"round(extract(epoch FROM {name}) * 1000)::bigint" for name in fold.TIMES)
    query = f"SELECT task_id, fold_partition, fold_next, {times}, {', '.join(fold.COLUMNS)} FROM {fold.table}"
    with psycopg.connect(options.postgres) as connection:
        found = {row[0]: row[1:] for row in connection.execute(query)}
        compare_milestones(connection, fold, entities, count)
    for key in sorted(set(found) - set(entities)):
        count.add("differences", f"{fold.table} has a row of {key}, and no event was taken for it")
    for key, entity in entities.items():
        count.counts["compared"] += 1
        wanted = (entity.partition, entity.next, *fold.row(entity.state))
        if key not in found:
            count.add("differences", f"{fold.table} has no row of {key}")
        elif found[key] != wanted:
            count.add("differences", f"{fold.table} {key}: {found[key]}, expected {wanted}")


def compare_milestones(connection, fold, entities, count):
    query = ("SELECT task_id, round(extract(epoch FROM recorded_at) * 1000)::bigint, site_uid, task_type, run, milestone, "
             "total_ms FROM task_milestone")
    found = collections.Counter(tuple(row) for row in connection.execute(query))
    expected = collections.Counter((key, *milestone) for key, entity in entities.items()
                                   for milestone in fold.milestones(entity.state))
    for milestone in (found - expected).keys():
        count.add("doubled" if milestone in expected else "differences", f"task_milestone has {milestone} too often")
    for milestone in (expected - found).keys():
        count.add("lost", f"task_milestone has no {milestone}")


if __name__ == "__main__":
    main()
