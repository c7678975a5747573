//! `fleetlog unit show|list`, `fleetlog task show|list`: hot state as Redis holds it.

use redis::AsyncCommands;
use serde_json::{Map, Value};

use crate::{
    config::{self, Config},
    exit::{Code, Failure},
    output::{self, Format},
    wiring,
};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum UnitCommand {
    /// Show everything known of a unit now, and what happened to it last
    Show(super::unit_show::Show),
    /// List units
    #[command(after_help = "Example: fleetlog unit list --site werk1 --limit 20")]
    List(ListArgs),
}

#[derive(Debug, clap::Subcommand)]
pub(crate) enum TaskCommand {
    /// Show everything known of a task now
    #[command(after_help = "Example: fleetlog task show swerk1.uNordFTS%2F0001.oORD-0101-0001")]
    Show {
        /// The task's id
        task: String,
    },
    /// List tasks that have not ended, by priority
    #[command(after_help = "Example: fleetlog task list --site werk1")]
    List(ListArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct ListArgs {
    /// Only this site
    #[arg(long)]
    site: Option<String>,
    /// At most so many
    #[arg(long, default_value_t = 1000)]
    limit: usize,
}

/// Where hot state lies: keys of DESIGN §5.
pub(super) struct HotState {
    redis: redis::aio::MultiplexedConnection,
    prefix: String,
}

/// Names and values, sorted.
pub(super) type Fields = Vec<(String, String)>;

impl HotState {
    pub(super) async fn connect(config: &Config) -> anyhow::Result<Self> {
        let url = config::redact_url(&config.redis.url);
        let client = wiring::redis_client(config)?;
        let timeout = std::time::Duration::from_millis(config.redis.timeout_ms);
        let settings = redis::AsyncConnectionConfig::new()
            .set_connection_timeout(Some(timeout))
            .set_response_timeout(Some(timeout));
        let redis =
            client.get_multiplexed_async_connection_with_config(&settings).await.map_err(|error| {
                let message = format!("redis at {url} does not answer: {error}");
                Failure::new(Code::Unreachable, message, wiring::hint("redis", &error))
            })?;
        Ok(Self { redis, prefix: config.redis.key_prefix.clone() })
    }

    /// The readable fields at `home`, sorted; empty if there is no such hash.
    pub(super) async fn fields(&mut self, home: &str) -> anyhow::Result<Fields> {
        let mut fields: Fields = self.redis.hgetall(format!("{}{home}", self.prefix)).await?;
        fields.retain(|(name, _)| !name.starts_with('_'));
        fields.sort();
        Ok(fields)
    }

    /// Members of a sorted set, the highest first, at most so many.
    pub(super) async fn members(&mut self, list: &str, limit: isize) -> anyhow::Result<Vec<String>> {
        Ok(self.redis.zrevrange(format!("{}{list}", self.prefix), 0, limit - 1).await?)
    }

    /// Names of the hashes `{kind}*`, without the kind, sorted; all of them, or those whose name begins with `start`.
    pub(super) async fn names(&mut self, kind: &str, start: &str) -> anyhow::Result<Vec<String>> {
        let pattern = format!("{}{}{}*", glob(&self.prefix), glob(kind), glob(start));
        let cut = self.prefix.len() + kind.len();
        let mut names = Vec::new();
        let mut keys = self.redis.scan_match::<_, String>(pattern).await?;
        while let Some(key) = keys.next_item().await {
            let name = key?[cut..].to_owned();
            if !name.contains('~') {
                names.push(name);
            }
        }
        names.sort();
        names.dedup();
        Ok(names)
    }
}

/// Escapes what a Redis pattern would take for a wildcard.
fn glob(text: &str) -> String {
    text.chars().flat_map(|c| "*?[]\\^".contains(c).then_some('\\').into_iter().chain([c])).collect()
}

pub(crate) async fn unit(command: &UnitCommand, config: &Config, format: Format) -> anyhow::Result<Code> {
    match command {
        UnitCommand::Show(show) => super::unit_show::run(show, config, format).await,
        UnitCommand::List(list) => {
            let start = list
                .site
                .as_ref()
                .map_or_else(|| "s".to_owned(), |s| format!("s{}.u", fleetlog_event::encode_id(s)));
            let mut hot = HotState::connect(config).await?;
            let mut units = hot.names("unit:", &start).await?;
            units.extend(hot.names("UnitConsensus@", &start).await?);
            units.sort();
            units.dedup();
            let found = units.len();
            let mut rows = Vec::new();
            for unit in units.into_iter().take(list.limit) {
                let status = hot.fields(&format!("unit:{unit}")).await?;
                let seen = hot.fields(&format!("UnitConsensus@{unit}")).await?;
                rows.push([
                    unit,
                    field(&status, "connection"),
                    field(&status, "mode"),
                    field(&status, "fault_count"),
                    field(&seen, "battery_percent"),
                    field(&seen, "last_node_id"),
                    field(&seen, "recorded_at"),
                ]);
            }
            list_rows(
                ["unit", "connection", "mode", "faults", "battery_percent", "last_node", "last_seen"],
                rows,
                found,
                format,
            )
        }
    }
}

pub(crate) async fn task(command: &TaskCommand, config: &Config, format: Format) -> anyhow::Result<Code> {
    let mut hot = HotState::connect(config).await?;
    match command {
        TaskCommand::Show { task } => show_task(task, hot.fields(&format!("task:{task}")).await?, format),
        TaskCommand::List(list) => {
            let sites = match &list.site {
                Some(site) => vec![site.clone()],
                None => hot.names("tasks:active:", "").await?,
            };
            let mut tasks: Vec<(String, f64)> = Vec::new();
            for site in sites {
                let key = format!("{}tasks:active:{site}", hot.prefix);
                let found: Vec<(String, f64)> = hot.redis.zrevrange_withscores(key, 0, -1).await?;
                tasks.extend(found);
            }
            tasks.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
            let found = tasks.len();
            let mut rows = Vec::new();
            for (task, priority) in tasks.into_iter().take(list.limit) {
                let fields = hot.fields(&format!("task:{task}")).await?;
                let value = |name| field(&fields, name);
                rows.push([
                    task,
                    priority.to_string(),
                    value("state"),
                    value("task_type"),
                    value("unit_uid"),
                    value("created_at"),
                ]);
            }
            list_rows(["task", "priority", "state", "type", "unit", "created_at"], rows, found, format)
        }
    }
}

/// A field, empty if it is absent.
pub(super) fn field(fields: &Fields, name: &str) -> String {
    fields.iter().find(|(n, _)| n == name).map(|(_, value)| value.clone()).unwrap_or_default()
}

fn show_task(task: &str, fields: Fields, format: Format) -> anyhow::Result<Code> {
    if fields.is_empty() {
        let hint = "fleetlog task list shows what is there; fleetlog status shows whether the projections lag; \
                    fleetlog history keeps what hot state has forgotten";
        return Err(Failure::new(Code::Found, format!("hot state knows no task `{task}`"), hint).into());
    }
    match format {
        Format::Json => output::json(&serde_json::json!({ "task": task, "now": object(fields) }))?,
        Format::Table => output::table(["now", ""], fields.into_iter().map(|(name, value)| [name, value])),
    }
    Ok(Code::Done)
}

/// Fields as a JSON object of texts.
pub(super) fn object(fields: Fields) -> Map<String, Value> {
    fields.into_iter().map(|(name, value)| (name, Value::String(value))).collect()
}

fn list_rows<const N: usize>(
    head: [&str; N],
    rows: Vec<[String; N]>,
    found: usize,
    format: Format,
) -> anyhow::Result<Code> {
    let shown = rows.len();
    match format {
        Format::Json => {
            let object = |row: [String; N]| {
                head.iter().zip(row).map(|(n, v)| ((*n).to_owned(), Value::String(v))).collect()
            };
            output::json(&rows.into_iter().map(object).collect::<Vec<Map<String, Value>>>())?;
        }
        Format::Table => output::table(head, rows),
    }
    if shown < found {
        eprintln!("{shown} of {found} shown; --limit shows more");
    }
    Ok(Code::Done)
}
