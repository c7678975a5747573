//! Topic files.

use fleetlog_event::catalogue::Catalogue;
use fleetlog_testkit::fuzz::{Allowance, Answer, Target};

use crate::project;

#[test]
fn topic_files() {
    let target = Target::new("topics", 30_000, Allowance::per_byte(1_024)).files(&project("topics"));
    target.run(|mutator, corpus| mutator.bytes(corpus, &WORDS), check);
}

const WORDS: [&[u8]; 20] = [
    b"partitions = 9999999999\n",
    b"partitions = -1\n",
    b"retention = \"",
    b"\"4294967295d\"",
    b"\"106751991167d\"",
    b"[dead_letters]\n",
    b"[[dead_letters]]\n",
    b"events = [",
    b"\"Connected\", ",
    b"dedup_window_offsets = 0x7fffffffffffffff\n",
    b"message_bytes_max = 1e9\n",
    b"key = \"unit\"\n",
    b"cleanup = { a = [1979-05-27T07:32:00Z] }\n",
    b"\"\"\"",
    b"'''",
    b"inf",
    b"nan",
    b"{a={a={a={a={",
    b"[[[[[[[[[[",
    b"a.a.a.a.a.a = 1\n",
];

fn check(input: &[u8]) -> Answer {
    let text = &*String::from_utf8_lossy(input);
    let stem = ["robot.toml", "telemetry.toml", "task.toml", "schemas.toml"][input.len() % 4];
    match Catalogue::parse(&[(stem, text)]) {
        Ok(catalogue) => {
            if catalogue.expand("prefix-", Some(1)).is_empty() {
                return Err("a topic file without a topic".to_owned());
            }
            Ok("fits")
        }
        Err(error) => {
            let nameless = error
                .problems
                .iter()
                .find(|p| p.file.is_empty() || p.field.is_empty() || p.problem.is_empty());
            match (nameless, error.problems.first()) {
                (Some(problem), _) => Err(format!("a problem without place or words: {problem:?}")),
                (None, None) => Err("refused without a problem".to_owned()),
                (None, Some(problem)) if problem.field == "file" => Ok("no TOML"),
                (None, Some(_)) => Ok("problems found"),
            }
        }
    }
}
