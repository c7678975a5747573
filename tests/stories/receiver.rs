//! The endpoint of `receiver.py`, as a process of its own: told to be down, and asked which calls it got.

use std::process::Stdio;

use fleetlog_testkit::{python, workspace_root};
use fleetlog_tests::get;
use serde::Deserialize;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
};

/// Over how many events it stumbles once: those whose id, as a number, can be divided by this.
pub(crate) const STUMBLES_EACH: u128 = 5000;

/// It ends when this is dropped, and when the test is killed.
pub(crate) struct Receiver {
    address: String,
    _child: Child,
}

/// A call as the receiver wrote it down.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Received {
    /// When, in seconds since 1970.
    pub(crate) at: f64,
    /// The event's id.
    pub(crate) id: uuid::Uuid,
    /// Which call it was, as fleetlog told.
    pub(crate) attempt: u32,
    /// The library took the signature.
    pub(crate) valid: bool,
    /// What was answered.
    pub(crate) status: u16,
    /// It was told that an operator sent the event back.
    pub(crate) redrive: bool,
}

impl Receiver {
    /// Starts one that knows this secret.
    pub(crate) async fn start(secret: &str) -> Self {
        let script = workspace_root().join("tests/stories/receiver.py");
        let mut command = Command::new(python());
        command.arg(script).env("RECEIVER_SECRET", secret).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.kill_on_drop(true).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = lines.next_line().await.unwrap().expect("it says where it listens");
        let address = line.strip_prefix("listening on ").unwrap().to_owned();
        Self { address, _child: child }
    }

    /// Whom webhooks call.
    pub(crate) fn url(&self) -> String {
        format!("http://{}/fleet", self.address)
    }

    /// From now on it answers 503, or no more.
    pub(crate) async fn is_down(&self, is_down: bool) {
        let path = if is_down { "/control/down" } else { "/control/up" };
        assert_eq!(get(&self.address, path).await.0, 204);
    }

    /// From now on it stumbles over nothing.
    pub(crate) async fn is_mended(&self) {
        assert_eq!(get(&self.address, "/control/mended").await.0, 204);
    }

    /// Every call so far, in the order in which they were answered.
    pub(crate) async fn calls(&self) -> Vec<Received> {
        let (code, calls) = get(&self.address, "/control/calls").await;
        assert_eq!(code, 200);
        calls.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// Whether the receiver stumbles over the event of this id.
pub(crate) fn stumbles_over(id: uuid::Uuid) -> bool {
    id.as_u128().is_multiple_of(STUMBLES_EACH)
}
