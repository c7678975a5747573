//! Seeded fuzzing: generated and mutated inputs over a corpus that is kept in the repository.
//!
//! The toolchain is the stable one, so there is no coverage feedback: what reaches deep is a corpus of real inputs,
//! mutations that know the format ([`Mutator`]), and a tally that shows how far inputs came. Input number n of a target
//! depends on the seed and n alone, so that one input can be made again without those before it.
//!
//! Each input has to end without a panic, within [`TIME_MAX`], and without more memory at one time than the target
//! allows ([`Allowance`]): the test binary counts through [`CountingAllocator`], which it has to name as its own.
//!
//! | variable | means | without it |
//! |---|---|---|
//! | `FLEETLOG_TEST_FUZZ_INPUTS` | how many inputs each target gets | what the target says |
//! | `FLEETLOG_TEST_FUZZ_SEED` | the seed | 1 |
//! | `FLEETLOG_TEST_FUZZ_FIRST` | the first number | 0 |

mod allocator;
mod mutator;

use std::{
    collections::BTreeMap,
    fs,
    panic::AssertUnwindSafe,
    path::{Path, PathBuf},
    sync::mpsc::{self, RecvTimeoutError},
    thread::JoinHandle,
    time::{Duration, Instant},
};

pub use allocator::{CountingAllocator, Memory, measure};
pub use mutator::Mutator;

use crate::stack::workspace_root;

/// How long one input may take: generous, as tests share their machine with servers.
pub const TIME_MAX: Duration = Duration::from_secs(60);

/// The most memory one input may hold at one time, beside its own bytes.
#[derive(Clone, Copy, Debug)]
pub struct Allowance {
    /// Whatever the input's size is, in bytes.
    pub base_bytes: usize,
    /// For each byte of the input, in bytes.
    pub per_byte: usize,
}

impl Allowance {
    /// 1 MiB, and `per_byte` for each byte of the input.
    #[must_use]
    pub const fn per_byte(per_byte: usize) -> Self {
        Self { base_bytes: 1 << 20, per_byte }
    }

    fn bytes(self, input_bytes: usize) -> usize {
        self.base_bytes + self.per_byte * input_bytes
    }
}

/// What a target does with one input: a word for the tally, such as `decoded`; or what is wrong with the answer.
pub type Answer = Result<&'static str, String>;

/// One thing that is fuzzed.
pub struct Target {
    name: &'static str,
    allowance: Allowance,
    inputs: u64,
    corpus: Vec<Vec<u8>>,
}

impl Target {
    /// A target with the files of `tests/fuzz/corpus/<name>` as its corpus, and `inputs` inputs unless the environment
    /// says otherwise; 0 is the corpus alone, whatever the environment says.
    ///
    /// # Panics
    /// When the corpus cannot be read.
    #[must_use]
    pub fn new(name: &'static str, inputs: u64, allowance: Allowance) -> Self {
        let folder = workspace_root().join("tests/fuzz/corpus").join(name);
        let target = Self { name, allowance, inputs, corpus: Vec::new() };
        if folder.is_dir() { target.files(&folder) } else { target }
    }

    /// More of a corpus: every file of a folder of the project, in the order of names, those below it too.
    ///
    /// # Panics
    /// When the folder cannot be read.
    #[must_use]
    pub fn files(mut self, folder: &Path) -> Self {
        let fail = |error: std::io::Error| panic!("corpus {}: {error}", folder.display());
        let mut paths: Vec<PathBuf> = fs::read_dir(folder)
            .unwrap_or_else(fail)
            .map(|entry| entry.unwrap_or_else(|error| panic!("corpus: {error}")).path())
            .collect();
        paths.sort();
        for path in paths {
            if path.is_dir() {
                self = self.files(&path);
            } else {
                self.corpus.push(
                    fs::read(&path).unwrap_or_else(|error| panic!("corpus {}: {error}", path.display())),
                );
            }
        }
        self
    }

    /// More of a corpus, made by code.
    #[must_use]
    pub fn made(mut self, inputs: impl IntoIterator<Item = Vec<u8>>) -> Self {
        self.corpus.extend(inputs);
        self
    }

