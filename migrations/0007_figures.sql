-- Figures of tasks for /metrics, kept by triggers in the transaction of the ledger's rows: so each task counts once, whoever is
-- killed, fenced or asked twice, and a process that starts knows them all.

CREATE TABLE task_figure (
    partition integer NOT NULL,
    site_uid  text    NOT NULL,
    task_type text    NOT NULL,
    figure    text    NOT NULL,
    counted   bigint  NOT NULL,
    shown     bigint  NOT NULL,
    PRIMARY KEY (partition, site_uid, task_type, figure)
)
-- Every commit with a creation or an end rewrites some rows: room on the page keeps that out of the index.
WITH (fillfactor = 50);

COMMENT ON TABLE  task_figure           IS 'totals over t_app_task_ledger2 by partition, site and type, kept in step by triggers on it; /metrics shows their sums over the partitions';
COMMENT ON COLUMN task_figure.partition IS 'partition of the tasks'' events: no two writers meet in a row';
COMMENT ON COLUMN task_figure.site_uid  IS 'the site that created the tasks, or other (see task_figure_label)';
COMMENT ON COLUMN task_figure.task_type IS 'their kind, or other';
COMMENT ON COLUMN task_figure.figure    IS 'created, completed, failed: tasks; le_10 to le_inf: those completed whose duration lies between the bound before and this one, seconds; duration_ms: the sum of their durations';
COMMENT ON COLUMN task_figure.counted   IS 'what the ledger''s rows make now';
COMMENT ON COLUMN task_figure.shown     IS 'the most it ever was, for a counter never goes back: nothing moves while a ledger that was emptied is built anew. After rows were deleted for good: UPDATE task_figure SET counted = shown';

-- A producer that makes up sites and types must not make series without end.
CREATE TABLE task_figure_label (
    site_uid  text NOT NULL,
    task_type text NOT NULL,
    PRIMARY KEY (site_uid, task_type)
);
COMMENT ON TABLE  task_figure_label           IS 'sites and types with figures of their own: the first 1000 pairs, each of texts up to 128 bytes; the tasks of all others count under other, other';
COMMENT ON COLUMN task_figure_label.site_uid  IS 'the site';
COMMENT ON COLUMN task_figure_label.task_type IS 'the kind of task';

-- Which process shows figures: exactly one, so that a sum over all processes is right.
CREATE TABLE fleetlog_figure_holder (
    figures  text        NOT NULL PRIMARY KEY,
    instance text        NOT NULL,
    until    timestamptz NOT NULL
);
COMMENT ON TABLE  fleetlog_figure_holder          IS 'which process shows figures on /metrics; taken and kept by being asked for them';
COMMENT ON COLUMN fleetlog_figure_holder.figures  IS 'which figures: task';
COMMENT ON COLUMN fleetlog_figure_holder.instance IS 'the process (run.instance)';
COMMENT ON COLUMN fleetlog_figure_holder.until    IS 'until when nobody else may show them (clock of this server)';

-- Tasks that are alike for the figures, and how many. `outcome` and `bucket` are NULL where they have none.
CREATE TYPE fleetlog_alike_tasks AS (
    partition integer, site_uid text, task_type text, outcome text, bucket text, tasks bigint, duration_ms bigint
);
COMMENT ON TYPE fleetlog_alike_tasks IS 'for fleetlog: a number of tasks that are alike for the figures';

