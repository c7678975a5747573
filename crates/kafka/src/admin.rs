//! Topics: what is there, the plan, carrying it out, and topic ids.

use std::{
    collections::BTreeMap,
    ops::Deref,
    sync::Arc,
    time::{Duration, Instant},
};

use fleetlog_event::{LogId, catalogue::TopicSpec};
use rdkafka::{
    admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication},
    client::Client,
    error::{KafkaError, RDKafkaErrorCode},
};
use serde::Serialize;

use crate::{
    Bootstrap, ClusterError, KafkaFault, KafkaSettings, Overview, TracingContext,
    bootstrap::{ASK_TIMEOUT, PATIENCE},
    native::{self, Described, GroupFacts},
    plan::{Change, ConfigChange, Plan, TopicFacts},
};

/// How long brokers may take to register with their controller: its default for a session is 9 s.
const REGISTRATION_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a change may take to become visible.
const VISIBLE_TIMEOUT: Duration = Duration::from_secs(90);
/// How often it is looked for.
const VISIBLE_INTERVAL: Duration = Duration::from_millis(100);

/// What the cluster is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ClusterFacts {
    /// The cluster's id, as its brokers tell it.
    pub id: Option<String>,
    /// `host:port` of each broker.
    pub brokers: Vec<String>,
}

/// Administration of one cluster. Cheap to clone; made for single commands and start-up, not to be kept for hours
/// (librdkafka's log lines of this client are not drained).
#[derive(Clone)]
pub struct Admin {
    pub(crate) client: Arc<AdminHandle>,
    pub(crate) brokers: String,
}

/// An administration client. Its thread looks every 100 ms whether it is to end, and whoever drops the client waits for that:
/// here a thread of the runtime, so that a command or a start does not.
pub(crate) struct AdminHandle(Option<AdminClient<TracingContext>>);

impl Deref for AdminHandle {
    type Target = AdminClient<TracingContext>;

    fn deref(&self) -> &Self::Target {
        self.0.as_ref().unwrap_or_else(|| unreachable!("it is there until it is dropped"))
    }
}

impl Drop for AdminHandle {
    fn drop(&mut self) {
        let client = self.0.take();
        // Outside a runtime it is dropped here. A runtime that ends waits for it.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn_blocking(move || drop(client));
        }
    }
}

impl Admin {
    /// A client for the cluster. Does not connect yet.
    ///
    /// # Errors
    /// When the settings are wrong.
    pub fn new(settings: &KafkaSettings) -> Result<Self, ClusterError> {
        let client = settings
            .client()
            .create_with_context(TracingContext)
            .map_err(|error| ClusterError::kafka("creating an administration client", error))?;
        Ok(Self { client: Arc::new(AdminHandle(Some(client))), brokers: settings.brokers.clone() })
    }

    /// The cluster's id and brokers; fails if no broker answers within `timeout`.
    ///
    /// # Errors
    /// When no broker could be reached.
    pub async fn cluster(&self, timeout: Duration) -> Result<ClusterFacts, ClusterError> {
        let Overview { cluster_id, brokers, .. } = self.overview(timeout).await?;
        Ok(ClusterFacts {
            id: cluster_id,
            brokers: brokers.into_iter().map(|broker| broker.address).collect(),
        })
    }

    /// Names of all topics of the cluster.
    ///
    /// # Errors
    /// When the brokers cannot be asked.
    pub async fn topic_names(&self) -> Result<Vec<String>, ClusterError> {
        self.asking("listing topics", |client| {
            let metadata = client.fetch_metadata(None, ASK_TIMEOUT)?;
            Ok(metadata.topics().iter().map(|topic| topic.name().to_owned()).collect())
        })
        .await
    }

