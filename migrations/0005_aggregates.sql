-- Tasks by the hour and telemetry by the minute: continuous aggregates on TimescaleDB, views of the same names, columns and
-- results on plain PostgreSQL.

-- --- what became of tasks, as facts that are only added ------------------------------------------------------------------

ALTER TABLE t_app_task_ledger2 ADD COLUMN earlier jsonb NOT NULL DEFAULT '[]';
COMMENT ON COLUMN t_app_task_ledger2.earlier IS 'where the id was used again more than 7 days after its task''s end: the tasks before, each with site, type, status, times recorded (ms since 1970) and total_ms';

-- A ledger row changes; an aggregate by the hour needs facts that do not. Added in the transaction of the ledger's row, so
-- that each is there once, whatever is killed, and however late an end comes.
CREATE TABLE task_milestone (
    recorded_at timestamptz NOT NULL,
    site_uid    text        NOT NULL,
    task_type   text        NOT NULL,
    task_id     text        NOT NULL,
    run         integer     NOT NULL,
    milestone   text        NOT NULL,
    total_ms    bigint
);
--timescale: SELECT create_hypertable('task_milestone', by_range('recorded_at', INTERVAL '30 days'), create_default_indexes => false);
CREATE INDEX task_milestone_time ON task_milestone (recorded_at);
CREATE INDEX task_milestone_task ON task_milestone (task_id);

COMMENT ON TABLE  task_milestone             IS 'creation and end of each task, a row each, where its time recorded is of the years 1 to 9999; kept in step with t_app_task_ledger2 by triggers on it';
COMMENT ON COLUMN task_milestone.recorded_at IS 'when fleetlog took it in';
COMMENT ON COLUMN task_milestone.site_uid    IS 'the site that created the task';
COMMENT ON COLUMN task_milestone.task_type   IS 'the task''s kind';
COMMENT ON COLUMN task_milestone.task_id     IS 'the task';
COMMENT ON COLUMN task_milestone.run         IS 'how many tasks before had its id';
COMMENT ON COLUMN task_milestone.milestone   IS 'created, completed, failed, cancelled or rejected';
COMMENT ON COLUMN task_milestone.total_ms    IS 'of an end: from created to finished, ms; NULL where the clocks contradict each other';

-- A record's timestamp is whatever its producer says; one that is of no year from 1 to 9999 is of no hour either, and some of
-- those a hypertable refuses.
CREATE FUNCTION fleetlog_has_hour(recorded_at timestamptz) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT recorded_at >= '0001-01-01 00:00:00+00' AND recorded_at < '10000-01-01 00:00:00+00'
$$;
COMMENT ON FUNCTION fleetlog_has_hour(timestamptz) IS 'whether a time is of the years 1 to 9999';

-- The milestones of the tasks that had a row's id before.
-- VOLATILE keeps it from being inlined: TimescaleDB's planner then fails with `variable not found in subplan target list`.
CREATE FUNCTION fleetlog_earlier_milestones(task_id text, earlier jsonb) RETURNS SETOF task_milestone LANGUAGE sql VOLATILE AS $$
    SELECT at.recorded_at, one ->> 'site_uid', one ->> 'task_type', task_id, number::integer - 1, at.milestone, at.total_ms
    FROM jsonb_array_elements(earlier) WITH ORDINALITY AS before (one, number),
         LATERAL (VALUES (fleetlog_time((one ->> 'created_recorded_at')::bigint), 'created', NULL::bigint),
                         (fleetlog_time((one ->> 'finished_recorded_at')::bigint), one ->> 'status',
                          (one ->> 'total_ms')::bigint)) AS at (recorded_at, milestone, total_ms)
    WHERE fleetlog_has_hour(at.recorded_at)
$$;
COMMENT ON FUNCTION fleetlog_earlier_milestones(text, jsonb) IS 'creation and end of the tasks that had an id before';

