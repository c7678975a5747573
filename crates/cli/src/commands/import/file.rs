//! The recording: its lines, how many, and a digest of its content.

use std::{
    fs::File,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
};

use anyhow::Context;
use xxhash_rust::xxh3::Xxh3;

use crate::exit::{Code, Failure};

/// A recording, gone through once.
#[derive(Debug)]
pub(super) struct Recording {
    path: PathBuf,
    /// The file's name, for people.
    pub(super) name: String,
    /// Of the decompressed content: the same recording, packed or not, has one digest.
    pub(super) digest: String,
    /// How many lines it has.
    pub(super) lines: u64,
}

/// Longest line that is read; a longer one is no message but another kind of file.
const LINE_BYTES_MAX: u64 = 64 << 20;
/// The first bytes of a zstd frame (RFC 8878).
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

impl Recording {
    /// Reads the file once, for its digest and length.
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        if !path.is_file() {
            let message = format!("there is no file `{}`", path.display());
            return Err(Failure::new(
                Code::Usage,
                message,
                "a recording is needed, such as data/vda5050/A.jsonl.zst",
            )
            .into());
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut recording = Self { path: path.to_owned(), name, digest: String::new(), lines: 0 };
        let mut hash = Xxh3::new();
        for line in recording.lines()? {
            let line = line?;
            hash.update(&line);
            hash.update(b"\n");
            recording.lines += 1;
        }
        if recording.lines == 0 {
            let message = format!("`{}` is empty", path.display());
            return Err(Failure::new(Code::Usage, message, "a recording has one JSON message a line").into());
        }
        recording.digest = format!("{:032x}", hash.digest128());
        Ok(recording)
    }

    /// Its lines, without their ends.
    pub(super) fn lines(
        &self,
    ) -> anyhow::Result<impl Iterator<Item = anyhow::Result<Vec<u8>>> + Send + use<>> {
        let context = format!("recording `{}`", self.path.display());
        let file = File::open(&self.path).with_context(|| context.clone())?;
        lines(BufReader::new(file), context)
    }
}

/// The lines of a recording, plain or packed, without their ends. `context` says whose they are, in errors.
pub(crate) fn lines(
    mut file: impl BufRead + Send + 'static,
    context: String,
) -> anyhow::Result<impl Iterator<Item = anyhow::Result<Vec<u8>>> + Send> {
    let packed = file.fill_buf().with_context(|| context.clone())?.starts_with(&ZSTD_MAGIC);
    let plain: Box<dyn Read + Send> = if packed {
        Box::new(zstd::Decoder::with_buffer(file).with_context(|| context.clone())?)
    } else {
        Box::new(file)
    };
    let mut plain = BufReader::with_capacity(1 << 20, plain);
    let (mut number, mut over) = (0_u64, false);
    Ok(std::iter::from_fn(move || {
        if over {
            return None;
        }
        let mut line = Vec::new();
        number += 1;
        match plain.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line) {
            Ok(0) => None,
            Ok(_) if line.len() as u64 == LINE_BYTES_MAX => {
                over = true;
                Some(Err(anyhow::anyhow!("{context}: line {number} is longer than {LINE_BYTES_MAX} bytes")))
            }
            Ok(_) => {
                if line.last() == Some(&b'\n') {
                    line.pop();
                }
                Some(Ok(line))
            }
            Err(error) => {
                over = true;
                Some(Err(unreadable(error, packed).context(format!("{context}, line {number}"))))
            }
        }
    }))
}

/// What is wrong with the file, and what to do about it.
fn unreadable(error: std::io::Error, packed: bool) -> anyhow::Error {
    if !packed {
        return error.into();
    }
    let message = match error.kind() {
        std::io::ErrorKind::UnexpectedEof => "the file ends in the middle of its zstd data".to_owned(),
        _ => format!("its zstd data cannot be unpacked: {error}"),
    };
    Failure::new(
        Code::Failed,
        message,
        "it was cut short or changed on the way: copy it again; `zstd -t FILE` checks it",
    )
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packed_recording_has_the_digest_and_lines_of_the_plain_one() -> anyhow::Result<()> {
        let dir = tempfile::tempdir()?;
        let (plain, packed) = (dir.path().join("r.jsonl"), dir.path().join("r.jsonl.zst"));
        let content = b"one\n\ntwo without an end";
        std::fs::write(&plain, content)?;
        std::fs::write(&packed, zstd::encode_all(&content[..], 1)?)?;
        let (plain, packed) = (Recording::open(&plain)?, Recording::open(&packed)?);
        assert_eq!((&plain.digest, plain.lines), (&packed.digest, 3));
        let lines = packed.lines()?.collect::<anyhow::Result<Vec<_>>>()?;
        assert_eq!(lines, [&b"one"[..], b"", b"two without an end"]);
        Ok(())
    }

    #[test]
    fn a_file_that_is_cut_short_is_an_error_not_an_end() -> anyhow::Result<()> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("cut.jsonl.zst");
        let packed = zstd::encode_all(&[b'x'; 100_000][..], 1)?;
        std::fs::write(&path, &packed[..packed.len() - 3])?;
        let error = Recording::open(&path).err().context("it is taken for whole")?;
        let failure = error.downcast_ref::<Failure>().context("there is no hint")?;
        assert!(failure.message.contains("ends in the middle"), "{error:#}");
        Ok(())
    }
}
