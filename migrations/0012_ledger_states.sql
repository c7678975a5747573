-- What became of an event that was set aside: redriven, emitted anew, parked.

ALTER TABLE fleetlog_set_aside
    DROP CONSTRAINT fleetlog_set_aside_status_check,
    ADD CONSTRAINT fleetlog_set_aside_status_check CHECK (status IN ('open', 'redriven', 'emitted_anew', 'parked')),
    ADD COLUMN replays    integer NOT NULL DEFAULT 0,
    ADD COLUMN changed_at timestamptz;

COMMENT ON COLUMN fleetlog_set_aside.status     IS 'open; redriven: taken later on; emitted_anew: under its right key, here it never counts; parked: rejected again too often. What is closed stays, so that a late write cannot open it again';
COMMENT ON COLUMN fleetlog_set_aside.replays    IS 'how often it was redriven and rejected again';
COMMENT ON COLUMN fleetlog_set_aside.changed_at IS 'when a command changed the entry last';

CREATE OR REPLACE VIEW set_aside_open AS
SELECT projection, version, topic, reason, count(*) AS events, min(made_at) AS first_made_at, max(made_at) AS last_made_at
FROM fleetlog_set_aside
WHERE status IN ('open', 'parked')
GROUP BY projection, version, topic, reason;

COMMENT ON VIEW set_aside_open IS 'set-asides that are open, parked ones included, by projection, topic and reason';
