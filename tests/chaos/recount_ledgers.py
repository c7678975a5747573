"""Ledgers and dead letters as recount.py judges them: what was set aside, what became of it, and who was told.

Without redrives a ledger names exactly what the rules reject, all of it open. With them projectors rejected one in 16 events
that they should have taken (by its id: `log.is_rejected_wrongly`), and the ledger says which of these, and what hung on them,
came in later. Then the entry decides whether an event counts, and is judged itself:

- no entry: the event counts, so the rules have to take it;
- `redriven`: it counts, so the rules have to take it, and there was a reason to set it aside wrongly;
- `open`, `parked`: it does not count, and the rules reject it, for the entry's reason. For everything that could be taken was
  redriven to the end. Only one that has no place stays (`no_place`): folded with it, its entity would become older.
"""

import collections
import json

import recount_log as log

TAKEN, NOT_TAKEN = ("redriven",), ("open", "parked")
# What hangs on an event of its task before it may be rejected too.
HANGS_ON_OTHERS = ("task-state", "task-ledger")
REASONS_OF_THESE = {"unknown_task", "impossible_transition", "no_place"}

Entry = collections.namedtuple("Entry", "reason state replays")


class Ledger:
    """What a projection's ledgers say of the records of a topic."""

    def __init__(self, projection, records, entries, redrives, count):
        self.projection, self.entries, self.redrives, self.count = projection, entries, redrives, count
        # place: (record, reasons of which its letters may tell)
        self.asides = {}
        self.records = {record.place: record for record in records}
        self.judged = set()
        wrongly = {record.key for record in records if log.is_rejected_wrongly(record)}
        self.touched = wrongly if projection in HANGS_ON_OTHERS else set()

    def is_aside(self, record):
        """Whether the ledger alone keeps the event out: only where redrives are followed."""
        entry = self.entries.get(record.place)
        return self.redrives and entry is not None and entry.state in NOT_TAKEN

    def reasons(self, record):
        """For what a well event may have been set aside at some time."""
        reasons = {"out_of_range"} if log.is_rejected_wrongly(record) else set()
        return reasons | (REASONS_OF_THESE if record.key in self.touched else set())

    def may_be_aside(self, record):
        return self.redrives and record.verdict is None and not record.reason and bool(self.reasons(record))

    def judge(self, record, reason, has_place=True):
        """What the entry says of a record, against what the rules do with it: `reason`, or none if they take it."""
        self.judged.add(record.place)
        entry = self.entries.get(record.place)
        if entry is None:
            if reason:
                self.asides[record.place] = (record, {reason})
                self.wrong(record, entry, reason)
            return
        allowed = self.reasons(record) if self.may_be_aside(record) else set()
        self.asides[record.place] = (record, allowed | ({reason} if reason else set()))
        if not self.redrives:
            if (entry.reason, entry.state, entry.replays) != (reason, "open", 0):
                self.wrong(record, entry, reason)
        elif entry.state in TAKEN:
            self.count.counts["redriven"] += 1
            if reason or not allowed:
                self.wrong(record, entry, reason)
        elif entry.state in NOT_TAKEN:
            self.count.counts["rejected_again"] += entry.replays > 0
            no_place = entry.reason == "no_place" and not has_place and bool(allowed)
            if entry.reason != reason and not no_place:
                self.wrong(record, entry, reason)
        else:
            self.wrong(record, entry, reason)

    def surplus(self):
        """Entries of what is no event that counts: once everything is judged."""
        for place in sorted(set(self.entries) - self.judged):
            self.count.add("set_aside_wrong", f"{self.projection} {place}: {self.entries[place]}, of no event to be looked at")

    def wrong(self, record, entry, reason):
        self.count.add("set_aside_wrong", f"{self.projection} {record.place}: {entry}, by the rules {reason}")


def of_hot(client, prefix, projection, topic):
    """The entries of all lanes in Redis, by place."""
    entries = {}
    for partition in range(log.PARTITIONS):
        name = f"{prefix}fleetlog:{prefix}{projection}@1:{prefix}{topic}:{partition}:set_aside"
        for offset, text in client.hgetall(name).items():
            entry = json.loads(text)
            entries[(topic, partition, int(offset))] = Entry(
                entry["reason"], entry.get("state", "open"), entry.get("replays", 0))
    return entries


