//! A server process that a test owns: started, killed, paused, and gone when the test is.

use std::{
    fmt,
    fs::{self, File},
    future::Future,
    net::TcpListener,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    pin::Pin,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use tokio::time::{Instant, sleep};

/// How long a server may take until it answers. Generous: test machines are loaded, and three brokers may start at once.
const READY_TIMEOUT: Duration = Duration::from_secs(180);
/// Between two questions whether a server answers yet.
const READY_POLL: Duration = Duration::from_millis(50);
/// How often a server is started again because the one before it is not quite gone, and how long after.
const LEFT_OVER_TRIES: usize = 20;
const LEFT_OVER_PAUSE: Duration = Duration::from_millis(250);
/// The user PostgreSQL runs as where the tests run as root.
const SERVER_USER: &str = "postgres";

/// What to start and how to talk to it. Kept, so that a restart starts the same.
#[derive(Debug)]
pub(crate) struct ServerCommand {
    pub(crate) program: PathBuf,
    pub(crate) args: Vec<String>,
    /// The user to become, if not the own one.
    pub(crate) user: Option<User>,
    pub(crate) log: PathBuf,
    /// Whether it answers.
    pub(crate) ready: Ready,
    /// What asks it to end in good order.
    pub(crate) stop: Stop,
    /// What its log says when the one before it, killed, is not quite gone: it is then started again.
    pub(crate) left_over: Option<&'static str>,
}

/// A question to a server: does it answer?
pub(crate) struct Ready(Box<dyn Fn() -> Answer + Send + Sync>);

type Answer = Pin<Box<dyn Future<Output = bool> + Send>>;

/// How a server ends in good order.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stop {
    /// The signal that asks for it.
    pub(crate) signal: &'static str,
    /// How long it may take.
    pub(crate) timeout: Duration,
}

/// A user of this machine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// The process of a server that a test owns: killed, stopped, paused and started again, always on the same port and
/// files.
#[derive(Debug)]
pub struct ServerProcess {
    command: ServerCommand,
    child: Option<Child>,
}

impl Ready {
    /// Asks by this function.
    pub(crate) fn when<Fut>(asks: impl Fn() -> Fut + Send + Sync + 'static) -> Self
    where
        Fut: Future<Output = bool> + Send + 'static,
    {
        Self(Box::new(move || Box::pin(asks())))
    }
}

impl fmt::Debug for Ready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ready")
    }
}

impl ServerProcess {
    /// Not yet started: call [`Self::restart`].
    pub(crate) fn new(command: ServerCommand) -> Self {
        Self { command, child: None }
    }

    /// Starts it, for the first time or after [`Self::kill`] or [`Self::stop`]; returns once it answers.
    ///
    /// # Errors
    /// If it is running, ends at once, or doesn't answer within three minutes: with the end of its log.
    pub async fn restart(&mut self) -> Result<()> {
        for _ in 1..LEFT_OVER_TRIES {
            match (self.start().await, self.command.left_over) {
                (Err(error), Some(sign)) if error.to_string().contains(sign) => sleep(LEFT_OVER_PAUSE).await,
                (outcome, _) => return outcome,
            }
        }
        self.start().await
    }

    async fn start(&mut self) -> Result<()> {
        if self.child.is_some() {
            bail!("{} is running already", self.command.program.display());
        }
        self.child = Some(self.command.spawn()?);
        let deadline = Instant::now() + READY_TIMEOUT;
        while !(self.command.ready.0)().await {
            if let Some(status) = self.child.as_mut().map(Child::try_wait).transpose()?.flatten() {
                self.child = None;
                bail!(
                    "{} ended with {status} while starting:\n{}",
                    self.command.program.display(),
                    self.log_tail()
                );
            }
            if Instant::now() > deadline {
                self.kill();
                bail!(
                    "{} did not answer within {READY_TIMEOUT:?}:\n{}",
                    self.command.program.display(),
                    self.log_tail()
                );
            }
            sleep(READY_POLL).await;
        }
        Ok(())
    }

    /// `kill -9`, and waits until the process is gone. Nothing if it isn't running.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Both fail only for a process that is gone already, which is what is wanted.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Ends it in good order. Nothing if it isn't running.
    ///
    /// # Errors
    /// If it doesn't end in the time that such a server may take: it's killed then.
    pub async fn stop(&mut self) -> Result<()> {
        let Some(child) = self.child.as_mut() else { return Ok(()) };
        let Stop { signal, timeout } = self.command.stop;
        send_signal(child.id(), signal)?;
        let deadline = Instant::now() + timeout;
        while child.try_wait()?.is_none() {
            if Instant::now() > deadline {
                self.kill();
                bail!("{} did not end within {timeout:?} after {signal}", self.command.program.display());
            }
            sleep(READY_POLL).await;
        }
        self.child = None;
        Ok(())
    }