    /// The facts of those of the named topics that exist.
    ///
    /// # Errors
    /// When the brokers cannot be asked.
    pub async fn topics(&self, names: &[&str]) -> Result<BTreeMap<String, TopicFacts>, ClusterError> {
        let mut facts = BTreeMap::new();
        for Described { name, facts: described } in self.describe(names).await? {
            match described {
                Ok(topic) => {
                    let partitions = i32::try_from(topic.replicas.len()).unwrap_or(i32::MAX);
                    let fewest = topic.replicas.iter().min().copied().unwrap_or(0);
                    let replication = i32::try_from(fewest).unwrap_or(i32::MAX);
                    let id = LogId(topic.id);
                    facts.insert(name, TopicFacts { id, partitions, replication, configs: BTreeMap::new() });
                }
                Err(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => {}
                Err(code) => return Err(ClusterError::code(format!("describing topic `{name}`"), code)),
            }
        }
        let existing: Vec<String> = facts.keys().cloned().collect();
        for (name, configs) in self.configs(&existing).await? {
            if let Some(topic) = facts.get_mut(&name) {
                topic.configs = configs;
            }
        }
        Ok(facts)
    }

    /// The ids (KIP-516) of the named topics, which must all exist: a recreated topic has another one.
    ///
    /// # Errors
    /// [`ClusterError::UnknownTopic`] for the first that does not exist; or the brokers cannot be asked.
    pub async fn topic_ids(&self, names: &[&str]) -> Result<BTreeMap<String, LogId>, ClusterError> {
        let described = self.describe(names).await?;
        described
            .into_iter()
            .map(|Described { name, facts }| match facts {
                Ok(topic) => Ok((name, LogId(topic.id))),
                Err(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => {
                    Err(ClusterError::UnknownTopic(name))
                }
                Err(code) => Err(ClusterError::code(format!("describing topic `{name}`"), code)),
            })
            .collect()
    }

    /// Who is in a consumer group, by its name with the prefix. A group that does not exist has no members.
    ///
    /// # Errors
    /// When its coordinator cannot be asked.
    pub async fn group(&self, group: &str) -> Result<GroupFacts, ClusterError> {
        let group = group.to_owned();
        self.asking(&format!("asking who is in group `{group}`"), move |client| {
            native::describe_group(client, &group, ASK_TIMEOUT)
        })
        .await
    }

    /// What would have to change for the cluster to have these topics.
    ///
    /// # Errors
    /// When the brokers cannot be asked.
    pub async fn plan(&self, desired: &[TopicSpec]) -> Result<Plan, ClusterError> {
        let names: Vec<&str> = desired.iter().map(|spec| spec.name.as_str()).collect();
        Ok(Plan::between(desired, &self.topics(&names).await?))
    }

    /// Carries out a plan's changes, in order, and waits until they are visible. Stops at the first that fails;
    /// running it again goes on from there.
    ///
    /// # Errors
    /// The first change that failed, with what the broker said.
    pub async fn apply(&self, plan: &Plan) -> Result<(), ClusterError> {
        for change in &plan.changes {
            match change {
                Change::Create { topic, partitions, replication, configs } => {
                    self.create(topic, *partitions, *replication, configs).await?;
                }
                Change::AddPartitions { topic, to, .. } => self.add_partitions(topic, *to).await?,
                Change::SetConfigs { topic, changes } => self.set_configs(topic, changes.clone()).await?,
            }
        }
        for change in &plan.changes {
            match change {
                Change::Create { topic, partitions, .. } => self.await_partitions(topic, *partitions).await?,
                Change::AddPartitions { topic, to, .. } => self.await_partitions(topic, *to).await?,
                Change::SetConfigs { topic, changes } => self.await_configs(topic, changes).await?,
            }
        }
        Ok(())
    }

    /// What is left to do for the cluster to have these topics, after a plan was carried out. Brokers learn of a change one
    /// after the other, so what seems to be left is looked at again for a while.
    ///
    /// # Errors
    /// When the brokers cannot be asked.
    pub async fn left(&self, desired: &[TopicSpec]) -> Result<Plan, ClusterError> {
        let started = Instant::now();
        loop {
            let left = self.plan(desired).await?;
            if left.changes.is_empty() || started.elapsed() > VISIBLE_TIMEOUT {
                return Ok(left);
            }
            tokio::time::sleep(VISIBLE_INTERVAL).await;
        }
    }

    /// Deletes topics and waits until they are gone. For tests and tools that own the topics; `apply` never does.
    ///
    /// # Errors
    /// When a broker refuses; a topic that is not there is no error.
    pub async fn delete_topics(&self, names: &[&str]) -> Result<(), ClusterError> {
        let context = || format!("deleting {}", names.join(", "));
        self.insisting(|| async {
            let outcomes = self.client.delete_topics(names, &options()).await;
            for outcome in outcomes.map_err(|error| ClusterError::kafka(context(), error))? {
                match outcome {
                    // An earlier try was heard, and its answer was not.
                    Ok(_) | Err((_, RDKafkaErrorCode::UnknownTopicOrPartition)) => {}
                    Err((topic, code)) => {
                        return Err(ClusterError::code(format!("deleting topic `{topic}`"), code));
                    }
                }
            }
            Ok(())
        })
        .await?;
        self.until(&context(), || async {
            Ok(self.describe(names).await?.iter().all(|topic| topic.facts.is_err()))
        })
        .await
    }

    async fn create(
        &self,
        topic: &str,
        partitions: i32,
        replication: i32,
        configs: &BTreeMap<String, String>,
    ) -> Result<(), ClusterError> {
        let context = || format!("creating topic `{topic}`");
        let mut new = NewTopic::new(topic, partitions, TopicReplication::Fixed(replication));
        for (name, value) in configs {
            new = new.set(name, value);
        }
        let once = || async {
            let outcomes = self.client.create_topics([&new], &options()).await;
            let outcomes = outcomes.map_err(|error| ClusterError::kafka(context(), error))?;
            match outcomes.into_iter().find_map(Result::err) {
                // Another process applying the same plan was quicker, or the answer to an earlier try got lost.
                None | Some((_, RDKafkaErrorCode::TopicAlreadyExists)) => Ok(true),
                // A broker that answers registers with its controller a moment later, as it does after a pause.
                Some((_, RDKafkaErrorCode::InvalidReplicationFactor)) => Ok(false),
                Some((_, code)) => Err(ClusterError::code(context(), code)),
            }
        };
        let mut refused_at = None;
        while !self.insisting(once).await? {
            if refused_at.get_or_insert_with(Instant::now).elapsed() > REGISTRATION_TIMEOUT {
                let brokers = self.insisting(|| self.cluster(ASK_TIMEOUT)).await?.brokers.len();
                return Err(ClusterError::TooFewBrokers { topic: topic.to_owned(), replication, brokers });
            }
            tokio::time::sleep(VISIBLE_INTERVAL).await;
        }
        Ok(())
    }

    async fn add_partitions(&self, topic: &str, to: i32) -> Result<(), ClusterError> {
        let context = || format!("adding partitions to topic `{topic}`");
        let wanted = usize::try_from(to).unwrap_or_default();
        let new = NewPartitions::new(topic, wanted);
        self.insisting(|| async {
            let outcomes = self.client.create_partitions([&new], &options()).await;
            let outcomes = outcomes.map_err(|error| ClusterError::kafka(context(), error))?;
            match outcomes.into_iter().find_map(Result::err) {
                None => Ok(()),
                // Another process was quicker, or the answer to an earlier try got lost.
                Some((_, RDKafkaErrorCode::InvalidPartitions))
                    if self.has_partitions(topic, wanted).await? =>
                {
                    Ok(())
                }
                Some((_, code)) => Err(ClusterError::code(context(), code)),
            }
        })
        .await
    }

    async fn has_partitions(&self, topic: &str, wanted: usize) -> Result<bool, ClusterError> {
        let described = self.describe(&[topic]).await?;
        Ok(described.iter().all(|t| t.facts.as_ref().is_ok_and(|facts| facts.replicas.len() == wanted)))
    }

    async fn set_configs(&self, topic: &str, changes: Vec<ConfigChange>) -> Result<(), ClusterError> {
        let context = format!("configuring topic `{topic}`");
        let name = topic.to_owned();
        let outcomes = self
            .asking(&context, move |client| {
                let configs =
                    changes.iter().map(|change| (change.name.as_str(), change.to.as_str())).collect();
                native::set_topic_configs(client, &[(&name, configs)], ASK_TIMEOUT)
            })
            .await?;
        for (_, outcome) in outcomes {
            outcome.map_err(|text| ClusterError::kafka(&*context, KafkaError::AdminOpCreation(text)))?;
        }
        Ok(())
    }

    async fn await_partitions(&self, topic: &str, partitions: i32) -> Result<(), ClusterError> {
        let wanted = usize::try_from(partitions).unwrap_or_default();
        let what = format!("topic `{topic}` with {partitions} partitions");
        self.until(&what, || self.has_partitions(topic, wanted)).await
    }

    async fn await_configs(&self, topic: &str, changes: &[ConfigChange]) -> Result<(), ClusterError> {
        let names = [topic.to_owned()];
        self.until(&format!("the settings of topic `{topic}`"), || async {
            let found = self.configs(&names).await?;
            let has = |change: &ConfigChange| {
                found.iter().any(|(_, configs)| configs.get(&change.name) == Some(&change.to))
            };
            Ok(changes.iter().all(has))
        })
        .await
    }

    async fn until<Seen: Future<Output = Result<bool, ClusterError>>>(
        &self,
        what: &str,
        seen: impl Fn() -> Seen,
    ) -> Result<(), ClusterError> {
        let started = Instant::now();
        while !seen().await? {
            if started.elapsed() > VISIBLE_TIMEOUT {
                let waited_s = VISIBLE_TIMEOUT.as_secs();
                return Err(ClusterError::NotVisible { what: what.to_owned(), waited_s });
            }
            tokio::time::sleep(VISIBLE_INTERVAL).await;
        }
        Ok(())
    }

    async fn describe(&self, names: &[&str]) -> Result<Vec<Described>, ClusterError> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        self.asking("describing topics", move |client| {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            native::describe_topics(client, &names, ASK_TIMEOUT)
        })
        .await
    }

    async fn configs(
        &self,
        names: &[String],
    ) -> Result<Vec<(String, BTreeMap<String, String>)>, ClusterError> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let resources: Vec<_> = names.iter().map(|name| ResourceSpecifier::Topic(name)).collect();
        let configs = self.described_configs("reading the configuration", &resources).await?;
        Ok(names.iter().cloned().zip(configs).collect())
    }

