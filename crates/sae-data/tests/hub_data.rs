//! Data sets on a hub on loopback: which of their files are read, and streams that fetch shard by shard.
#![allow(clippy::unwrap_used, clippy::expect_used)] // In a test, a panic is the report.

mod support;

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sae_config::Source;
use sae_data::hub::{Hub, HubError, HubOptions, Repository, in_split};
use sae_data::prepare::WindowWriter;
use sae_data::{Batch, ColumnKind, Cursor, DataError, ShardSet, StreamOptions, TokenStream};
use support::hub_server::{Reply, Server, Shelf, answer};
use support::{cache, hub, message, offline, options, serve};

#[test]
fn parquet_files_of_main_or_of_the_conversion() {
    let plain: [(&str, &[u8]); 4] = [
        ("README.md", b""),
        ("data/train-00000-of-00002.parquet", b""),
        ("data/train-00001-of-00002.parquet", b""),
        ("data/test-00000-of-00001.parquet", b""),
    ];
    let unnamed: [(&str, &[u8]); 2] = [("b.parquet", b""), ("a.parquet", b"")];
    let converted: [(&str, &[u8]); 2] =
        [("default/train/0000.parquet", b"p"), ("default/validation/0000.parquet", b"q")];
    let at_convert = |mut shelf: Shelf| {
        shelf.revision = "refs/convert/parquet";
        shelf.commit = "c3".repeat(20);
        shelf
    };
    let server = serve(vec![
        Shelf::new("datasets", "a/plain", &plain),
        at_convert(Shelf::new("datasets", "a/plain", &converted)),
        Shelf::new("datasets", "a/unnamed", &unnamed),
        Shelf::new("datasets", "a/json", &[("train.json", b"")]),
        at_convert(Shelf::new("datasets", "a/json", &converted)),
        Shelf::new("datasets", "a/none", &[("train.json", b"")]),
    ]);
    let cache = cache();
    let hub = hub(&server, &cache);
    let files = |name: &str, revision, split, pattern| {
        let (repository, files) = hub.parquet_files(name, revision, split, pattern)?;
        Ok::<_, HubError>((repository.revision, files.join(" ")))
    };
    let main = |files: &str| (None, files.to_owned());
    let converted = |files: &str| (Some("refs/convert/parquet".to_owned()), files.to_owned());
    let [train, test] = [
        "data/train-00000-of-00002.parquet data/train-00001-of-00002.parquet",
        "data/test-00000-of-00001.parquet",
    ];
    let of = |split| files("a/plain", None, Some(split), None);
    message(files("a/plain", None, None, None), &["several splits: train, test", "data.split"]);
    assert_eq!(of("train").unwrap(), main(train));
    assert_eq!(of("test").unwrap(), main(test));
    message(of("dev"), &["data set a/plain", "split `dev`", "the splits train, test"]);
    assert_eq!(files("a/plain", None, None, Some("data/te*")).unwrap(), main(test));
    assert_eq!(files("a/plain", None, Some("train"), Some("*-00000-*")).unwrap().1, &train[..33]);
    message(files("a/plain", None, None, Some("x*")), &["matches `x*`", "data/test-00000"]);
    message(files("a/plain", None, None, Some("[")), &["pattern", "`[`"]);

    assert_eq!(files("a/unnamed", None, Some("train"), None).unwrap(), main("a.parquet b.parquet"));
    message(
        files("a/unnamed", None, Some("test"), None),
        &["split `test`", "a.parquet, b.parquet"],
    );

    let (validation, convert) = ("default/validation/0000.parquet", "refs/convert/parquet");
    assert_eq!(files("a/json", None, Some("validation"), None).unwrap(), converted(validation));
    assert_eq!(
        files("a/plain", Some(convert), Some("validation"), None).unwrap(),
        converted(validation)
    );
    message(files("a/json", Some("main"), None, None), &["no parquet file", "train.json"]);
    message(
        files("a/none", None, None, None),
        &["data set a/none", "no parquet file", "train.json"],
    );
    message(files("a/absent", None, None, None), &["no such repository"]);

    // A data set of several configurations is none until one is chosen.
    let sets: [(&str, &[u8]); 3] = [
        ("en/train-00000.parquet", b""),
        ("de/train-00000.parquet", b""),
        ("de/test-00000.parquet", b""),
    ];
    let several = serve(vec![Shelf::new("datasets", "a/two", &sets)]);
    let own_cache = tempfile::tempdir().unwrap();
    let two = Hub::new(options(&several, &own_cache)).unwrap();
    let train = two.parquet_files("a/two", None, Some("train"), None);
    message(train, &["several configurations: de, en", "hf://owner/name/<configuration>/"]);
    let train = two.parquet_files("a/two", None, Some("train"), Some("en/**/*.parquet"));
    assert_eq!(train.unwrap().1, ["en/train-00000.parquet"]);

    // Offline, what was listed is known, whether or not it is here.
    let elsewhere = tempfile::tempdir().unwrap();
    let nothing = Hub::new(HubOptions { offline: true, ..options(&server, &elsewhere) }).unwrap();
    message(nothing.parquet_files("a/json", None, Some("train"), None), &["not in the cache"]);
    let offline = offline(&server, &cache);
    let (repository, listed) = hub.parquet_files("a/json", None, Some("train"), None).unwrap();
    assert_eq!(offline.parquet_files("a/json", None, Some("train"), None).unwrap().1, listed);
    message(offline.get(&repository, &listed[0]), &["default/train/0000.parquet", "not in the"]);
    let path = hub.get(&repository, &listed[0]).unwrap();
    assert_eq!(offline.parquet_files("a/json", None, Some("train"), None).unwrap().1, listed);
    assert_eq!(offline.get(&repository, &listed[0]).unwrap(), path);
}

