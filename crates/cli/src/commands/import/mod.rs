//! `fleetlog import vda5050 FILE`: recorded MQTT traffic becomes events.
//!
//! Every batch of lines is one Kafka transaction: its events, its dead letters, and the place (file digest → line) on
//! the topic `import-places`. So a killed import goes on exactly where it was, and importing a file again adds nothing.
//! The mapping is replayed from the first line each time, without sending: it is pure, so its state comes out the same.

pub(crate) mod file;
mod place;
mod report;

use std::{path::PathBuf, time::Duration};

use bytes::Bytes;
use fleetlog_event::{FleetEvent, TimestampMs};
use fleetlog_producer::{ProducerMetrics, RawRecord, Schemas, TransactionError, TransactionalProducer};
use fleetlog_vda5050::{Line, Mapper, Outcome, Verdict};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::Instant;

use crate::{
    config::Config,
    engine_parts::taking_all_that_topics_take,
    exit::{Code, Failure},
    output::{self, Format},
    wiring,
};
use file::Recording;
use place::Place;
use report::Report;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Recorded VDA 5050 MQTT traffic: JSON lines {ts_ms, topic, qos, retain, payload}, plain or .zst
    #[command(after_help = "Examples:\n  fleetlog import vda5050 data/vda5050/A.jsonl.zst\n  \
                            fleetlog import vda5050 data/vda5050/A.jsonl.zst --speed 10\n  \
                            fleetlog import vda5050 A.jsonl --dry-run --format json")]
    Vda5050(Vda5050),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Vda5050 {
    /// The recording
    file: PathBuf,
    /// How fast: a factor of the recorded speed, or `max`
    #[arg(long, default_value = "max")]
    speed: Speed,
    /// Only say what would become of the messages; sends nothing and needs no server
    #[arg(long)]
    dry_run: bool,
}

/// How fast a recording is played.
#[derive(Clone, Copy, Debug)]
enum Speed {
    Factor(f64),
    Max,
}

impl std::str::FromStr for Speed {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse::<f64>() {
            _ if text == "max" => Ok(Self::Max),
            Ok(factor) if factor > 0.0 && factor.is_finite() => Ok(Self::Factor(factor)),
            _ => Err("a factor above 0, such as 10, or `max`".to_owned()),
        }
    }
}

/// Lines of one transaction at full speed: large enough to be quick, small enough to lose little to a kill.
const BATCH_LINES_MAX: u64 = 2_000;
/// How long a batch is collected when played at recorded speed.
const BATCH_MS_MAX: u64 = 200;
/// How long the end of an import waits for readers to reach it. Kafka aborts what a dead producer left open after a minute by
/// default, and looks every ten seconds.
const VISIBLE_PATIENCE: Duration = Duration::from_secs(75);
/// How often an aborted transaction is tried again.
const ABORTED_TRIES: u32 = 20;

pub(crate) async fn run(command: &Command, config: &Config, format: Format) -> anyhow::Result<Code> {
    let Command::Vda5050(args) = command;
    let recording = Recording::open(&args.file)?;
    let bar = progress_bar(recording.lines);
    let mut import = Import {
        mapper: Mapper::new(recording.digest.clone()),
        report: Report::new(&args.file, &recording),
        batch: Batch::default(),
        sender: None,
        place: None,
    };
    if !args.dry_run {
        wiring::admin(config).await?;
        let sender = Sender::connect(config, &recording).await?;
        import.place = sender.place().await?;
        import.report.resumed_from(import.place);
        import.sender = Some(sender);
    }
    let finished = import.lines(&recording, args.speed, &bar).await?;
    if let Some(sender) = import.sender.as_ref().filter(|_| finished) {
        sender.until_visible().await;
    }
    bar.finish_and_clear();
    match format {
        Format::Json => output::json(&import.report)?,
        Format::Table => output::line(&import.report.to_string()),
    }
    if !finished {
        eprintln!(
            "interrupted after line {}; the same command goes on from there",
            import.report.lines_done()
        );
        return Ok(Code::Failed);
    }
    Ok(Code::Done)
}

fn progress_bar(lines: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} lines {per_sec} {eta}");
    // The template is constant; if it were wrong the plain bar would do.
    ProgressBar::new(lines).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// What goes out in one transaction.
#[derive(Default)]
struct Batch {
    events: Vec<FleetEvent>,
    dead: Vec<RawRecord>,
    lines: u64,
    last_line: u64,
    since: Option<Instant>,
}

