-- An index of dead letters: every record on a dead-letter topic as a row, every letter that an action names as another, and a
-- view that counts letters by what failed. Plain tables in both flavours: they are small beside history.

CREATE TABLE dead_letter (
    topic               text    NOT NULL,
    log                 uuid    NOT NULL,
    log_partition       integer NOT NULL,
    log_offset          bigint  NOT NULL,
    place               text    NOT NULL,
    set_aside_ms        bigint  NOT NULL,
    dialect             text    NOT NULL,
    consumer_group      text    NOT NULL,
    reason              text    NOT NULL,
    class               text,
    detail              text    NOT NULL,
    origin              text    NOT NULL,
    origin_log          text,
    origin_topic        text,
    origin_partition    integer,
    origin_offset       bigint,
    source_topic        text,
    record_key          bytea,
    event_type          text,
    recorded_ms         bigint,
    first_failure_ms    bigint,
    last_failure_ms     bigint,
    attempts            bigint,
    replay_count        bigint  NOT NULL,
    writer_schema       text,
    application_version text,
    value_bytes         bigint
);

-- What is counted; and what is recounted. Both are bounded: group and origin have at most 512 bytes.
CREATE INDEX dead_letter_failed ON dead_letter (consumer_group, origin);
CREATE INDEX dead_letter_place  ON dead_letter (topic, log_partition, log_offset);

COMMENT ON TABLE  dead_letter                     IS 'every record on a dead-letter topic, whoever wrote it; kept for ever, the bytes themselves only as long as their topic keeps them';
COMMENT ON COLUMN dead_letter.topic               IS 'the dead-letter topic''s physical name';
COMMENT ON COLUMN dead_letter.log                 IS 'that topic''s id: a recreated topic is another log';
COMMENT ON COLUMN dead_letter.log_partition       IS 'the letter''s partition';
COMMENT ON COLUMN dead_letter.log_offset          IS 'the letter''s offset';
COMMENT ON COLUMN dead_letter.place               IS 'where the letter lies, as fleetlog dlq prints and takes it';
COMMENT ON COLUMN dead_letter.set_aside_ms        IS 'the letter''s timestamp (the broker''s clock), ms since 1970';
COMMENT ON COLUMN dead_letter.dialect             IS 'who wrote it: fleetlog, kafka_connect, spring, platform, unknown';
COMMENT ON COLUMN dead_letter.consumer_group      IS 'the consumer group (of Connect: the connector) that did not take the record, or unknown';
COMMENT ON COLUMN dead_letter.reason              IS 'why: one of fleetlog''s reasons, another tool''s exception, or unknown';
COMMENT ON COLUMN dead_letter.class               IS 'reject or refused; of Kafka Connect the stage';
COMMENT ON COLUMN dead_letter.detail              IS 'what exactly was wrong';
COMMENT ON COLUMN dead_letter.origin              IS 'the record''s topic/partition/offset, or file:line of an import; the letter''s own place where nobody wrote it down';
COMMENT ON COLUMN dead_letter.origin_log          IS 'the id of the record''s topic, where it was told';
COMMENT ON COLUMN dead_letter.origin_topic        IS 'the record''s topic, where its position was told';
COMMENT ON COLUMN dead_letter.origin_partition    IS 'the record''s partition';
COMMENT ON COLUMN dead_letter.origin_offset       IS 'the record''s offset';
COMMENT ON COLUMN dead_letter.source_topic        IS 'the record''s topic, where at least that was told';
COMMENT ON COLUMN dead_letter.record_key          IS 'the record''s key, byte for byte';
COMMENT ON COLUMN dead_letter.event_type          IS 'the event''s full name, where a header tells it';
COMMENT ON COLUMN dead_letter.recorded_ms         IS 'the record''s own timestamp, ms since 1970, where it was told';
COMMENT ON COLUMN dead_letter.first_failure_ms    IS 'when the record failed first, ms since 1970, where it was told';
COMMENT ON COLUMN dead_letter.last_failure_ms     IS 'when the record failed last, ms since 1970, where it was told';
COMMENT ON COLUMN dead_letter.attempts            IS 'how often it was tried, where that was told';
COMMENT ON COLUMN dead_letter.replay_count        IS 'how often it was sent back before';
COMMENT ON COLUMN dead_letter.writer_schema       IS 'the schema that wrote the value, where it was told';
COMMENT ON COLUMN dead_letter.application_version IS 'which version of the application did not take it';
COMMENT ON COLUMN dead_letter.value_bytes         IS 'length of the value; NULL where there is none (a tombstone)';