#[test]
fn splits_are_whole_words() {
    for path in [
        "train.parquet",
        "train-00000-of-00010.parquet",
        "data/train-00000-of-00010.parquet",
        "train/0000.parquet",
        "default/train/0000.parquet",
        "default/partial-train/0000.parquet",
        "my_train_file.parquet",
        "train1.parquet",
        "retrain/train.parquet",
    ] {
        assert!(in_split(path, "train"), "{path}");
        assert!(!in_split(path, "test"), "{path}");
    }
    for path in
        ["training.parquet", "retrain.parquet", "constraint/0.parquet", "data/0.parquet", ""]
    {
        assert!(!in_split(path, "train"), "{path}");
    }
    assert!(in_split("default/train_sft/0000.parquet", "train_sft"));
    assert!(!in_split("x.parquet", ""));
}

/// Windows `first..first + count` of eight ids, the first of which numbers them, as a parquet file.
fn shard(first: u32, count: u32) -> Vec<u8> {
    let folder = cache();
    let out = folder.path().join("out");
    let mut writer = WindowWriter::create(&out, 8, 4096).unwrap();
    for window in first..first + count {
        writer.push(&[window, 1, 2, 3, 4, 5, 6, 7]).unwrap();
    }
    writer.finish().unwrap();
    fs::read(out.join("shard-00000.parquet")).unwrap()
}

fn numbers(stream: impl Iterator<Item = Result<Batch, DataError>>) -> Vec<i64> {
    stream.map(|batch| batch.unwrap().tokens[0]).collect()
}

