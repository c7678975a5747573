//! Private Kafka brokers: one node here, three in [`crate::KafkaCluster`].

use std::{
    fs,
    ops::{Deref, DerefMut},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use fleetlog_kafka::{Admin, KafkaSettings};
use tempfile::TempDir;

use crate::{
    FaultProxy, ServerIdentity,
    process::{Ready, ServerCommand, ServerProcess, Stop, free_port},
    stack::required,
};

/// For a Java that lives for seconds: compiled once and lightly, one thread to collect garbage.
const JAVA_STARTS_QUICKLY: [&str; 2] = ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"];
/// How long a node may take to answer one question about the cluster before it is asked again.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// A Kafka broker of one's own (KRaft, one node), from the jars of the stack. Takes some seconds to start.
///
/// It is its process: killed, stopped, paused and restarted as [`ServerProcess`] says.
#[derive(Debug)]
pub struct KafkaServer {
    // Before the folder: fields drop in order, and the process ends before its files go.
    process: ServerProcess,
    folder: TempDir,
    #[expect(dead_code, reason = "kept as long as the broker reads them")]
    key_stores: Option<TempDir>,
    port: u16,
}

/// What makes one node of a cluster.
pub(crate) struct Node<'a> {
    /// Counted from 1.
    pub(crate) id: usize,
    pub(crate) port: u16,
    /// Of all nodes, in the order of their ids.
    pub(crate) controller_ports: &'a [u16],
    /// A second listener, which tells clients another port: a proxy's.
    pub(crate) behind: Option<Behind>,
    /// Lines of `server.properties` that come last and win.
    pub(crate) options: &'a [&'a str],
    /// Listeners with TLS and SASL beside the plain one.
    pub(crate) secure: &'a [SaslListener],
}

/// A listener that speaks `SASL_SSL` with this certificate (on `localhost`) and takes this user by SCRAM-SHA-256 and PLAIN.
#[derive(Clone, Debug)]
pub struct SaslListener {
    /// Its certificate.
    pub identity: ServerIdentity,
    /// Who may come.
    pub user: String,
    /// And proves it by this.
    pub password: String,
}

/// A listener, and the port that it tells clients.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Behind {
    pub(crate) port: u16,
    pub(crate) advertised: u16,
}

impl KafkaServer {
    /// Starts one and waits until it answers.
    ///
    /// # Errors
    /// If Java or the jars are missing, or it doesn't come up.
    pub async fn start() -> Result<Self> {
        Self::start_with(&[]).await
    }