CREATE TABLE dead_letter_action (
    log_partition  integer NOT NULL,
    log_offset     bigint  NOT NULL,
    number         integer NOT NULL,
    event_id       uuid    NOT NULL,
    acted_ms       bigint  NOT NULL,
    action         text    NOT NULL,
    action_id      text    NOT NULL,
    operator       text    NOT NULL,
    why            text    NOT NULL,
    consumer_group text    NOT NULL,
    origin         text    NOT NULL,
    origin_log     text,
    place          text    NOT NULL,
    set_aside_ms   bigint  NOT NULL,
    reason         text
);

CREATE INDEX dead_letter_action_failed ON dead_letter_action (consumer_group, origin);

COMMENT ON TABLE  dead_letter_action                IS 'what operators did (topic ops), one row for each letter that an action names; kept for ever';
COMMENT ON COLUMN dead_letter_action.log_partition  IS 'the event''s partition';
COMMENT ON COLUMN dead_letter_action.log_offset     IS 'the event''s offset: actions count in this order';
COMMENT ON COLUMN dead_letter_action.number         IS 'the letter''s number among those of the event, from 0';
COMMENT ON COLUMN dead_letter_action.event_id       IS 'the event';
COMMENT ON COLUMN dead_letter_action.acted_ms       IS 'when it was done, ms since 1970';
COMMENT ON COLUMN dead_letter_action.action         IS 'what the letter is by it: discarded, redriven, parked';
COMMENT ON COLUMN dead_letter_action.action_id      IS 'the same for all events of one command';
COMMENT ON COLUMN dead_letter_action.operator       IS 'who did it, as user@host';
COMMENT ON COLUMN dead_letter_action.why            IS 'why, in the operator''s words';
COMMENT ON COLUMN dead_letter_action.consumer_group IS 'the letter''s consumer group';
COMMENT ON COLUMN dead_letter_action.origin         IS 'the letter''s origin';
COMMENT ON COLUMN dead_letter_action.origin_log     IS 'the id of the origin''s topic, where it was told';
COMMENT ON COLUMN dead_letter_action.place          IS 'where the letter lay';
COMMENT ON COLUMN dead_letter_action.set_aside_ms   IS 'the letter''s timestamp: what was set aside later is not meant';
COMMENT ON COLUMN dead_letter_action.reason         IS 'why it was set aside, as the letter said';