struct Import {
    mapper: Mapper,
    report: Report,
    batch: Batch,
    /// None in a dry run.
    sender: Option<Sender>,
    place: Option<Place>,
}

impl Import {
    /// Goes through the file; false if it was interrupted.
    async fn lines(
        &mut self,
        recording: &Recording,
        speed: Speed,
        bar: &ProgressBar,
    ) -> anyhow::Result<bool> {
        let done = self.place.map_or(0, |place| place.line);
        let interrupted = tokio::signal::ctrl_c();
        tokio::pin!(interrupted);
        let mut pace = Pace::new(speed);
        for (number, line) in (1_u64..).zip(recording.lines()?) {
            let line = line?;
            let outcome = self.mapper.raw_line(&line, number, TimestampMs(0));
            let news = number > done;
            if news && self.sender.is_some() {
                let pause = pace.until(&line);
                tokio::select! {
                    _ = &mut interrupted => {
                        self.send(recording).await?;
                        return Ok(false);
                    }
                    () = pause => {}
                }
            }
            self.report.count(&outcome);
            if news && self.sender.is_some() {
                self.take(recording, number, &line, outcome);
                if self.batch.is_due(speed) {
                    self.send(recording).await?;
                }
            }
            bar.set_position(number);
        }
        self.send(recording).await?;
        Ok(true)
    }

    fn take(&mut self, recording: &Recording, number: u64, line: &[u8], outcome: Outcome) {
        if let Verdict::Dead { reason, detail } = &outcome.verdict {
            let topic =
                self.sender.as_ref().map(|sender| sender.dead_letter_topic.clone()).unwrap_or_default();
            self.batch.dead.push(dead_letter(topic, recording, number, line, reason.as_str(), detail));
        }
        self.batch.events.extend(outcome.events);
        self.batch.lines += 1;
        self.batch.last_line = number;
        self.batch.since.get_or_insert_with(Instant::now);
    }

    async fn send(&mut self, recording: &Recording) -> anyhow::Result<()> {
        let Some(sender) = &mut self.sender else { return Ok(()) };
        let batch = std::mem::take(&mut self.batch);
        if batch.lines == 0 {
            return Ok(());
        }
        sender.send(&batch, recording).await?;
        self.report.sent(batch.events.len(), batch.dead.len(), batch.last_line);
        Ok(())
    }
}

impl Batch {
    fn is_due(&self, speed: Speed) -> bool {
        let aged = self.since.is_some_and(|since| since.elapsed() >= Duration::from_millis(BATCH_MS_MAX));
        self.lines >= BATCH_LINES_MAX || (matches!(speed, Speed::Factor(_)) && aged)
    }
}

/// A message that cannot be mapped, untouched; what is known of it in headers.
fn dead_letter(
    topic: String,
    recording: &Recording,
    number: u64,
    line: &[u8],
    reason: &str,
    detail: &str,
) -> RawRecord {
    let (mqtt_topic, payload) = match Line::parse(line) {
        Ok(message) => (message.topic, Bytes::from(message.payload)),
        Err(_) => (String::new(), Bytes::copy_from_slice(line)),
    };
    let text = |name: &str, value: String| (name.into(), Some(Bytes::from(value)));
    RawRecord {
        topic,
        value: Some(payload),
        headers: vec![
            text("original-topic", mqtt_topic),
            text("error-message", detail.to_owned()),
            text("fleetlog-dlq-group", "import-vda5050".to_owned()),
            text("fleetlog-dlq-reason", reason.to_owned()),
            text("fleetlog-dlq-application-version", env!("CARGO_PKG_VERSION").to_owned()),
            text("fleetlog-import-file", recording.name.clone()),
            text("fleetlog-import-digest", recording.digest.clone()),
            text("fleetlog-import-line", number.to_string()),
        ],
        ..RawRecord::default()
    }
}

/// Waits so that lines go out as far apart as they came in, divided by the factor.
struct Pace {
    factor: Option<f64>,
    start: Option<(Instant, i64)>,
}

impl Pace {
    fn new(speed: Speed) -> Self {
        let factor = match speed {
            Speed::Factor(factor) => Some(factor),
            Speed::Max => None,
        };
        Self { factor, start: None }
    }

    fn until(&mut self, line: &[u8]) -> impl Future<Output = ()> + use<> {
        let due = self.factor.and_then(|factor| {
            let at_ms = Line::parse(line).ok()?.ts_ms;
            let (start, first_ms) = *self.start.get_or_insert_with(|| (Instant::now(), at_ms));
            start.checked_add(apart(first_ms, at_ms, factor)?)
        });
        async move {
            if let Some(due) = due {
                tokio::time::sleep_until(due).await;
            }
        }
    }
}

