//! Makes new inputs of old ones.

use rand::{Rng, SeedableRng, rngs::SmallRng};
use serde_json::{Map, Value};

/// Longest input that is made, in bytes.
const INPUT_BYTES_MAX: usize = 256 << 10;

/// Bytes that formats give a meaning to: ends of ranges, varints that go on, magic numbers.
const BYTES: [u8; 14] = [0, 1, 2, 0x7f, 0x80, 0xfe, 0xff, 0xc3, 0x28, b'{', b'"', b'\\', b'\n', b'['];

/// A source of random choices, the same for the same seed, target and number.
pub struct Mutator {
    random: SmallRng,
    seed: u64,
    number: u64,
}

impl Mutator {
    /// The choices for one input.
    #[must_use]
    pub fn new(seed: u64, target: &str, number: u64) -> Self {
        // FNV-1a over all three; `seed_from_u64` spreads it over the generator's state.
        let parts = [seed.to_le_bytes().as_slice(), target.as_bytes(), &number.to_le_bytes()].concat();
        let hash = parts.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Self { random: SmallRng::seed_from_u64(hash), seed, number }
    }

    /// What `inputs` successive numbers have in common: the number of their block, and its choices.
    #[must_use]
    pub fn block(&self, inputs: u64) -> (u64, Self) {
        let number = self.number / inputs;
        (number, Self::new(self.seed, "(block)", number))
    }

    /// A number below `n`; 0 if `n` is.
    pub fn below(&mut self, n: usize) -> usize {
        if n == 0 { 0 } else { self.random.random_range(0..n) }
    }

    /// True once in `n` times.
    pub fn once_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// Any number.
    pub fn number(&mut self) -> u64 {
        self.random.random()
    }

