"""A month of a fleet, as somebody planned it: what happens to each task and unit, and what must be told of it afterwards.

What is expected is not folded from events but written down with the plan: a task that is to be completed has a row that says
so. So it shares neither code nor method with fleetlog.
"""

import collections
import datetime
import heapq
import itertools
import math
import random
import uuid

EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
# The month in which Europe turns its clocks back (2026-10-25 01:00 UTC).
START_MS = (datetime.datetime(2026, 10, 1, tzinfo=datetime.timezone.utc) - EPOCH) // datetime.timedelta(milliseconds=1)
HOUR_MS, DAY_MS = 3_600_000, 86_400_000
MONTH_MS = 31 * DAY_MS
TURNED_BACK_MS = START_MS + 24 * DAY_MS + HOUR_MS
SITES, UNITS_PER_SITE = 20, 100
TYPES = ("delivery", "transport", "return")
REASONS = ("lost", "timeout", "blocked")
WEIGHTS = {  # fates of tasks, in thousandths
    "completed": 800, "failed": 50, "cancelled": 40, "rejected": 10, "open": 30, "no start": 20, "two ends": 5,
    "late": 10, "paused": 20, "reassigned": 15,
}
LEDGER = ("task_id", "site_uid", "unit_uid", "task_type", "priority", "external_id", "status", "created_at", "assigned_at",
          "started_at", "finished_at", "wait_ms", "work_ms", "total_ms", "failure_reason", "step_count", "steps_finished",
          "assignments", "pauses", "created_recorded_at", "finished_recorded_at")


