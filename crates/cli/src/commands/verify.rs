//! `fleetlog verify`: an independent recount.

use fleetlog_event::catalogue::Catalogue;
use fleetlog_projections::{SinkKind, for_each_projection};
use fleetlog_verify::{
    HistoryStore, HotStore, HotStoreSettings, KafkaLog, Report, VerifySettings, verify_fold, verify_ledger,
    verify_map, verify_records,
};

use crate::{
    commands::migrate,
    config::{self, Config},
    exit::{Code, Failure},
    lanes,
    output::{self, Format},
    wiring,
};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  fleetlog verify\n  fleetlog verify --projection task-state --format json\n\n\
                        Exit code 1 if anything differs, if a projection is behind, or if nothing was compared."
)]
pub(crate) struct Verify {
    /// Only these projections (separated by commas); without it all
    #[arg(long, value_delimiter = ',')]
    projection: Vec<String>,
    /// How long to wait for progress to reach the ends that the log had at the start, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    wait: u64,
    /// How many differences to print in full
    #[arg(long, default_value_t = 10)]
    differences: usize,
}

pub(crate) async fn run(verify: &Verify, config: &Config, format: Format) -> anyhow::Result<Code> {
    let chosen = lanes::chosen(&verify.projection)?;
    wiring::admin(config).await?;
    let log = log(config)?;
    let settings = VerifySettings {
        wait_ms: verify.wait * 1000,
        differences_max: verify.differences,
        ..VerifySettings::at(migrate::now())
    };
    let needs = |kind| chosen.iter().any(|projection| projection.sink == kind);
    let hot = if needs(SinkKind::Hot) { Some(hot_store(config).await?) } else { None };
    let history = if needs(SinkKind::History) { Some(history_store(config).await?) } else { None };
    let wanted = |id: &str| chosen.iter().any(|projection| projection.id == id);
    let mut reports = Vec::new();
    macro_rules! recount {
        (fold, $projector:expr) => {
            if let (Some(store), true) = (&hot, wanted(id_of_fold(&$projector))) {
                reports.push(verify_fold(&$projector, &log, store, &settings).await?);
            }
        };
        (ledger, $projector:expr) => {
            if let (Some(store), true) = (&history, wanted(id_of_fold(&$projector))) {
                reports.push(verify_ledger(&$projector, &log, store, &settings).await?);
            }
        };
        (map, $projector:expr) => {
            if let (Some(store), true) = (&history, wanted(id_of_map(&$projector))) {
                reports.push(verify_map(&$projector, &log, store, &settings).await?);
            }
        };
        (letters, $projector:expr) => {
            if let (Some(store), true) = (&history, wanted(id_of_letters(&$projector))) {
                reports.push(verify_records(&$projector, &log.with_headers(), store, &settings).await?);
            }
        };
    }
    for_each_projection!(recount);
    match format {
        Format::Json => output::json(&reports)?,
        Format::Table => show(&reports),
    }
    Ok(if reports.iter().all(Report::is_clean) { Code::Done } else { Code::Found })
}

fn id_of_fold<P: fleetlog_projection::FoldProjector>(_: &P) -> &'static str {
    P::ID
}

fn id_of_map<P: fleetlog_projection::MapProjector>(_: &P) -> &'static str {
    P::ID
}

fn id_of_letters<P: fleetlog_projection::RecordProjector>(_: &P) -> &'static str {
    P::ID
}

/// The log, as a recount reads it.
pub(super) fn log(config: &Config) -> anyhow::Result<KafkaLog> {
    let catalogue = Catalogue::builtin();
    let read = fleetlog_projections::all().into_iter().flat_map(|projection| projection.topics);
    let spans =
        read.filter_map(|stem| Some(((*stem).to_owned(), catalogue.dedup_window_offsets(stem)?))).collect();
    Ok(KafkaLog::new(wiring::kafka_settings(config), wiring::decoder(config)?, spans))
}

/// Hot state, as a recount reads it.
pub(super) async fn hot_store(config: &Config) -> anyhow::Result<HotStore> {
    let settings = HotStoreSettings {
        url: config.redis.url.clone(),
        ca_pem: wiring::authority("redis.ca_file", &config.redis.ca_file)?,
        key_prefix: config.redis.key_prefix.clone(),
        lane_prefix: config.kafka.topic_prefix.clone(),
        suffix: String::new(),
        timeout_ms: config.redis.timeout_ms,
    };
    HotStore::connect(settings).await.map_err(|error| {
        let message = format!("{}: {error}", config::redact_url(&config.redis.url));
        Failure::new(Code::Unreachable, message, wiring::hint("redis", &error)).into()
    })
}

/// History and ledgers, as a recount reads them.
pub(super) async fn history_store(config: &Config) -> anyhow::Result<HistoryStore> {
    HistoryStore::connect(&config.postgres.url, config.postgres.timeout_ms).await.map_err(|error| {
        let message = format!("{}: {error}", config::redact_url(&config.postgres.url));
        Failure::new(Code::Unreachable, message, wiring::hint("postgres", &error)).into()
    })
}

fn show(reports: &[Report]) {
    output::table(
        ["projection", "range", "compared", "missing", "extra", "different", "set aside", "behind"],
        reports.iter().map(|report| {
            let (from, to) =
                report.lanes.iter().fold((0, 0), |(from, to), lane| (from + lane.from, to + lane.to));
            [
                report.projection.clone(),
                format!("{} offsets in {} partitions", to - from, report.lanes.len()),
                report.compared.to_string(),
                report.missing.to_string(),
                report.extra.to_string(),
                report.different.to_string(),
                report.set_aside.to_string(),
                report.behind.to_string(),
            ]
        }),
    );
    for report in reports {
        for lane in report.cut_lanes() {
            output::line(&format!(
                "{}: {}/{} begins at {}: what was before cannot be compared",
                report.projection, lane.topic, lane.partition, lane.from
            ));
        }
        if !report.proves_something() {
            output::line(&format!("{}: nothing was compared, so nothing is proved", report.projection));
        }
        for difference in &report.differences {
            output::line(&format!("{}: {difference}", report.projection));
        }
        let shown = report.differences.len() as u64;
        if shown < report.differences_total() {
            output::line(&format!(
                "{}: {} differences more",
                report.projection,
                report.differences_total() - shown
            ));
        }
    }
    let compared: u64 = reports.iter().map(|report| report.compared).sum();
    let differences: u64 = reports.iter().map(Report::differences_total).sum();
    output::line(&format!("verify: {differences} differences, {compared} compared"));
}