    /// One of `choices`.
    ///
    /// # Panics
    /// When there is none.
    pub fn pick<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len())]
    }

    /// One of the corpus with a few bytes changed; `words` are pieces that the format knows.
    pub fn bytes(&mut self, corpus: &[Vec<u8>], words: &[&[u8]]) -> Vec<u8> {
        let (base, other) = (self.pick(corpus), self.pick(corpus));
        let mut input = base.clone();
        for _ in 0..=self.below(6) {
            self.change(&mut input, other, words);
        }
        input.truncate(INPUT_BYTES_MAX);
        input
    }

    /// Changes `input` in one place.
    pub fn change(&mut self, input: &mut Vec<u8>, other: &[u8], words: &[&[u8]]) {
        let at = self.below(input.len() + 1);
        let end = at + self.below((input.len() - at).min(64) + 1);
        match self.below(12) {
            0 | 1 if at < input.len() => input[at] ^= 1 << self.below(8),
            2 if at < input.len() => input[at] = *self.pick(&BYTES),
            3 => input.insert(at, *self.pick(&BYTES)),
            4 => drop(input.drain(at..end)),
            5 => input.truncate(at),
            6 => {
                let piece = input[at..end].to_vec();
                let times = if self.once_in(50) { 1_000 } else { 1 + self.below(3) };
                let piece = piece.repeat(times);
                input.splice(at..at, piece);
            }
            7 => {
                let from = self.below(other.len() + 1);
                let to = from + self.below((other.len() - from).min(200) + 1);
                input.splice(at..end, other[from..to].iter().copied());
            }
            8 => {
                let run = if self.once_in(20) { 1 + self.below(5_000) } else { 1 + self.below(12) };
                let byte = *self.pick(&BYTES);
                input.splice(at..at, std::iter::repeat_n(byte, run));
            }
            9 => {
                let bytes = self.number().to_le_bytes();
                let length = 1 + self.below(8);
                input.splice(at..end, bytes[..length].iter().copied());
            }
            _ if !words.is_empty() => {
                let word = *self.pick(words);
                input.splice(at..end, word.iter().copied());
            }
            _ => input.push(*self.pick(&BYTES)),
        }
    }

    /// `base` with a few values, names or places changed; `words` are texts that the format knows.
    pub fn json(&mut self, base: &Value, other: &Value, words: &[&str]) -> Value {
        let mut value = base.clone();
        for _ in 0..=self.below(4) {
            let at = self.below(size(&value));
            let from = self.below(size(other));
            let graft = nth(other, &mut from.clone()).cloned().unwrap_or_default();
            if let Some(place) = nth_mut(&mut value, &mut at.clone()) {
                self.change_json(place, graft, words);
            }
        }
        value
    }

    fn change_json(&mut self, place: &mut Value, graft: Value, words: &[&str]) {
        match (self.below(12), &mut *place) {
            (0, _) => *place = graft,
            (1..=3, _) => *place = self.scalar(words),
            (4, _) => *place = Value::Array(vec![std::mem::take(place); 1 + self.below(3)]),
            (5, _) if self.once_in(4) => {
                let levels = 1 + self.below(140);
                let inner = std::mem::take(place);
                *place = (0..levels).fold(inner, |inner, _| Value::Array(vec![inner]));
            }
            (6, Value::Array(items)) if !items.is_empty() => {
                let item = self.pick(items).clone();
                let times = if self.once_in(10) { 300 } else { 1 + self.below(4) };
                items.extend(std::iter::repeat_n(item, times));
            }
            (7, Value::Array(items)) if !items.is_empty() => drop(items.remove(self.below(items.len()))),
            (7, Value::Object(fields)) if !fields.is_empty() => {
                let name = self.name(fields);
                fields.shift_remove(&name);
            }
            (8, Value::Object(fields)) if !fields.is_empty() => {
                let name = self.name(fields);
                let value = fields.shift_remove(&name).unwrap_or_default();
                let name = self.text(words);
                fields.insert(name, value);
            }
            (9, Value::Object(fields)) => {
                let name = self.text(words);
                fields.insert(name, graft);
            }
            (_, Value::String(text)) => *text = self.changed_text(text, words),
            (_, Value::Object(fields)) => {
                let name = self.text(words);
                let value = self.scalar(words);
                fields.insert(name, value);
            }
            _ => *place = self.scalar(words),
        }
    }

    fn name(&mut self, fields: &Map<String, Value>) -> String {
        let n = self.below(fields.len());
        fields.keys().nth(n).cloned().unwrap_or_default()
    }

    /// A text of the format, or one that no format expects.
    pub fn text(&mut self, words: &[&str]) -> String {
        match self.below(10) {
            0 => String::new(),
            1 => "ä\u{0}\u{1F916}\u{202E}%2F".to_owned(),
            2 => "x".repeat(1 + self.below(1_200)),
            _ if words.is_empty() => format!("w{}", self.below(100)),
            _ => (*self.pick(words)).to_owned(),
        }
    }

    fn changed_text(&mut self, text: &str, words: &[&str]) -> String {
        match self.below(4) {
            0 => self.text(words),
            1 => text.repeat(2 + self.below(40)).chars().take(20_000).collect(),
            2 => text.chars().take(self.below(text.len() + 1)).collect(),
            _ => {
                let mut bytes = text.as_bytes().to_vec();
                self.change(&mut bytes, text.as_bytes(), &[]);
                String::from_utf8_lossy(&bytes).into_owned()
            }
        }
    }

    fn scalar(&mut self, words: &[&str]) -> Value {
        match self.below(12) {
            0 => Value::Null,
            1 => Value::Bool(self.once_in(2)),
            2 => Value::from(i64::MAX),
            3 => Value::from(i64::MIN),
            4 => Value::from(u64::MAX),
            5 => Value::from(f64::MAX),
            6 => Value::from(5e-324),
            7 => Value::from(-0.0),
            8 => Value::from(self.below(5)),
            9 => Value::Object(Map::new()),
            _ => Value::from(self.text(words)),
        }
    }
}

/// How many values there are, the value itself counted.
fn size(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(size).sum(),
        Value::Object(fields) => fields.values().map(size).sum(),
        _ => 0,
    }
}

/// Value number `n`, counted from the outside in.
fn nth<'a>(value: &'a Value, n: &mut usize) -> Option<&'a Value> {
    if *n == 0 {
        return Some(value);
    }
    *n -= 1;
    match value {
        Value::Array(items) => items.iter().find_map(|item| nth(item, n)),
        Value::Object(fields) => fields.values().find_map(|field| nth(field, n)),
        _ => None,
    }
}

fn nth_mut<'a>(value: &'a mut Value, n: &mut usize) -> Option<&'a mut Value> {
    if *n == 0 {
        return Some(value);
    }
    *n -= 1;
    match value {
        Value::Array(items) => items.iter_mut().find_map(|item| nth_mut(item, n)),
        Value::Object(fields) => fields.values_mut().find_map(|field| nth_mut(field, n)),
        _ => None,
    }
}