    /// Freezes the process: connections stay open, nothing is answered. (Of PostgreSQL that is only the part that takes
    /// new connections: each session is a process of its own, and goes on.)
    ///
    /// # Errors
    /// If it isn't running.
    pub fn pause(&self) -> Result<()> {
        self.signal("STOP")
    }

    /// Lets a paused process go on.
    ///
    /// # Errors
    /// If it isn't running.
    pub fn resume(&self) -> Result<()> {
        self.signal("CONT")
    }

    /// The process id, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    fn signal(&self, signal: &str) -> Result<()> {
        let pid = self.pid().with_context(|| format!("{} is not running", self.command.program.display()))?;
        send_signal(pid, signal)
    }

    fn log_tail(&self) -> String {
        let log = fs::read_to_string(&self.command.log).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        self.kill();
    }
}

impl ServerCommand {
    fn spawn(&self) -> Result<Child> {
        let log = File::create(&self.log).with_context(|| format!("cannot write {}", self.log.display()))?;
        let mut command = dies_with_parent(&self.program);
        command.args(&self.args).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        if let Some(user) = self.user {
            command.uid(user.uid).gid(user.gid);
        }
        command.spawn().with_context(|| format!("cannot start {}", self.program.display()))
    }
}

/// A command whose process is killed when the thread that spawned it ends, so that a test that is itself killed
/// leaves nothing behind. Where `setpriv` is missing, only `Drop` ends the process.
pub(crate) fn dies_with_parent(program: &Path) -> Command {
    let setpriv = Path::new("/usr/bin/setpriv");
    if !setpriv.exists() {
        return Command::new(program);
    }
    let mut command = Command::new(setpriv);
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

/// Sends a signal by name. By way of `sh`, since the system call needs unsafe code or a crate more.
pub(crate) fn send_signal(pid: u32, signal: &str) -> Result<()> {
    let status =
        Command::new("sh").args(["-c", "kill -s \"$0\" \"$1\"", signal, &pid.to_string()]).status()?;
    if !status.success() {
        bail!("cannot send {signal} to process {pid}: {status}");
    }
    Ok(())
}

/// A port nobody listens on, outside the range from which the kernel takes ports for outgoing connections: else a
/// client that tries to reach a killed server may be given the server's port, or even connect to itself.
pub(crate) fn free_port() -> Result<u16> {
    const PORTS: std::ops::Range<u16> = 10_000..20_000;
    for _ in 0..1_000 {
        let random = uuid::Uuid::now_v7().as_u128();
        let port = PORTS.start + u16::try_from(random % u128::from(PORTS.end - PORTS.start))?;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no free port found between {} and {}", PORTS.start, PORTS.end)
}

/// Whether somebody listens on the port.
pub(crate) async fn port_answers(port: u16) -> bool {
    tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok()
}

/// The user a PostgreSQL server has to run as: none in particular, unless this process is root.
pub(crate) fn server_user() -> Result<Option<User>> {
    let own = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let is_root = own.lines().any(|line| line.starts_with("Uid:\t0\t"));
    if !is_root {
        return Ok(None);
    }
    let users = fs::read_to_string("/etc/passwd").context("cannot read /etc/passwd")?;
    user_in(&users, SERVER_USER).map(Some).with_context(|| {
        format!("running as root, and there is no user {SERVER_USER} for PostgreSQL to run as")
    })
}

fn user_in(passwd: &str, name: &str) -> Option<User> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        if fields.next() != Some(name) {
            return None;
        }
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        Some(User { uid, gid })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_by_its_whole_name() {
        let passwd =
            "root:x:0:0::/root:/bin/sh\npostgresql:x:5:6::/:/bin/sh\npostgres:x:101:102::/:/bin/sh\n";
        let user = user_in(passwd, "postgres").unwrap();
        assert_eq!((user.uid, user.gid), (101, 102));
        assert!(user_in(passwd, "nobody").is_none());
    }

    #[tokio::test]
    async fn a_server_that_ends_at_once_is_an_error_with_its_log() {
        let folder = tempfile::tempdir().unwrap();
        let mut server = ServerProcess::new(ServerCommand {
            program: "/bin/sh".into(),
            args: vec!["-c".into(), "echo no such disk; exit 3".into()],
            user: None,
            log: folder.path().join("log"),
            ready: Ready::when(|| async { false }),
            stop: Stop { signal: "TERM", timeout: Duration::ZERO },
            left_over: None,
        });
        let error = server.restart().await.unwrap_err().to_string();
        assert!(error.contains("no such disk") && error.contains('3'), "{error}");
    }
}
