//! Encoding and decoding alone, on one thread.

use std::{hint::black_box, sync::Arc, time::Instant};

use fleetlog_codec::{Decoder, Encoder, NoSource};
use fleetlog_event::{Decode as _, telemetry::TelemetryEvent};

use crate::{Bench, load::Data, report::Sample};

const EVENTS: u64 = 500_000;

pub(crate) fn measure(bench: &mut Bench) {
    let Bench { runtime, rounds, report, .. } = bench;
    let names = ["encode alone", "decode alone"];
    if !names.iter().any(|name| report.wants(name)) {
        return;
    }
    let data = Data::sample(EVENTS, 10_000);
    let events: Vec<_> = (0..EVENTS / 10).map(|n| data.event(n)).collect();
    let encoder = Encoder::single_object();
    let encode = |payloads: &mut Vec<Vec<u8>>| {
        payloads.clear();
        for event in &events {
            let mut payload = Vec::with_capacity(256);
            encoder.encode(event, &mut payload).expect("an event of ours fits its schema");
            payloads.push(payload);
        }
    };
    let mut payloads = Vec::new();
    encode(&mut payloads);
    let decoder = Decoder::new(Arc::new(NoSource));
    let prepared = runtime.block_on(decoder.prepare(payloads.iter().map(|payload| Some(payload.as_slice()))));
    let prepared = prepared.expect("a schema of ours is compiled in");
    let timed = |work: &mut dyn FnMut()| {
        let begun = Instant::now();
        (0..10).for_each(|_| work());
        Sample { value: EVENTS as f64 / begun.elapsed().as_secs_f64(), ..Sample::default() }
    };
    let (mut encoded, mut decoded) = (Vec::new(), Vec::new());
    for _ in 0..*rounds {
        encoded.push(timed(&mut || encode(black_box(&mut payloads))));
        decoded.push(timed(&mut || {
            for payload in &payloads {
                let event: TelemetryEvent = prepared.decode(Some(payload)).expect("an event of ours is read");
                black_box(event);
            }
        }));
    }
    for (name, samples) in names.iter().zip([encoded, decoded]) {
        report.floor(name, "events/s", &samples);
    }
}
