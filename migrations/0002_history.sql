-- History: one row per event, in hypertables or in plain partitioned tables of the same names and columns.
--
-- Lines that begin with `--plain:` or `--timescale:` belong to that flavour of database only; the runner uncovers them.
-- Partition and chunk time is recorded_at (when fleetlog took the event in): a device's clock may say 1970 or 2100.

CREATE TABLE telemetry (
    recorded_at     timestamptz      NOT NULL,
    occurred_at     timestamptz      NOT NULL,
    site_uid        text             NOT NULL,
    unit_uid        text,
    log_partition   integer          NOT NULL,
    log_offset      bigint           NOT NULL,
    event_id        uuid             NOT NULL,
    channel         text,
    x_m             double precision,
    y_m             double precision,
    heading_rad     double precision,
    map_id          text,
    latitude_deg    double precision,
    longitude_deg   double precision,
    battery_percent double precision,
    charging        boolean,
    speed_m_s       double precision,
    driving         boolean,
    paused          boolean,
    last_node_id    text,
    task_id         text,
    sequence        bigint,
    sequence_scope  text,
    source          text             NOT NULL,
    correlation_id  uuid,
    causation_id    uuid
)
--plain: PARTITION BY RANGE (recorded_at)
;
--plain: CREATE TABLE telemetry_default PARTITION OF telemetry DEFAULT;
--timescale: SELECT create_hypertable('telemetry', by_range('recorded_at', INTERVAL '1 day'), create_default_indexes => false);
CREATE INDEX telemetry_unit_time ON telemetry (unit_uid, recorded_at);

COMMENT ON TABLE  telemetry                 IS 'one row per measurement (topic telemetry)';
COMMENT ON COLUMN telemetry.recorded_at     IS 'when fleetlog took it in: the Kafka record''s timestamp';
COMMENT ON COLUMN telemetry.occurred_at     IS 'time at the source, by its own clock';
COMMENT ON COLUMN telemetry.site_uid        IS 'the site, as its source names it';
COMMENT ON COLUMN telemetry.unit_uid        IS 'the unit, as its source names it';
COMMENT ON COLUMN telemetry.log_partition   IS 'partition of the event';
COMMENT ON COLUMN telemetry.log_offset      IS 'offset of the event in its partition';
COMMENT ON COLUMN telemetry.event_id        IS 'identity of the event';
COMMENT ON COLUMN telemetry.channel         IS 'which of the unit''s channels it came by, such as state or visualization';
COMMENT ON COLUMN telemetry.x_m             IS 'position on the map, metres';
COMMENT ON COLUMN telemetry.y_m             IS 'position on the map, metres';
COMMENT ON COLUMN telemetry.heading_rad     IS 'heading on the map, radians';
COMMENT ON COLUMN telemetry.map_id          IS 'which map the position is on';
COMMENT ON COLUMN telemetry.latitude_deg    IS 'WGS 84 latitude, degrees';
COMMENT ON COLUMN telemetry.longitude_deg   IS 'WGS 84 longitude, degrees';
COMMENT ON COLUMN telemetry.battery_percent IS 'state of charge, 0 to 100';
COMMENT ON COLUMN telemetry.charging        IS 'whether it is being charged';
COMMENT ON COLUMN telemetry.speed_m_s       IS 'speed over ground, m/s';
COMMENT ON COLUMN telemetry.driving         IS 'whether it moves or turns';
COMMENT ON COLUMN telemetry.paused          IS 'whether it is paused';
COMMENT ON COLUMN telemetry.last_node_id    IS 'the last node of the route that it reached';
COMMENT ON COLUMN telemetry.task_id         IS 'the task that it works on, or last worked on';
COMMENT ON COLUMN telemetry.sequence        IS 'the source''s own counter';
COMMENT ON COLUMN telemetry.sequence_scope  IS 'what sequence counts: channel#incarnation';
COMMENT ON COLUMN telemetry.source          IS 'which service or bridge made the event, with its version';
COMMENT ON COLUMN telemetry.correlation_id  IS 'the business process it belongs to';
COMMENT ON COLUMN telemetry.causation_id    IS 'the event that caused it';

CREATE TABLE unit_event (
    recorded_at    timestamptz NOT NULL,
    occurred_at    timestamptz NOT NULL,
    site_uid       text        NOT NULL,
    unit_uid       text,
    event_type     text        NOT NULL,
    log_partition  integer     NOT NULL,
    log_offset     bigint      NOT NULL,
    event_id       uuid        NOT NULL,
    reason         text,
    mode           text,
    fault_id       text,
    fault_type     text,
    fault_level    text,
    payload        jsonb       NOT NULL,
    sequence       bigint,
    sequence_scope text,
    source         text        NOT NULL,
    correlation_id uuid,
    causation_id   uuid
)
--plain: PARTITION BY RANGE (recorded_at)
;
--plain: CREATE TABLE unit_event_default PARTITION OF unit_event DEFAULT;
--timescale: SELECT create_hypertable('unit_event', by_range('recorded_at', INTERVAL '30 days'), create_default_indexes => false);
CREATE INDEX unit_event_unit_time ON unit_event (unit_uid, recorded_at);