    /// The corpus so far.
    #[must_use]
    pub fn corpus(&self) -> &[Vec<u8>] {
        &self.corpus
    }

    /// Gives every entry of the corpus to `check` as it is, then what `mutate` makes of them, and prints one line.
    ///
    /// # Panics
    /// At the first input that panics, takes too much memory or time, or is answered wrongly. The input is then in
    /// `target/fuzz/`, and the message says how to run it again.
    pub fn run(
        &self,
        mutate: impl Fn(&mut Mutator, &[Vec<u8>]) -> Vec<u8>,
        mut check: impl FnMut(&[u8]) -> Answer,
    ) {
        assert!(!self.corpus.is_empty(), "target `{}` has no corpus", self.name);
        let seed = setting("SEED").unwrap_or(1);
        let first = setting("FIRST").unwrap_or(0);
        let inputs = setting("INPUTS").unwrap_or(self.inputs);
        let watchdog = Watchdog::start(self.name, seed);
        let started = Instant::now();
        let mut tally = Tally::default();
        let mut one = |at: At, input: &[u8]| {
            watchdog.begins(at);
            match self.one(input, &mut check) {
                Ok(done) => tally.add(&done, input.len()),
                Err(what) => self.fail(at, seed, input, &what),
            }
        };
        for (n, input) in self.corpus.iter().enumerate() {
            one(At::Corpus(n), input);
        }
        let inputs = if self.inputs == 0 { 0 } else { inputs };
        for n in first..first.saturating_add(inputs) {
            let mut mutator = Mutator::new(seed, self.name, n);
            let input = mutate(&mut mutator, &self.corpus);
            one(At::Made(n), &input);
        }
        drop(watchdog);
        self.tell(seed, inputs, started.elapsed(), &tally);
    }

    fn one(&self, input: &[u8], check: &mut impl FnMut(&[u8]) -> Answer) -> Result<Done, String> {
        let started = Instant::now();
        let (answer, memory) = measure(|| std::panic::catch_unwind(AssertUnwindSafe(|| check(input))));
        let took = started.elapsed();
        let word = answer.map_err(|panic| format!("it panics: {}", words(&*panic)))??;
        let allowed = self.allowance.bytes(input.len());
        if memory.peak_bytes > allowed {
            return Err(format!(
                "it holds {} bytes at one time, {allowed} are allowed for {} bytes of input (largest piece: {})",
                memory.peak_bytes,
                input.len(),
                memory.largest_bytes
            ));
        }
        if took > TIME_MAX {
            return Err(format!(
                "it takes {} ms, at most {} are allowed",
                took.as_millis(),
                TIME_MAX.as_millis()
            ));
        }
        Ok(Done { word, memory, took })
    }

    fn fail(&self, at: At, seed: u64, input: &[u8], what: &str) -> ! {
        let folder = workspace_root().join("target/fuzz");
        let path = folder.join(format!("{}-{seed}-{at}", self.name));
        let kept = fs::create_dir_all(&folder).and_then(|()| fs::write(&path, input));
        let kept = match kept {
            Ok(()) => format!("it is in {}", path.display()),
            Err(error) => format!("it could not be kept: {error}"),
        };
        let again = match at {
            At::Corpus(_) => "it is one of the corpus".to_owned(),
            At::Made(n) => format!(
                "again: FLEETLOG_TEST_FUZZ_SEED={seed} FLEETLOG_TEST_FUZZ_FIRST={n} FLEETLOG_TEST_FUZZ_INPUTS=1; \
                 once repaired, keep it in tests/fuzz/corpus/{}/",
                self.name
            ),
        };
        panic!(
            "target {}, seed {seed}, input {at} of {} bytes: {what}\n{kept}\n{again}",
            self.name,
            input.len()
        );
    }

