//! How many events a second the simulated fleet makes: `cargo run -p fleetlog-simulate --example speed`.

use std::time::Instant;

use fleetlog_simulate::Fleet;

fn main() {
    const EVENTS: u32 = 2_000_000;
    for units in [100, 10_000, 100_000] {
        let mut fleet = Fleet::new(units, 1, 1_800_000_000_000);
        let start = Instant::now();
        let last_ms = (0..EVENTS).fold(0, |_, _| std::hint::black_box(fleet.next_event()).0);
        let seconds = start.elapsed().as_secs_f64();
        println!("{units} units: {:.2} M events/s, up to {last_ms} ms", f64::from(EVENTS) / seconds / 1e6);
    }
}
