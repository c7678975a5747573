//! The areas that Kafka tells of: brokers, topics, schemas, the newest records, groups, the records' clock, and the
//! brokers' disks.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    time::Duration,
};

use anyhow::Context;
use fleetlog_codec::{SchemaRef, SchemaSource, WriterSchema};
use fleetlog_doctor::{
    Area, Check, Finding, brokers, clock, disk, groups,
    records::{self, TopicTail},
    schemas, topics,
};
use fleetlog_event::{
    EventType, FleetEvent,
    catalogue::{Catalogue, TopicSpec, physical_name},
};
use fleetlog_kafka::{Admin, ClusterError, KafkaSettings, Offsets, Overview, SchemaTopic, tail};
use tokio::sync::OnceCell;

use super::{Away, Looks, unseen};
use crate::{commands::migrate, config, lanes, wiring};

/// What librdkafka takes for a message where nothing else is set.
const PRODUCER_BYTES_MAX: u64 = 1_000_000;
/// Areas that say nothing without Kafka.
const AREAS: [Area; 7] =
    [Area::Kafka, Area::Topics, Area::Schemas, Area::Records, Area::Groups, Area::Clock, Area::Disk];

/// Looks at those areas that are wanted.
pub(super) async fn look(looks: &Looks<'_>, away: &mut Away) -> Vec<Finding> {
    if !AREAS.iter().any(|area| looks.wants(*area)) {
        return Vec::new();
    }
    let cluster = match Cluster::reach(looks).await {
        Ok(cluster) => cluster,
        Err(finding) => {
            let others = AREAS.into_iter().filter(|area| *area != Area::Kafka && looks.wants(*area));
            away.note(finding.check, others);
            return vec![finding];
        }
    };
    let mut findings = looks.area(Area::Kafka, cluster.brokers()).await;
    findings.extend(looks.area(Area::Topics, cluster.topics()).await);
    findings.extend(looks.area(Area::Schemas, cluster.schemas()).await);
    findings.extend(looks.area(Area::Records, async { Ok(records::judge(cluster.tails().await?)) }).await);
    findings.extend(looks.area(Area::Groups, cluster.groups()).await);
    let clock = async {
        let tails = cluster.tails().await?;
        // After they were read, or records that came meanwhile would be from the future.
        Ok(vec![clock::judge_records(tails, migrate::now().0)])
    };
    findings.extend(looks.area(Area::Clock, clock).await);
    findings.extend(looks.area(Area::Disk, async { Ok(cluster.disks().await) }).await);
    findings
}

/// A cluster that answers, and what is asked of it.
struct Cluster<'a> {
    looks: &'a Looks<'a>,
    settings: KafkaSettings,
    admin: Admin,
    overview: Overview,
    catalogue: Catalogue,
    desired: Vec<TopicSpec>,
    /// The newest records of the source topics; read once, when first needed.
    tails: OnceCell<Vec<TopicTail>>,
    /// What brokers say of themselves; asked once, when first needed.
    configs: OnceCell<Configs>,
}

/// Each broker's configuration by its id, and why one did not tell.
#[derive(Default)]
struct Configs {
    told: BTreeMap<i32, BTreeMap<String, String>>,
    refused: Option<ClusterError>,
}

impl<'a> Cluster<'a> {
    /// The cluster, or the finding that it is away.
    async fn reach(looks: &'a Looks<'a>) -> Result<Self, Finding> {
        let config = looks.config;
        let away = |why: String| {
            Check::KafkaReachable
                .error(format!("kafka at {} does not answer: {why}", config.kafka.brokers))
                .cure("start the brokers, or correct `kafka.brokers` and what is below [kafka.properties]")
                .by(format!("kcat -b {} -L", config.kafka.brokers))
        };
        let settings = wiring::kafka_settings(config);
        let admin = Admin::new(&settings).map_err(|error| away(error.to_string()))?;
        let patience = looks.patience();
        let overview = looks.bounded(async { Ok(admin.overview(patience).await?) }).await.map_err(away)?;
        let catalogue = Catalogue::builtin();
        let desired = wiring::topic_specs(config, &catalogue);
        Ok(Self {
            looks,
            settings,
            admin,
            overview,
            catalogue,
            desired,
            tails: OnceCell::new(),
            configs: OnceCell::new(),
        })
    }

    async fn configs(&self) -> &Configs {
        let ask = async || {
            let mut configs = Configs::default();
            for broker in &self.overview.brokers {
                match self.admin.broker_configs(broker.id).await {
                    Ok(told) => drop(configs.told.insert(broker.id, told)),
                    Err(error) => configs.refused = configs.refused.or(Some(error)),
                }
            }
            configs
        };
        self.configs.get_or_init(ask).await
    }