#[test]
fn a_data_set_is_read_shard_by_shard_and_the_next_one_comes_meanwhile() {
    let shards: Vec<Vec<u8>> = (0..3).map(|index| shard(index * 100, 100)).collect();
    let names = ["data/train-0.parquet", "data/train-1.parquet", "data/train-2.parquet"];
    let files: Vec<(&'static str, &[u8])> =
        names.into_iter().zip(shards.iter().map(Vec::as_slice)).collect();
    let server = serve(vec![Shelf::new("datasets", "a/b", &files)]);
    let cache = cache();
    let Source::Hub(source) = "hf://a/b".parse().unwrap() else { panic!("a path") };
    let hub = hub(&server, &cache);
    let set = ShardSet::open_hub(&source, "input_ids", Some("train"), &hub).unwrap();
    assert_eq!((set.kind(), set.rows(), set.names().count()), (ColumnKind::Windows, None, 3));
    let fetched = |name: &str| server.requests().iter().any(|request| request.path.ends_with(name));
    assert!(fetched("train-0.parquet") && !fetched("train-1.parquet"));

    let options = StreamOptions { epochs: None, ..StreamOptions::in_order(8, 1000) };
    let mut stream = TokenStream::start(set.clone(), None, options.clone()).unwrap();
    assert_eq!(numbers(stream.by_ref().take(20)), (0..20).collect::<Vec<i64>>());
    // The reader waits in the first shard; the second is on its way, the third is not.
    let began = std::time::Instant::now();
    while !fetched("train-1.parquet") {
        assert!(began.elapsed() < Duration::from_secs(10), "the second shard was not fetched");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(!fetched("train-2.parquet"));
    // It goes on, and goes on from a cursor in another process as well.
    let path = cache.path().join("cursor.parquet");
    stream.cursor().save(&options, &set, &path).unwrap();
    assert_eq!(numbers(stream.by_ref().take(280)), (20..300).collect::<Vec<i64>>());
    let cursor = Cursor::load(&path, &options, &set).unwrap();
    let again = TokenStream::resume(set, None, options, cursor).unwrap();
    assert_eq!(numbers(again.take(280)), (20..300).collect::<Vec<i64>>());
}

#[test]
fn a_shard_that_cannot_be_fetched_is_an_error_when_it_is_its_turn() {
    let first = shard(0, 50);
    let files: [(&str, &[u8]); 2] = [("train-0.parquet", &first), ("train-1.parquet", b"lost")];
    let shelves = vec![Shelf::new("datasets", "a/b", &files)];
    let server = Server::start(move |request| {
        if request.path.ends_with("train-1.parquet") {
            return Reply::new(503);
        }
        answer(&shelves, request)
    });
    let cache = cache();
    let Source::Hub(source) = "hf://a/b".parse().unwrap() else { panic!("a path") };
    let set = ShardSet::open_hub(&source, "input_ids", None, &hub(&server, &cache)).unwrap();
    let stream = TokenStream::start(set, None, StreamOptions::in_order(8, 1000)).unwrap();
    let (read, failed): (Vec<_>, Vec<_>) = stream.partition(Result::is_ok);
    // The shuffle buffer has the last one.
    assert_eq!(read.len(), 49);
    assert_eq!(failed.len(), 1);
    let error = failed.into_iter().next().unwrap().unwrap_err().to_string();
    for part in ["train-1.parquet", "tried 3 times", "the same command goes on"] {
        assert!(error.contains(part), "`{part}` is missing from: {error}");
    }
}

#[test]
fn without_a_network_the_last_listing_is_gone_on_with() {
    let files: [(&str, &[u8]); 2] = [("train-0.parquet", b"a"), ("train-1.parquet", b"b")];
    let shelves = vec![Shelf::new("datasets", "a/b", &files)];
    let is_down = Arc::new(AtomicBool::new(false));
    let down = Arc::clone(&is_down);
    let server = Server::start(move |request| {
        if down.load(Ordering::SeqCst) { Reply::new(503) } else { answer(&shelves, request) }
    });
    let cache = cache();
    let hub = hub(&server, &cache);
    let list = || hub.parquet_files("a/b", None, Some("train"), None);
    let listed = list().unwrap().1;
    is_down.store(true, Ordering::SeqCst);
    assert_eq!(list().unwrap().1, listed);
    message(hub.files(&Repository::dataset("a/other")), &["a/other", "tried 3 times"]);
}
