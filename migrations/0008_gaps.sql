-- Gaps in what units told, and views of 0006 that say what hot state says where a unit left the fleet.

-- --- numbers of messages ----------------------------------------------------------------------------------------------------

-- One row per message that carries its source's counter. Only events that stand for one message each are counted: a state
-- message with three new faults is one message, and its telemetry row carries its counter.
CREATE VIEW unit_sequence AS
WITH numbered AS (
    SELECT site_uid, unit_uid, sequence_scope, sequence, recorded_at, log_partition, log_offset
    FROM telemetry
    WHERE sequence IS NOT NULL AND sequence_scope IS NOT NULL
    UNION ALL
    SELECT site_uid, unit_uid, sequence_scope, sequence, recorded_at, log_partition, log_offset
    FROM unit_event
    WHERE sequence IS NOT NULL AND sequence_scope IS NOT NULL AND event_type IN ('Connected', 'Disconnected')
), neighbours AS (
    SELECT n.*, lag(sequence) OVER in_log AS before, lead(sequence) OVER in_log AS after
    FROM numbered n
    WINDOW in_log AS (PARTITION BY site_uid, unit_uid, sequence_scope ORDER BY log_partition, log_offset)
), counts AS (
    -- A counter that begins anew stays low; after a message that came late it goes on where it was. As floating point, since
    -- the difference of two 64-bit numbers may be none.
    SELECT n.*,
           count(*) FILTER (WHERE before::double precision - sequence > 100 AND coalesce(after <= before, true))
               OVER (PARTITION BY site_uid, unit_uid, sequence_scope ORDER BY log_partition, log_offset) AS run
    FROM neighbours n
), told AS (
    SELECT c.*,
           row_number() OVER (PARTITION BY site_uid, unit_uid, sequence_scope, run, sequence
                              ORDER BY log_partition, log_offset) > 1  AS is_repeat,
           first_value(sequence) OVER in_run                           AS first_sequence,
           max(sequence) OVER (in_run ROWS UNBOUNDED PRECEDING)        AS highest
    FROM counts c
    WINDOW in_run AS (PARTITION BY site_uid, unit_uid, sequence_scope, run ORDER BY log_partition, log_offset)
), placed AS (
    SELECT t.*,
           lag(sequence) OVER by_number    AS lower,
           lag(recorded_at) OVER by_number AS lower_recorded_at
    FROM told t
    WINDOW by_number AS (PARTITION BY site_uid, unit_uid, sequence_scope, run, is_repeat ORDER BY sequence)
)
SELECT site_uid,
       unit_uid,
       split_part(sequence_scope, '#', 1)                                  AS channel,
       sequence_scope,
       run,
       sequence,
       recorded_at,
       is_repeat,
       NOT is_repeat AND sequence < highest                                AS is_late,
       CASE WHEN is_counted THEN lower END                                 AS previous_sequence,
       CASE WHEN is_counted THEN lower_recorded_at END                     AS previous_recorded_at,
       CASE WHEN is_counted THEN sequence::numeric - lower - 1 ELSE 0 END  AS missing,
       log_partition,
       log_offset
FROM (SELECT p.*, NOT is_repeat AND sequence > first_sequence AS is_counted FROM placed p) p;

COMMENT ON VIEW   unit_sequence                      IS 'the counters in each unit''s messages, one row a message. A count is one sequence_scope in log order; it begins anew (run) where the number falls by more than 100 and does not go on above it with the next message. In a count a number is missing if it lies between the first and the highest and never came; one that came late fills its gap, a repeat counts once';
COMMENT ON COLUMN unit_sequence.site_uid             IS 'the site';
COMMENT ON COLUMN unit_sequence.unit_uid             IS 'the unit';
COMMENT ON COLUMN unit_sequence.channel              IS 'the channel, such as state: the scope without its incarnation';
COMMENT ON COLUMN unit_sequence.sequence_scope       IS 'what sequence counts: channel#incarnation';
COMMENT ON COLUMN unit_sequence.run                  IS 'how often the counter began anew within its scope before';
COMMENT ON COLUMN unit_sequence.sequence             IS 'the number';
COMMENT ON COLUMN unit_sequence.recorded_at          IS 'when fleetlog took the message in';
COMMENT ON COLUMN unit_sequence.is_repeat            IS 'whether the number came before in this count';
COMMENT ON COLUMN unit_sequence.is_late              IS 'whether a higher number came before it';
COMMENT ON COLUMN unit_sequence.previous_sequence    IS 'the next lower number that came in this count, early or late; none for the first, and for repeats';
COMMENT ON COLUMN unit_sequence.previous_recorded_at IS 'when fleetlog took that one in';
COMMENT ON COLUMN unit_sequence.missing              IS 'how many numbers between the two never came';
COMMENT ON COLUMN unit_sequence.log_partition        IS 'partition of the event';
COMMENT ON COLUMN unit_sequence.log_offset           IS 'offset of the event in its partition';

-- The same columns as before, and one more. A message that came late was a reset and a gap before; it is neither.
CREATE OR REPLACE VIEW unit_gaps AS
SELECT site_uid,
       unit_uid,
       channel,
       count(*)                                       AS messages,
       count(*) FILTER (WHERE missing > 0)            AS gaps,
       coalesce(sum(missing), 0)                      AS missing,
       count(DISTINCT (sequence_scope, run)) - 1      AS resets,
       count(*) FILTER (WHERE is_repeat)              AS repeats,
       count(*) FILTER (WHERE is_late)                AS late