-- Triggers keep the plan of their first call, made for the rows that it had. Made for one row it is a nested loop, which over
-- 20,000 rows (a catch-up on the same connection) takes more than ten minutes; made for 20,000 it is dear enough to be compiled
-- (JIT) in each call, which takes half a second for one row. Neither may be, here and in the triggers of migration 7.
CREATE FUNCTION fleetlog_add_milestones() RETURNS trigger LANGUAGE plpgsql
SET jit = off SET enable_nestloop = off AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO task_milestone
        SELECT created_recorded_at, site_uid, task_type, task_id, jsonb_array_length(earlier), 'created', NULL
        FROM after_rows WHERE fleetlog_has_hour(created_recorded_at);
        INSERT INTO task_milestone
        SELECT finished_recorded_at, site_uid, task_type, task_id, jsonb_array_length(earlier), status, total_ms
        FROM after_rows WHERE fleetlog_has_hour(finished_recorded_at);
        INSERT INTO task_milestone
        SELECT m.* FROM after_rows a, fleetlog_earlier_milestones(a.task_id, a.earlier) m WHERE a.earlier <> '[]';
        RETURN NULL;
    END IF;
    INSERT INTO task_milestone
    SELECT a.finished_recorded_at, a.site_uid, a.task_type, a.task_id, jsonb_array_length(a.earlier), a.status, a.total_ms
    FROM after_rows a JOIN before_rows b USING (task_id)
    WHERE fleetlog_has_hour(a.finished_recorded_at) AND (b.finished_recorded_at IS NULL OR a.earlier <> b.earlier);
    -- The id was used again: the tasks in between may have come and gone since the row was last written.
    INSERT INTO task_milestone
    SELECT a.created_recorded_at, a.site_uid, a.task_type, a.task_id, jsonb_array_length(a.earlier), 'created', NULL
    FROM after_rows a JOIN before_rows b USING (task_id)
    WHERE fleetlog_has_hour(a.created_recorded_at) AND a.earlier <> b.earlier;
    INSERT INTO task_milestone
    SELECT m.* FROM after_rows a JOIN before_rows b USING (task_id), fleetlog_earlier_milestones(a.task_id, a.earlier) m
    WHERE a.earlier <> b.earlier AND m.run >= jsonb_array_length(b.earlier)
      AND NOT (m.run = jsonb_array_length(b.earlier)
               AND (m.milestone = 'created' OR b.finished_recorded_at IS NOT NULL));
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION fleetlog_add_milestones() IS 'adds to task_milestone what new forms of ledger rows tell beyond the old ones';

CREATE FUNCTION fleetlog_remove_milestones() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        -- Not deleted: that would decompress what is compressed, row by row, and up to a limit only.
        TRUNCATE task_milestone;
    ELSE
        DELETE FROM task_milestone WHERE task_id IN (SELECT task_id FROM before_rows);
    END IF;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION fleetlog_remove_milestones() IS 'removes from task_milestone what ledger rows told that are removed (for a rebuild)';

CREATE TRIGGER milestones_of_new AFTER INSERT ON t_app_task_ledger2 REFERENCING NEW TABLE AS after_rows
    FOR EACH STATEMENT EXECUTE FUNCTION fleetlog_add_milestones();
CREATE TRIGGER milestones_of_changed AFTER UPDATE ON t_app_task_ledger2
    REFERENCING OLD TABLE AS before_rows NEW TABLE AS after_rows
    FOR EACH STATEMENT EXECUTE FUNCTION fleetlog_add_milestones();
CREATE TRIGGER milestones_of_removed AFTER DELETE ON t_app_task_ledger2 REFERENCING OLD TABLE AS before_rows
    FOR EACH STATEMENT EXECUTE FUNCTION fleetlog_remove_milestones();
CREATE TRIGGER milestones_of_all AFTER TRUNCATE ON t_app_task_ledger2
    FOR EACH STATEMENT EXECUTE FUNCTION fleetlog_remove_milestones();

-- Of tasks that are in the ledger already, none of which has earlier ones yet.
INSERT INTO task_milestone
SELECT created_recorded_at, site_uid, task_type, task_id, 0, 'created', NULL
FROM t_app_task_ledger2 WHERE fleetlog_has_hour(created_recorded_at);
INSERT INTO task_milestone
SELECT finished_recorded_at, site_uid, task_type, task_id, 0, status, total_ms
FROM t_app_task_ledger2 WHERE fleetlog_has_hour(finished_recorded_at);

-- --- tasks by the hour -----------------------------------------------------------------------------------------------------

