//! A fleet of one's own on the stack, with the binary at hand: topics under a fresh prefix and a fresh database.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use fleetlog_kafka::{Offsets, OwnedRecord};
use fleetlog_testkit::{
    Database, Fleetlog, Output, Stack, fresh_database, redis_connection, unique, workspace_root,
};
use serde_json::Value;
use sqlx::{Connection as _, PgConnection, Row as _};

/// How long a call of the binary may take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);
/// The recording, as the README names it.
pub(crate) const RECORDING: &str = "data/vda5050/A.jsonl.zst";
/// The topics that events lie on.
pub(crate) const SOURCES: [&str; 3] = ["robot", "telemetry", "task"];

/// A fleet of one's own.
pub(crate) struct Rig {
    pub(crate) stack: Stack,
    pub(crate) prefix: String,
    pub(crate) fleetlog: Fleetlog,
    database: Option<Database>,
    /// Slot locks of its own, so that tests side by side do not take each other's instance names.
    _state_dir: tempfile::TempDir,
}

impl Rig {
    /// Topics only: enough to import into.
    pub(crate) async fn topics(label: &str) -> Self {
        let stack = Stack::from_env();
        let prefix = unique(label);
        let state_dir = tempfile::tempdir().unwrap();
        let fleetlog = Fleetlog::new(&stack, &prefix)
            .env("FLEETLOG_RUN__STATE_DIR", &state_dir.path().display().to_string());
        let rig = Self { stack, prefix, fleetlog, database: None, _state_dir: state_dir };
        rig.ok(&["topics", "apply"]).await;
        rig
    }

    /// Topics and a database with its tables.
    pub(crate) async fn whole(label: &str) -> Self {
        let mut rig = Self::topics(label).await;
        let database = fresh_database(&rig.stack).await.unwrap();
        rig.fleetlog = rig.fleetlog.env("FLEETLOG_POSTGRES__URL", database.url());
        rig.database = Some(database);
        rig.ok(&["migrate"]).await;
        rig
    }

    pub(crate) fn database_url(&self) -> &str {
        self.database.as_ref().expect("a rig with a database").url()
    }

    /// What a call said, whatever its end.
    pub(crate) async fn call(&self, args: &[&str]) -> Output {
        self.fleetlog.run(args, PATIENCE).await.unwrap()
    }

    /// stdout of a call that has to end well.
    pub(crate) async fn ok(&self, args: &[&str]) -> String {
        self.call(args)
            .await
            .success()
            .unwrap_or_else(|error| panic!("fleetlog {}: {error:#}", args.join(" ")))
    }

    /// The report of an import.
    pub(crate) async fn import(&self, file: &str) -> Value {
        json_of(&self.ok(&["--format", "json", "import", "vda5050", file]).await)
    }

    /// `verify` compared something in every projection and found no difference.
    pub(crate) async fn verify_is_clean(&self) {
        let reports = json_of(&self.ok(&["--format", "json", "verify"]).await);
        let reports = reports.as_array().unwrap();
        assert_eq!(reports.len(), 8, "eight projections: {reports:?}");
        for report in reports {
            // What can be empty for good: nothing was set aside, or nobody has acted on it.
            let may_be_idle = report["projection"].as_str().unwrap().starts_with("dead-letter");
            assert!(may_be_idle || report["compared"].as_u64().unwrap() > 0, "compared nothing: {report}");
            for count in ["missing", "extra", "different", "behind"] {
                assert_eq!(report[count], 0, "{count} in {report}");
            }
        }
    }

    /// All records of a topic, by partition and offset.
    pub(crate) async fn records(&self, stem: &str) -> Vec<OwnedRecord> {
        let settings = self.stack.kafka(&self.prefix);
        fleetlog_testkit::records(&settings, &settings.topic(stem)).await.unwrap()
    }

    /// Where each partition of each topic that an import writes to ends.
    pub(crate) async fn ends(&self) -> BTreeMap<(String, i32), i64> {
        let settings = self.stack.kafka(&self.prefix);
        let topics: Vec<String> = SOURCES
            .iter()
            .chain(&["vda5050-dlq", "import-places", "schemas"])
            .map(|stem| settings.topic(stem))
            .collect();
        let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
        let ranges = Offsets::new(&settings).unwrap().ranges(&topics).await.unwrap();
        ranges.into_iter().map(|(at, range)| (at, range.end)).collect()
    }

    /// Rows of two columns, a text and a JSON value.
    pub(crate) async fn sql(&self, query: &str) -> BTreeMap<String, Value> {
        let mut connection = PgConnection::connect(self.database_url()).await.unwrap();
        let rows = sqlx::query(&format!("SELECT k, v::text FROM ({query}) AS answer (k, v)"))
            .fetch_all(&mut connection)
            .await
            .unwrap_or_else(|error| panic!("{error}\n{query}"));
        connection.close().await.unwrap();
        rows.iter()
            .map(|row| {
                let value: Option<String> = row.get(1);
                (row.get(0), value.map_or(Value::Null, |text| serde_json::from_str(&text).unwrap()))
            })
            .collect()
    }

    /// All Redis hashes whose key begins with `start` (after the prefix).
    pub(crate) async fn hashes(&self, start: &str) -> Vec<BTreeMap<String, String>> {
        let mut redis = redis_connection(&self.stack.redis_url).await.unwrap();
        let pattern = format!("{}{start}*", self.prefix);
        let mut keys = Vec::<String>::new();
        // All tests share the server: ten keys a question, the default, would be thousands of questions each time.
        let options = redis::ScanOptions::default().with_pattern(pattern).with_count(10_000);
        let mut found = redis::AsyncCommands::scan_options::<String>(&mut redis, options).await.unwrap();
        while let Some(key) = found.next_item().await {
            keys.push(key.unwrap());
        }
        drop(found);
        let mut hashes = Vec::new();
        for key in keys {
            hashes.push(redis::cmd("HGETALL").arg(key).query_async(&mut redis).await.unwrap());
        }
        hashes
    }
}

/// The JSON value that a command printed.
pub(crate) fn json_of(stdout: &str) -> Value {
    serde_json::from_str(stdout).unwrap_or_else(|error| panic!("no JSON: {error}\n{stdout}"))
}

/// A file of the checkout.
pub(crate) fn file(path: &str) -> PathBuf {
    workspace_root().join(path)
}

/// Runs a tool that must be there; its stdout.
pub(crate) async fn tool(program: &str, args: &[&str]) -> Vec<u8> {
    let child = tokio::process::Command::new(program).args(args).output();
    let output = tokio::time::timeout(PATIENCE, child).await.expect("it ends in time");
    let output = output.unwrap_or_else(|error| panic!("`{program}` cannot be run, install it: {error}"));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {}: {}\n{stderr}", args.join(" "), output.status);
    output.stdout
}

/// Runs a tool that answers in text.
pub(crate) async fn tool_text(program: &str, args: &[&str]) -> String {
    String::from_utf8(tool(program, args).await).unwrap()
}