class Month:
    """What was planned so far, and what is expected of it."""

    def __init__(self, tasks, seed):
        self.tasks, self.random = tasks, random.Random(seed)
        self.ledger, self.timeline = [], []
        self.hours = collections.defaultdict(lambda: [0, 0, 0, 0, 0, []])
        self.working = {}
        self.days = collections.defaultdict(lambda: [0, 0, 0])
        self.connections = []
        self.set_aside = 0
        self.events = 0

    def all_events(self):
        """(recorded_ms, topic, key, event type, event), in the order in which they are recorded."""
        parts = heapq.merge(self._units(), self._tasks(), self._ends_of_nobody(), key=lambda event: event[0])
        for event in parts:
            self.events += 1
            yield event

    # --- tasks ---

    def _tasks(self):
        """Tasks begin evenly over the month; their events are merged by time."""
        waiting, count = [], itertools.count()
        fates = self.random.choices(list(WEIGHTS), weights=list(WEIGHTS.values()), k=self.tasks)
        for number, fate in enumerate(fates):
            created_ms = START_MS + number * (MONTH_MS - 6 * HOUR_MS) // self.tasks
            while waiting and waiting[0][0] <= created_ms:
                yield heapq.heappop(waiting)[2]
            for event in self._task(number, created_ms, fate):
                # Of the same millisecond the one that was planned first.
                heapq.heappush(waiting, (event[0], next(count), event))
        while waiting:
            yield heapq.heappop(waiting)[2]

    def _task(self, number, created_ms, fate):
        site, unit = f"{500 + number % SITES}", f"{self.random.randrange(UNITS_PER_SITE):04}"
        task = Task(self, f"month-{number:07}", site, unit, created_ms)
        task.create(TYPES[self.random.randrange(3)], self.random.randrange(5), self.random.randrange(3),
                    f"order-{number}" if number % 3 == 0 else None)
        work_ms = int(min(self.random.lognormvariate(5, 1), 5 * 3600) * 1000)
        if fate == "rejected":
            task.end("Rejected", 2000, reason=self.random.choice(REASONS), update_id=None, detail=None)
        elif fate == "open":
            task.until(self.random.randrange(4))
        elif fate == "cancelled" and number % 2:
            task.end("Cancelled", work_ms, reason="no longer wanted", detail=None)
        elif fate == "no start":
            task.assign(5000)
            task.end("Completed", work_ms, failed_steps=0)
        else:
            task.assign(5000)
            if fate == "reassigned":
                task.reassign(7000, f"{self.random.randrange(UNITS_PER_SITE):04}")
            task.start(15_000)
            if fate == "paused":
                task.pause_and_resume(20_000, 60_000)
            task.finish_steps(1000)
            if fate == "failed":
                task.end("Failed", work_ms, reason=self.random.choice(REASONS), detail=None)
            elif fate == "cancelled":
                task.end("Cancelled", work_ms, reason="no longer wanted", detail=None)
            else:
                # A month late, as far as the month goes.
                late_ms = START_MS + MONTH_MS - 1000 - number % 1000 * 1000 - task.at_ms if fate == "late" else 0
                task.end("Completed", late_ms if late_ms > 0 else work_ms, failed_steps=0)
            if fate == "two ends":
                task.end_again(1000)
        task.written_down()
        return task.planned

    def _ends_of_nobody(self):
        """Ends of tasks that nobody created: set aside."""
        for number in range(self.tasks // 1000):
            at_ms = START_MS + (number + 1) * (MONTH_MS // (self.tasks // 1000 + 2))
            task = Task(self, f"nobody-{number:05}", "500", "0001", at_ms)
            task.say("Completed", 0, failed_steps=0)
            self.set_aside += 1
            self.timeline.append((task.task_id, 1, 0))
            yield from task.planned

    # --- units ---

    def _units(self):
        """Connections of every unit: between one and two days online, up to two hours away."""
        changes = []
        for site in range(SITES):
            for number in range(UNITS_PER_SITE):
                changes.append(self._unit(f"{500 + site}", f"{number:04}"))
        return heapq.merge(*changes, key=lambda event: event[0])

    def _unit(self, site, unit):
        rng = random.Random(f"{site}.{unit}.{self.tasks}")
        at_ms, is_online, spans = START_MS + rng.randrange(DAY_MS), False, []
        while at_ms < START_MS + MONTH_MS:
            is_online = not is_online
            spans.append((at_ms, is_online))
            event = {"protocol": None} if is_online else {"reason": "broken"}
            yield self._event("robot", f"s{site}.u{unit}", "Connected" if is_online else "Disconnected", at_ms, at_ms,
                              site, unit, event)
            at_ms += rng.randrange(DAY_MS, 2 * DAY_MS) if is_online else rng.randrange(1000, 2 * HOUR_MS)
        self.connections.append((site, unit, "online" if is_online else "offline", None if is_online else "broken"))
        for (since_ms, online), (until_ms, _) in zip(spans, [*spans[1:], (START_MS + MONTH_MS, None)]):
            self._span(site, unit, since_ms, until_ms, online)

    def _span(self, site, unit, since_ms, until_ms, is_online):
        for day in range((since_ms - START_MS) // DAY_MS, (until_ms - 1 - START_MS) // DAY_MS + 1):
            begins = START_MS + day * DAY_MS
            told_ms = min(until_ms, begins + DAY_MS) - max(since_ms, begins)
            of_day = self.days[site, unit, day]
            of_day[0] += told_ms
            of_day[1] += told_ms if is_online else 0
            of_day[2] += not is_online and since_ms >= begins

    def _event(self, topic, key, event_type, recorded_ms, occurred_ms, site, unit, fields):
        meta = {
            "event_id": uuid.UUID(int=self.random.getrandbits(128)).bytes,
            "occurred_at": occurred_ms, "recorded_at": recorded_ms, "site_uid": site, "unit_uid": unit,
            "sequence": None, "sequence_scope": None, "source": "month.py/1", "correlation_id": None, "causation_id": None,
        }
        return (recorded_ms, topic, key, event_type, {"meta": meta, **fields})


class Task:
    """One task: what is sent of it, and the row that it must become."""

    def __init__(self, month, task_id, site, unit, at_ms):
        self.month, self.task_id, self.site, self.unit, self.at_ms = month, task_id, site, unit, at_ms
        self.planned, self.occurred = [], []
        self.row = dict.fromkeys(LEDGER) | {"task_id": task_id, "site_uid": site, "assignments": 0, "pauses": 0,
                                            "steps_finished": 0, "step_count": 0}

    def say(self, event_type, after_ms, **fields):
        """The task's next event, `after_ms` later; the time at its source."""
        self.at_ms += after_ms
        occurred_ms = self.at_ms
        # For an hour the clocks of half of the sites are an hour behind what was.
        if TURNED_BACK_MS <= self.at_ms < TURNED_BACK_MS + HOUR_MS and int(self.site) % 2:
            occurred_ms -= HOUR_MS
        self.occurred.append(occurred_ms)
        self.planned.append(self.month._event("task", self.task_id, event_type, self.at_ms, occurred_ms, self.site,
                                              self.unit, {"task_id": self.task_id, **fields}))
        return occurred_ms

    def create(self, task_type, priority, steps, external_id):
        plan = [{"step_id": f"{step}", "step_type": "pick", "node_id": None} for step in range(steps)]
        created_at = self.say("Created", 0, task_type=task_type, priority=priority, external_id=external_id, steps=plan,
                              parameters={})
        self.row |= {"task_type": task_type, "priority": priority, "external_id": external_id, "step_count": steps,
                     "status": "created", "unit_uid": self.unit, "created_at": created_at,
                     "created_recorded_at": self.at_ms}
        self.month.hours[self.site, task_type, self.at_ms // HOUR_MS][0] += 1

    def assign(self, after_ms):
        self.row |= {"status": "assigned", "assigned_at": self.say("Assigned", after_ms)}
        self.row["assignments"] += 1

    def reassign(self, after_ms, unit):
        self.unit = unit
        at = self.say("Reassigned", after_ms, from_unit_uid=None, reason="battery")
        self.row |= {"status": "assigned", "assigned_at": at, "unit_uid": unit}
        self.row["assignments"] += 1

    def start(self, after_ms):
        self.row |= {"status": "started", "started_at": self.say("Started", after_ms)}

    def pause_and_resume(self, after_ms, for_ms):
        self.say("Paused", after_ms, reason="door")
        self.say("Resumed", for_ms)
        self.row["pauses"] += 1

    def until(self, how_far):
        """Goes so far and stays there."""
        if how_far > 0:
            self.assign(5000)
        if how_far > 1:
            self.start(15_000)
        if how_far > 2:
            self.say("Paused", 20_000, reason="door")
            self.row |= {"status": "paused", "pauses": 1}
        if how_far > 0:
            rank = (self.row["started_at"] is None, -self.row["priority"], self.row["created_at"])
            place = (self.site, self.unit)
            found = (rank, self.task_id, self.row["status"])
            self.month.working[place] = min(self.month.working.get(place, found), found)

    def finish_steps(self, each_ms):
        for step in range(self.row["step_count"]):
            self.say("StepChanged", each_ms, step_id=f"{step}", step_type=None, status="finished", result=None)
            self.row["steps_finished"] += 1

    def end(self, event_type, after_ms, **fields):
        finished_at = self.say(event_type, after_ms, **fields)
        row, status = self.row, event_type.lower()
        row |= {"status": status, "finished_at": finished_at, "finished_recorded_at": self.at_ms,
                "failure_reason": fields.get("reason")}
        row["total_ms"] = elapsed(row["created_at"], finished_at)
        row["work_ms"] = elapsed(row["started_at"], finished_at)
        of_hour = self.month.hours[self.site, row["task_type"], self.at_ms // HOUR_MS]
        of_hour[1 + ("completed", "failed", "cancelled", "rejected").index(status)] += 1
        if status == "completed" and row["total_ms"] is not None:
            of_hour[5].append(row["total_ms"])

    def end_again(self, after_ms):
        """Changes nothing: no task ends twice."""
        self.say("Failed", after_ms, reason="lost", detail=None)
        self.month.set_aside += 1

    def written_down(self):
        self.row["wait_ms"] = elapsed(self.row["created_at"], self.row["started_at"])
        self.month.ledger.append(tuple(self.row[name] for name in LEDGER))
        self.month.timeline.append((self.task_id, len(self.planned), self.occurred[-1] - self.occurred[0]))


def elapsed(start, end):
    """None where a clock says that the end came first."""
    return end - start if start is not None and end is not None and end >= start else None


def percentile(values, share):
    """As SQL has it (percentile_cont): between the two nearest in proportion."""
    values = sorted(values)
    place = share * (len(values) - 1)
    below, above = values[math.floor(place)], values[math.ceil(place)]
    return below + (above - below) * (place - math.floor(place))
