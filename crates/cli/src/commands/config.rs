//! `fleetlog config check|show`

use crate::{
    args::Args,
    config::{Config, DEFAULT_TOML},
    exit::Code,
    output::{self, Format},
};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Check the settings: every problem at once, with its place
    #[command(
        after_help = "Example: FLEETLOG_KAFKA__BROKERS=k1:9092 fleetlog config check --config prod.toml"
    )]
    Check,
    /// Show the settings in force and where each came from; secrets are replaced
    #[command(after_help = "Example: fleetlog config show --format json")]
    Show {
        /// Show the checked-in defaults with their explanations instead
        #[arg(long)]
        defaults: bool,
    },
}

pub(crate) fn run(command: &Command, args: &Args) -> anyhow::Result<Code> {
    if let Command::Show { defaults: true } = command {
        output::line(DEFAULT_TOML.trim_end());
        return Ok(Code::Done);
    }
    let loaded = Config::load(args.config.as_deref())?;
    let settings = Config::redacted(&loaded.settings);
    match (command, args.format.without_csv()?) {
        (Command::Check, _) => {
            let set = settings.iter().filter(|setting| setting.source != "default").count();
            output::line(&format!("{} settings are fine, {set} of them not the default", settings.len()));
        }
        (Command::Show { .. }, Format::Json) => output::json(&settings)?,
        (Command::Show { .. }, Format::Table) => output::table(
            ["setting", "value", "from"],
            settings.into_iter().map(|s| [s.key, s.value.to_string(), s.source]),
        ),
    }
    Ok(Code::Done)
}
