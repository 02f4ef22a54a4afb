//! What data is, rather than what it is called: resumed streams, and evaluation data made of training data.

#![allow(clippy::unwrap_used)] // In a test, a panic is the report.

mod support;

use std::path::Path;
use std::time::{Duration, Instant};

use sae_data::hub::{Hub, HubOptions};
use sae_data::prepare::{self, WindowWriter};
use sae_data::{
    Compared, Cursor, ShardSet, StreamOptions, TextTokenizer, TokenStream, train_tokenizer,
};
use support::hub_server::{Reply, Server};

fn windows(folder: &Path, first: u32, count: u32) {
    let mut writer = WindowWriter::create(folder, 4, 1000).unwrap();
    for start in first..first + count {
        writer.push(&[start % 90, start * 7 % 90, 3, 4]).unwrap();
    }
    writer.finish().unwrap();
}

fn options() -> StreamOptions {
    StreamOptions { batch_size: 5, shuffle_buffer: 8, ..StreamOptions::in_order(4, 100) }
}

#[test]
fn other_data_under_the_same_names_is_not_read_on() {
    let place = tempfile::tempdir().unwrap();
    let (folder, cursor) = (place.path().join("data"), place.path().join("cursor.parquet"));
    windows(&folder, 0, 40);
    let open = || ShardSet::open(&folder, "input_ids").unwrap();
    let mut stream = TokenStream::start(open(), None, options()).unwrap();
    stream.next().unwrap().unwrap();
    stream.cursor().save(&options(), &open(), &cursor).unwrap();
    let resume = || {
        let cursor = Cursor::load(&cursor, &options(), &open())?;
        TokenStream::resume(open(), None, options(), cursor)
    };
    assert_eq!(resume().unwrap().next().unwrap().unwrap(), stream.next().unwrap().unwrap());

    // As many rows, in a file of the same name.
    std::fs::remove_dir_all(&folder).unwrap();
    windows(&folder, 40, 40);
    let error = resume().unwrap_err().to_string();
    assert!(error.contains("not those that were read before"), "{error}");
    std::fs::remove_dir_all(&folder).unwrap();
    windows(&folder, 0, 40);
    // Moved, and the same.
    let moved = place.path().join("moved");
    std::fs::rename(&folder, &moved).unwrap();
    let open = || ShardSet::open(&moved, "input_ids").unwrap();
    let stored = Cursor::load(&cursor, &options(), &open()).unwrap();
    TokenStream::resume(open(), None, options(), stored).unwrap();
}

/// Sentences that are all different.
fn documents(first: usize, count: usize) -> Vec<String> {
    let words =
        ["let", "mut", "value", "match", "self", "index", "return", "trait", "where", "for"];
    (first..first + count)
        .map(|document| {
            let word = |at: usize| words[(at * 7 + document * document * 3 + at * document) % 10];
            let text: Vec<String> =
                (0..80).map(|at| format!("{} {}", word(at), document * 1000 + at)).collect();
            text.join(" ")
        })
        .collect()
}

fn text_shards(place: &Path, name: &str, documents: &[String]) -> ShardSet {
    let files: Vec<_> = documents
        .iter()
        .enumerate()
        .map(|(index, text)| {
            let path = place.join(format!("{name}-{index}.txt"));
            std::fs::write(&path, text).unwrap();
            path
        })
        .collect();
    prepare::text_shards(&files, "text", &place.join(name)).unwrap();
    ShardSet::open(&place.join(name), "text").unwrap()
}

fn prepared(
    place: &Path,
    name: &str,
    shards: &ShardSet,
    tokenizer: &TextTokenizer,
    length: usize,
    bos: bool,
) -> ShardSet {
    prepare::windows(shards, tokenizer, length, bos, &place.join(name), |_| {}).unwrap();
    ShardSet::open(&place.join(name), "input_ids").unwrap()
}

