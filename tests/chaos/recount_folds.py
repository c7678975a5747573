"""The folds as recount.py has them: what DESIGN §5, docs/events.md and the heads of the projections say, once more.

A fold has `apply(state, record)`, which changes the state or gives the reason why not (and then changes nothing), and
`fields(key, state)`: what readers are shown, absent where None.
"""

import datetime

from recount_log import EPOCH, milliseconds

ROW_COLUMNS = {
    "telemetry": ["channel", "x_m", "y_m", "heading_rad", "map_id", "latitude_deg", "longitude_deg", "battery_percent",
                  "charging", "speed_m_s", "driving", "paused", "last_node_id", "task_id", "localized", "new_base_request", "zone_set_id",
                  "information", "sequence", "sequence_scope"],
    "robot": ["event_type", "payload", "sequence", "sequence_scope"],
    "task": ["event_type", "task_id", "payload", "sequence", "sequence_scope"],
}


def row_value(record, column):
    """What a column of a row has to hold."""
    if column == "event_type":
        return record.event_type
    if column in ("sequence", "sequence_scope"):
        return record.event["meta"][column]
    if column == "information":
        return without_nul(record.event[column]) or None
    if column == "payload":
        return {name: value for name, value in record.event.items() if name != "meta"}
    return record.event.get(column)


def time_text(time_ms):
    if time_ms is None:
        return None
    time = EPOCH + datetime.timedelta(milliseconds=time_ms)
    return time.strftime("%Y-%m-%dT%H:%M:%S.") + f"{time_ms % 1000:03d}Z"


class Entity:
    def __init__(self, state, partition, next_offset):
        self.state, self.partition, self.next = state, partition, next_offset


class UnitConsensus:
    projection, topic, home_prefix, list_prefixes = "unit-consensus", "telemetry", "UnitConsensus@", ["seen:"]
    LAST_KNOWN = ["x_m", "y_m", "heading_rad", "latitude_deg", "longitude_deg", "battery_percent", "charging", "speed_m_s",
                  "driving", "paused", "map_id", "last_node_id", "task_id", "localized", "new_base_request", "zone_set_id"]

    def new(self):
        return {}

    def apply(self, state, record):
        event, meta = record.event, record.event["meta"]
        for name in self.LAST_KNOWN:
            if event.get(name) is not None:
                state[name] = event[name]
        if event.get("information"):
            state["information"] = event["information"]
        for name in ("site_uid", "unit_uid", "source", "sequence", "sequence_scope"):
            state[name] = meta[name]
        state["channel"] = event["channel"]
        state["occurred_at"] = milliseconds(meta["occurred_at"])
        state["recorded_at"] = record.timestamp_ms
        return None

    def fields(self, _key, state):
        shown = {name: state.get(name) for name in
                 (*self.LAST_KNOWN, "site_uid", "unit_uid", "source", "sequence", "sequence_scope", "channel")}
        times = {name: time_text(state[name]) for name in ("occurred_at", "recorded_at")}
        return shown | times | {"recorded_at_ms": state["recorded_at"], "information": state.get("information")}

    def places(self, state):
        yield f"seen:{state['site_uid']}", state["recorded_at"]