FROM unit_sequence
GROUP BY site_uid, unit_uid, channel;

COMMENT ON VIEW   unit_gaps          IS 'what the counters of each unit''s channels say about lost, late and repeated messages (unit_sequence says by which rules); unit_gap_list lists the gaps';
COMMENT ON COLUMN unit_gaps.gaps     IS 'how often numbers are missing in a row';
COMMENT ON COLUMN unit_gaps.missing  IS 'how many numbers are missing';
COMMENT ON COLUMN unit_gaps.resets   IS 'how often the counter began anew: by a new incarnation in its scope, or by going back';
COMMENT ON COLUMN unit_gaps.repeats  IS 'how many messages repeat a number';
COMMENT ON COLUMN unit_gaps.late     IS 'how many messages came after one of a higher number';

-- --- each gap ---------------------------------------------------------------------------------------------------------------

-- Silence is measured between neighbours in log order, by fleetlog's clock: where that was turned back, the step is negative
-- and no gap, and later steps count as ever.
CREATE VIEW unit_gap_list AS
WITH heard AS (
    SELECT site_uid, unit_uid, recorded_at, occurred_at,
           lead(recorded_at) OVER in_log   AS next_recorded_at,
           lead(occurred_at) OVER in_log   AS next_occurred_at,
           lead(log_partition) OVER in_log AS next_partition,
           lead(log_offset) OVER in_log    AS next_offset
    FROM telemetry
    WHERE isfinite(recorded_at)
    WINDOW in_log AS (PARTITION BY site_uid, unit_uid ORDER BY log_partition, log_offset)
)
SELECT site_uid,
       unit_uid,
       'silence'                                                               AS kind,
       NULL::text                                                              AS sequence_scope,
       recorded_at                                                             AS begins_at,
       next_recorded_at                                                        AS ends_at,
       extract(epoch FROM coalesce(next_recorded_at, now()) - recorded_at)::double precision AS seconds,
       CASE WHEN isfinite(occurred_at) AND isfinite(next_occurred_at)
            THEN extract(epoch FROM next_occurred_at - occurred_at)::double precision END    AS device_seconds,
       NULL::bigint                                                            AS last_before,
       NULL::bigint                                                            AS first_after,
       NULL::numeric                                                           AS missing,
       next_partition                                                          AS log_partition,
       next_offset                                                             AS log_offset
FROM heard
WHERE coalesce(next_recorded_at, now()) - recorded_at >= interval '10 seconds'
UNION ALL
SELECT site_uid, unit_uid, 'sequence', sequence_scope,
       least(previous_recorded_at, recorded_at), greatest(previous_recorded_at, recorded_at),
       CASE WHEN isfinite(previous_recorded_at) AND isfinite(recorded_at)
            THEN abs(extract(epoch FROM recorded_at - previous_recorded_at))::double precision END,
       NULL, previous_sequence, sequence, missing, log_partition, log_offset
FROM unit_sequence
WHERE missing > 0;

COMMENT ON VIEW   unit_gap_list                IS 'gaps of each unit, one row each: silence (no telemetry on any channel for 10 s or more; ask for seconds > N) and missing numbers (unit_sequence says by which rules). Ask for one unit';
COMMENT ON COLUMN unit_gap_list.site_uid       IS 'the site';
COMMENT ON COLUMN unit_gap_list.unit_uid       IS 'the unit';
COMMENT ON COLUMN unit_gap_list.kind           IS 'silence or sequence';
COMMENT ON COLUMN unit_gap_list.sequence_scope IS 'sequence: which counter';
COMMENT ON COLUMN unit_gap_list.begins_at      IS 'when fleetlog took in the message before the gap';
COMMENT ON COLUMN unit_gap_list.ends_at        IS 'when it took in the message after it; NULL: silent still (also of a unit that signed off or left the fleet)';
COMMENT ON COLUMN unit_gap_list.seconds        IS 'from one to the other, by fleetlog''s clock; a clock set forward in between looks like silence: see device_seconds';
COMMENT ON COLUMN unit_gap_list.device_seconds IS 'silence: the same by the unit''s own clock, right or wrong';
COMMENT ON COLUMN unit_gap_list.last_before    IS 'sequence: the number below the gap';
COMMENT ON COLUMN unit_gap_list.first_after    IS 'sequence: the number above it';
COMMENT ON COLUMN unit_gap_list.missing        IS 'sequence: how many numbers between them never came';
COMMENT ON COLUMN unit_gap_list.log_partition  IS 'partition of the event after the gap';
COMMENT ON COLUMN unit_gap_list.log_offset     IS 'offset of the event after the gap';

-- --- the fleet as it is now -------------------------------------------------------------------------------------------------

-- As hot state has it: Decommissioned ends all that was known of a unit, until Registered or Connected begin it anew; what
-- else comes in between (a stale last will) changes nothing.
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

-- --- a task's life ----------------------------------------------------------------------------------------------------------

-- All events, also those whose source has a clock that SQL cannot hold: their durations are NULL.
CREATE OR REPLACE VIEW task_timeline AS
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

-- --- availability -----------------------------------------------------------------------------------------------------------

CREATE OR REPLACE VIEW unit_availability_daily AS
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