CREATE FUNCTION fleetlog_figure_outcome(status text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN status IN ('completed', 'failed') THEN status END
$$;
COMMENT ON FUNCTION fleetlog_figure_outcome(text) IS 'the figure that counts a task''s end; NULL if none does';

-- More than a year is a clock that was wrong (1970), and one such would outweigh all others in the sum.
CREATE FUNCTION fleetlog_figure_duration_ms(status text, work_ms bigint) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN status = 'completed' AND work_ms BETWEEN 0 AND 366 * 86400000::bigint THEN work_ms END
$$;
COMMENT ON FUNCTION fleetlog_figure_duration_ms(text, bigint) IS 'the duration that figures know of a task: of a completed one from started to finished, up to 366 days';

CREATE FUNCTION fleetlog_figure_bucket(duration_ms bigint) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN duration_ms <= 10000   THEN 'le_10'
                WHEN duration_ms <= 30000   THEN 'le_30'
                WHEN duration_ms <= 60000   THEN 'le_60'
                WHEN duration_ms <= 120000  THEN 'le_120'
                WHEN duration_ms <= 300000  THEN 'le_300'
                WHEN duration_ms <= 600000  THEN 'le_600'
                WHEN duration_ms <= 1800000 THEN 'le_1800'
                WHEN duration_ms <= 3600000 THEN 'le_3600'
                WHEN duration_ms IS NOT NULL THEN 'le_inf' END
$$;
COMMENT ON FUNCTION fleetlog_figure_bucket(bigint) IS 'the figure that counts a duration; NULL for none';

CREATE FUNCTION fleetlog_add_figures(added fleetlog_alike_tasks[], removed fleetlog_alike_tasks[]) RETURNS void LANGUAGE plpgsql
SET jit = off SET enable_nestloop = off AS $$
DECLARE
    pairs_max CONSTANT integer := 1000;
    bytes_max CONSTANT integer := 128;
    changes fleetlog_alike_tasks[];
BEGIN
    -- What happens between creation and end changes nothing here, and is most of what happens.
    IF added = removed THEN
        RETURN;
    END IF;
    changes := added || ARRAY(
        SELECT (partition, site_uid, task_type, outcome, bucket, -tasks, -duration_ms)::fleetlog_alike_tasks FROM unnest(removed));
    IF EXISTS (SELECT FROM unnest(changes) c
               WHERE greatest(octet_length(c.site_uid), octet_length(c.task_type)) <= bytes_max
                 AND NOT EXISTS (SELECT FROM task_figure_label l WHERE l.site_uid = c.site_uid AND l.task_type = c.task_type))
       AND (SELECT count(*) FROM task_figure_label) < pairs_max THEN
        -- Lanes take new pairs in one after the other, or together they would take in too many.
        LOCK TABLE task_figure_label IN SHARE ROW EXCLUSIVE MODE;
        INSERT INTO task_figure_label
        SELECT DISTINCT c.site_uid, c.task_type FROM unnest(changes) c
        WHERE greatest(octet_length(c.site_uid), octet_length(c.task_type)) <= bytes_max
          AND NOT EXISTS (SELECT FROM task_figure_label l WHERE l.site_uid = c.site_uid AND l.task_type = c.task_type)
        ORDER BY 1, 2
        LIMIT greatest(0, pairs_max - (SELECT count(*) FROM task_figure_label));
    END IF;
    INSERT INTO task_figure AS f (partition, site_uid, task_type, figure, counted, shown)
    SELECT c.partition, coalesce(l.site_uid, 'other'), coalesce(l.task_type, 'other'), one.figure,
           sum(one.change)::bigint, greatest(sum(one.change), 0)::bigint
    FROM unnest(changes) c
    LEFT JOIN task_figure_label l ON l.site_uid = c.site_uid AND l.task_type = c.task_type,
         LATERAL (VALUES ('created', c.tasks), (c.outcome, c.tasks), (c.bucket, c.tasks),
                         ('duration_ms', c.duration_ms)) AS one (figure, change)
    WHERE one.figure IS NOT NULL
    GROUP BY 1, 2, 3, 4
    HAVING sum(one.change) <> 0
    ORDER BY 1, 2, 3, 4
    ON CONFLICT (partition, site_uid, task_type, figure) DO UPDATE
    SET counted = f.counted + excluded.counted, shown = greatest(f.shown, f.counted + excluded.counted);
END
$$;
COMMENT ON FUNCTION fleetlog_add_figures(fleetlog_alike_tasks[], fleetlog_alike_tasks[]) IS 'counts tasks into task_figure, and others out of it';

-- What the ledger's new rows count, less what the old ones did. So nothing depends on how the log was cut.
CREATE FUNCTION fleetlog_count_tasks() RETURNS trigger LANGUAGE plpgsql
SET jit = off SET enable_nestloop = off AS $$
DECLARE
    added   fleetlog_alike_tasks[] := '{}';
    removed fleetlog_alike_tasks[] := '{}';
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        UPDATE task_figure SET counted = 0 WHERE counted <> 0;
        RETURN NULL;
    END IF;
    IF TG_OP <> 'DELETE' THEN
        added := ARRAY(
            SELECT (fold_partition, site_uid, task_type, outcome, fleetlog_figure_bucket(duration_ms), count(*),
                    sum(duration_ms)::bigint)::fleetlog_alike_tasks
            FROM (SELECT fold_partition, site_uid, task_type, fleetlog_figure_outcome(status) AS outcome,
                         fleetlog_figure_duration_ms(status, work_ms) AS duration_ms
                  FROM after_rows
                  UNION ALL
                  SELECT a.fold_partition, e.site_uid, e.task_type, fleetlog_figure_outcome(e.status),
                         fleetlog_figure_duration_ms(e.status, e.work_ms)
                  FROM after_rows a,
                       jsonb_to_recordset(a.earlier) AS e (site_uid text, task_type text, status text, work_ms bigint)
                  WHERE a.earlier <> '[]') tasks
            GROUP BY fold_partition, site_uid, task_type, outcome, fleetlog_figure_bucket(duration_ms)
            ORDER BY fold_partition, site_uid, task_type, outcome, fleetlog_figure_bucket(duration_ms));
    END IF;
    IF TG_OP <> 'INSERT' THEN
        removed := ARRAY(
            SELECT (fold_partition, site_uid, task_type, outcome, fleetlog_figure_bucket(duration_ms), count(*),
                    sum(duration_ms)::bigint)::fleetlog_alike_tasks
            FROM (SELECT fold_partition, site_uid, task_type, fleetlog_figure_outcome(status) AS outcome,
                         fleetlog_figure_duration_ms(status, work_ms) AS duration_ms
                  FROM before_rows
                  UNION ALL
                  SELECT b.fold_partition, e.site_uid, e.task_type, fleetlog_figure_outcome(e.status),
                         fleetlog_figure_duration_ms(e.status, e.work_ms)
                  FROM before_rows b,
                       jsonb_to_recordset(b.earlier) AS e (site_uid text, task_type text, status text, work_ms bigint)
                  WHERE b.earlier <> '[]') tasks
            GROUP BY fold_partition, site_uid, task_type, outcome, fleetlog_figure_bucket(duration_ms)
            ORDER BY fold_partition, site_uid, task_type, outcome, fleetlog_figure_bucket(duration_ms));
    END IF;
    PERFORM fleetlog_add_figures(added, removed);
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION fleetlog_count_tasks() IS 'keeps task_figure in step with the ledger';

CREATE TRIGGER figures_of_new AFTER INSERT ON t_app_task_ledger2 REFERENCING NEW TABLE AS after_rows
    FOR EACH STATEMENT EXECUTE FUNCTION fleetlog_count_tasks();
CREATE TRIGGER figures_of_changed AFTER UPDATE ON t_app_task_ledger2
    REFERENCING OLD TABLE AS before_rows NEW TABLE AS after_rows
    FOR EACH STATEMENT EXECUTE FUNCTION fleetlog_count_tasks();
CREATE TRIGGER figures_of_removed AFTER DELETE ON t_app_task_ledger2 REFERENCING OLD TABLE AS before_rows
    FOR EACH STATEMENT EXECUTE FUNCTION fleetlog_count_tasks();
CREATE TRIGGER figures_of_all AFTER TRUNCATE ON t_app_task_ledger2
    FOR EACH STATEMENT EXECUTE FUNCTION fleetlog_count_tasks();

COMMENT ON COLUMN t_app_task_ledger2.earlier IS 'where the id was used again more than 7 days after its task''s end: the tasks before, each with site, type, status, times recorded (ms since 1970), work_ms and total_ms';

-- Tasks that are in the ledger already. The triggers above keep writers out until this is done.
SELECT fleetlog_add_figures(ARRAY(
    SELECT (fold_partition, site_uid, task_type, outcome, fleetlog_figure_bucket(duration_ms), count(*),
            sum(duration_ms)::bigint)::fleetlog_alike_tasks
    FROM (SELECT fold_partition, site_uid, task_type, fleetlog_figure_outcome(status) AS outcome,
                 fleetlog_figure_duration_ms(status, work_ms) AS duration_ms
          FROM t_app_task_ledger2
          UNION ALL
          SELECT t.fold_partition, e.site_uid, e.task_type, fleetlog_figure_outcome(e.status),
                 fleetlog_figure_duration_ms(e.status, e.work_ms)
          FROM t_app_task_ledger2 t,
               jsonb_to_recordset(t.earlier) AS e (site_uid text, task_type text, status text, work_ms bigint)
          WHERE t.earlier <> '[]') tasks
    GROUP BY fold_partition, site_uid, task_type, outcome, fleetlog_figure_bucket(duration_ms)), '{}');
