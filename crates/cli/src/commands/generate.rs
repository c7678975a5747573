//! `fleetlog completions SHELL`, `fleetlog man`: made from the command line itself, so that they cannot fall behind it.

use std::path::PathBuf;

use anyhow::Context;
use clap::CommandFactory;
use clap_complete::Shell;

use crate::{args::Args, exit::Code, output};

/// How shells and manuals call the binary.
const NAME: &str = "fleetlog";

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
                        fleetlog completions bash > /etc/bash_completion.d/fleetlog\n  \
                        fleetlog completions zsh > \"${fpath[1]}/_fleetlog\"\n  \
                        fleetlog completions fish > ~/.config/fish/completions/fleetlog.fish")]
pub(crate) struct Completions {
    /// For which shell
    #[arg(value_enum)]
    shell: Shell,
}

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  fleetlog man | man -l -\n  fleetlog man --out /usr/local/share/man/man1"
)]
pub(crate) struct Man {
    /// Write a page for each command to this folder, which is made if need be; without it the main page goes to stdout
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Prints a script for the shell to read.
pub(crate) fn completions(completions: &Completions) -> anyhow::Result<Code> {
    let mut script = Vec::new();
    clap_complete::generate(completions.shell, &mut Args::command(), NAME, &mut script);
    output::line(String::from_utf8(script)?.trim_end());
    Ok(Code::Done)
}

/// Writes pages for `man`.
pub(crate) fn man(man: &Man) -> anyhow::Result<Code> {
    let Some(folder) = &man.out else {
        let mut page = Vec::new();
        clap_mangen::Man::new(Args::command()).render(&mut page)?;
        output::line(String::from_utf8(page)?.trim_end());
        return Ok(Code::Done);
    };
    let failed = || format!("pages for man cannot be written to `{}`", folder.display());
    std::fs::create_dir_all(folder).with_context(failed)?;
    clap_mangen::generate_to(Args::command(), folder).with_context(failed)?;
    let pages = std::fs::read_dir(folder).with_context(failed)?.count();
    eprintln!("{pages} pages are in {}", folder.display());
    Ok(Code::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shell_gets_a_script_that_knows_the_commands() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish, Shell::Elvish, Shell::PowerShell] {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Args::command(), NAME, &mut script);
            let script = String::from_utf8(script).expect("text");
            for word in ["topics", "simulate", "completions"] {
                assert!(script.contains(word), "{shell}: {word}");
            }
        }
    }

    #[test]
    fn every_command_has_its_page() {
        let folder = tempfile::tempdir().expect("a folder");
        let man = Man { out: Some(folder.path().join("man1")) };
        assert_eq!(super::man(&man).expect("pages"), Code::Done);
        for (page, words) in [
            ("fleetlog.1", "Exit codes"),
            ("fleetlog-run.1", "fail\\-fast"),
            ("fleetlog-topics-apply.1", "topics"),
            ("fleetlog-man.1", "man1"),
        ] {
            let text = std::fs::read_to_string(folder.path().join("man1").join(page)).expect(page);
            assert!(text.contains(words), "{page}: {text}");
        }
    }
}
