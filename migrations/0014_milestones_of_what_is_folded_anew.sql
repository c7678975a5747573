-- Milestones of tasks that are folded anew: after a redrive a creation or an end that was told before may have another time, or
-- never have been. Until here a row's milestones were only ever added to.

-- Whether the tasks that an id had before go on from what its row told last: those of before first, then what was the current one.
CREATE FUNCTION fleetlog_goes_on(
    earlier jsonb, before jsonb, created_recorded_at timestamptz, site_uid text, task_type text,
    finished_recorded_at timestamptz, status text, total_ms bigint
) RETURNS boolean LANGUAGE sql VOLATILE AS $$
    SELECT jsonb_array_length(earlier) > jsonb_array_length(before)
       AND (SELECT coalesce(jsonb_agg(one ORDER BY number), '[]')
            FROM jsonb_array_elements(earlier) WITH ORDINALITY AS these (one, number)
            WHERE number <= jsonb_array_length(before)) = before
       AND (SELECT (fleetlog_time((one ->> 'created_recorded_at')::bigint), one ->> 'site_uid', one ->> 'task_type')
                   IS NOT DISTINCT FROM ($3, $4, $5)
               AND ($6 IS NULL
                    OR (fleetlog_time((one ->> 'finished_recorded_at')::bigint), one ->> 'status', (one ->> 'total_ms')::bigint)
                       IS NOT DISTINCT FROM ($6, $7, $8))
            FROM (SELECT earlier -> jsonb_array_length(before) AS one) AS current)
$$;
COMMENT ON FUNCTION fleetlog_goes_on(jsonb, jsonb, timestamptz, text, text, timestamptz, text, bigint) IS 'whether the tasks that an id had before go on from what its row told last';

CREATE OR REPLACE FUNCTION fleetlog_add_milestones() RETURNS trigger LANGUAGE plpgsql
SET jit = off SET enable_nestloop = off AS $$
DECLARE
    -- Tasks of which something is not told any more, or differently.
    retold text[] := '{}';
BEGIN
    IF TG_OP = 'UPDATE' THEN
        retold := ARRAY(
            SELECT a.task_id
            FROM after_rows a JOIN before_rows b USING (task_id)
            WHERE CASE WHEN a.earlier = b.earlier
                       THEN (a.created_recorded_at, a.site_uid, a.task_type)
                            IS DISTINCT FROM (b.created_recorded_at, b.site_uid, b.task_type)
                            OR b.finished_recorded_at IS NOT NULL
                               AND (a.finished_recorded_at, a.status, a.total_ms)
                                   IS DISTINCT FROM (b.finished_recorded_at, b.status, b.total_ms)
                       ELSE NOT fleetlog_goes_on(a.earlier, b.earlier, b.created_recorded_at, b.site_uid, b.task_type,
                                                 b.finished_recorded_at, b.status, b.total_ms) END);
        IF retold <> '{}' THEN
            DELETE FROM task_milestone WHERE task_id = ANY (retold);
        END IF;
    END IF;
    IF TG_OP = 'INSERT' OR retold <> '{}' THEN
        INSERT INTO task_milestone
        SELECT created_recorded_at, site_uid, task_type, task_id, jsonb_array_length(earlier), 'created', NULL
        FROM after_rows
        WHERE fleetlog_has_hour(created_recorded_at) AND (TG_OP = 'INSERT' OR task_id = ANY (retold));
        INSERT INTO task_milestone
        SELECT finished_recorded_at, site_uid, task_type, task_id, jsonb_array_length(earlier), status, total_ms
        FROM after_rows
        WHERE fleetlog_has_hour(finished_recorded_at) AND (TG_OP = 'INSERT' OR task_id = ANY (retold));
        INSERT INTO task_milestone
        SELECT m.*
        FROM after_rows a, fleetlog_earlier_milestones(a.task_id, a.earlier) m
        WHERE a.earlier <> '[]' AND (TG_OP = 'INSERT' OR a.task_id = ANY (retold));
    END IF;
    IF TG_OP = 'INSERT' THEN
        RETURN NULL;
    END IF;
    INSERT INTO task_milestone
    SELECT a.finished_recorded_at, a.site_uid, a.task_type, a.task_id, jsonb_array_length(a.earlier), a.status, a.total_ms
    FROM after_rows a JOIN before_rows b USING (task_id)
    WHERE fleetlog_has_hour(a.finished_recorded_at) AND (b.finished_recorded_at IS NULL OR a.earlier <> b.earlier)
      AND a.task_id <> ALL (retold);
    -- The id was used again: the tasks in between may have come and gone since the row was last written.
    INSERT INTO task_milestone
    SELECT a.created_recorded_at, a.site_uid, a.task_type, a.task_id, jsonb_array_length(a.earlier), 'created', NULL
    FROM after_rows a JOIN before_rows b USING (task_id)
    WHERE fleetlog_has_hour(a.created_recorded_at) AND a.earlier <> b.earlier AND a.task_id <> ALL (retold);
    INSERT INTO task_milestone
    SELECT m.* FROM after_rows a JOIN before_rows b USING (task_id), fleetlog_earlier_milestones(a.task_id, a.earlier) m
    WHERE a.earlier <> b.earlier AND m.run >= jsonb_array_length(b.earlier)
      AND NOT (m.run = jsonb_array_length(b.earlier)
               AND (m.milestone = 'created' OR b.finished_recorded_at IS NOT NULL))
      AND a.task_id <> ALL (retold);
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION fleetlog_add_milestones() IS 'keeps task_milestone as new forms of ledger rows tell it, beyond the old ones or instead of them';