-- The same rules as in crates/letter and crates/dead-letters: the newest letter stands for all of one (group, origin, id of the
-- origin's topic); the newest action on these counts, if the letter is no newer than what it saw.
CREATE VIEW dead_letters AS
WITH counted AS (
    SELECT l.*,
           count(*) OVER of_one                                           AS letters,
           min(coalesce(first_failure_ms, set_aside_ms)) OVER of_one      AS failed_first_ms,
           max(coalesce(last_failure_ms, set_aside_ms)) OVER of_one       AS failed_last_ms,
           row_number() OVER (of_one ORDER BY set_aside_ms DESC, log_offset DESC, log_partition DESC) AS age
    FROM dead_letter l
    WINDOW of_one AS (PARTITION BY consumer_group, origin, origin_log)
)
SELECT l.consumer_group,
       l.origin,
       l.origin_log,
       CASE WHEN a.set_aside_ms >= l.set_aside_ms THEN a.action
            WHEN l.topic LIKE '%-parking' THEN 'parked'
            ELSE 'open' END                                                     AS state,
       l.reason,
       l.class,
       l.event_type,
       encode(l.record_key, 'escape')                                           AS key,
       l.detail,
       l.source_topic,
       l.origin_partition,
       l.origin_offset,
       l.place,
       fleetlog_time(l.set_aside_ms)                                            AS set_aside_at,
       fleetlog_time(l.recorded_ms)                                             AS recorded_at,
       fleetlog_time(l.failed_first_ms)                                         AS first_failure_at,
       fleetlog_time(l.failed_last_ms)                                          AS last_failure_at,
       l.attempts,
       l.replay_count,
       l.letters,
       l.dialect,
       l.writer_schema,
       l.application_version,
       l.value_bytes,
       CASE WHEN a.set_aside_ms >= l.set_aside_ms THEN fleetlog_time(a.acted_ms) END AS acted_at,
       CASE WHEN a.set_aside_ms >= l.set_aside_ms THEN a.operator END           AS operator,
       CASE WHEN a.set_aside_ms >= l.set_aside_ms THEN a.why END                AS why,
       CASE WHEN a.set_aside_ms >= l.set_aside_ms THEN a.action_id END          AS action_id
FROM counted l
LEFT JOIN LATERAL (
    SELECT * FROM dead_letter_action a
    WHERE a.consumer_group = l.consumer_group AND a.origin = l.origin AND a.origin_log IS NOT DISTINCT FROM l.origin_log
    ORDER BY a.log_offset DESC, a.number DESC LIMIT 1
) a ON true
WHERE l.age = 1;

COMMENT ON VIEW   dead_letters                     IS 'dead letters counted by what failed (group and origin), the newest of each, with what became of it';
COMMENT ON COLUMN dead_letters.consumer_group      IS 'the consumer group (of Connect: the connector) that did not take the record, or unknown';
COMMENT ON COLUMN dead_letters.origin              IS 'the record''s topic/partition/offset, or file:line of an import; the letter''s own place where nobody wrote it down';
COMMENT ON COLUMN dead_letters.origin_log          IS 'the id of the record''s topic, where it was told';
COMMENT ON COLUMN dead_letters.state               IS 'open, discarded, redriven or parked: by the newest action that saw the newest letter';
COMMENT ON COLUMN dead_letters.reason              IS 'why it was set aside';
COMMENT ON COLUMN dead_letters.class               IS 'reject or refused; of Kafka Connect the stage';
COMMENT ON COLUMN dead_letters.event_type          IS 'the event''s full name, where a header tells it';
COMMENT ON COLUMN dead_letters.key                 IS 'the record''s key; bytes beyond ASCII as \ooo';
COMMENT ON COLUMN dead_letters.detail              IS 'what exactly was wrong';
COMMENT ON COLUMN dead_letters.source_topic        IS 'the record''s topic, physical name';
COMMENT ON COLUMN dead_letters.origin_partition    IS 'the record''s partition, where its position was told';
COMMENT ON COLUMN dead_letters.origin_offset       IS 'the record''s offset';
COMMENT ON COLUMN dead_letters.place               IS 'where the newest letter lies, as fleetlog dlq show takes it';
COMMENT ON COLUMN dead_letters.set_aside_at        IS 'when the newest letter was set aside (the broker''s clock)';
COMMENT ON COLUMN dead_letters.recorded_at         IS 'the record''s own timestamp';
COMMENT ON COLUMN dead_letters.first_failure_at    IS 'when the record failed first, by all its letters';
COMMENT ON COLUMN dead_letters.last_failure_at     IS 'when the record failed last, by all its letters';
COMMENT ON COLUMN dead_letters.attempts            IS 'how often it was tried, as the newest letter says';
COMMENT ON COLUMN dead_letters.replay_count        IS 'how often it was sent back, as the newest letter says';
COMMENT ON COLUMN dead_letters.letters             IS 'how many letters lie, or lay, on the topics for it';
COMMENT ON COLUMN dead_letters.dialect             IS 'who wrote the newest letter';
COMMENT ON COLUMN dead_letters.writer_schema       IS 'the schema that wrote the value';
COMMENT ON COLUMN dead_letters.application_version IS 'which version of the application did not take it';
COMMENT ON COLUMN dead_letters.value_bytes         IS 'length of the value; NULL where there is none (a tombstone)';
COMMENT ON COLUMN dead_letters.acted_at            IS 'when somebody acted on it; NULL while it is open';
COMMENT ON COLUMN dead_letters.operator            IS 'who did';
COMMENT ON COLUMN dead_letters.why                 IS 'why';
COMMENT ON COLUMN dead_letters.action_id           IS 'the action''s id, the same for all letters of one command';
