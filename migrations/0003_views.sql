-- Views for people.

-- Counters of a unit's channels, in log order. All events of a unit lie in one partition, so its offsets are their
-- order. Only events that stand for one message each are counted: a state message with three new faults is one
-- message, and its telemetry row carries its counter.
CREATE VIEW unit_gaps AS
WITH counted AS (
    SELECT site_uid, unit_uid, split_part(sequence_scope, '#', 1) AS channel, sequence, log_partition, log_offset
    FROM telemetry
    WHERE sequence IS NOT NULL AND sequence_scope IS NOT NULL
    UNION ALL
    SELECT site_uid, unit_uid, split_part(sequence_scope, '#', 1), sequence, log_partition, log_offset
    FROM unit_event
    WHERE sequence IS NOT NULL AND sequence_scope IS NOT NULL AND event_type IN ('Connected', 'Disconnected')
), stepped AS (
    SELECT site_uid, unit_uid, channel, sequence,
           lag(sequence) OVER (PARTITION BY site_uid, unit_uid, channel ORDER BY log_partition, log_offset) AS previous
    FROM counted
)
SELECT site_uid,
       unit_uid,
       channel,
       count(*)                                                                             AS messages,
       count(*) FILTER (WHERE sequence > previous + 1)                                      AS gaps,
       coalesce(sum(sequence - previous - 1) FILTER (WHERE sequence > previous + 1), 0)     AS missing,
       count(*) FILTER (WHERE sequence < previous)                                          AS resets,
       count(*) FILTER (WHERE sequence = previous)                                          AS repeats
FROM stepped
GROUP BY site_uid, unit_uid, channel;

COMMENT ON VIEW   unit_gaps          IS 'what the counters of each unit''s channels say about lost and repeated messages, in log order';
COMMENT ON COLUMN unit_gaps.site_uid IS 'the site';
COMMENT ON COLUMN unit_gaps.unit_uid IS 'the unit';
COMMENT ON COLUMN unit_gaps.channel  IS 'the channel, such as state';
COMMENT ON COLUMN unit_gaps.messages IS 'how many messages carried a counter';
COMMENT ON COLUMN unit_gaps.gaps     IS 'how often the counter jumped forward by more than one';
COMMENT ON COLUMN unit_gaps.missing  IS 'how many numbers these jumps left out';
COMMENT ON COLUMN unit_gaps.resets   IS 'how often it went back';
COMMENT ON COLUMN unit_gaps.repeats  IS 'how often it stood still';

-- The last thing that is known of each unit's connection.
CREATE VIEW unit_connection AS
SELECT DISTINCT ON (site_uid, unit_uid)
       site_uid, unit_uid, event_type AS connection, reason, occurred_at, recorded_at
FROM unit_event
WHERE event_type IN ('Connected', 'Disconnected')
ORDER BY site_uid, unit_uid, log_partition, log_offset DESC;

COMMENT ON VIEW   unit_connection             IS 'the last Connected or Disconnected of each unit, in log order';
COMMENT ON COLUMN unit_connection.site_uid    IS 'the site';
COMMENT ON COLUMN unit_connection.unit_uid    IS 'the unit';
COMMENT ON COLUMN unit_connection.connection  IS 'Connected or Disconnected';
COMMENT ON COLUMN unit_connection.reason      IS 'why it disconnected';
COMMENT ON COLUMN unit_connection.occurred_at IS 'time at the source';
COMMENT ON COLUMN unit_connection.recorded_at IS 'when fleetlog took it in';

-- What was set aside and waits for a decision.
CREATE VIEW set_aside_open AS
SELECT projection, version, topic, reason, count(*) AS events, min(made_at) AS first_made_at, max(made_at) AS last_made_at
FROM fleetlog_set_aside
WHERE status = 'open'
GROUP BY projection, version, topic, reason;

COMMENT ON VIEW   set_aside_open               IS 'open set-asides by projection, topic and reason';
COMMENT ON COLUMN set_aside_open.projection    IS 'the projection''s id';
COMMENT ON COLUMN set_aside_open.version       IS 'the projection''s version';
COMMENT ON COLUMN set_aside_open.topic         IS 'the topic''s physical name';
COMMENT ON COLUMN set_aside_open.reason        IS 'why';
COMMENT ON COLUMN set_aside_open.events        IS 'how many events';
COMMENT ON COLUMN set_aside_open.first_made_at IS 'when the first of them was set aside';
COMMENT ON COLUMN set_aside_open.last_made_at  IS 'when the last of them was set aside';