    /// The same with lines of `server.properties` that come after (and win over) the usual ones, such as
    /// `log.retention.check.interval.ms=500`.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_with(options: &[&str]) -> Result<Self> {
        Self::start_node(None, options).await
    }

    /// Starts one with two ways to it: its own, and one through a proxy, whose clients are told the proxy's port and
    /// never learn the other.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_behind_proxy(options: &[&str]) -> Result<(Self, FaultProxy)> {
        let port = free_port()?;
        let proxy = FaultProxy::start(format!("127.0.0.1:{port}")).await?;
        let behind = Behind { port, advertised: proxy.port() };
        Ok((Self::start_node(Some(behind), options).await?, proxy))
    }

    /// Starts one with these listeners beside the plain one; the ports of each, on `localhost`. One user and password for all
    /// that use SCRAM: those of the first.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_secure(listeners: &[SaslListener]) -> Result<(Self, Vec<u16>)> {
        let folder = tempfile::Builder::new().prefix("fleetlog-key-stores-").tempdir()?;
        let mut ports = Vec::new();
        let (mut names, mut advertised, mut protocols) = (String::new(), String::new(), String::new());
        let mut lines = String::new();
        for (n, listener) in listeners.iter().enumerate() {
            let (name, port, store) =
                (format!("SECURE{n}"), free_port()?, folder.path().join(format!("{n}.pem")));
            fs::write(&store, listener.identity.key_store())?;
            names += &format!(",{name}://127.0.0.1:{port}");
            advertised += &format!(",{name}://localhost:{port}");
            protocols += &format!(",{name}:SASL_SSL");
            lines += &sasl_lines(&format!("listener.name.{}", name.to_lowercase()), listener, &store);
            ports.push(port);
        }
        let (port, controller) = (free_port()?, free_port()?);
        lines += &format!(
            "listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}{names}\n\
             advertised.listeners=PLAINTEXT://127.0.0.1:{port}{advertised}\n\
             listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT{protocols}\n"
        );
        let (options, controller_ports) = ([lines.as_str()], [controller]);
        let options = &options;
        let controller_ports = &controller_ports;
        let node = Node { id: 1, port, controller_ports, behind: None, options, secure: listeners };
        let mut server = Self { key_stores: Some(folder), ..Self::prepare(&node).await? };
        server.restart().await?;
        Ok((server, ports))
    }

    async fn start_node(behind: Option<Behind>, options: &[&str]) -> Result<Self> {
        let (port, controller_ports) = (free_port()?, [free_port()?]);
        let node = Node { id: 1, port, controller_ports: &controller_ports, behind, options, secure: &[] };
        let mut server = Self::prepare(&node).await?;
        server.restart().await?;
        Ok(server)
    }

    /// A node with its folder, not yet running.
    pub(crate) async fn prepare(node: &Node<'_>) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("fleetlog-kafka-").tempdir()?;
        let libs = format!("{}/*", required("FLEETLOG_STACK_KAFKA_LIBS"));
        let log4j = required("FLEETLOG_STACK_KAFKA_LOG4J");
        let properties = folder.path().join("server.properties");
        fs::write(&properties, properties_text(folder.path(), node))?;
        format_storage(&libs, &properties, node.secure.first()).await?;
        let settings = settings_for(format!("127.0.0.1:{}", node.port), "", 1);
        let process = ServerProcess::new(ServerCommand {
            program: "java".into(),
            args: vec![
                "-Xmx256m".to_owned(),
                JAVA_STARTS_QUICKLY[0].to_owned(),
                JAVA_STARTS_QUICKLY[1].to_owned(),
                format!("-Dlog4j2.configurationFile={log4j}"),
                "-cp".to_owned(),
                libs,
                "kafka.Kafka".to_owned(),
                properties.display().to_string(),
            ],
            user: None,
            log: folder.path().join("kafka.log"),
            ready: Ready::when(move || answers(settings.clone())),
            stop: Stop { signal: "TERM", timeout: Duration::from_secs(30) },
            left_over: None,
        });
        Ok(Self { process, folder, key_stores: None, port: node.port })
    }

    /// `127.0.0.1:PORT`; the same after a restart.
    #[must_use]
    pub fn brokers(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Client settings for this broker, with topics and groups under `topic_prefix`.
    #[must_use]
    pub fn settings(&self, topic_prefix: &str) -> KafkaSettings {
        settings_for(self.brokers(), topic_prefix, 1)
    }

    /// Where its log directories are.
    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }
}

impl Deref for KafkaServer {
    type Target = ServerProcess;

    fn deref(&self) -> &ServerProcess {
        &self.process
    }
}

impl DerefMut for KafkaServer {
    fn deref_mut(&mut self) -> &mut ServerProcess {
        &mut self.process
    }
}

pub(crate) fn settings_for(brokers: String, topic_prefix: &str, replication: i32) -> KafkaSettings {
    KafkaSettings {
        topic_prefix: topic_prefix.to_owned(),
        replication: Some(replication),
        ..KafkaSettings::at(brokers)
    }
}

/// A node that listens does not answer yet: it has to know its controller.
async fn answers(settings: KafkaSettings) -> bool {
    let Ok(admin) = Admin::new(&settings) else { return false };
    admin.cluster(ANSWER_TIMEOUT).await.is_ok()
}

