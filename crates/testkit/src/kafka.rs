//! A private Kafka broker.

use std::{fs, path::Path, process::Command, time::Duration};

use anyhow::{Context, Result, bail};
use fleetlog_kafka::{Admin, KafkaSettings};
use tempfile::TempDir;

use crate::{
    process::{ServerCommand, ServerProcess, free_port, port_answers},
    stack::required,
};

/// A Kafka broker of one's own (KRaft, one node), from the jars of the stack. Takes some seconds to start.
#[derive(Debug)]
pub struct KafkaServer {
    // Before the folder: fields drop in order, and the process ends before its files go.
    process: ServerProcess,
    _folder: TempDir,
    port: u16,
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
        let folder = tempfile::Builder::new().prefix("fleetlog-kafka-").tempdir()?;
        let libs = format!("{}/*", required("FLEETLOG_STACK_KAFKA_LIBS"));
        let log4j = required("FLEETLOG_STACK_KAFKA_LOG4J");
        let (port, controller_port) = (free_port()?, free_port()?);
        let properties = folder.path().join("server.properties");
        fs::write(&properties, properties_text(folder.path(), port, controller_port, options))?;
        format_storage(&libs, &properties)?;
        let mut server = Self {
            process: ServerProcess::new(ServerCommand {
                program: "java".into(),
                args: vec![
                    "-Xmx256m".to_owned(),
                    format!("-Dlog4j2.configurationFile={log4j}"),
                    "-cp".to_owned(),
                    libs,
                    "kafka.Kafka".to_owned(),
                    properties.display().to_string(),
                ],
                user: None,
                log: folder.path().join("kafka.log"),
            }),
            _folder: folder,
            port,
        };
        server.restart().await?;
        Ok(server)
    }

    /// `127.0.0.1:PORT`; the same after a restart.
    #[must_use]
    pub fn brokers(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Client settings for this broker, with topics and groups under `topic_prefix`.
    #[must_use]
    pub fn settings(&self, topic_prefix: &str) -> KafkaSettings {
        KafkaSettings {
            topic_prefix: topic_prefix.to_owned(),
            replication: Some(1),
            ..KafkaSettings::at(self.brokers())
        }
    }

    /// The process id, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.process.pid()
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Ends it in good order.
    ///
    /// # Errors
    /// If it doesn't end within thirty seconds.
    pub async fn stop(&mut self) -> Result<()> {
        self.process.stop("TERM", Duration::from_secs(30)).await
    }

    /// Starts it again after [`Self::kill`] or [`Self::stop`], on the same port and data; returns once it answers.
    ///
    /// # Errors
    /// If it is running, or doesn't come up.
    pub async fn restart(&mut self) -> Result<()> {
        let port = self.port;
        self.process.start(|| port_answers(port)).await?;
        let admin = Admin::new(&self.settings(""))?;
        admin.cluster(Duration::from_secs(60)).await.context("the broker listens and does not answer")?;
        Ok(())
    }

    /// Freezes it: connections stay open, nothing is answered.
    ///
    /// # Errors
    /// If it isn't running.
    pub fn pause(&self) -> Result<()> {
        self.process.pause()
    }

    /// Lets it go on after [`Self::pause`].
    ///
    /// # Errors
    /// If it isn't running.
    pub fn resume(&self) -> Result<()> {
        self.process.resume()
    }
}

fn properties_text(folder: &Path, port: u16, controller_port: u16, options: &[&str]) -> String {
    format!(
        "process.roles=broker,controller\nnode.id=1\n\
         controller.quorum.voters=1@127.0.0.1:{controller_port}\n\
         listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}\n\
         advertised.listeners=PLAINTEXT://127.0.0.1:{port}\n\
         controller.listener.names=CONTROLLER\n\
         log.dirs={}\n\
         auto.create.topics.enable=false\n\
         offsets.topic.replication.factor=1\noffsets.topic.num.partitions=3\n\
         transaction.state.log.replication.factor=1\ntransaction.state.log.min.isr=1\n\
         transaction.state.log.num.partitions=3\n\
         group.initial.rebalance.delay.ms=0\n{}\n",
        folder.join("data").display(),
        options.join("\n")
    )
}

fn format_storage(libs: &str, properties: &Path) -> Result<()> {
    // Any cluster id will do: nobody but this test meets this cluster.
    let output = Command::new("java")
        .args(["-cp", libs, "kafka.tools.StorageTool", "format", "-t", "AAAAAAAAAAAAAAAAAAAAAQ", "-c"])
        .arg(properties)
        .output()
        .context("cannot start java")?;
    if !output.status.success() {
        bail!("formatting Kafka's folder failed:\n{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