#[test]
fn evaluation_windows_made_of_the_training_text_are_found() {
    let place = tempfile::tempdir().unwrap();
    let place = place.path();
    let training = text_shards(place, "train", &documents(0, 60));
    let other = text_shards(place, "other", &documents(500, 20));
    let own = text_shards(place, "own", &documents(20, 20));
    let tokenizer = train_tokenizer(&training, 400, &place.join("tokenizer")).unwrap();
    let windows = |name: &str, shards: &ShardSet, length, bos| {
        prepared(place, name, shards, &tokenizer, length, bos)
    };
    let of_own = windows("own-64", &own, 64, false);
    let of_other = windows("other-64", &other, 64, false);
    let longer = windows("train-100", &training, 100, true);
    // Windows against text, text against windows, and windows of another length.
    for (evaluation, training) in
        [(&of_own, &training), (&own, &longer), (&of_own, &longer), (&own, &training)]
    {
        let error = evaluation
            .check_disjoint(training, Some(&tokenizer), Compared::default())
            .unwrap_err()
            .to_string();
        assert!(error.contains("rows of the evaluation data"), "{error}");
    }
    for (evaluation, training) in
        [(&of_other, &training), (&other, &longer), (&of_other, &longer), (&other, &training)]
    {
        evaluation.check_disjoint(training, Some(&tokenizer), Compared::default()).unwrap();
    }
}

#[test]
fn windows_that_training_leaves_out_may_be_evaluated_on() {
    let place = tempfile::tempdir().unwrap();
    let place = place.path();
    let training = text_shards(place, "train", &documents(0, 60));
    let tokenizer = train_tokenizer(&training, 400, &place.join("tokenizer")).unwrap();
    let windows = prepared(place, "windows", &training, &tokenizer, 64, false);
    let check = |evaluation_rows, skipped_windows| {
        let compared = Compared {
            evaluation_rows: Some(evaluation_rows),
            skipped_windows,
            context_length: 64,
        };
        windows.check_disjoint(&training, Some(&tokenizer), compared)
    };
    let all = windows.rows().unwrap();
    // Some documents' worth lies between what is evaluated on and what is trained on.
    check(8, all / 2).unwrap();
    check(8, 0).unwrap_err();
    check(all, all / 2).unwrap_err();
}

#[test]
fn sizes_that_no_window_has_are_refused() {
    let place = tempfile::tempdir().unwrap();
    let training = text_shards(place.path(), "train", &documents(0, 2));
    let tokenizer = train_tokenizer(&training, 300, &place.path().join("tokenizer")).unwrap();
    for (length, bos) in [(1, true), (0, false), (usize::MAX, false), (1 << 40, true)] {
        let out = place.path().join("out");
        let made = prepare::windows(&training, &tokenizer, length, bos, &out, |_| {});
        let error = made.unwrap_err().to_string();
        assert!(error.contains("context length") && error.contains("tokens"), "{error}");
        assert!(!out.exists());
    }
}

#[test]
fn a_dropped_stream_does_not_wait_for_its_download() {
    // The listing and the first shard come; the second never does.
    let place = tempfile::tempdir().unwrap();
    windows(&place.path().join("a"), 0, 40);
    let shard = std::fs::read(place.path().join("a/shard-00000.parquet")).unwrap();
    let commit = "ab".repeat(20);
    let listing = serde_json::json!({
        "sha": commit,
        "siblings": [{"rfilename": "train-0.parquet"}, {"rfilename": "train-1.parquet"}],
    })
    .to_string();
    let server = Server::start(move |request| {
        if request.path.contains("api/") {
            return Reply::new(200).body(listing.clone());
        }
        if request.path.contains("train-1") {
            return Reply::silence();
        }
        Reply::bytes(&shard, request).header("x-repo-commit", &commit).header("etag", "\"first\"")
    });
    let mut options_of_hub = HubOptions::new(place.path().join("cache"));
    options_of_hub.endpoint.clone_from(&server.url);
    options_of_hub.stall = Duration::from_secs(20);
    let hub = Hub::new(options_of_hub).unwrap();
    let sae_config::Source::Hub(source) = "hf://a/b".parse().unwrap() else { unreachable!() };
    let shards = ShardSet::open_hub(&source, "input_ids", Some("train"), &hub).unwrap();
    let options = StreamOptions { epochs: None, ..options() };
    let mut stream = TokenStream::start(shards, None, options).unwrap();
    stream.next().unwrap().unwrap();
    // All that the first shard has: its thread waits for the second one.
    for _ in 0..5 {
        stream.next().unwrap().unwrap();
    }
    std::thread::sleep(Duration::from_millis(300));
    let began = Instant::now();
    drop(stream);
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
}