    /// The disks of brokers that run on this host: each folder says whose it is.
    async fn disks(&self) -> Vec<Finding> {
        let configs = self.configs().await;
        let (mut findings, mut elsewhere) = (Vec::new(), Vec::new());
        for broker in &self.overview.brokers {
            let told = configs.told.get(&broker.id);
            let folders = told.and_then(|told| told.get("log.dirs").or_else(|| told.get("log.dir")));
            let folders = folders
                .map(String::as_str)
                .unwrap_or_default()
                .split(',')
                .map(|folder| Path::new(folder.trim()));
            let here: Vec<Finding> = folders.filter_map(|folder| self.disk(broker.id, folder)).collect();
            if here.is_empty() {
                elsewhere.push(broker.id.to_string());
            }
            findings.extend(here);
        }
        if !elsewhere.is_empty() {
            let whose = format!("broker {}", elsewhere.join(", "));
            let command =
                format!("kafka-log-dirs.sh --bootstrap-server {} --describe", self.settings.brokers);
            let why = "it runs on another host, or in a container, or its folders are not told, or closed to this user";
            findings.push(
                disk::unseen(
                    Check::DiskKafka,
                    &whose,
                    why,
                    "Kafka's own tool is told `usableBytes`, from 3.3 on",
                )
                .by(command),
            );
        }
        findings
    }

    /// A folder, if it is on this host and that broker's.
    fn disk(&self, broker: i32, folder: &Path) -> Option<Finding> {
        let properties = std::fs::read_to_string(folder.join("meta.properties")).ok()?;
        let is_its = disk::is_of_broker(&properties, self.overview.cluster_id.as_deref()?, broker);
        let space = super::stores::space(folder).filter(|_| is_its)?;
        let whose = format!("broker {broker}");
        Some(disk::judge_server(Check::DiskKafka, &whose, &folder.display().to_string(), space))
    }

    async fn brokers(&self) -> anyhow::Result<Vec<Finding>> {
        let Configs { told: configs, refused } = self.configs().await;
        let sources = self.catalogue.sources();
        let mut findings = brokers::judge(&brokers::Facts {
            bootstrap: self.settings.brokers.clone(),
            overview: self.overview.clone(),
            configs: configs.clone(),
            replication_max: self.desired.iter().map(|spec| spec.replication).max().unwrap_or(1),
            producer_bytes_max: self
                .settings
                .producer()
                .get("message.max.bytes")
                .and_then(|text| text.parse().ok())
                .unwrap_or(PRODUCER_BYTES_MAX),
            topic_bytes_max: sources
                .map(|topic| u64::from(topic.message_bytes_max.unsigned_abs()))
                .min()
                .unwrap_or(0),
        });
        findings.extend(refused.as_ref().map(|error| unseen(Check::KafkaUnseen.warning(error.to_string()))));
        Ok(findings)
    }

    async fn topics(&self) -> anyhow::Result<Vec<Finding>> {
        let names: Vec<&str> = self.desired.iter().map(|spec| spec.name.as_str()).collect();
        let actual = self.admin.topics(&names).await?;
        Ok(topics::judge(&self.desired, &actual, &self.overview, &self.settings.brokers))
    }

    /// The newest records of the source topics that exist.
    async fn tails(&self) -> anyhow::Result<&[TopicTail]> {
        let read = async || {
            let mut tails = Vec::new();
            // Together they stay within an area's limit, so that a slow broker is told as what was not read.
            let limit = self.looks.limit / 8;
            for source in self.catalogue.sources() {
                let topic = physical_name(&self.settings.topic_prefix, &source.stem);
                if self.overview.topics.contains_key(&topic) {
                    tails.push(TopicTail {
                        tail: self.tail(topic.clone(), limit).await?,
                        stem: source.stem.clone(),
                        partitions_wanted: source.partitions,
                        topic,
                    });
                }
            }
            anyhow::Ok(tails)
        };
        let tails = self.tails.get_or_try_init(read).await?;
        Ok(tails)
    }

    async fn tail(&self, topic: String, limit: Duration) -> anyhow::Result<fleetlog_kafka::Tail> {
        let (settings, records_max) = (self.settings.clone(), self.looks.records_max);
        let read = tokio::task::spawn_blocking(move || tail(&settings, &topic, records_max, limit));
        Ok(read.await.context("reading the newest records")??)
    }

