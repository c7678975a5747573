-- Gaps in what units told.

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
