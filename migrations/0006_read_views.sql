-- Views for people, from history and the ledger alone. A unit's events lie in one partition, so their offsets are their order.

-- Each unit as it is now, as hot state has it: Decommissioned ends all that was known of a unit, until Registered or Connected
-- begin it anew; what else comes in between (a stale last will) changes nothing.
CREATE VIEW fleet_now AS
WITH units AS NOT MATERIALIZED (
    SELECT site_uid, unit_uid,
           max(recorded_at)                                                                  AS recorded_at,
           coalesce(max(log_offset) FILTER (WHERE event_type IN ('Registered', 'Connected')), -1) AS back,
           coalesce(max(log_offset) FILTER (WHERE event_type = 'Decommissioned'), -1)        AS gone
    FROM unit_event
    GROUP BY site_uid, unit_uid
), lives AS NOT MATERIALIZED (
    -- The first event of what is known of it now: that which brought it back, or its Decommissioned.
    SELECT u.site_uid, u.unit_uid, u.back, u.gone, coalesce(min(e.log_offset), 0) AS begins
    FROM units u
    LEFT JOIN unit_event e
      ON e.unit_uid = u.unit_uid AND e.site_uid = u.site_uid AND u.gone >= 0 AND e.log_offset > least(u.gone, u.back)
     AND (u.gone > u.back AND e.event_type = 'Decommissioned'
          OR u.gone < u.back AND e.event_type IN ('Registered', 'Connected') AND e.log_offset > u.gone)
    GROUP BY u.site_uid, u.unit_uid, u.back, u.gone
), told AS NOT MATERIALIZED (
    SELECT e.site_uid, e.unit_uid, e.event_type, e.reason, e.mode, e.fault_id, e.fault_type, e.recorded_at, e.log_offset
    FROM unit_event e JOIN lives l ON l.site_uid = e.site_uid AND l.unit_uid = e.unit_uid
    WHERE e.log_offset = l.begins OR (e.log_offset > l.begins AND l.gone <= l.back)
), life AS (
    SELECT DISTINCT ON (site_uid, unit_uid) site_uid, unit_uid, event_type, reason, recorded_at
    FROM told
    WHERE event_type IN ('Connected', 'Disconnected', 'Decommissioned')
    ORDER BY site_uid, unit_uid, log_offset DESC
), modes AS (
    SELECT DISTINCT ON (site_uid, unit_uid) site_uid, unit_uid, mode
    FROM told
    WHERE event_type = 'ModeChanged'
    ORDER BY site_uid, unit_uid, log_offset DESC
), faults AS (
    SELECT DISTINCT ON (site_uid, unit_uid, fault_id) site_uid, unit_uid, fault_type, event_type
    FROM told
    WHERE event_type IN ('FaultRaised', 'FaultCleared')
    ORDER BY site_uid, unit_uid, fault_id, log_offset DESC
), open_faults AS (
    SELECT site_uid, unit_uid, count(*) AS faults, array_agg(DISTINCT fault_type ORDER BY fault_type) AS fault_types
    FROM faults
    WHERE event_type = 'FaultRaised'
    GROUP BY site_uid, unit_uid
)
SELECT u.site_uid,
       u.unit_uid,
       CASE l.event_type WHEN 'Connected' THEN 'online' WHEN 'Disconnected' THEN 'offline'
                         WHEN 'Decommissioned' THEN 'decommissioned' ELSE 'unknown' END AS connection,
       l.reason,
       l.recorded_at                    AS connection_recorded_at,
       m.mode,
       coalesce(f.faults, 0)            AS faults,
       f.fault_types,
       t.battery_percent,
       t.charging,
       t.driving,
       t.map_id,
       t.x_m,
       t.y_m,
       t.recorded_at                    AS telemetry_recorded_at,
       w.task_id,
       w.status                         AS task_status,
       greatest(u.recorded_at, t.recorded_at) AS recorded_at