    fn tell(&self, seed: u64, inputs: u64, took: Duration, tally: &Tally) {
        let given = inputs + self.corpus.len() as u64;
        let words: Vec<String> = tally.words.iter().map(|(word, count)| format!("{word} {count}")).collect();
        println!(
            "fuzz {}: {given} inputs ({} of the corpus), seed {seed}, {} bytes on average, {:.1} s, {:.0}/s; \
             most at one time {} bytes (for {} of input), slowest {} ms; {}",
            self.name,
            self.corpus.len(),
            tally.input_bytes / given.max(1),
            took.as_secs_f64(),
            given as f64 / took.as_secs_f64().max(1e-9),
            tally.peak.0,
            tally.peak.1,
            tally.slowest.as_millis(),
            words.join(", "),
        );
    }
}

/// Which input.
#[derive(Clone, Copy, Debug)]
enum At {
    Corpus(usize),
    Made(u64),
}

impl std::fmt::Display for At {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Corpus(n) => write!(f, "corpus-{n}"),
            Self::Made(n) => write!(f, "{n}"),
        }
    }
}

struct Done {
    word: &'static str,
    memory: Memory,
    took: Duration,
}

#[derive(Default)]
struct Tally {
    words: BTreeMap<&'static str, u64>,
    input_bytes: u64,
    /// Most memory held at one time, and the size of that input.
    peak: (usize, usize),
    slowest: Duration,
}

impl Tally {
    fn add(&mut self, done: &Done, input_bytes: usize) {
        *self.words.entry(done.word).or_default() += 1;
        self.input_bytes += input_bytes as u64;
        self.peak = self.peak.max((done.memory.peak_bytes, input_bytes));
        self.slowest = self.slowest.max(done.took);
    }
}

/// Ends the process when an input does not end: nothing else could say which one it was.
struct Watchdog {
    begins: Option<mpsc::Sender<At>>,
    thread: Option<JoinHandle<()>>,
}

impl Watchdog {
    fn start(name: &'static str, seed: u64) -> Self {
        let (begins, inputs) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let mut current = None;
            loop {
                match inputs.recv_timeout(2 * TIME_MAX) {
                    Ok(at) => current = Some(at),
                    Err(RecvTimeoutError::Disconnected) => return,
                    Err(RecvTimeoutError::Timeout) => {
                        let at: At = current.unwrap_or(At::Made(0));
                        eprintln!("target {name}, seed {seed}, input {at}: it does not end");
                        std::process::abort();
                    }
                }
            }
        });
        Self { begins: Some(begins), thread: Some(thread) }
    }

    fn begins(&self, at: At) {
        // The thread ends only when this sender is gone, or with the process.
        let _ = self.begins.as_ref().map(|begins| begins.send(at));
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        drop(self.begins.take());
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn setting(name: &str) -> Option<u64> {
    let name = format!("FLEETLOG_TEST_FUZZ_{name}");
    let text = std::env::var_os(&name)?.into_string().unwrap_or_default();
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is `{text}`, expected a whole number")))
}

fn words(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "(no words)".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target() -> Target {
        Target::new("none", 50, Allowance { base_bytes: 1_000, per_byte: 10 })
            .made([b"one".to_vec(), b"two".to_vec()])
    }

    fn fails(check: impl FnMut(&[u8]) -> Answer) -> String {
        let run = AssertUnwindSafe(|| target().run(|mutator, corpus| mutator.bytes(corpus, &[]), check));
        words(&*std::panic::catch_unwind(run).unwrap_err())
    }

    #[test]
    fn what_must_not_be_is_told() {
        assert!(fails(|_| panic!("a bug")).contains("input corpus-0 of 3 bytes: it panics: a bug"));
        assert!(fails(|_| Err("wrong".to_owned())).contains("3 bytes: wrong"));
        let greedy = |_: &[u8]| {
            drop(std::hint::black_box(vec![1_u8; 5_000]));
            Ok("greedy")
        };
        let told = fails(greedy);
        assert!(
            told.contains("it holds 5000 bytes at one time, 1030 are allowed for 3 bytes of input"),
            "{told}"
        );
    }

    #[test]
    fn the_same_number_gives_the_same_input() {
        let made = |n| Mutator::new(7, "x", n).bytes(target().corpus(), &[b"word"]);
        assert_eq!(made(3), made(3));
        assert!((0..20).any(|n| made(n) != made(n + 1)));
    }
}