class UnitStatus:
    projection, topic, home_prefix, list_prefixes = "unit-status", "robot", "unit:", ["online:", "units:"]

    def new(self):
        return {"connection": "unknown", "connects": 0, "faults": {}, "onsets": {}, "doors": {}}

    def apply(self, state, record):
        event, meta, kind = record.event, record.event["meta"], record.event_type
        if state["connection"] == "decommissioned":
            if kind not in ("Registered", "Connected"):
                return None
            state.clear()
            state.update(self.new())
        state["site_uid"], state["unit_uid"] = meta["site_uid"], meta["unit_uid"] or ""
        at = state["occurred_at"] = milliseconds(meta["occurred_at"])
        state["recorded_at"] = record.timestamp_ms
        getattr(self, f"take_{kind}", lambda *_: None)(state, event, at)
        return None

    @staticmethod
    def since(state, name):
        """Never earlier than the change before it, never later than fleetlog heard of it."""
        at = min(state["occurred_at"], state["recorded_at"])
        state[name] = at if state.get(name) is None else max(state[name], at)

    def connect(self, state, connection, reason):
        if (state["connection"], state.get("disconnect_reason")) != (connection, reason):
            self.since(state, "connection_since")
        state["connection"], state["disconnect_reason"] = connection, reason

    def take_Registered(self, state, event, _at):
        state["protocol"] = event["protocol"] if event["protocol"] is not None else state.get("protocol")
        for name in ("unit_type", "manufacturer", "model", "serial_number", "attributes"):
            state[name] = event[name]

    def take_Connected(self, state, event, _at):
        self.connect(state, "online", None)
        state["connects"] += 1
        state["protocol"] = event["protocol"] if event["protocol"] is not None else state.get("protocol")

    def take_Disconnected(self, state, event, _at):
        self.connect(state, "offline", event["reason"])

    def take_ModeChanged(self, state, event, _at):
        if state.get("mode") != event["mode"]:
            self.since(state, "mode_since")
        state["mode"] = event["mode"]

    def take_FaultRaised(self, state, event, at):
        known = state["faults"].get(event["fault_id"])
        if known is None:
            state["onsets"][event["fault_type"]] = state["onsets"].get(event["fault_type"], 0) + 1
        fault = {"fault_id": event["fault_id"], "fault_type": event["fault_type"], "level": event["level"],
                 "since": known["since"] if known else time_text(at)}
        if event["description"] is not None:
            fault["description"] = event["description"]
        if event.get("references"):
            fault["references"] = event["references"]
        state["faults"][event["fault_id"]] = fault

    def take_FaultCleared(self, state, event, _at):
        state["faults"].pop(event["fault_id"], None)

    def take_SafetyChanged(self, state, event, _at):
        state["emergency_stop"], state["field_violation"] = event["emergency_stop"], event["field_violation"]

    def take_LoadChanged(self, state, event, _at):
        sizes = ("length_m", "width_m", "height_m")
        state["loads"] = [{name: value for name, value in load.items() if name not in sizes or value is not None}
                          for load in event["loads"]]

    def take_Authenticated(self, state, event, at):
        state["last_authenticated"], state["last_authentication_accepted"] = event["subject"], event["accepted"]
        state["last_authentication_at"] = at

    def take_DoorChanged(self, state, event, _at):
        state["doors"][event["door"]] = event["state"]

    def take_ActionRequested(self, state, event, at):
        state["last_action_id"], state["last_action_type"] = event["action_id"], event["action_type"]
        state["last_action_at"] = at

    def take_Decommissioned(self, state, event, _at):
        self.since(state, "connection_since")
        kept = {name: state[name] for name in ("site_uid", "unit_uid", "connection_since", "occurred_at", "recorded_at")}
        state.clear()
        state.update(self.new() | kept | {"connection": "decommissioned", "decommission_reason": event["reason"]})

    def fields(self, _key, state):
        plain = ("site_uid", "unit_uid", "connection", "disconnect_reason", "connects", "decommission_reason", "mode",
                 "emergency_stop", "field_violation", "last_action_id", "last_action_type", "last_authenticated",
                 "last_authentication_accepted", "unit_type", "manufacturer", "model", "serial_number", "protocol", "loads")
        shown = {name: state.get(name) for name in plain}
        for name in ("connection_since", "occurred_at", "recorded_at", "mode_since", "last_action_at",
                     "last_authentication_at"):
            shown[name] = time_text(state.get(name))
        shown["fault_count"] = len(state["faults"])
        shown["faults"] = [state["faults"][fault_id] for fault_id in sorted(state["faults"])]
        shown["fault_onsets"] = state["onsets"] or None
        shown["doors"] = state["doors"] or None
        shown["load_count"] = None if state.get("loads") is None else len(state["loads"])
        shown["attributes"] = state.get("attributes") or None
        return shown

    def places(self, state):
        if state["connection"] == "online":
            yield f"online:{state['site_uid']}", state["connection_since"]
        if state["connection"] != "decommissioned":
            yield f"units:{state.get('unit_type') or 'unknown'}", state["connection"] == "online"


