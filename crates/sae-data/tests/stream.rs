//! Real parquet in, batches out: order, seeds, epochs, and what bad data is told.

#![allow(clippy::unwrap_used, clippy::expect_used)] // In a test, a panic is the report.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, LargeStringArray, ListArray, RecordBatch, StringArray};
use arrow::datatypes::Int64Type;
use parquet::arrow::ArrowWriter;
use sae_data::{
    Batch, ColumnKind, DataError, ShardSet, StreamOptions, TextTokenizer, TokenStream, prepare,
};
use tempfile::TempDir;

fn options() -> StreamOptions {
    StreamOptions {
        context_length: 4,
        batch_size: 3,
        vocabulary: 300,
        shuffle_buffer: 1,
        seed: 0,
        epochs: Some(1),
        skip: 0,
    }
}

fn write(path: &Path, name: &str, column: ArrayRef) {
    let batch = RecordBatch::try_from_iter([(name, column)]).unwrap();
    let mut writer =
        ArrowWriter::try_new(std::fs::File::create(path).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

/// Windows 0..n of four ids each; the first id is the window's number.
fn windows(folder: &TempDir, n: u32) -> PathBuf {
    let path = folder.path().join("windows");
    let mut writer = prepare::WindowWriter::create(&path, 4, 7).unwrap();
    for window in 0..n {
        writer.push(&[window, 1, 2, 3]).unwrap();
    }
    assert_eq!(writer.finish().unwrap().shards, n.div_ceil(7) as usize);
    path
}

fn lists(rows: Vec<Option<Vec<Option<i64>>>>) -> ArrayRef {
    Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(rows))
}

fn tokenizer() -> TextTokenizer {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sae-model/tests/fixtures/gpt2");
    TextTokenizer::load(&folder).unwrap()
}

fn collect(source: &Path, column: &str, options: StreamOptions) -> Result<Vec<Batch>, DataError> {
    let text = ShardSet::open(source, column)?.kind() == ColumnKind::Text;
    TokenStream::open(source, column, text.then(tokenizer), options)?.collect()
}

fn firsts(batches: &[Batch]) -> Vec<i64> {
    batches.iter().flat_map(|batch| batch.tokens.chunks(4).map(|window| window[0])).collect()
}

fn error(source: &Path, column: &str, options: StreamOptions) -> String {
    collect(source, column, options).unwrap_err().to_string()
}

#[track_caller]
fn says(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "`{part}` is missing from: {message}");
    }
}

#[test]
fn windows_come_in_order_and_the_incomplete_batch_is_dropped() {
    let folder = TempDir::new().unwrap();
    let source = windows(&folder, 20);
    let batches = collect(&source, "input_ids", options()).unwrap();
    assert!(firsts(&batches).into_iter().eq(0..18));
    assert_eq!(batches[0].tokens[..4], [0, 1, 2, 3]);
}

#[test]
fn the_same_seed_gives_the_same_batches() {
    let folder = TempDir::new().unwrap();
    let source = windows(&folder, 60);
    let run = |seed, skip| {
        let options =
            StreamOptions { shuffle_buffer: 16, seed, epochs: Some(2), skip, ..options() };
        firsts(&collect(&source, "input_ids", options).unwrap())
    };
    let all = run(1, 0);
    assert_eq!(all, run(1, 0));
    assert_ne!(all, run(2, 0));
    assert_eq!(all[30..], run(1, 30), "a stream that skips goes on where another stopped");
    let (first, second) = all.split_at(60);
    assert_ne!(first, second, "every epoch has an order of its own");
    let sorted = |part: &[i64]| {
        let mut part = part.to_vec();
        part.sort_unstable();
        part
    };
    assert!(sorted(first).into_iter().eq(0..60) && sorted(second).into_iter().eq(0..60));
}

#[test]
fn without_a_bound_a_new_epoch_begins() {
    let folder = TempDir::new().unwrap();
    let source = windows(&folder, 5);
    let options = StreamOptions { epochs: None, ..options() };
    let stream = TokenStream::open(&source, "input_ids", None, options).unwrap();
    let batches: Vec<Batch> = stream.take(4).map(Result::unwrap).collect();
    assert_eq!(firsts(&batches), [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1]);
}

#[test]
fn text_is_tokenised_joined_and_cut() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("text.parquet");
    let documents = ["the quick brown fox", "", "jumps over", "the lazy dog and then some more"];
    write(&path, "text", Arc::new(StringArray::from(documents.to_vec())));
    let tokenizer = tokenizer();
    let joined: Vec<i64> = documents
        .iter()
        .filter(|text| !text.is_empty())
        .flat_map(|text| {
            let mut ids = tokenizer.encode(text).unwrap();
            ids.push(tokenizer.end_of_text());
            ids.into_iter().map(i64::from)
        })
        .collect();
    let batches = collect(&path, "text", StreamOptions { batch_size: 1, ..options() }).unwrap();
    let found: Vec<i64> = batches.into_iter().flat_map(|batch| batch.tokens).collect();
    assert_eq!(found, joined[..joined.len() / 4 * 4]);
    assert_eq!(
        tokenizer.decode(&tokenizer.encode("fn main() {}").unwrap()).unwrap(),
        "fn main() {}"
    );
    // Prepared windows are the same tokens.
    let out = folder.path().join("prepared");
    let shards = ShardSet::open(&path, "text").unwrap();
    let made = prepare::windows(&shards, &tokenizer, 4, &out).unwrap();
    assert_eq!(made.units as usize, found.len());
    let again = collect(&out, "input_ids", StreamOptions { batch_size: 1, ..options() }).unwrap();
    assert_eq!(again.into_iter().flat_map(|batch| batch.tokens).collect::<Vec<_>>(), found);
}

