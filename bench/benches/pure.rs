//! The pure parts by the clock: `make criterion`. Bounded to some seconds each: a slowdown of a few percent is what the
//! counter of instructions is there to see.

use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use fleetlog_bench::pure;

fn all(criterion: &mut Criterion) {
    for name in pure::names() {
        let Some(mut workload) = pure::named(name) else { continue };
        let mut group = criterion.benchmark_group("pure");
        group.throughput(Throughput::Elements(workload.items()));
        group.bench_function(name, |bencher| bencher.iter(|| workload.once()));
        group.finish();
    }
}

fn bounded() -> Criterion {
    let (warm_up, measured) = (Duration::from_secs(1), Duration::from_secs(3));
    Criterion::default().sample_size(20).warm_up_time(warm_up).measurement_time(measured)
}

criterion_group! { name = benches; config = bounded(); targets = all }
criterion_main!(benches);
