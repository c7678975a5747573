//! Prints `docs/events.md`; `make docs` writes it.

use std::io::Write as _;

fn main() -> std::io::Result<()> {
    std::io::stdout().write_all(fleetlog_codec::reference::page().as_bytes())
}