#[test]
fn column_types_of_other_writers() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("large.parquet");
    write(&path, "text", Arc::new(LargeStringArray::from(vec!["one two three four five six"])));
    assert!(
        !collect(&path, "text", StreamOptions { batch_size: 1, ..options() }).unwrap().is_empty()
    );
    let path = folder.path().join("lists.parquet");
    let row = |first| Some(vec![Some(first), Some(1), Some(2), Some(3)]);
    write(&path, "input_ids", lists(vec![row(5), row(6), row(7)]));
    assert_eq!(firsts(&collect(&path, "input_ids", options()).unwrap()), [5, 6, 7]);
}

#[test]
fn bad_data_names_the_file_and_what_to_do() {
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    let row = |ids: &[i64]| Some(ids.iter().map(|&id| Some(id)).collect());

    says(&error(&at("nowhere"), "text", options()), &["nowhere", "folder of them or a glob"]);

    let source = windows(&folder, 20);
    let shard = source.join("shard-00001.parquet");
    let bytes = std::fs::read(&shard).unwrap();
    std::fs::write(&shard, &bytes[..bytes.len() - 9]).unwrap();
    says(&error(&source, "input_ids", options()), &["shard-00001.parquet", "truncated"]);
    std::fs::write(&shard, &bytes).unwrap();
    says(&error(&source, "text", options()), &["no column `text`", "input_ids", "data.column"]);

    write(&at("ids.parquet"), "input_ids", lists(vec![row(&[1, 2, 3, 4]), row(&[1, 2, 300, 4])]));
    says(&error(&at("ids.parquet"), "input_ids", options()), &["row 1", "ids.parquet", "300"]);
    write(&at("short.parquet"), "input_ids", lists(vec![row(&[1, 2, 3, 4]), row(&[1, 2, 3])]));
    says(
        &error(&at("short.parquet"), "input_ids", options()),
        &["row 1", "3 tokens", "context_length = 4"],
    );
    write(&at("null.parquet"), "input_ids", lists(vec![row(&[1, 2, 3, 4]), None]));
    says(&error(&at("null.parquet"), "input_ids", options()), &["row 1", "null"]);
    write(&at("numbers.parquet"), "text", Arc::new(Int32Array::from(vec![1, 2])));
    says(
        &error(&at("numbers.parquet"), "text", options()),
        &["Int32", "text, or lists of integers"],
    );
    write(&at("empty.parquet"), "text", Arc::new(StringArray::from(vec!["", ""])));
    says(
        &error(&at("empty.parquet"), "text", options()),
        &["empty.parquet", "all its 2 documents"],
    );
    write(&at("tiny.parquet"), "text", Arc::new(StringArray::from(vec!["a"])));
    says(&error(&at("tiny.parquet"), "text", options()), &["tiny.parquet", "0 windows"]);
    let options = StreamOptions { vocabulary: 299, ..options() };
    says(
        &error(&at("tiny.parquet"), "text", options.clone()),
        &["tokenizer.json", "300 ids", "299"],
    );
    let missing = TokenStream::open(&at("tiny.parquet"), "text", None, options).unwrap_err();
    says(&missing.to_string(), &["no tokeniser"]);
}

#[test]
fn evaluation_rows_inside_the_training_data_are_refused() {
    let folder = TempDir::new().unwrap();
    let training = windows(&folder, 20);
    let copy = folder.path().join("copy.parquet");
    std::fs::copy(training.join("shard-00002.parquet"), &copy).unwrap();
    let open = |path: &Path| ShardSet::open(path, "input_ids").unwrap();
    let error = open(&copy).check_disjoint(&open(&training)).unwrap_err().to_string();
    says(&error, &["copy.parquet", "shard-00002.parquet", "eval.data"]);
    // The same rows, written anew with another compression and order.
    let rewritten = folder.path().join("rewritten.parquet");
    let row = |first| Some(vec![Some(first), Some(1), Some(2), Some(3)]);
    write(&rewritten, "input_ids", lists(vec![row(7), row(3)]));
    let error = open(&rewritten).check_disjoint(&open(&training)).unwrap_err().to_string();
    says(&error, &["2 of 2 rows", "rewritten.parquet", "choose other data"]);
    let other = folder.path().join("other.parquet");
    write(&other, "input_ids", lists(vec![row(77), row(78)]));
    assert!(open(&other).check_disjoint(&open(&training)).is_ok());
}

#[test]
fn text_files_become_shards() {
    let folder = TempDir::new().unwrap();
    let files: Vec<PathBuf> = ["a.rs", "b.rs"]
        .iter()
        .map(|name| {
            let path = folder.path().join(name);
            std::fs::write(&path, format!("// {name}")).unwrap();
            path
        })
        .collect();
    let out = folder.path().join("shards");
    let made = prepare::text_shards(&files, &out).unwrap();
    assert_eq!((made.rows, made.units, made.shards), (2, 14, 1));
    let second = prepare::text_shards(&files, &out).unwrap_err().to_string();
    says(&second, &["holds parquet files already", "shards"]);
    let failed = folder.path().join("failed");
    let missing = prepare::text_shards(&[files[0].clone(), folder.path().join("c.rs")], &failed);
    says(&missing.unwrap_err().to_string(), &["cannot read", "c.rs"]);
    assert!(!failed.exists() && !folder.path().join("failed.partial").exists());
    let trained =
        sae_data::train_tokenizer(&ShardSet::open(&out, "text").unwrap(), 260, folder.path());
    assert_eq!(trained.unwrap().end_of_text(), 0);
}