class TaskState:
    projection, topic, home_prefix, list_prefixes = "task-state", "task", "task:", ["tasks:active:"]
    ENDS = ("completed", "failed", "cancelled", "rejected")
    WORKING = ("assigned", "started", "paused")
    OPEN = ("created", *WORKING)
    # event: where it is possible, and where it leads (None: stays)
    TRANSITIONS = {
        "Created": (("unknown",), "created"), "Assigned": (("created",), "assigned"), "Started": (("assigned",), "started"),
        "Paused": (("started",), "paused"), "Resumed": (("paused",), "started"), "Reassigned": (WORKING, "assigned"),
        "StepChanged": (WORKING, None), "Completed": (WORKING, "completed"), "Failed": (OPEN, "failed"),
        "Cancelled": (OPEN, "cancelled"), "Rejected": (("created",), "rejected"), "Stalled": ((*OPEN, *ENDS), None),
    }
    KNOWN_AFTER_END_MS = 7 * 24 * 3600 * 1000

    def new(self):
        return {"status": "unknown", "steps": [], "assignments": 0, "pauses": 0, "rejections": {}}

    def apply(self, state, record):
        event, meta, kind = record.event, record.event["meta"], record.event_type
        before = state["status"]
        if state.get("end_recorded_at") is not None:
            if record.timestamp_ms - state["end_recorded_at"] > self.KNOWN_AFTER_END_MS:
                before = "unknown"
        possible, leads_to = self.TRANSITIONS[kind]
        is_update = kind == "Rejected" and event["update_id"] is not None and before not in ("unknown", "created")
        if before not in possible and not is_update:
            return "unknown_task" if before == "unknown" else "impossible_transition"
        if before == "unknown":
            state.clear()
            state.update(self.new())
        if kind == "Stalled":
            state["stalled_at"] = None if before in self.ENDS else record.timestamp_ms
            return None
        state["status"] = before if is_update or leads_to is None else leads_to
        state["stalled_at"] = None
        at = state["occurred_at"] = milliseconds(meta["occurred_at"])
        state["recorded_at"] = record.timestamp_ms
        getattr(self, f"take_{kind}")(state, event, at)
        if state["status"] in self.ENDS and before not in self.ENDS:
            state["ended_at"], state["end_recorded_at"] = at, record.timestamp_ms
            state["reason"], state["detail"] = event.get("reason"), event.get("detail")
            state["paused_at"] = None
        return None

    def take_Created(self, state, event, at):
        meta = event["meta"]
        state.update(created_at=at, site_uid=meta["site_uid"], unit_uid=meta["unit_uid"], task_type=event["task_type"],
                     priority=event["priority"], external_id=event["external_id"], parameters=event["parameters"])
        state["steps"] = [{"step_id": step["step_id"], "step_type": step["step_type"], "node_id": step["node_id"],
                           "status": "waiting", "result": None, "changed_at": None} for step in event["steps"]]

    def take_Assigned(self, state, event, at):
        state.update(paused_at=None, reason=None, unit_uid=event["meta"]["unit_uid"], assigned_at=at)
        state["assignments"] += 1

    take_Reassigned = take_Assigned

    def take_Started(self, state, _event, at):
        if state.get("started_at") is None:
            state["started_at"] = at

    def take_Paused(self, state, event, at):
        state.update(paused_at=at, reason=event["reason"])
        state["pauses"] += 1

    def take_Resumed(self, state, _event, _at):
        state.update(paused_at=None, reason=None)

    def take_StepChanged(self, state, event, at):
        step = next((step for step in state["steps"] if step["step_id"] == event["step_id"]), None)
        if step is None:
            step = {"step_id": event["step_id"], "step_type": None, "node_id": None}
            state["steps"].append(step)
        if event["step_type"] is not None:
            step["step_type"] = event["step_type"]
        step.update(status=event["status"], result=event["result"], changed_at=time_text(at))

    def take_Completed(self, state, event, _at):
        state["failed_steps"] = event["failed_steps"]

    def take_Failed(self, _state, _event, _at):
        pass

    take_Cancelled = take_Failed

    def take_Rejected(self, state, event, _at):
        state["rejections"][event["reason"]] = state["rejections"].get(event["reason"], 0) + 1
        state["rejected_update_id"] = event["update_id"]

    def fields(self, key, state):
        plain = ("site_uid", "unit_uid", "task_type", "priority", "external_id", "reason", "detail", "failed_steps",
                 "assignments", "pauses", "rejected_update_id")
        shown = {name: state.get(name) for name in plain}
        for name in ("created_at", "assigned_at", "started_at", "paused_at", "ended_at", "stalled_at", "occurred_at",
                     "recorded_at"):
            shown[name] = time_text(state.get(name))
        steps = [{name: value for name, value in step.items() if value is not None} for step in state["steps"]]
        shown.update(task_id=key, state=state["status"], parameters=state["parameters"] or None,
                     step_count=len(steps), steps=steps or None,
                     steps_finished=sum(step["status"] == "finished" for step in steps),
                     rejection_count=sum(state["rejections"].values()), rejections=state["rejections"] or None)
        return shown

    def places(self, state):
        if state["status"] not in self.ENDS:
            yield f"tasks:active:{state['site_uid']}", state["priority"]


