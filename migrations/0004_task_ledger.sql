-- The task ledger: one row per task, kept for ever. The fold of projection task-ledger; its exact state and version stand
-- in the same row, so that what people read and what the next event is folded onto change together.

CREATE TABLE t_app_task_ledger2 (
    task_id              text        NOT NULL PRIMARY KEY,
    site_uid             text        NOT NULL,
    unit_uid             text,
    task_type            text        NOT NULL,
    priority             integer     NOT NULL,
    external_id          text,
    status               text        NOT NULL,
    created_at           timestamptz NOT NULL,
    assigned_at          timestamptz,
    started_at           timestamptz,
    paused_at            timestamptz,
    finished_at          timestamptz,
    wait_ms              bigint,
    work_ms              bigint,
    total_ms             bigint,
    pause_reason         text,
    failure_reason       text,
    failure_detail       text,
    step_count           integer     NOT NULL,
    steps_finished       integer     NOT NULL,
    steps_failed         integer     NOT NULL,
    steps                jsonb       NOT NULL,
    parameters           jsonb       NOT NULL,
    assignments          integer     NOT NULL,
    pauses               integer     NOT NULL,
    rejections           integer     NOT NULL,
    occurred_at          timestamptz NOT NULL,
    recorded_at          timestamptz NOT NULL,
    created_recorded_at  timestamptz NOT NULL,
    finished_recorded_at timestamptz,
    fold_log             uuid        NOT NULL,
    fold_partition       integer     NOT NULL,
    fold_next            bigint      NOT NULL,
    fold_revision        integer     NOT NULL,
    fold_state           text        NOT NULL
)
-- A task's row is written again with each batch that has events of it: room on the page for its next form.
WITH (fillfactor = 80);

-- The tasks of a site, and of a unit, by the time of their creation; and what is still to be done.
CREATE INDEX t_app_task_ledger2_site_created ON t_app_task_ledger2 (site_uid, created_at);
CREATE INDEX t_app_task_ledger2_unit_created ON t_app_task_ledger2 (unit_uid, created_at);
CREATE INDEX t_app_task_ledger2_open ON t_app_task_ledger2 (site_uid, priority DESC, created_at) INCLUDE (status)
    WHERE status IN ('created', 'assigned', 'started', 'paused');

COMMENT ON TABLE  t_app_task_ledger2                      IS 'one row per task (topic task), as its events so far make it; times are those of the source';
COMMENT ON COLUMN t_app_task_ledger2.task_id              IS 'the task: the key of its events';
COMMENT ON COLUMN t_app_task_ledger2.site_uid             IS 'the site that created it';
COMMENT ON COLUMN t_app_task_ledger2.unit_uid             IS 'the unit that has it, had it last, or is to have it';
COMMENT ON COLUMN t_app_task_ledger2.task_type            IS 'its kind';
COMMENT ON COLUMN t_app_task_ledger2.priority             IS 'higher is sooner';
COMMENT ON COLUMN t_app_task_ledger2.external_id          IS 'the source''s own number of it';
COMMENT ON COLUMN t_app_task_ledger2.status               IS 'created, assigned, started, paused (open); completed, failed, cancelled, rejected (over)';
COMMENT ON COLUMN t_app_task_ledger2.created_at           IS 'when it was created';
COMMENT ON COLUMN t_app_task_ledger2.assigned_at          IS 'when a unit got it; the last time if several did';
COMMENT ON COLUMN t_app_task_ledger2.started_at           IS 'when work began; the first time';
COMMENT ON COLUMN t_app_task_ledger2.paused_at            IS 'since when it is paused, while it is';
COMMENT ON COLUMN t_app_task_ledger2.finished_at          IS 'when it was completed, failed, cancelled or rejected';
COMMENT ON COLUMN t_app_task_ledger2.wait_ms              IS 'from created to started, ms; NULL where the clocks contradict each other';
COMMENT ON COLUMN t_app_task_ledger2.work_ms              IS 'from started to finished, ms, pauses included; NULL where the clocks contradict each other';
COMMENT ON COLUMN t_app_task_ledger2.total_ms             IS 'from created to finished, ms; NULL where the clocks contradict each other';
COMMENT ON COLUMN t_app_task_ledger2.pause_reason         IS 'why it is paused, while it is';
COMMENT ON COLUMN t_app_task_ledger2.failure_reason       IS 'why it failed, was cancelled or rejected';
COMMENT ON COLUMN t_app_task_ledger2.failure_detail       IS 'the same in words';
COMMENT ON COLUMN t_app_task_ledger2.step_count           IS 'how many steps it has, planned or added';
COMMENT ON COLUMN t_app_task_ledger2.steps_finished       IS 'how many of them are finished';
COMMENT ON COLUMN t_app_task_ledger2.steps_failed         IS 'how many of them failed';
COMMENT ON COLUMN t_app_task_ledger2.steps                IS 'the steps in the order of the plan, each with its status';
COMMENT ON COLUMN t_app_task_ledger2.parameters           IS 'further facts of Created';
COMMENT ON COLUMN t_app_task_ledger2.assignments          IS 'how often it was assigned';
COMMENT ON COLUMN t_app_task_ledger2.pauses               IS 'how often it was paused';
COMMENT ON COLUMN t_app_task_ledger2.rejections           IS 'how often a unit refused it, or an update of it';
COMMENT ON COLUMN t_app_task_ledger2.occurred_at          IS 'its last event: time at the source';
COMMENT ON COLUMN t_app_task_ledger2.recorded_at          IS 'its last event: when fleetlog took it in';
COMMENT ON COLUMN t_app_task_ledger2.created_recorded_at  IS 'its creation: when fleetlog took it in';
COMMENT ON COLUMN t_app_task_ledger2.finished_recorded_at IS 'its end: when fleetlog took it in';
COMMENT ON COLUMN t_app_task_ledger2.fold_log             IS 'for fleetlog: the topic''s id';
COMMENT ON COLUMN t_app_task_ledger2.fold_partition       IS 'for fleetlog: the partition of its events';
COMMENT ON COLUMN t_app_task_ledger2.fold_next            IS 'for fleetlog: one past the offset of its last event';
COMMENT ON COLUMN t_app_task_ledger2.fold_revision        IS 'for fleetlog: how often it was folded anew';
COMMENT ON COLUMN t_app_task_ledger2.fold_state           IS 'for fleetlog: the exact state, JSON; what the next event is folded onto';