    /// The configuration of each resource, in order; values that a broker keeps secret are absent.
    pub(crate) async fn described_configs(
        &self,
        context: &str,
        resources: &[ResourceSpecifier<'_>],
    ) -> Result<Vec<BTreeMap<String, String>>, ClusterError> {
        self.insisting(|| async {
            let answers = self.client.describe_configs(resources, &options()).await;
            let answers = answers.map_err(|error| ClusterError::kafka(context, error))?;
            let mut configs = Vec::with_capacity(answers.len());
            for (answer, resource) in answers.into_iter().zip(resources) {
                let answer = answer.map_err(|code| {
                    let of = match resource {
                        ResourceSpecifier::Topic(name) => format!("topic `{name}`"),
                        ResourceSpecifier::Group(name) => format!("group `{name}`"),
                        ResourceSpecifier::Broker(id) => format!("broker {id}"),
                    };
                    ClusterError::code(format!("{context} of {of}"), code)
                })?;
                let entries = answer.entries.into_iter();
                configs.push(entries.filter_map(|entry| Some((entry.name, entry.value?))).collect());
            }
            Ok(configs)
        })
        .await
    }

    /// As [`insisting`](Self::insisting), of what blocks.
    async fn asking<T: Send + 'static>(
        &self,
        context: &str,
        ask: impl Fn(&Client<TracingContext>) -> Result<T, KafkaError> + Clone + Send + 'static,
    ) -> Result<T, ClusterError> {
        self.insisting(|| self.blocking(context.to_owned(), ask.clone())).await
    }

