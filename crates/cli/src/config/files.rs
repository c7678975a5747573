//! Settings that lie in files of their own: secrets as containers and service managers hand them out, and certificates.

use std::{
    fs::File,
    io::{self, Read},
};

/// Bytes of a file that gives a setting: more than any key or bundle of certificates has.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// What a file gives a setting, without the line end that editors leave. The error completes "`redis.password_file` …".
pub(super) fn text_of(path: &str) -> Result<String, String> {
    let bytes = read(path)?;
    let text = String::from_utf8(bytes).map_err(|_| format!("names `{path}`, which is no text (UTF-8)"))?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    if text.is_empty() { Err(format!("names `{path}`, which is empty")) } else { Ok(text.to_owned()) }
}

/// A file that has certificates in it. The error completes "`redis.ca_file` …".
pub(super) fn certificates(path: &str) -> Result<Vec<u8>, String> {
    const BEGINS: &[u8] = b"-----BEGIN CERTIFICATE-----";
    let bytes = read(path)?;
    if bytes.windows(BEGINS.len()).any(|part| part == BEGINS) {
        Ok(bytes)
    } else {
        Err(format!("names `{path}`, which holds no certificate in PEM form"))
    }
}

/// Whether a file can be read at all.
pub(super) fn check_readable(path: &str) -> Result<(), String> {
    File::open(path).map(drop).map_err(|error| unreadable(path, &error))
}

fn read(path: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let opened = File::open(path).and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes));
    opened.map_err(|error| unreadable(path, &error))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("names `{path}`, which is larger than {FILE_BYTES_MAX} bytes"));
    }
    Ok(bytes)
}

fn unreadable(path: &str, error: &io::Error) -> String {
    format!("names `{path}`, which cannot be read: {error}")
}