FROM units u
LEFT JOIN life l        ON l.site_uid = u.site_uid AND l.unit_uid = u.unit_uid
LEFT JOIN modes m       ON m.site_uid = u.site_uid AND m.unit_uid = u.unit_uid
LEFT JOIN open_faults f ON f.site_uid = u.site_uid AND f.unit_uid = u.unit_uid
LEFT JOIN LATERAL (
    SELECT * FROM telemetry t WHERE t.unit_uid = u.unit_uid AND t.site_uid = u.site_uid
    ORDER BY t.recorded_at DESC, t.log_offset DESC LIMIT 1
) t ON true
LEFT JOIN LATERAL (
    SELECT w.task_id, w.status FROM t_app_task_ledger2 w
    WHERE w.unit_uid = u.unit_uid AND w.site_uid = u.site_uid AND w.status IN ('assigned', 'started', 'paused')
    ORDER BY w.started_at IS NULL, w.priority DESC, w.created_at LIMIT 1
) w ON true;

COMMENT ON VIEW   fleet_now                        IS 'each unit that an event told of, as it is now by history alone';
COMMENT ON COLUMN fleet_now.site_uid               IS 'the site';
COMMENT ON COLUMN fleet_now.unit_uid               IS 'the unit';
COMMENT ON COLUMN fleet_now.connection             IS 'online, offline, decommissioned, or unknown where no event told';
COMMENT ON COLUMN fleet_now.reason                 IS 'why it disconnected or was decommissioned';
COMMENT ON COLUMN fleet_now.connection_recorded_at IS 'when fleetlog took that in';
COMMENT ON COLUMN fleet_now.mode                   IS 'its operating mode';
COMMENT ON COLUMN fleet_now.faults                 IS 'how many faults hold';
COMMENT ON COLUMN fleet_now.fault_types            IS 'their kinds';
COMMENT ON COLUMN fleet_now.battery_percent        IS 'the last measurement: state of charge, 0 to 100';
COMMENT ON COLUMN fleet_now.charging               IS 'the last measurement: whether it is being charged';
COMMENT ON COLUMN fleet_now.driving                IS 'the last measurement: whether it moves or turns';
COMMENT ON COLUMN fleet_now.map_id                 IS 'the last measurement: which map the position is on';
COMMENT ON COLUMN fleet_now.x_m                    IS 'the last measurement: position on the map, metres';
COMMENT ON COLUMN fleet_now.y_m                    IS 'the last measurement: position on the map, metres';
COMMENT ON COLUMN fleet_now.telemetry_recorded_at  IS 'the last measurement: when fleetlog took it in';
COMMENT ON COLUMN fleet_now.task_id                IS 'the task it works on; if several, the one begun first, then the most urgent';
COMMENT ON COLUMN fleet_now.task_status            IS 'assigned, started or paused';
COMMENT ON COLUMN fleet_now.recorded_at            IS 'when fleetlog last heard of it';

-- What happened to a task, step by step. All events of a task lie in one partition; also those whose source has a clock that
-- SQL cannot hold: their durations are NULL.
CREATE VIEW task_timeline AS
SELECT task_id,
       number,
       event_type,
       site_uid,
       unit_uid,
       step_id,
       step_status,
       reason,
       occurred_at,
       recorded_at,
       CASE WHEN isfinite(occurred_at) AND isfinite(previous_at)
            THEN (extract(epoch FROM occurred_at - previous_at) * 1000)::bigint END AS since_previous_ms,
       CASE WHEN isfinite(occurred_at) AND isfinite(first_at)
            THEN (extract(epoch FROM occurred_at - first_at) * 1000)::bigint END    AS since_first_ms,
       log_partition,
       log_offset
FROM (SELECT e.*,
             row_number() OVER in_order             AS number,
             lag(occurred_at) OVER in_order         AS previous_at,
             first_value(occurred_at) OVER in_order AS first_at
      FROM task_event e
      WINDOW in_order AS (PARTITION BY task_id ORDER BY log_partition, log_offset)) e;

