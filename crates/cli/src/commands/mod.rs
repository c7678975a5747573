//! One file a command.

pub(crate) mod config;
pub(crate) mod history;
pub(crate) mod hot;
pub(crate) mod topics;

use crate::{
    args::{Args, Command},
    config::Config,
    exit::Code,
};

/// Carries out the command.
pub(crate) async fn dispatch(args: &Args, config: Config) -> anyhow::Result<Code> {
    match &args.command {
        Command::Config(command) => config::run(command, args),
        Command::Topics(command) => topics::run(command, &config, args.format).await,
        Command::History(history) => history::run(history, &config, args.format).await,
        Command::Unit(command) => hot::unit(command, &config, args.format).await,
        Command::Task(command) => hot::task(command, &config, args.format).await,
    }
}
