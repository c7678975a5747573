//! What people look at and type by hand: text and JSON.

use std::{fs, time::Duration};

use serde_json::{Value, json};

use fleetlog_tests::{LIMIT, World, until};

fn words(command: &[String]) -> Vec<&str> {
    command.iter().map(String::as_str).collect()
}

/// Lines of JSON.
fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_stored_can_be_looked_at_as_text_and_as_json() {
    let world = World::new("look").await;
    world.simulate(400, 1).await;
    let status = world.json(&["status"]).await;
    let lag: i64 = status.as_array().unwrap().iter().map(|row| row["lag_events"].as_i64().unwrap()).sum();
    assert!(lag >= 400, "{status:#}");
    let behind = world.fails(1, &["status", "--wait", "1"]).await.stdout;
    assert!(behind.contains("unit-status"), "{behind}");
    world.ok(&["run", "--once"]).await;
    world.verified().await;

    let events = lines(&world.ok(&["events"]).await);
    assert_eq!(events.len(), 400);
    assert_eq!(lines(&world.ok(&["events", "--limit", "7"]).await).len(), 7);
    let tasks: Vec<&Value> = events.iter().filter(|event| event["topic"] == "task").collect();
    assert_eq!(lines(&world.ok(&["events", "--topic", "task"]).await).len(), tasks.len());
    assert!(world.fails(2, &["events", "--topic", "tusk"]).await.stderr.contains("robot, telemetry, task"));

    let units = world.json(&["unit", "list"]).await;
    assert_eq!(units.as_array().unwrap().len(), 5, "{units:#}");
    let unit = units[0]["unit"].as_str().unwrap();
    assert!(world.ok(&["unit", "list"]).await.contains(unit));
    let shown = world.json(&["unit", "show", unit]).await;
    assert_eq!(shown["unit"], unit);
    assert!(shown["status"]["connection"].is_string() && shown["last_telemetry"].is_object(), "{shown:#}");
    assert!(world.ok(&["unit", "show", unit]).await.contains("connection"));
    assert!(world.fails(1, &["unit", "show", "snone.unone"]).await.stderr.contains("no unit `snone.unone`"));
    assert!(world.fails(2, &["unit", "show", "x"]).await.stderr.contains("s{site}.u{unit}"));

    let task = tasks[0]["key"].as_str().unwrap();
    assert_eq!(world.json(&["task", "show", task]).await["task"], task);
    assert!(world.json(&["task", "list"]).await.is_array());
    assert!(world.fails(1, &["task", "show", "nope"]).await.stderr.contains("no task `nope`"));

    for (subject, args) in [(unit, &[][..]), (unit, &["--telemetry"]), (task, &[])] {
        let stem = if args.is_empty() { if subject == task { "task" } else { "robot" } } else { "telemetry" };
        let on_log = events.iter().filter(|event| event["topic"] == stem && event["key"] == subject).count();
        let rows = lines(&world.ok(&[&["history", subject, "--format", "json"], args].concat()).await);
        assert_eq!(rows.len(), on_log.min(100), "{subject} {args:?}");
        assert!(world.ok(&[&["history", subject], args].concat()).await.contains("recorded_at"));
    }
    assert!(world.fails(1, &["history", "nope"]).await.stderr.contains("knows nothing of `nope`"));
    assert_eq!(world.json(&["dlq", "list"]).await, json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_are_planned_applied_and_left_alone() {
    let world = World::bare("plan").await;
    let plan = world.json(&["topics", "plan"]).await;
    assert_eq!(plan["changes"].as_array().unwrap().len(), 23, "{plan:#}");
    world.ok(&["topics", "apply"]).await;
    let plan = world.json(&["topics", "plan"]).await;
    assert_eq!((&plan["changes"], &plan["refusals"]), (&json!([]), &json!([])), "{plan:#}");
    assert!(world.ok(&["topics", "plan"]).await.contains("0 to change, 0 refused"));

    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().display().to_string();
    let robot = include_str!("../../topics/robot.toml");
    fs::write(folder.path().join("robot.toml"), robot.replacen("partitions = 6", "partitions = 7", 1))
        .unwrap();
    for verb in ["plan", "apply"] {
        let refused = world.fails(1, &["topics", verb, "--dir", &dir]).await.stdout;
        assert!(
            refused.contains("6 partitions, should be 7") && refused.contains("order per key"),
            "{refused}"
        );
    }
    fs::write(folder.path().join("robot.toml"), robot.replacen("partitions = 6", "partitoins = 6", 1))
        .unwrap();
    let wrong = world.fails(2, &["topics", "plan", "--dir", &dir]).await.stderr;
    assert!(wrong.contains("robot.toml") && wrong.contains("partitoins: unknown field"), "{wrong}");
    let empty = tempfile::tempdir().unwrap().path().display().to_string();
    assert!(world.fleetlog.run(&["topics", "plan", "--dir", &empty], LIMIT).await.unwrap().code() != Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn schemas_that_break_readers_are_refused() {
    let world = World::bare("schemas").await;
    world.ok(&["schemas", "check", "schemas"]).await;
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().display().to_string();
    fs::create_dir(folder.path().join("robot")).unwrap();
    let file = |name: &str| folder.path().join("robot").join(name);
    let first = include_str!("../../schemas/robot/FaultRaised.v1.avsc");
    let second = include_str!("../../schemas/robot/FaultRaised.v2.avsc");
    fs::write(file("FaultRaised.v1.avsc"), first).unwrap();
    fs::write(file("FaultRaised.v2.avsc"), second.replace("\"string\"", "\"int\"")).unwrap();
    let said = world.fleetlog.run(&["schemas", "check", &dir], LIMIT).await.unwrap();
    assert_eq!(said.code(), Some(1), "{}", said.stderr);
    assert!(
        said.stdout.contains("FaultRaised.v2.avsc") && said.stdout.contains("`fault_id`"),
        "{}",
        said.stdout
    );
    fs::write(file("FaultRaised.v2.avsc"), "{\"type\":").unwrap();
    let said = world.fails(1, &["schemas", "check", &dir]).await.stdout;
    assert!(said.contains("FaultRaised.v2.avsc: not an Avro schema"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_skip_passes_exactly_one_position_of_a_projection_that_stands() {
    let world = World::new("skip").await;
    world.simulate(300, 1).await;
    let lanes = world.json(&["progress", "show", "unit-status"]).await;
    let lane = lanes.as_array().unwrap().iter().find(|lane| lane["log_end"].as_i64() > Some(2)).unwrap();
    let partition = lane["lane"].as_str().unwrap().rsplit(':').next().unwrap().to_owned();
    let skip = |offset: &'static str| {
        [
            "progress",
            "skip",
            "unit-status",
            "--topic",
            "robot",
            "--partition",
            &partition,
            "--offset",
            offset,
            "--why",
            "a test",
        ]
        .map(str::to_owned)
    };
    let (first, second) = (skip("0"), skip("1"));

    let wrong = world.fails(2, &words(&second)).await.stderr;
    assert!(wrong.contains("would take offset 0 next, not 1"), "{wrong}");
    let done = world.ok(&words(&first)).await;
    assert!(done.contains("offset 0 is set aside (skipped); next is 1"), "{done}");
    let again = world.fails(2, &words(&first)).await.stderr;
    assert!(again.contains("would take offset 1 next, not 0"), "{again}");

    let mut running = world.fleetlog.spawn(&["run"]).unwrap();
    running.line_with("/readyz", LIMIT).await.unwrap();
    let reports = world.verified().await;
    let refused = world.fails(2, &words(&second)).await.stderr;
    assert!(refused.contains("next, not 1"), "the lane is past it: {refused}");
    running.signal("TERM").unwrap();
    assert_eq!(running.wait(LIMIT).await.unwrap().code(), Some(0));

    for (projection, report) in reports {
        assert_eq!(report["set_aside"], json!(i32::from(projection == "unit-status")), "{projection}");
    }
    let letters = world.json(&["dlq", "list"]).await;
    assert_eq!(letters.as_array().unwrap().len(), 1, "{letters:#}");
    assert_eq!(letters[0]["reason"], "skipped");
    assert_eq!(letters[0]["origin"], format!("{}robot/{partition}/0", world.prefix));
    assert!(letters[0]["error"].as_str().unwrap().contains("a test"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_shares_the_partitions() {
    let world = World::new("second").await;
    let first = world.fleetlog.spawn(&["run"]).unwrap();
    let members = async || {
        let rows = world.json(&["status"]).await;
        rows.as_array().unwrap().iter().map(|row| row["members"].as_i64().unwrap()).min()
    };
    until("one process in every group", async || members().await == Some(1)).await;
    let mut second = world.fleetlog.spawn(&["run"]).unwrap();
    second.line_with("partitions assigned", LIMIT).await.unwrap();
    until("two processes in every group", async || members().await == Some(2)).await;
    world.simulate(600, 1).await;
    world.verified().await;
    for running in [first, second] {
        running.signal("TERM").unwrap();
        let ended = running.wait(Duration::from_secs(20)).await.unwrap();
        assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
    }
    assert_eq!(world.rows().await.values().sum::<i64>(), 600);
}