    async fn schemas(&self) -> anyhow::Result<Vec<Finding>> {
        let tails = self.tails().await?;
        let topic = SchemaTopic::new(&self.settings)?;
        let on_topic: Result<BTreeSet<u64>, String> = topic
            .all()
            .await
            .map(|schemas| schemas.iter().map(|schema| schema.fingerprint()).collect())
            .map_err(|error| error.to_string());
        let registry = wiring::registry(self.looks.config)?;
        let used: BTreeMap<SchemaRef, String> = used(tails);
        let (home, newest) = match &registry {
            None => (
                schemas::Home::Topic(topic.topic().to_owned()),
                on_topic.clone().map(|on| newest_on(&on).into_iter().map(|(_, newest)| newest).collect()),
            ),
            Some(registry) => {
                let url = config::redact_url(&self.looks.config.registry.url);
                (schemas::Home::Registry(url), self.registered(registry).await)
            }
        };
        let on_topic = on_topic.unwrap_or_default();
        let mut unknown = Vec::new();
        for (schema, place) in &used {
            let is_known = match (schema, &registry) {
                (SchemaRef::Fingerprint(print), _) => {
                    WriterSchema::builtin(*print).is_some() || on_topic.contains(print)
                }
                (SchemaRef::Id(_), None) => false,
                (SchemaRef::Id(_), Some(_)) if newest.is_err() => continue,
                (SchemaRef::Id(id), Some(registry)) => {
                    !matches!(registry.by_id(*id).await, Err(fleetlog_codec::LookupError::NotFound(_)))
                }
            };
            if !is_known {
                unknown.push(schemas::Unknown { schema: *schema, place: place.clone() });
            }
        }
        let print =
            |schema: &SchemaRef| if let SchemaRef::Fingerprint(print) = schema { Some(*print) } else { None };
        Ok(schemas::judge(&schemas::Facts {
            home,
            has_records: tails.iter().any(|topic| topic.tail.offsets > 0),
            newest,
            used: used.keys().filter_map(print).collect(),
            unknown,
        }))
    }

    /// Which events' newest schemas the registry has. The first failure stands for all.
    async fn registered(
        &self,
        registry: &fleetlog_codec::RegistryClient,
    ) -> Result<Vec<schemas::Newest>, String> {
        let mut newest = newest_on(&BTreeSet::new());
        for (event, newest) in &mut newest {
            let topic = physical_name(&self.settings.topic_prefix, event.topic);
            let id = registry.registered(&topic, event.name).await.map_err(|error| error.to_string())?;
            newest.is_there = id.is_some();
        }
        let newest = newest.into_iter().map(|(_, newest)| newest).collect();
        Ok(newest)
    }

    async fn groups(&self) -> anyhow::Result<Vec<Finding>> {
        let config = self.looks.config;
        let sources: Vec<String> = self
            .catalogue
            .sources()
            .map(|topic| physical_name(&self.settings.topic_prefix, &topic.stem))
            .filter(|topic| self.overview.topics.contains_key(topic))
            .collect();
        let names: Vec<&str> = sources.iter().map(String::as_str).collect();
        let log = match names[..] {
            [] => BTreeMap::new(),
            _ => Offsets::new(&self.settings)?.ranges(&names).await?,
        };
        let mut groups = Vec::new();
        for projection in lanes::chosen(&config.run.projections)? {
            let name = wiring::group(config, &projection);
            let topics: Vec<String> = projection
                .topics
                .iter()
                .map(|stem| physical_name(&self.settings.topic_prefix, stem))
                .collect();
            let own = log.iter().filter(|((topic, _), _)| topics.contains(topic));
            groups.push(groups::Group {
                projection: projection.id.to_owned(),
                client: config.kafka.client_id.clone(),
                partitions: own.clone().map(|(at, _)| at.clone()).collect(),
                has_records: own.clone().any(|(_, range)| range.end > range.low),
                facts: self.admin.group(&name).await?,
                name,
            });
        }
        Ok(groups::judge(&groups, &self.settings.brokers))
    }
}

/// How the newest records name their schemas, and where one such record lies.
fn used(tails: &[TopicTail]) -> BTreeMap<SchemaRef, String> {
    let mut used = BTreeMap::new();
    for topic in tails {
        for record in &topic.tail.records {
            if let Ok(schema) = record.schema {
                let place = || format!("{}/{}/{}", topic.topic, record.partition, record.offset);
                used.entry(schema).or_insert_with(place);
            }
        }
    }
    used
}

/// Every event with its newest schema, and whether that is among these.
fn newest_on(there: &BTreeSet<u64>) -> Vec<(EventType, schemas::Newest)> {
    FleetEvent::types()
        .filter_map(|event| {
            let fingerprint = fleetlog_codec::newest(event.name)?.fingerprint();
            let is_there = there.contains(&fingerprint);
            Some((event, schemas::Newest { event: event.name.to_owned(), fingerprint, is_there }))
        })
        .collect()
}