    /// Asks again while a controller or coordinator is changing, or no broker answers: whoever asks has to bear that an
    /// earlier try was heard and its answer got lost.
    async fn insisting<T, Asked: Future<Output = Result<T, ClusterError>>>(
        &self,
        ask: impl Fn() -> Asked,
    ) -> Result<T, ClusterError> {
        let (begun, mut bootstrap) = (Instant::now(), Bootstrap::new(&self.brokers));
        loop {
            let answer = ask().await;
            let passes = answer.as_ref().is_err_and(|error| error.fault() == KafkaFault::Transient);
            if !passes || begun.elapsed() >= PATIENCE {
                return answer;
            }
            let looked_after = move |client: &Client<TracingContext>| {
                bootstrap.look_after(client);
                Ok(bootstrap)
            };
            bootstrap = self.blocking("looking for brokers".to_owned(), looked_after).await?;
            tokio::time::sleep(VISIBLE_INTERVAL).await;
        }
    }

    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        context: String,
        ask: impl FnOnce(&Client<TracingContext>) -> Result<T, KafkaError> + Send + 'static,
    ) -> Result<T, ClusterError> {
        let client = Arc::clone(&self.client);
        match tokio::task::spawn_blocking(move || ask(client.inner())).await {
            Ok(result) => result.map_err(|error| ClusterError::kafka(context, error)),
            Err(_) => Err(ClusterError::Interrupted(context)),
        }
    }
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(ASK_TIMEOUT)).operation_timeout(Some(ASK_TIMEOUT))
}