/// How far apart two lines go out. Nothing to wait for where time goes back, or further on than can be told: times of a
/// recording may be anything.
fn apart(first_ms: i64, at_ms: i64, factor: f64) -> Option<Duration> {
    let apart_ms = u64::try_from(at_ms.saturating_sub(first_ms)).unwrap_or(0);
    Duration::try_from_secs_f64(Duration::from_millis(apart_ms).as_secs_f64() / factor).ok()
}

/// The transactional way out.
struct Sender {
    config: Config,
    producer: TransactionalProducer,
    digest: String,
    dead_letter_topic: String,
}

impl Sender {
    async fn connect(config: &Config, recording: &Recording) -> anyhow::Result<Self> {
        let kafka = wiring::kafka_settings(config);
        Ok(Self {
            producer: Self::producer(config, &recording.digest).await?,
            config: config.clone(),
            digest: recording.digest.clone(),
            dead_letter_topic: kafka.topic("vda5050-dlq"),
        })
    }

    /// Takes over from an import of the same file that was killed, or is running: that one stops.
    async fn producer(config: &Config, digest: &str) -> anyhow::Result<TransactionalProducer> {
        let topics = wiring::catalogue(None)?.expand(&config.kafka.topic_prefix, wiring::replication(config));
        let kafka = taking_all_that_topics_take(wiring::kafka_settings(config), &topics);
        let id = format!("{}fleetlog-import-{digest}", config.kafka.topic_prefix);
        let schemas: Schemas = wiring::producer_schemas(config)?;
        Ok(TransactionalProducer::connect(&kafka, &id, schemas, ProducerMetrics::unregistered()?).await?)
    }

    async fn place(&self) -> anyhow::Result<Option<Place>> {
        place::read(&wiring::kafka_settings(&self.config), &self.digest).await
    }

    /// Waits until readers reach all of it, so that what is begun after this command finds it. It is committed, so what
    /// keeps from seeing it is told, and is no failure.
    async fn until_visible(&self) {
        let seen = tokio::select! {
            _ = tokio::signal::ctrl_c() => return,
            seen = self.producer.until_visible(VISIBLE_PATIENCE) => seen,
        };
        match seen {
            Ok(true) => {}
            Ok(false) => tracing::warn!(
                waited_s = VISIBLE_PATIENCE.as_secs(),
                "everything is committed, but readers do not reach it yet: another producer's transaction, begun \
                 earlier on the same topics, is open; they do once it has ended"
            ),
            Err(error) => {
                tracing::warn!(%error, "everything is committed, but whether readers reach it could not be seen");
            }
        }
    }

    /// Sends a batch with its place. Where the outcome is unknown, the place tells it.
    async fn send(&mut self, batch: &Batch, recording: &Recording) -> anyhow::Result<()> {
        let place = Place { line: batch.last_line, lines: recording.lines };
        let mut tries = 0;
        loop {
            let mut records = batch.dead.clone();
            records.push(place.record(
                &wiring::kafka_settings(&self.config),
                &self.digest,
                &recording.name,
            )?);
            match self.producer.transact(batch.events.clone(), records).await {
                Ok(()) => return Ok(()),
                Err(TransactionError::Fenced(_)) => {
                    let message = "another import of this file has taken over";
                    return Err(Failure::new(
                        Code::Failed,
                        message,
                        "one import of a file at a time is enough",
                    )
                    .into());
                }
                Err(TransactionError::Event(error)) => return Err(error.into()),
                Err(error) if tries == ABORTED_TRIES => return Err(error.into()),
                Err(error) => {
                    tries += 1;
                    tracing::warn!(%error, tries, "the transaction is tried again");
                    tokio::time::sleep(Duration::from_millis(u64::from(tries) * 100)).await;
                    if matches!(error, TransactionError::Unknown(_)) {
                        self.producer = Self::producer(&self.config, &self.digest).await?;
                        if self.place().await?.is_some_and(|there| there.line >= batch.last_line) {
                            return Ok(());
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_go_out_as_far_apart_as_they_came_in_whatever_their_times_are() {
        assert_eq!(apart(1_000, 4_000, 2.0), Some(Duration::from_millis(1_500)));
        assert_eq!(apart(4_000, 1_000, 2.0), Some(Duration::ZERO));
        assert_eq!(apart(i64::MIN, i64::MAX, 1e-9), None);
        assert_eq!(apart(i64::MAX, i64::MIN, 1e-9), Some(Duration::ZERO));
    }
}