--plain: CREATE VIEW task_hourly_stats AS
--timescale: CREATE MATERIALIZED VIEW task_hourly_stats
--timescale: WITH (timescaledb.continuous, timescaledb.materialized_only = false) AS
SELECT site_uid,
       task_type,
--plain:        date_bin('1 hour', recorded_at, '2000-01-01 00:00:00+00')                     AS hour,
--timescale:    time_bucket('1 hour', recorded_at)                                            AS hour,
       count(*) FILTER (WHERE milestone = 'created')                                          AS created,
       count(*) FILTER (WHERE milestone = 'completed')                                        AS completed,
       count(*) FILTER (WHERE milestone = 'failed')                                           AS failed,
       count(*) FILTER (WHERE milestone = 'cancelled')                                        AS cancelled,
       count(*) FILTER (WHERE milestone = 'rejected')                                         AS rejected,
       (avg(total_ms) FILTER (WHERE milestone = 'completed'))::double precision               AS avg_total_ms,
       percentile_cont(0.95) WITHIN GROUP (ORDER BY total_ms) FILTER (WHERE milestone = 'completed') AS p95_total_ms
FROM task_milestone
GROUP BY 1, 2, 3
--timescale: WITH NO DATA
;

COMMENT ON VIEW   task_hourly_stats              IS 'tasks by site, type and hour, by when fleetlog took in their creation or end: one that ends late counts in the hour of its end';
COMMENT ON COLUMN task_hourly_stats.site_uid     IS 'the site that created the tasks';
COMMENT ON COLUMN task_hourly_stats.task_type    IS 'their kind';
COMMENT ON COLUMN task_hourly_stats.hour         IS 'the hour''s beginning';
COMMENT ON COLUMN task_hourly_stats.created      IS 'how many were created';
COMMENT ON COLUMN task_hourly_stats.completed    IS 'how many were completed';
COMMENT ON COLUMN task_hourly_stats.failed       IS 'how many failed';
COMMENT ON COLUMN task_hourly_stats.cancelled    IS 'how many were cancelled';
COMMENT ON COLUMN task_hourly_stats.rejected     IS 'how many were rejected';
COMMENT ON COLUMN task_hourly_stats.avg_total_ms IS 'of those completed: from created to finished, ms, on average';
COMMENT ON COLUMN task_hourly_stats.p95_total_ms IS 'of those completed: from created to finished, ms, 95th percentile';

-- --- telemetry by the minute -----------------------------------------------------------------------------------------------

-- Positions in order: the way between those that follow each other on one map, metres.
CREATE FUNCTION fleetlog_way_m(xs double precision[], ys double precision[], maps text[])
RETURNS double precision LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT sum(sqrt((xs[n] - xs[n - 1]) ^ 2 + (ys[n] - ys[n - 1]) ^ 2))
    FROM generate_series(2, array_length(xs, 1)) n
    WHERE maps[n] IS NOT DISTINCT FROM maps[n - 1]
$$;
COMMENT ON FUNCTION fleetlog_way_m(double precision[], double precision[], text[]) IS 'the way along positions in their order, metres; a change of map is no way';

-- Each holds until the next; where no time passes between them, the share of those that are true.
CREATE FUNCTION fleetlog_share_true(flags boolean[], times timestamptz[])
RETURNS double precision LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT coalesce(
        sum(CASE WHEN flags[n] THEN held_s ELSE 0 END) / nullif(sum(held_s), 0),
        (SELECT avg(flag::integer) FROM unnest(flags) flag))::double precision
    FROM (SELECT n, extract(epoch FROM greatest(times[n + 1] - times[n], interval '0')) AS held_s
          FROM generate_series(1, array_length(times, 1) - 1) n) held
$$;
COMMENT ON FUNCTION fleetlog_share_true(boolean[], timestamptz[]) IS 'share of the time during which a flag was true, by what each measurement said until the next';

--plain: CREATE VIEW telemetry_1m AS
--timescale: CREATE MATERIALIZED VIEW telemetry_1m
--timescale: WITH (timescaledb.continuous, timescaledb.materialized_only = false) AS
SELECT site_uid,
       unit_uid,
