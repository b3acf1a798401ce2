//! What the hot paths take: the decoder, each translator both ways, and finding a key.

mod keys;
mod workload;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};

fn paths(c: &mut Criterion) {
    let mut group = c.benchmark_group("paths");
    for path in workload::paths() {
        group.throughput(Throughput::Elements(path.elements.into()));
        group.bench_function(&path.name, |b| b.iter(|| path.run()));
    }
    group.finish();
}

criterion_group!(benches, paths, keys::look_up);
criterion_main!(benches);
