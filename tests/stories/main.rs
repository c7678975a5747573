//! Stories: what people do with fleetlog, told by doing it on real servers. `make story NAME=dead-letters`; each has a page
//! in `docs/stories/`.

#![expect(clippy::unwrap_used, reason = "tests")]

mod dead_letters;
mod poison;
mod receiver;
mod retries;
mod teller;