--plain:        date_bin('1 minute', recorded_at, '2000-01-01 00:00:00+00') AS minute,
--timescale:    time_bucket('1 minute', recorded_at)                        AS minute,
       count(*)                                                            AS measurements,
       (array_agg(battery_percent ORDER BY recorded_at, log_partition, log_offset)
           FILTER (WHERE battery_percent IS NOT NULL))[1]                  AS battery_first_percent,
       (array_agg(battery_percent ORDER BY recorded_at DESC, log_partition DESC, log_offset DESC)
           FILTER (WHERE battery_percent IS NOT NULL))[1]                  AS battery_last_percent,
       min(battery_percent)                                                AS battery_min_percent,
       max(battery_percent)                                                AS battery_max_percent,
       fleetlog_way_m(
           array_agg(x_m ORDER BY recorded_at, log_partition, log_offset) FILTER (WHERE x_m IS NOT NULL AND y_m IS NOT NULL),
           array_agg(y_m ORDER BY recorded_at, log_partition, log_offset) FILTER (WHERE x_m IS NOT NULL AND y_m IS NOT NULL),
           array_agg(map_id ORDER BY recorded_at, log_partition, log_offset) FILTER (WHERE x_m IS NOT NULL AND y_m IS NOT NULL)
       )                                                                   AS distance_m,
       fleetlog_share_true(
           array_agg(driving ORDER BY recorded_at, log_partition, log_offset) FILTER (WHERE driving IS NOT NULL),
           array_agg(recorded_at ORDER BY recorded_at, log_partition, log_offset) FILTER (WHERE driving IS NOT NULL)
       )                                                                   AS driving_share
FROM telemetry
WHERE fleetlog_has_hour(recorded_at)
GROUP BY 1, 2, 3
--timescale: WITH NO DATA
;

COMMENT ON VIEW   telemetry_1m                       IS 'telemetry by unit and minute, by when fleetlog took it in';
COMMENT ON COLUMN telemetry_1m.site_uid              IS 'the site';
COMMENT ON COLUMN telemetry_1m.unit_uid              IS 'the unit';
COMMENT ON COLUMN telemetry_1m.minute                IS 'the minute''s beginning';
COMMENT ON COLUMN telemetry_1m.measurements          IS 'how many measurements';
COMMENT ON COLUMN telemetry_1m.battery_first_percent IS 'state of charge as first told in it';
COMMENT ON COLUMN telemetry_1m.battery_last_percent  IS 'state of charge as last told in it';
COMMENT ON COLUMN telemetry_1m.battery_min_percent   IS 'lowest state of charge';
COMMENT ON COLUMN telemetry_1m.battery_max_percent   IS 'highest state of charge';
COMMENT ON COLUMN telemetry_1m.distance_m            IS 'the way along the minute''s positions, metres, where both lie on one map; what lies between the last of a minute and the first of the next is in neither';
COMMENT ON COLUMN telemetry_1m.driving_share         IS 'share of the time between its first and last measurement during which it drove, 0 to 1';

-- --- policies ----------------------------------------------------------------------------------------------------------------

-- Milestones are kept for ever and refreshed whenever they come, so a rebuild finds its way into old hours.
--timescale: SELECT add_continuous_aggregate_policy('task_hourly_stats', start_offset => NULL, end_offset => INTERVAL '1 hour', schedule_interval => INTERVAL '10 minutes');
-- The topic keeps telemetry for 7 days, so nothing older can come late. What is further back is not looked at again: retention
-- of the measurements leaves their minutes alone, and these can be compressed.
--timescale: SELECT add_continuous_aggregate_policy('telemetry_1m', start_offset => INTERVAL '8 days', end_offset => INTERVAL '1 minute', schedule_interval => INTERVAL '1 minute');
--timescale: ALTER TABLE task_milestone SET (timescaledb.compress, timescaledb.compress_segmentby = 'site_uid, task_type', timescaledb.compress_orderby = 'recorded_at, task_id');
--timescale: SELECT add_compression_policy('task_milestone', INTERVAL '60 days');
--timescale: ALTER MATERIALIZED VIEW telemetry_1m SET (timescaledb.compress = true);
--timescale: SELECT add_compression_policy('telemetry_1m', INTERVAL '9 days');
