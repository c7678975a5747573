//! Totals of tasks: what they count, who tells them, and what they cost.

use std::time::{Duration, Instant};

use fleetlog_sink_timescale::{Database, TaskFigures};
use prometheus::TextEncoder;
use sqlx::PgConnection;

use crate::support::{FreshDatabase, number, run};

const HOLD: Duration = Duration::from_secs(600);

/// Adds tasks `from` to `to` of six sites and two types, in three partitions, a third of them still open.
fn tasks(from: u32, to: u32) -> String {
    format!(
        "INSERT INTO t_app_task_ledger2
            (task_id, site_uid, task_type, priority, status, created_at, work_ms, step_count, steps_finished, steps_failed,
             steps, parameters, assignments, pauses, rejections, occurred_at, recorded_at, created_recorded_at, fold_log,
             fold_partition, fold_next, fold_revision, fold_state)
         SELECT 'task-' || n, 's' || n % 6, (ARRAY['delivery', 'transport'])[1 + n % 2], 0,
                (ARRAY['started', 'completed', 'failed', 'completed', 'cancelled', 'assigned'])[1 + n / 7 % 6], now(),
                CASE WHEN n % 5 > 0 THEN n::bigint * n % 5000000 END, 0, 0, 0, '[]', '{{}}', 1, 0, 0, now(), now(), now(),
                '00000000-0000-0000-0000-000000000001', n % 3, n, 0, '{{}}'
         FROM generate_series({from}, {to}) n"
    )
}

/// Every figure as the ledger's rows make it; what is there as it is shown and as it is counted.
async fn compared(connection: &mut PgConnection) -> i64 {
    let sql = "
        WITH expected AS (
            SELECT fold_partition AS partition, site_uid, task_type, one.figure, sum(one.n)::bigint AS n
            FROM t_app_task_ledger2,
                 LATERAL (VALUES ('created', 1), ('completed', (status = 'completed')::integer),
                                 ('failed', (status = 'failed')::integer),
                                 ('duration_ms', CASE WHEN status = 'completed' THEN coalesce(work_ms, 0) ELSE 0 END),
                                 ('le_' || (SELECT coalesce(min(le)::text, 'inf')
                                            FROM unnest(ARRAY[10, 30, 60, 120, 300, 600, 1800, 3600]) le
                                            WHERE work_ms <= le * 1000),
                                  (status = 'completed' AND work_ms IS NOT NULL)::integer)) one (figure, n)
            GROUP BY 1, 2, 3, 4
        )
        SELECT count(*) FILTER (WHERE coalesce(e.n, 0) <> coalesce(f.counted, 0)) * 1000000 + count(*)
        FROM expected e FULL JOIN task_figure f USING (partition, site_uid, task_type, figure)";
    number(connection, sql).await
}

async fn shown(database: &Database, instance: &str) -> Option<TaskFigures> {
    database.task_figures(instance, HOLD).await.unwrap()
}

fn text(figures: &TaskFigures) -> String {
    TextEncoder::new().encode_to_string(&figures.families()).unwrap()
}

/// Rows come, go on, go back (a repair) and go, one by one and in thousands.
#[tokio::test]
async fn figures_are_those_of_the_ledgers_rows() {
    let fresh = FreshDatabase::migrated().await;
    let mut connection = fresh.connect().await;
    let changes = [
        tasks(1, 3000),
        "UPDATE t_app_task_ledger2 SET priority = 1".to_owned(),
        "UPDATE t_app_task_ledger2 SET status = 'completed', work_ms = fold_next * 1000 WHERE status = 'started'".to_owned(),
        "UPDATE t_app_task_ledger2 SET status = 'failed' WHERE task_id = 'task-9'".to_owned(),
        "UPDATE t_app_task_ledger2 SET site_uid = 's1', task_type = 'delivery' WHERE fold_next < 300".to_owned(),
        tasks(3001, 3001),
        "DELETE FROM t_app_task_ledger2 WHERE fold_next BETWEEN 500 AND 600".to_owned(),
    ];
    for change in changes {
        run(&mut connection, &change).await;
        let figures = compared(&mut connection).await;
        assert!((50..1000).contains(&figures), "{figures} figures (millions: they differ) after {change}");
    }
    // Two tasks had the id of a third before: one was completed, with a duration; one failed.
    let of = "SELECT sum(counted)::bigint FROM task_figure WHERE figure IN ('created', 'completed', 'failed', 'le_10')";
    let before = number(&mut connection, of).await;
    let earlier = r#"UPDATE t_app_task_ledger2 SET earlier = '[
        {"site_uid": "s1", "task_type": "delivery", "status": "completed", "work_ms": 1000},
        {"site_uid": "s1", "task_type": "delivery", "status": "failed"}]' WHERE task_id = 'task-42'"#;
    run(&mut connection, earlier).await;
    assert_eq!(number(&mut connection, of).await, before + 5);
}

