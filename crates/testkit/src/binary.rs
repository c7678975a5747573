//! The `fleetlog` binary as a child process.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, BufReader},
    process::{Child, Command},
    sync::watch,
    task::JoinHandle,
    time::timeout,
};

use crate::{
    process::{dies_with_parent, send_signal},
    stack::{Stack, workspace_root},
};

/// How the binary is called: with which settings. Each call is a process of its own.
#[derive(Clone, Debug)]
pub struct Fleetlog {
    program: PathBuf,
    environment: BTreeMap<String, String>,
}

/// What a finished call said.
#[derive(Clone, Debug)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// All of stdout.
    pub stdout: String,
    /// All of stderr.
    pub stderr: String,
}

impl Output {
    /// stdout, if it ended with 0.
    ///
    /// # Errors
    /// If it didn't: with its stderr.
    pub fn success(self) -> Result<String> {
        if !self.status.success() {
            bail!(
                "fleetlog ended with {}\n--- stdout\n{}--- stderr\n{}",
                self.status,
                self.stdout,
                self.stderr
            );
        }
        Ok(self.stdout)
    }

    /// The exit code; none if a signal ended it.
    #[must_use]
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }
}

impl Fleetlog {
    /// The binary of this build, on this stack, with topics, groups and Redis keys under `prefix` (see
    /// [`crate::unique`]) and the stack's own database: give it another with [`Self::env`].
    ///
    /// # Panics
    /// If the binary has not been built.
    #[must_use]
    pub fn new(stack: &Stack, prefix: &str) -> Self {
        let mut fleetlog = Self { program: binary_path(), environment: BTreeMap::new() }
            .env("FLEETLOG_KAFKA__BROKERS", &stack.brokers)
            .env("FLEETLOG_KAFKA__TOPIC_PREFIX", prefix)
            .env("FLEETLOG_REDIS__URL", &stack.redis_url)
            .env("FLEETLOG_REDIS__KEY_PREFIX", prefix)
            .env("FLEETLOG_POSTGRES__URL", &stack.postgres_url)
            // Any free port: tests run side by side.
            .env("FLEETLOG_RUN__HTTP_ADDRESS", "127.0.0.1:0")
            .env("FLEETLOG_PRESENCE__HTTP_ADDRESS", "127.0.0.1:0");
        if let Some(replication) = stack.replication {
            fleetlog = fleetlog.env("FLEETLOG_KAFKA__REPLICATION", &replication.to_string());
        }
        fleetlog
    }

    /// The binary of this build, with all settings from this file.
    ///
    /// # Panics
    /// If the binary has not been built.
    #[must_use]
    pub fn with_settings(file: &Path) -> Self {
        Self { program: binary_path(), environment: BTreeMap::new() }
            .env("FLEETLOG_CONFIG", &file.display().to_string())
            .env("FLEETLOG_RUN__HTTP_ADDRESS", "127.0.0.1:0")
    }

    /// With a variable more, or another value for it.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Another binary than this build's own, such as the one with faults compiled in.
    #[must_use]
    pub fn program(self, program: PathBuf) -> Self {
        Self { program, ..self }
    }

    /// Runs a command to its end.
    ///
    /// # Errors
    /// If it can't be started or isn't done within `limit`. Its exit code is in the [`Output`].
    pub async fn run(&self, args: &[&str], limit: Duration) -> Result<Output> {
        self.spawn(args)?.wait(limit).await
    }

    /// Starts a command that goes on. It's killed when the returned value is dropped.
    ///
    /// # Errors
    /// If it can't be started.
    pub fn spawn(&self, args: &[&str]) -> Result<Running> {
        let mut command = Command::from(dies_with_parent(&self.program));
        command.args(args).current_dir(workspace_root());
        // Variables of the stack or of the person at the keyboard must not decide what a test tests.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("FLEETLOG_") {
                command.env_remove(name);
            }
        }
        command.envs(&self.environment).kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child =
            command.spawn().with_context(|| format!("cannot start {}", self.program.display()))?;
        let stdout = child.stdout.take().map(Lines::collect).context("stdout of the child is missing")?;
        let stderr = child.stderr.take().map(Lines::collect).context("stderr of the child is missing")?;
        Ok(Running { child, stdout, stderr })
    }
}

/// A `fleetlog` that is running.
#[derive(Debug)]
pub struct Running {
    child: Child,
    stdout: Lines,
    stderr: Lines,
}

impl Running {
    /// The process id, until it has ended.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// What it has written to stdout so far.
    #[must_use]
    pub fn stdout(&self) -> String {
        self.stdout.text()
    }

    /// What it has written to stderr so far.
    #[must_use]
    pub fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// Waits until stdout or stderr has a line that contains `text`, and returns it.
    ///
    /// # Errors
    /// If none came within `limit`, or both were closed without: with all that it wrote.
    pub async fn line_with(&mut self, text: &str, limit: Duration) -> Result<String> {
        let found = timeout(limit, async {
            let mut closed = (false, false);
            tokio::select! {
                Some(line) = self.stdout.line_with(text, &mut closed.0) => Some(line),
                Some(line) = self.stderr.line_with(text, &mut closed.1) => Some(line),
                else => None,
            }
        })
        .await;
        match found {
            Ok(Some(line)) => Ok(line),
            Ok(None) => bail!("fleetlog ended without a line with `{text}`\n{}", self.transcript()),
            Err(_) => bail!("fleetlog wrote no line with `{text}` within {limit:?}\n{}", self.transcript()),
        }
    }