fn properties_text(folder: &Path, node: &Node<'_>) -> String {
    let Node { id, port, controller_ports, behind, options, .. } = node;
    let controller_port = controller_ports[id - 1];
    let voters: Vec<String> = (1..)
        .zip(*controller_ports)
        .map(|(voter, voter_port)| format!("{voter}@127.0.0.1:{voter_port}"))
        .collect();
    let replicas = controller_ports.len();
    let (listener, advertised) = behind.map_or_else(Default::default, |behind| {
        (format!(",BEHIND://127.0.0.1:{}", behind.port), format!(",BEHIND://127.0.0.1:{}", behind.advertised))
    });
    format!(
        "process.roles=broker,controller\nnode.id={id}\n\
         controller.quorum.voters={}\n\
         listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}{listener}\n\
         advertised.listeners=PLAINTEXT://127.0.0.1:{port}{advertised}\n\
         listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,BEHIND:PLAINTEXT\n\
         inter.broker.listener.name=PLAINTEXT\n\
         controller.listener.names=CONTROLLER\n\
         log.dirs={}\n\
         auto.create.topics.enable=false\n\
         offsets.topic.replication.factor={replicas}\noffsets.topic.num.partitions=3\n\
         transaction.state.log.replication.factor={replicas}\ntransaction.state.log.min.isr={}\n\
         transaction.state.log.num.partitions=3\n\
         group.initial.rebalance.delay.ms=0\n{}\n",
        voters.join(","),
        folder.join("data").display(),
        replicas.div_ceil(2),
        options.join("\n")
    )
}

/// Lines of `server.properties` of one such listener.
fn sasl_lines(prefix: &str, listener: &SaslListener, store: &Path) -> String {
    const MODULES: &str = "org.apache.kafka.common.security";
    let SaslListener { user, password, .. } = listener;
    format!(
        "{prefix}.sasl.enabled.mechanisms=SCRAM-SHA-256,PLAIN\n\
         {prefix}.scram-sha-256.sasl.jaas.config={MODULES}.scram.ScramLoginModule required;\n\
         {prefix}.plain.sasl.jaas.config={MODULES}.plain.PlainLoginModule required user_{user}=\"{password}\";\n\
         {prefix}.ssl.keystore.type=PEM\n{prefix}.ssl.keystore.location={}\n",
        store.display()
    )
}

async fn format_storage(libs: &str, properties: &Path, sasl: Option<&SaslListener>) -> Result<()> {
    let scram = sasl.map(|SaslListener { user, password, .. }| {
        ["--add-scram".to_owned(), format!("SCRAM-SHA-256=[name={user},password={password}]")]
    });
    // Any cluster id will do: nobody but this test meets this cluster.
    let output = tokio::process::Command::new("java")
        .args(JAVA_STARTS_QUICKLY)
        .args(["-cp", libs, "kafka.tools.StorageTool", "format", "-t", "AAAAAAAAAAAAAAAAAAAAAQ", "-c"])
        .arg(properties)
        .args(scram.iter().flatten())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .context("cannot start java")?;
    if !output.status.success() {
        bail!("formatting Kafka's folder failed:\n{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Way, process::port_answers};

    #[tokio::test]
    async fn a_killed_broker_comes_back_where_it_was() {
        let mut server = KafkaServer::start().await.unwrap();
        let (brokers, first) = (server.brokers(), server.pid());
        server.kill();
        assert!(server.pid().is_none());
        assert!(!port_answers(server.port).await);
        server.restart().await.unwrap();
        assert_eq!(server.brokers(), brokers);
        assert_ne!(server.pid(), first);
        let admin = Admin::new(&server.settings("x-")).unwrap();
        assert!(admin.topic_names().await.unwrap().iter().all(|name| name.starts_with("__")));
    }

    #[tokio::test]
    async fn behind_a_proxy_clients_learn_of_no_other_way() {
        let (server, proxy) = KafkaServer::start_behind_proxy(&[]).await.unwrap();
        let through = Admin::new(&KafkaSettings::at(proxy.address())).unwrap();
        assert_eq!(through.cluster(ANSWER_TIMEOUT).await.unwrap().brokers, [proxy.address()]);
        let direct = Admin::new(&server.settings("")).unwrap();
        assert_eq!(direct.cluster(ANSWER_TIMEOUT).await.unwrap().brokers, [server.brokers()]);
        proxy.set(Way::Refuse).await;
        proxy.cut().await;
        assert!(through.cluster(Duration::from_millis(500)).await.is_err());
        assert!(direct.cluster(ANSWER_TIMEOUT).await.is_ok());
    }
}