class TaskLedger(TaskState):
    """The same fold, landing in SQL: a row per task."""

    projection, table = "task-ledger", "t_app_task_ledger2"
    TIMES = ("created_at", "assigned_at", "started_at", "paused_at", "finished_at", "occurred_at", "recorded_at",
             "created_recorded_at", "finished_recorded_at")
    STATE = {"finished_at": "ended_at", "finished_recorded_at": "end_recorded_at"}
    COLUMNS = ("site_uid", "unit_uid", "task_type", "priority", "external_id", "status", "wait_ms", "work_ms", "total_ms",
               "pause_reason", "failure_reason", "failure_detail", "step_count", "steps_finished", "steps_failed", "steps",
               "parameters", "assignments", "pauses", "rejections", "earlier")

    def apply(self, state, record):
        unit_uid = record.event["meta"]["unit_uid"] or ""
        if "\0" in record.key_text or len(unit_uid.encode()) > 512:
            return "invalid_text"
        earlier = state.get("earlier", [])
        if state.get("end_recorded_at") is not None:
            earlier = [*earlier, self.run(state)]
        reason = super().apply(state, record)
        if reason is None and record.event_type == "Created":
            state.update(created_recorded_at=record.timestamp_ms, earlier=earlier)
        return reason

    def run(self, state):
        """One of the tasks of an id, in short."""
        names = ("site_uid", "task_type", "status", "created_recorded_at")
        work_ms = elapsed(state.get("started_at"), state.get("ended_at"))
        return {name: state[name] for name in names} | ({} if work_ms is None else {"work_ms": work_ms}) | {
            "finished_recorded_at": state.get("end_recorded_at"),
            "total_ms": elapsed(state.get("created_at"), state.get("ended_at"))}

    def milestones(self, state):
        """What the row adds to task_milestone."""
        for number, run in enumerate([*state["earlier"], self.run(state)]):
            of_run = (without_nul(run["site_uid"]), without_nul(run["task_type"]), number)
            yield (run["created_recorded_at"], *of_run, "created", None)
            if run["finished_recorded_at"] is not None:
                yield (run["finished_recorded_at"], *of_run, run["status"], run["total_ms"])

    def row(self, state):
        """The columns of `TIMES` (in ms), then those of `COLUMNS`."""
        shown = super().fields(None, state)
        created, started, ended = (state.get(name) for name in ("created_at", "started_at", "ended_at"))
        failed, paused = state["status"] in ("failed", "cancelled", "rejected"), state["status"] == "paused"
        shown.update(
            status=state["status"], wait_ms=elapsed(created, started), work_ms=elapsed(started, ended),
            total_ms=elapsed(created, ended), pause_reason=state.get("reason") if paused else None,
            failure_reason=state.get("reason") if failed else None, failure_detail=state.get("detail") if failed else None,
            steps_failed=sum(step["status"] == "failed" for step in state["steps"]), steps=shown["steps"] or [],
            parameters=state["parameters"], earlier=state["earlier"], rejections=shown["rejection_count"])
        times = [state.get(self.STATE.get(name, name)) for name in self.TIMES]
        return (*times, *(without_nul(shown.get(name)) for name in self.COLUMNS))


def elapsed(start, end):
    return end - start if start is not None and end is not None and end >= start else None


def without_nul(value):
    if isinstance(value, str):
        return value.replace("\0", "\u2400")
    if isinstance(value, list):
        return [without_nul(item) for item in value]
    if isinstance(value, dict):
        return {without_nul(name): without_nul(item) for name, item in value.items()}
    return value


LEDGER = TaskLedger()
ALL = [UnitConsensus(), UnitStatus(), TaskState()]