def of_sql(connection, prefix, projection, topic):
    """The same in PostgreSQL."""
    query = ("SELECT partition, log_offset, reason, status, replays FROM fleetlog_set_aside "
             "WHERE projection = %s AND topic = %s")
    rows = connection.execute(query, [projection, f"{prefix}{topic}"])
    return {(topic, partition, offset): Entry(*entry) for partition, offset, *entry in rows}


# --- dead letters ------------------------------------------------------------------------------------------------------


class Letter:
    """A dead letter by its own headers: whose, of which place, why, and after how many replays."""

    def __init__(self, prefix, record, is_parked):
        text = {name: value for name, value in record.headers if name.startswith("fleetlog-dlq-")}
        get = lambda name: (text.get(f"fleetlog-dlq-{name}") or b"").decode()
        self.record, self.is_parked = record, is_parked
        self.projection = get("group").removeprefix(f"{prefix}fleetlog-").removesuffix("-v1")
        self.place = (get("topic").removeprefix(prefix), int(get("partition")), int(get("offset")))
        self.reason, self.detail, self.replays = get("reason"), get("detail"), int(get("replay-count"))
        self.identity = (self.projection, self.place)

    def is_of(self, record):
        """Byte for byte."""
        kept = self.record.headers[: len(record.headers)]
        return (self.record.key, self.record.value, kept) == (record.key, record.value, record.headers)


def compare_letters(cluster, prefix, ledgers, topics, without, tails_lost, count):
    """`ledgers` by projection and topic. Each entry has its letters, one for each time that it was rejected; twice is allowed,
    and so is one more: it was published, and who published it was killed before that counted."""
    letters = collections.defaultdict(list)
    for topic in topics:
        for suffix in ("dlq", "parking"):
            for record in cluster.read(f"{topic}-{suffix}", number_of_partitions=None):
                letter = Letter(prefix, record, suffix == "parking")
                # Those of handlers are looked at where the handler is: chaos/faults/handlers.rs.
                if letter.projection not in without and not letter.projection.startswith("webhook-"):
                    letters[letter.identity].append(letter)
    for (projection, _topic), ledger in ledgers.items():
        for place, aside in ledger.asides.items():
            compare_of_aside(ledger, aside, letters.pop((projection, place), []), tails_lost, count)
    for found in letters.values():
        for letter in found:
            compare_of_taken(ledgers, letter, count)


def compare_of_aside(ledger, aside, letters, tails_lost, count):
    record, reasons = aside
    entry = ledger.entries.get(record.place) or log_only()
    what = f"{ledger.projection} {record.place}"
    times = collections.Counter(letter.replays for letter in letters)
    for replays in range(entry.replays + 1):
        if not times[replays]:
            count.add("dead_letters_wrong", f"{what} has no dead letter of its rejection number {replays}")
    count.counts["dead_letters_twice"] += sum(number - 1 for number in times.values() if number > 1)
    for letter in letters:
        if not letter.is_of(record) or letter.reason not in reasons:
            count.add("dead_letters_wrong", f"{what}: not its bytes, headers or reason ({letter.reason}, {reasons})")
        elif letter.replays > entry.replays + bool(ledger.redrives) and not tails_lost:
            count.add("dead_letters_wrong", f"{what}: a letter of replay {letter.replays}, the ledger counts {entry.replays}")
        elif letter.is_parked and not (ledger.redrives and letter.replays > 0):
            count.add("dead_letters_wrong", f"{what}: parked without having been redriven")
    is_told = any(letter.is_parked and letter.replays == entry.replays for letter in letters)
    if entry.state == "parked" and not is_told:
        count.add("dead_letters_wrong", f"{what} is parked, and has no letter on the parking topic")


def compare_of_taken(ledgers, letter, count):
    """A letter of an event that no ledger names: where redrives are followed its publisher may have been killed before the entry
    was written, and another have taken the event; everywhere else there is none."""
    ledger = ledgers.get((letter.projection, letter.place[0]))
    record = ledger.records.get(letter.place) if ledger else None
    if record is None or not ledger.may_be_aside(record):
        count.add("dead_letters_wrong", f"{letter.identity} was not to be set aside: {letter.reason} {letter.detail}")
    elif not letter.is_of(record) or letter.reason not in ledger.reasons(record):
        count.add("dead_letters_wrong", f"{letter.identity}: not its bytes, headers or reason ({letter.reason})")


def log_only():
    """Of what is to be set aside and is in no ledger: one letter all the same."""
    return Entry(None, "open", 0)