/// A counter that goes back looks like one that began anew, and everything would count again.
#[tokio::test]
async fn a_ledger_that_is_built_anew_moves_nothing() {
    let fresh = FreshDatabase::migrated().await;
    let (database, mut connection) = (fresh.open(), fresh.connect().await);
    run(&mut connection, &tasks(1, 2000)).await;
    let before = shown(&database, "a").await.unwrap();
    run(&mut connection, "TRUNCATE t_app_task_ledger2").await;
    for part in [tasks(1, 700), tasks(701, 2000)] {
        assert_eq!(shown(&database, "a").await.unwrap(), before);
        run(&mut connection, &part).await;
    }
    assert_eq!(shown(&database, "a").await.unwrap(), before);
    run(&mut connection, &tasks(2001, 2006)).await;
    assert_ne!(shown(&database, "a").await.unwrap(), before, "what is new moves them again");
    assert_eq!(number(&mut connection, "SELECT count(*) FROM task_figure WHERE shown <> counted").await, 0);
}

#[tokio::test]
async fn one_process_tells_them_until_it_is_not_asked_any_more() {
    let fresh = FreshDatabase::migrated().await;
    let (database, other, mut connection) = (fresh.open(), fresh.open(), fresh.connect().await);
    run(&mut connection, &tasks(1, 20)).await;
    let (a, b) = tokio::join!(shown(&database, "a"), shown(&other, "b"));
    assert_eq!(usize::from(a.is_some()) + usize::from(b.is_some()), 1, "asked at once, one tells");
    let (holder, waits) = if a.is_some() { ("a", "b") } else { ("b", "a") };
    for _ in 0..3 {
        assert!(shown(&database, holder).await.is_some());
        assert!(shown(&database, waits).await.is_none());
    }
    run(&mut connection, "UPDATE fleetlog_figure_holder SET until = clock_timestamp() - interval '1 ms'")
        .await;
    assert!(shown(&database, waits).await.is_some(), "they are free");
    assert!(shown(&database, holder).await.is_none(), "who was away does not tell what is another's");
}

/// Whatever producers make up: a thousand pairs have figures of their own, the others have one together, and none is lost.
#[tokio::test]
async fn made_up_sites_and_types_do_not_make_series_without_end() {
    let fresh = FreshDatabase::migrated().await;
    let (database, mut connection) = (fresh.open(), fresh.connect().await);
    run(&mut connection, &tasks(1, 120)).await;
    let made_up = [
        "site_uid = 'made up ' || fold_next, task_type = repeat('x', 129)",
        "site_uid = repeat('y', 129), task_type = 'delivery'",
        "site_uid = 'made up ' || fold_next % 600, task_type = 'type ' || fold_next",
    ];
    for (made_up, from) in made_up.into_iter().zip([10_000, 20_000, 30_000]) {
        run(&mut connection, "BEGIN").await;
        run(&mut connection, &tasks(from, from + 1999)).await;
        run(&mut connection, &format!("UPDATE t_app_task_ledger2 SET {made_up} WHERE fold_next >= {from}"))
            .await;
        run(&mut connection, "COMMIT").await;
    }
    let text = text(&shown(&database, "a").await.unwrap());
    let created: Vec<(&str, f64)> = text
        .lines()
        .filter(|line| line.starts_with("app_delivery_tasks_created_total{"))
        .map(|line| line.rsplit_once(' ').map(|(series, value)| (series, value.parse().unwrap())).unwrap())
        .collect();
    let own = created.iter().filter(|(_, tasks)| *tasks > 0.0).count();
    assert!((990..=1001).contains(&own) && created.len() <= 1001, "{own} of {} pairs", created.len());
    let number_of = |labels: &str| {
        created.iter().filter(|(series, _)| series.contains(labels)).map(|(_, n)| n).sum::<f64>()
    };
    assert!(number_of("{site_uid=\"other\",task_type=\"other\"}") >= 5000.0, "{created:?}");
    assert!(number_of("{site_uid=\"s1\"") >= 20.0, "those that were there first keep theirs");
    assert!(!text.contains("xxxx") && !text.contains("yyyy"), "names that are too long");
}

/// A trigger keeps the plan of its first call. Made for one row it must not be a nested loop over twenty thousand.
#[tokio::test]
async fn a_catch_up_on_a_connection_that_began_with_one_task_ends() {
    let fresh = FreshDatabase::migrated().await;
    let mut connection = fresh.connect().await;
    run(&mut connection, "SET statement_timeout = '60s'").await;
    for sql in [
        &tasks(1, 1),
        "UPDATE t_app_task_ledger2 SET priority = 1",
        &tasks(2, 20_000),
        "UPDATE t_app_task_ledger2 SET priority = 2",
        "UPDATE t_app_task_ledger2 SET status = 'completed', finished_recorded_at = now()",
    ] {
        let begun = Instant::now();
        run(&mut connection, sql).await;
        println!("{:.0} ms: {sql:.60}", begun.elapsed().as_secs_f64() * 1e3);
    }
}