COMMENT ON TABLE  unit_event                IS 'one row per event of a unit (topic robot)';
COMMENT ON COLUMN unit_event.recorded_at    IS 'when fleetlog took it in: the Kafka record''s timestamp';
COMMENT ON COLUMN unit_event.occurred_at    IS 'time at the source, by its own clock';
COMMENT ON COLUMN unit_event.site_uid       IS 'the site, as its source names it';
COMMENT ON COLUMN unit_event.unit_uid       IS 'the unit, as its source names it';
COMMENT ON COLUMN unit_event.event_type     IS 'the event''s type, such as Connected';
COMMENT ON COLUMN unit_event.log_partition  IS 'partition of the event';
COMMENT ON COLUMN unit_event.log_offset     IS 'offset of the event in its partition';
COMMENT ON COLUMN unit_event.event_id       IS 'identity of the event';
COMMENT ON COLUMN unit_event.reason         IS 'why it disconnected or was decommissioned';
COMMENT ON COLUMN unit_event.mode           IS 'the operating mode it changed to';
COMMENT ON COLUMN unit_event.fault_id       IS 'which fault was raised or cleared';
COMMENT ON COLUMN unit_event.fault_type     IS 'the fault''s kind';
COMMENT ON COLUMN unit_event.fault_level    IS 'how bad the fault is';
COMMENT ON COLUMN unit_event.payload        IS 'the event''s facts, without its head';
COMMENT ON COLUMN unit_event.sequence       IS 'the source''s own counter';
COMMENT ON COLUMN unit_event.sequence_scope IS 'what sequence counts: channel#incarnation';
COMMENT ON COLUMN unit_event.source         IS 'which service or bridge made the event, with its version';
COMMENT ON COLUMN unit_event.correlation_id IS 'the business process it belongs to';
COMMENT ON COLUMN unit_event.causation_id   IS 'the event that caused it';

CREATE TABLE task_event (
    recorded_at    timestamptz NOT NULL,
    occurred_at    timestamptz NOT NULL,
    site_uid       text        NOT NULL,
    unit_uid       text,
    task_id        text        NOT NULL,
    event_type     text        NOT NULL,
    log_partition  integer     NOT NULL,
    log_offset     bigint      NOT NULL,
    event_id       uuid        NOT NULL,
    task_type      text,
    priority       bigint,
    external_id    text,
    step_id        text,
    step_status    text,
    update_id      text,
    reason         text,
    payload        jsonb       NOT NULL,
    sequence       bigint,
    sequence_scope text,
    source         text        NOT NULL,
    correlation_id uuid,
    causation_id   uuid
)
--plain: PARTITION BY RANGE (recorded_at)
;
--plain: CREATE TABLE task_event_default PARTITION OF task_event DEFAULT;
--timescale: SELECT create_hypertable('task_event', by_range('recorded_at', INTERVAL '30 days'), create_default_indexes => false);
CREATE INDEX task_event_task_time ON task_event (task_id, recorded_at);
CREATE INDEX task_event_unit_time ON task_event (unit_uid, recorded_at);

COMMENT ON TABLE  task_event                IS 'one row per event of a task (topic task)';
COMMENT ON COLUMN task_event.recorded_at    IS 'when fleetlog took it in: the Kafka record''s timestamp';
COMMENT ON COLUMN task_event.occurred_at    IS 'time at the source, by its own clock';
COMMENT ON COLUMN task_event.site_uid       IS 'the site, as its source names it';
COMMENT ON COLUMN task_event.unit_uid       IS 'the unit involved, as its source names it; none before one is assigned';
COMMENT ON COLUMN task_event.task_id        IS 'the task: the event''s key';
COMMENT ON COLUMN task_event.event_type     IS 'the event''s type, such as Created';
COMMENT ON COLUMN task_event.log_partition  IS 'partition of the event';
COMMENT ON COLUMN task_event.log_offset     IS 'offset of the event in its partition';
COMMENT ON COLUMN task_event.event_id       IS 'identity of the event';
COMMENT ON COLUMN task_event.task_type      IS 'the task''s kind (Created)';
COMMENT ON COLUMN task_event.priority       IS 'the task''s priority (Created)';
COMMENT ON COLUMN task_event.external_id    IS 'the source''s own number of the task (Created)';
COMMENT ON COLUMN task_event.step_id        IS 'which step (StepChanged)';
COMMENT ON COLUMN task_event.step_status    IS 'the step''s status now (StepChanged)';
COMMENT ON COLUMN task_event.update_id      IS 'which update was refused (Rejected)';
COMMENT ON COLUMN task_event.reason         IS 'why it was paused, failed, cancelled, reassigned or rejected';
COMMENT ON COLUMN task_event.payload        IS 'the event''s facts, without its head';
COMMENT ON COLUMN task_event.sequence       IS 'the source''s own counter';
COMMENT ON COLUMN task_event.sequence_scope IS 'what sequence counts: channel#incarnation';
COMMENT ON COLUMN task_event.source         IS 'which service or bridge made the event, with its version';
COMMENT ON COLUMN task_event.correlation_id IS 'the business process it belongs to';
COMMENT ON COLUMN task_event.causation_id   IS 'the event that caused it';

-- Chunks that are no longer written to are compressed; task_event too by unit: tasks are many and short.
--timescale: ALTER TABLE telemetry  SET (timescaledb.compress, timescaledb.compress_segmentby = 'unit_uid', timescaledb.compress_orderby = 'recorded_at, log_offset');
--timescale: ALTER TABLE unit_event SET (timescaledb.compress, timescaledb.compress_segmentby = 'unit_uid', timescaledb.compress_orderby = 'recorded_at, log_offset');
--timescale: ALTER TABLE task_event SET (timescaledb.compress, timescaledb.compress_segmentby = 'unit_uid', timescaledb.compress_orderby = 'task_id, recorded_at, log_offset');
--timescale: SELECT add_compression_policy('telemetry',  INTERVAL '2 days');
--timescale: SELECT add_compression_policy('unit_event', INTERVAL '60 days');
--timescale: SELECT add_compression_policy('task_event', INTERVAL '60 days');
-- Retention of telemetry is a setting: the server keeps the policy (here) or drops partitions (plain) by it.
-- unit_event and task_event are kept for ever, as their topics are.