    /// `kill -9`, and waits until the process is gone.
    ///
    /// # Errors
    /// If the system refuses.
    pub async fn kill(&mut self) -> Result<()> {
        self.child.kill().await.context("cannot kill fleetlog")
    }

    /// How it ended, if it has.
    ///
    /// # Errors
    /// If the system cannot tell.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().context("cannot ask whether fleetlog has ended")
    }

    /// Sends a signal by name, such as `TERM`, `STOP`, `CONT`.
    ///
    /// # Errors
    /// If it has ended.
    pub fn signal(&self, signal: &str) -> Result<()> {
        send_signal(self.child.id().context("fleetlog has ended")?, signal)
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// If it isn't over within `limit`: it's killed then, and the error holds what it wrote.
    pub async fn wait(mut self, limit: Duration) -> Result<Output> {
        let Ok(status) = timeout(limit, self.child.wait()).await else {
            self.kill().await?;
            bail!("fleetlog was not done within {limit:?}\n{}", self.transcript());
        };
        Ok(Output {
            status: status?,
            stdout: self.stdout.finish().await?,
            stderr: self.stderr.finish().await?,
        })
    }

    fn transcript(&self) -> String {
        format!("--- stdout\n{}--- stderr\n{}", self.stdout(), self.stderr())
    }
}

/// A stream of the child, read as it comes, so that the child never blocks on a full pipe.
#[derive(Debug)]
struct Lines {
    text: watch::Receiver<Arc<String>>,
    reader: JoinHandle<()>,
}

impl Lines {
    fn collect(stream: impl AsyncRead + Unpin + Send + 'static) -> Self {
        let (sender, text) = watch::channel(Arc::new(String::new()));
        let reader = tokio::spawn(async move {
            let mut stream = BufReader::new(stream);
            let mut line = Vec::new();
            while let Ok(1..) = stream.read_until(b'\n', &mut line).await {
                sender.send_modify(|text| Arc::make_mut(text).push_str(&String::from_utf8_lossy(&line)));
                line.clear();
            }
        });
        Self { text, reader }
    }

    fn text(&self) -> String {
        self.text.borrow().to_string()
    }

    /// The first line with `text`, as soon as there is one; `None` once the stream is closed.
    async fn line_with(&self, text: &str, closed: &mut bool) -> Option<String> {
        let mut updates = self.text.clone();
        loop {
            let found =
                updates.borrow_and_update().lines().find(|line| line.contains(text)).map(str::to_owned);
            if found.is_some() || *closed {
                return found;
            }
            *closed = updates.changed().await.is_err();
        }
    }

    /// All of it, once the stream is closed.
    async fn finish(self) -> Result<String> {
        self.reader.await.context("reading the child's output failed")?;
        Ok(self.text.borrow().to_string())
    }
}

/// `target/debug/fleetlog`, found beside the running test: it lies in `target/debug/deps`.
fn binary_path() -> PathBuf {
    let test = std::env::current_exe().unwrap_or_default();
    let found =
        test.ancestors().skip(1).take(2).map(|folder| folder.join("fleetlog")).find(|path| path.is_file());
    found.unwrap_or_else(|| {
        panic!(
            "there is no fleetlog binary beside {}: run `cargo build -p fleetlog-cli` first",
            test.display()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(20);

    /// A shell in the place of fleetlog: what is tested here is how a child is watched.
    fn shell() -> Fleetlog {
        Fleetlog { program: "/bin/sh".into(), environment: BTreeMap::new() }.env("FLEETLOG_X", "1")
    }

    #[tokio::test]
    async fn output_and_exit_code_are_what_the_child_said() {
        let output = shell().run(&["-c", "echo a$FLEETLOG_X; echo b >&2; exit 3"], LIMIT).await.unwrap();
        assert_eq!((output.stdout.as_str(), output.stderr.as_str(), output.code()), ("a1\n", "b\n", Some(3)));
        assert!(output.success().unwrap_err().to_string().contains('b'));
    }

    #[tokio::test]
    async fn a_line_is_awaited_on_either_stream_and_a_kill_is_one() {
        let mut running = shell().spawn(&["-c", "echo one; echo two ready >&2; exec sleep 100"]).unwrap();
        assert_eq!(running.line_with("ready", LIMIT).await.unwrap(), "two ready");
        assert_eq!(running.line_with("one", LIMIT).await.unwrap(), "one");
        running.kill().await.unwrap();
        let output = running.wait(LIMIT).await.unwrap();
        assert_eq!(output.code(), None);
        assert_eq!(output.stdout, "one\n");
    }

    #[tokio::test]
    async fn a_line_that_never_comes_is_an_error_with_what_came() {
        let mut running = shell().spawn(&["-c", "echo only this"]).unwrap();
        let error = running.line_with("something else", LIMIT).await.unwrap_err().to_string();
        assert!(error.contains("only this"), "{error}");
    }

    #[tokio::test]
    async fn a_child_that_goes_on_too_long_is_killed() {
        let error = shell().run(&["-c", "exec sleep 100"], Duration::from_millis(100)).await.unwrap_err();
        assert!(error.to_string().contains("not done within"), "{error}");
    }
}
