//! Says what is done, shows each command with what it printed, and counts what was held to be so.

use std::time::{Duration, Instant};

use fleetlog_testkit::{Fleetlog, Output};

/// How long one command of a story may take.
const LIMIT: Duration = Duration::from_secs(180);
/// Of what a command prints, so many lines are shown.
const LINES_MAX: usize = 40;

pub(crate) struct Teller {
    fleetlog: Fleetlog,
    begun: Instant,
    chapter: u32,
    held: u32,
}

impl Teller {
    pub(crate) fn new(fleetlog: Fleetlog) -> Self {
        Self { fleetlog, begun: Instant::now(), chapter: 0, held: 0 }
    }

    /// A new part of the story.
    pub(crate) fn chapter(&mut self, title: &str) {
        self.chapter += 1;
        println!("\n== {}. {title} ({} s)\n", self.chapter, self.begun.elapsed().as_secs());
    }

    /// Something to know that no command prints.
    pub(crate) fn say(&self, text: &str) {
        println!("-- {text}");
    }

    /// Runs a command that ends with 0, and shows it; what it printed.
    pub(crate) async fn run(&self, args: &[&str]) -> String {
        let output = self.run_to(0, args).await;
        output.stdout
    }

    /// The same with another exit code; what it said on both ways.
    pub(crate) async fn run_to(&self, code: i32, args: &[&str]) -> Output {
        println!("$ fleetlog {}", shown(args));
        let output = self.fleetlog.run(args, LIMIT).await.unwrap();
        let lines: Vec<&str> = output.stdout.lines().chain(output.stderr.lines()).collect();
        lines.iter().take(LINES_MAX).for_each(|line| println!("{line}"));
        if lines.len() > LINES_MAX {
            println!("… {} lines more", lines.len() - LINES_MAX);
        }
        println!();
        assert_eq!(output.code(), Some(code), "{args:?}: {}{}", output.stdout, output.stderr);
        output
    }

    /// Holds that something is so, and says it.
    pub(crate) fn holds<T: PartialEq + std::fmt::Debug>(&mut self, what: &str, found: T, expected: T) {
        assert_eq!(found, expected, "{what}");
        self.held += 1;
        println!("-- so it is: {what}");
    }

    pub(crate) fn end(&self) {
        println!("\n== the end: {} s, {} things held to be so\n", self.begun.elapsed().as_secs(), self.held);
    }
}

/// As one would type it.
fn shown(args: &[&str]) -> String {
    let quoted =
        args.iter().map(|arg| if arg.contains(' ') { format!("'{arg}'") } else { (*arg).to_owned() });
    quoted.collect::<Vec<_>>().join(" ")
}
