//! Reading by itself: windows through the shuffle buffer into batches, and a cursor stored and loaded.
#![allow(missing_docs, clippy::unwrap_used)] // Criterion's macros make items without docs; a panic is the report.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use sae_data::{Cursor, ShardSet, StreamOptions, TokenStream, prepare};

const WINDOWS: u32 = 20_000;
const T: u32 = 128;

fn stream(c: &mut Criterion) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("windows");
    let mut writer = prepare::WindowWriter::create(&path, T as usize, 8192).unwrap();
    for window in 0..WINDOWS {
        let ids: Vec<u32> = (0..T).map(|t| (window * 31 + t * 7) % 50_000).collect();
        writer.push(&ids).unwrap();
    }
    writer.finish().unwrap();
    let shards = ShardSet::open(&path, "input_ids").unwrap();
    let options = StreamOptions {
        batch_size: 16,
        shuffle_buffer: 4096,
        ..StreamOptions::in_order(T as usize, 50_000)
    };
    let mut group = c.benchmark_group("stream");
    group.throughput(Throughput::Elements(u64::from(WINDOWS * T)));
    group.bench_function("windows into batches", |b| {
        b.iter(|| TokenStream::start(shards.clone(), None, options.clone()).unwrap().count());
    });
    group.finish();
    let mut stream = TokenStream::start(shards.clone(), None, options.clone()).unwrap();
    stream.by_ref().take(500).for_each(drop);
    let (cursor, file) = (stream.cursor(), folder.path().join("cursor.parquet"));
    c.bench_function("cursor: save and load", |b| {
        b.iter(|| {
            cursor.save(&options, &shards, &file).unwrap();
            Cursor::load(&file, &options, &shards).unwrap()
        });
    });
}

criterion_group!(
    name = benches;
    config = Criterion::default().sample_size(10).warm_up_time(std::time::Duration::from_millis(500));
    targets = stream
);
criterion_main!(benches);
