-- Where each lane is, and what it did not take. Both change in the transaction that stores a batch's rows.

-- Milliseconds since 1970 as a time; beyond what PostgreSQL holds (4713 BC to 294276 AD) the nearest infinity, as in
-- the rows of history.
CREATE FUNCTION fleetlog_time(ms bigint) RETURNS timestamptz LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT CASE WHEN ms < -210866803200000 THEN '-infinity'::timestamptz
                WHEN ms >= 9224318016000000 THEN 'infinity'::timestamptz
                ELSE to_timestamp(ms / 1000.0) END
$$;

COMMENT ON FUNCTION fleetlog_time(bigint) IS 'milliseconds since 1970-01-01 as a time, clamped to infinity';

CREATE TABLE fleetlog_progress (
    projection  text        NOT NULL,
    version     integer     NOT NULL,
    topic       text        NOT NULL,
    partition   integer     NOT NULL,
    link        text        NOT NULL,
    log         uuid        NOT NULL,
    main        bigint      NOT NULL,
    inbox       bigint      NOT NULL,
    last_offset bigint,
    last_hash   bigint,
    written_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (projection, version, topic, partition),
    CHECK ((last_offset IS NULL) = (last_hash IS NULL))
)
-- Every commit of a lane rewrites its row: room on the page keeps that out of the index.
WITH (fillfactor = 20);

COMMENT ON TABLE  fleetlog_progress             IS 'the next offset each lane will take, stored in the transaction of its rows';
COMMENT ON COLUMN fleetlog_progress.projection  IS 'the projection''s id';
COMMENT ON COLUMN fleetlog_progress.version     IS 'the projection''s version';
COMMENT ON COLUMN fleetlog_progress.topic       IS 'the topic''s physical name';
COMMENT ON COLUMN fleetlog_progress.partition   IS 'the partition: one lane each';
COMMENT ON COLUMN fleetlog_progress.link        IS 'nonce.counter.part of the last write: the next one has to name it';
COMMENT ON COLUMN fleetlog_progress.log         IS 'the topic''s id: a recreated topic is another log';
COMMENT ON COLUMN fleetlog_progress.main        IS 'next offset of the topic';
COMMENT ON COLUMN fleetlog_progress.inbox       IS 'next offset of the lane''s inbox';
COMMENT ON COLUMN fleetlog_progress.last_offset IS 'offset of the last record taken';
COMMENT ON COLUMN fleetlog_progress.last_hash   IS 'hash of the last record taken (64 bits, as signed number)';
COMMENT ON COLUMN fleetlog_progress.written_at  IS 'when the lane last wrote (clock of this server)';

CREATE TABLE fleetlog_set_aside (
    projection  text        NOT NULL,
    version     integer     NOT NULL,
    topic       text        NOT NULL,
    partition   integer     NOT NULL,
    log         uuid        NOT NULL,
    log_offset  bigint      NOT NULL,
    status      text        NOT NULL DEFAULT 'open' CHECK (status IN ('open', 'closed')),
    reason      text        NOT NULL,
    detail      text        NOT NULL,
    event_type  text,
    record_key  bytea,
    recorded_at timestamptz NOT NULL,
    made_at     timestamptz NOT NULL,
    PRIMARY KEY (projection, version, topic, partition, log, log_offset)
);

COMMENT ON TABLE  fleetlog_set_aside             IS 'events that a projection did not take; their bytes are on its dead-letter topic';
COMMENT ON COLUMN fleetlog_set_aside.projection  IS 'the projection''s id';
COMMENT ON COLUMN fleetlog_set_aside.version     IS 'the projection''s version';
COMMENT ON COLUMN fleetlog_set_aside.topic       IS 'the topic''s physical name';
COMMENT ON COLUMN fleetlog_set_aside.partition   IS 'the event''s partition';
COMMENT ON COLUMN fleetlog_set_aside.log         IS 'the topic''s id';
COMMENT ON COLUMN fleetlog_set_aside.log_offset  IS 'the event''s offset';
COMMENT ON COLUMN fleetlog_set_aside.status      IS 'open, or closed once it was redriven; a closed entry stays, so that a late write cannot open it again';
COMMENT ON COLUMN fleetlog_set_aside.reason      IS 'why, from the closed list of reasons';
COMMENT ON COLUMN fleetlog_set_aside.detail      IS 'what exactly was wrong';
COMMENT ON COLUMN fleetlog_set_aside.event_type  IS 'the event''s full name, if it could be read';
COMMENT ON COLUMN fleetlog_set_aside.record_key  IS 'the record''s key, byte for byte';
COMMENT ON COLUMN fleetlog_set_aside.recorded_at IS 'the record''s timestamp';
COMMENT ON COLUMN fleetlog_set_aside.made_at     IS 'when it was set aside';
