//! A small month of `make month`: what a fleet was planned to do, by a program in another language, against ledger,
//! aggregates and views.

use fleetlog_testkit::{python, workspace_root};
use fleetlog_tests::World;

/// Runs month.py; whether it was content, and what it said.
async fn month(args: &[&str]) -> (bool, String) {
    let script = workspace_root().join("tests/month/month.py");
    let output = tokio::process::Command::new(python()).arg(script).args(args).output().await.unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(said).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn ledger_aggregates_and_views_are_what_was_planned() {
    let world = World::new("month").await;
    world.ok(&["schemas", "publish"]).await;
    let url = world.database.url();
    let (sent, said) = month(&["send", &world.stack.brokers, &world.prefix, url, "3000", "7"]).await;
    assert!(sent, "{said}");
    world.ok(&["run", "--once", "--projections", "task-ledger,event-history"]).await;

    let (same, said) = month(&["compare", url]).await;
    assert!(same, "{said}");
    assert!(said.contains("t_app_task_ledger2: 3000 rows, 0 missing, 0 not expected"), "{said}");

    // And that it would say so if they were not.
    sqlx::query("UPDATE t_app_task_ledger2 SET work_ms = work_ms + 1 WHERE task_id = 'month-0000042'")
        .execute(&mut world.postgres().await)
        .await
        .unwrap();
    let (same, said) = month(&["compare", url]).await;
    assert!(!same && said.contains("t_app_task_ledger2: 3000 rows, 1 missing, 1 not expected"), "{said}");
}
