-- fleet_now: what was last told of each measured value, as hot state has it, and no longer what the newest measurement tells.

-- Each unit as it is now, as hot state has it: Decommissioned ends all that was known of a unit, until Registered or Connected
-- begin it anew; what else comes in between (a stale last will) changes nothing.
CREATE OR REPLACE VIEW fleet_now AS
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
       coalesce(t.battery_percent, b.battery_percent)       AS battery_percent,
       coalesce(t.charging, b.charging)                     AS charging,
       coalesce(t.driving, b.driving)                       AS driving,
       coalesce(t.map_id, b.map_id)                         AS map_id,
       coalesce(t.x_m, b.x_m)                               AS x_m,
       coalesce(t.y_m, b.y_m)                               AS y_m,
       t.recorded_at                    AS telemetry_recorded_at,
       w.task_id,
       w.status                         AS task_status,
       greatest(u.recorded_at, t.recorded_at) AS recorded_at
FROM units u
LEFT JOIN life l        ON l.site_uid = u.site_uid AND l.unit_uid = u.unit_uid
LEFT JOIN modes m       ON m.site_uid = u.site_uid AND m.unit_uid = u.unit_uid
LEFT JOIN open_faults f ON f.site_uid = u.site_uid AND f.unit_uid = u.unit_uid
-- The newest measurement; and, only where that leaves something open (a visualization message tells of the position alone),
-- what those before it last told, within ten minutes and 600 measurements: a minute at 10 Hz, and a unit tells all of it at least
-- every half minute (VDA 5050, state message). Without the bound in time the planner takes the whole for so dear that it
-- compiles it (JIT), for seconds.
LEFT JOIN LATERAL (
    SELECT * FROM telemetry t WHERE t.unit_uid = u.unit_uid AND t.site_uid = u.site_uid
    ORDER BY t.recorded_at DESC, t.log_offset DESC LIMIT 1
) t ON true
LEFT JOIN LATERAL (
    SELECT (array_agg(battery_percent ORDER BY recorded_at DESC, log_offset DESC) FILTER (WHERE battery_percent IS NOT NULL))[1] AS battery_percent,
           (array_agg(charging ORDER BY recorded_at DESC, log_offset DESC) FILTER (WHERE charging IS NOT NULL))[1] AS charging,
           (array_agg(driving ORDER BY recorded_at DESC, log_offset DESC) FILTER (WHERE driving IS NOT NULL))[1] AS driving,
           (array_agg(map_id ORDER BY recorded_at DESC, log_offset DESC) FILTER (WHERE map_id IS NOT NULL))[1] AS map_id,
           (array_agg(x_m ORDER BY recorded_at DESC, log_offset DESC) FILTER (WHERE x_m IS NOT NULL))[1] AS x_m,
           (array_agg(y_m ORDER BY recorded_at DESC, log_offset DESC) FILTER (WHERE y_m IS NOT NULL))[1] AS y_m
    FROM (SELECT * FROM telemetry b
          WHERE b.unit_uid = u.unit_uid AND b.site_uid = u.site_uid
            AND b.recorded_at BETWEEN t.recorded_at - interval '10 minutes' AND t.recorded_at
          ORDER BY b.recorded_at DESC, b.log_offset DESC LIMIT 600) before
    WHERE num_nulls(t.battery_percent, t.charging, t.driving, t.map_id, t.x_m, t.y_m) > 0
) b ON true
LEFT JOIN LATERAL (
    SELECT w.task_id, w.status FROM t_app_task_ledger2 w
    WHERE w.unit_uid = u.unit_uid AND w.site_uid = u.site_uid AND w.status IN ('assigned', 'started', 'paused')
    ORDER BY w.started_at IS NULL, w.priority DESC, w.created_at LIMIT 1
) w ON true;

COMMENT ON COLUMN fleet_now.battery_percent       IS 'state of charge, 0 to 100, as last told (by the last 600 measurements, within ten minutes)';
COMMENT ON COLUMN fleet_now.charging              IS 'whether it is being charged, as last told';
COMMENT ON COLUMN fleet_now.driving               IS 'whether it moves or turns, as last told';
COMMENT ON COLUMN fleet_now.map_id                IS 'which map the position is on, as last told';
COMMENT ON COLUMN fleet_now.x_m                   IS 'position on the map, metres, as last told';
COMMENT ON COLUMN fleet_now.y_m                   IS 'position on the map, metres, as last told';
COMMENT ON COLUMN fleet_now.telemetry_recorded_at IS 'when fleetlog took in the newest measurement, by the clock of its producer';
