//! `fleetlog dlq export`

use std::{
    fs::File,
    io::{BufWriter, ErrorKind, Write},
    path::{Path, PathBuf},
};

use anyhow::Context;
use fleetlog_dead_letters::{ExportLine, ToolError};

use super::{failure::failure, select::Looked, tell_gaps};
use crate::{
    config::Config,
    exit::{Code, Failure},
    output,
};

#[derive(Debug, clap::Args)]
pub(crate) struct Export {
    #[command(flatten)]
    letters: Looked,
    /// No more than so many, the oldest
    #[arg(long)]
    max: Option<usize>,
    /// Write to this file, which must not be there yet; without it to stdout
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Why an export ended early.
enum Ended {
    Tool(ToolError),
    Output(std::io::Error),
}

impl From<ToolError> for Ended {
    fn from(error: ToolError) -> Self {
        Self::Tool(error)
    }
}

pub(super) async fn run(export: &Export, config: &Config) -> anyhow::Result<Code> {
    let (tools, selector, states) = export.letters.at(config, export.max)?;
    let mut out: Box<dyn Write> = match &export.out {
        Some(path) => Box::new(BufWriter::new(create(path)?)),
        None => Box::new(output::stream()),
    };
    let write = |line: &ExportLine<'_>| -> Result<(), Ended> {
        serde_json::to_writer(&mut out, line).map_err(|error| Ended::Output(error.into()))?;
        out.write_all(b"\n").map_err(Ended::Output)
    };
    let (exported, found) = match tools.export(&selector, states, write).await {
        Ok(done) => done,
        Err(Ended::Tool(error)) => return Err(failure(error).into()),
        Err(Ended::Output(error)) => return Err(unwritten(export, error)),
    };
    if let Err(error) = out.flush() {
        return Err(unwritten(export, error));
    }
    tell_gaps(&found);
    eprintln!("{} dead letters exported", exported.letters);
    if exported.gone > 0 {
        eprintln!("warning: retention took {} away meanwhile", exported.gone);
    }
    Ok(Code::Done)
}

fn create(path: &Path) -> anyhow::Result<File> {
    match File::create_new(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            let message = format!("`{}` is there already: nothing is overwritten", path.display());
            Err(Failure::new(Code::Usage, message, "name another file, or move that one away").into())
        }
        file => file.with_context(|| format!("cannot write `{}`", path.display())),
    }
}

fn unwritten(export: &Export, error: std::io::Error) -> anyhow::Error {
    match &export.out {
        Some(path) => anyhow::Error::from(error).context(format!("cannot write `{}`", path.display())),
        None => {
            // A closed pipe ends the program quietly.
            output::wrote(Err(error));
            anyhow::anyhow!("cannot write to stdout")
        }
    }
}