COMMENT ON VIEW   task_timeline                   IS 'the events of each task in log order, possible or not; ask for one task_id';
COMMENT ON COLUMN task_timeline.task_id           IS 'the task';
COMMENT ON COLUMN task_timeline.number            IS 'the how many-th event of the task, from 1';
COMMENT ON COLUMN task_timeline.event_type        IS 'the event''s type, such as Created';
COMMENT ON COLUMN task_timeline.site_uid          IS 'the site that told';
COMMENT ON COLUMN task_timeline.unit_uid          IS 'the unit involved';
COMMENT ON COLUMN task_timeline.step_id           IS 'which step (StepChanged)';
COMMENT ON COLUMN task_timeline.step_status       IS 'the step''s status now (StepChanged)';
COMMENT ON COLUMN task_timeline.reason            IS 'why it was paused, failed, cancelled, reassigned or rejected';
COMMENT ON COLUMN task_timeline.occurred_at       IS 'time at the source, by its own clock';
COMMENT ON COLUMN task_timeline.recorded_at       IS 'when fleetlog took it in';
COMMENT ON COLUMN task_timeline.since_previous_ms IS 'since the event before, by the clocks of the sources, ms; negative where they contradict each other';
COMMENT ON COLUMN task_timeline.since_first_ms    IS 'since the task''s first event, by the clocks of the sources, ms';
COMMENT ON COLUMN task_timeline.log_partition     IS 'partition of the event';
COMMENT ON COLUMN task_timeline.log_offset        IS 'offset of the event in its partition';

-- Connected time by day (UTC), by when fleetlog heard of it: a last will carries the time its connection began.
CREATE VIEW unit_availability_daily AS
WITH marks AS (
    SELECT site_uid, unit_uid, event_type, recorded_at, log_partition, log_offset,
           coalesce(max(log_offset) FILTER (WHERE event_type = 'Decommissioned') OVER earlier, -1)            AS gone,
           coalesce(max(log_offset) FILTER (WHERE event_type IN ('Registered', 'Connected')) OVER earlier, -1) AS back
    FROM unit_event
    WHERE event_type IN ('Registered', 'Connected', 'Disconnected', 'Decommissioned') AND isfinite(recorded_at)
    WINDOW earlier AS (PARTITION BY site_uid, unit_uid ORDER BY log_partition, log_offset)
), changes AS (
    -- A clock that was turned back makes no hour count twice: a change is never earlier than those before it. Of a unit that
    -- left the fleet, a stale last will tells nothing.
    SELECT site_uid, unit_uid, event_type, log_partition, log_offset,
           max(recorded_at) OVER (PARTITION BY site_uid, unit_uid ORDER BY log_partition, log_offset) AS since
    FROM marks
    WHERE event_type <> 'Registered' AND NOT (event_type = 'Disconnected' AND gone > back)
), spans AS (
    SELECT site_uid, unit_uid, event_type, since,
           least(coalesce(lead(since) OVER (PARTITION BY site_uid, unit_uid ORDER BY log_partition, log_offset), now()),
                 now()) AS until
    FROM changes
), days AS (
    SELECT s.*, day
    FROM spans s,
         LATERAL generate_series(date_trunc('day', s.since AT TIME ZONE 'UTC'), s.until AT TIME ZONE 'UTC', interval '1 day') day
    WHERE s.event_type <> 'Decommissioned' AND s.until >= s.since
)
SELECT site_uid,
       unit_uid,
       day::date                                                                              AS day,
       sum(told_s)                                                                            AS known_s,
       coalesce(sum(told_s) FILTER (WHERE event_type = 'Connected'), 0)                       AS online_s,
       coalesce(sum(told_s) FILTER (WHERE event_type = 'Connected'), 0) / nullif(sum(told_s), 0) AS availability,
       count(*) FILTER (WHERE event_type = 'Disconnected' AND (since AT TIME ZONE 'UTC')::date = day::date) AS disconnects
FROM (SELECT d.*, extract(epoch FROM least(until AT TIME ZONE 'UTC', day + interval '1 day')
                                     - greatest(since AT TIME ZONE 'UTC', day))::double precision AS told_s
      FROM days d) told
GROUP BY site_uid, unit_uid, day;

COMMENT ON VIEW   unit_availability_daily              IS 'how long each unit was connected, by day (UTC), from the first event that told';
COMMENT ON COLUMN unit_availability_daily.site_uid     IS 'the site';
COMMENT ON COLUMN unit_availability_daily.unit_uid     IS 'the unit';
COMMENT ON COLUMN unit_availability_daily.day          IS 'the day, in UTC';
COMMENT ON COLUMN unit_availability_daily.known_s      IS 'seconds of the day of which it is known whether it was connected; a day not over counts until now';
COMMENT ON COLUMN unit_availability_daily.online_s     IS 'seconds of the day that it was connected';
COMMENT ON COLUMN unit_availability_daily.availability IS 'their share, 0 to 1';
COMMENT ON COLUMN unit_availability_daily.disconnects  IS 'how often it disconnected on that day';
