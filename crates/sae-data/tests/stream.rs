//! Real parquet in, batches out: order, seeds, epochs, and what bad data is told.

#![allow(clippy::unwrap_used, clippy::expect_used)] // In a test, a panic is the report.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::types::{
    ArrowPrimitiveType, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type,
    UInt32Type, UInt64Type,
};
use arrow_array::{ArrayRef, Int32Array, LargeStringArray, ListArray, RecordBatch, StringArray};
use parquet::arrow::ArrowWriter;
use sae_data::{
    Batch, ColumnKind, Compared, Cursor, DataError, Sample, ShardSet, StreamOptions, TextTokenizer,
    TokenStream, for_each_annotated_sample, for_each_sample, prepare,
};
use tempfile::TempDir;

fn options() -> StreamOptions {
    StreamOptions { batch_size: 3, ..StreamOptions::in_order(4, 300) }
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
    let run = |seed| {
        let options = StreamOptions { shuffle_buffer: 16, seed, epochs: Some(2), ..options() };
        firsts(&collect(&source, "input_ids", options).unwrap())
    };
    let all = run(1);
    assert_eq!(all, run(1));
    assert_ne!(all, run(2));
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
    let made = prepare::windows(&shards, &tokenizer, 4, false, &out, |_| {}).unwrap();
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
    let hole = Some(vec![Some(1), None, Some(3), Some(4)]);
    write(&at("hole.parquet"), "input_ids", lists(vec![row(&[1, 2, 3, 4]), hole]));
    says(&error(&at("hole.parquet"), "input_ids", options()), &["row 1", "null"]);
    let huge = [Some([Some(1), Some(u64::MAX), Some(3), Some(4)])];
    let huge = ListArray::from_iter_primitive::<UInt64Type, _, _>(huge);
    write(&at("huge.parquet"), "input_ids", Arc::new(huge));
    says(&error(&at("huge.parquet"), "input_ids", options()), &["row 0", "9223372036854775807"]);
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
    let error = open(&copy)
        .check_disjoint(&open(&training), None, Compared::default())
        .unwrap_err()
        .to_string();
    says(&error, &["copy.parquet", "shard-00002.parquet", "eval.data"]);
    // The same rows, written anew with another compression and order.
    let rewritten = folder.path().join("rewritten.parquet");
    let row = |first| Some(vec![Some(first), Some(1), Some(2), Some(3)]);
    write(&rewritten, "input_ids", lists(vec![row(7), row(3)]));
    let error = open(&rewritten)
        .check_disjoint(&open(&training), None, Compared::default())
        .unwrap_err()
        .to_string();
    says(&error, &["2 of 2 rows", "rewritten.parquet", "choose other data"]);
    let other = folder.path().join("other.parquet");
    write(&other, "input_ids", lists(vec![row(77), row(78)]));
    assert!(open(&other).check_disjoint(&open(&training), None, Compared::default()).is_ok());
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
    let made = prepare::text_shards(&files, "text", &out).unwrap();
    assert_eq!((made.rows, made.units, made.shards), (2, 14, 1));
    let second = prepare::text_shards(&files, "text", &out).unwrap_err().to_string();
    says(&second, &["holds parquet files already", "shards"]);
    let failed = folder.path().join("failed");
    let missing =
        prepare::text_shards(&[files[0].clone(), folder.path().join("c.rs")], "text", &failed);
    says(&missing.unwrap_err().to_string(), &["cannot read", "c.rs"]);
    assert!(!failed.exists() && !folder.path().join("failed.partial").exists());
    let trained =
        sae_data::train_tokenizer(&ShardSet::open(&out, "text").unwrap(), 260, folder.path());
    let trained = trained.unwrap();
    assert_eq!(trained.end_of_text(), 0);
    let joined = "documents are joined by `<|endoftext|>` (id 0); ";
    let [with, without] = [true, false].map(|bos| trained.describe(bos));
    assert_eq!(with, format!("{joined}every window begins with `<|endoftext|>` (id 0)"));
    assert_eq!(without, format!("{joined}no token is put at the beginning of windows"));
}

/// Six windows of ids of a type.
fn lists_of<T: ArrowPrimitiveType>() -> ArrayRef
where
    T::Native: TryFrom<u8, Error: std::fmt::Debug>,
{
    let rows = (0..6).map(|row| Some([row, 1, 2, 3].map(|id: u8| Some(id.try_into().unwrap()))));
    Arc::new(ListArray::from_iter_primitive::<T, _, _>(rows))
}

#[test]
fn all_ways_to_write_a_column_are_read() {
    use arrow_array::{
        DictionaryArray, FixedSizeListArray, Int64Array, LargeListArray, StringViewArray,
    };
    use arrow_schema::{DataType, Field};
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("column.parquet");
    let rows = || (0..6).map(|row| Some(vec![Some(row), Some(1), Some(2), Some(3)]));
    let flat: Vec<i64> = (0..6).flat_map(|row| [row, 1, 2, 3]).collect();
    let fixed = FixedSizeListArray::try_new(
        Arc::new(Field::new("item", DataType::Int64, true)),
        4,
        Arc::new(Int64Array::from(flat)),
        None,
    );
    let lists: Vec<ArrayRef> = vec![
        Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(rows())),
        Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(
            rows().map(|row| row.map(|row| row.into_iter().map(|id| id.map(|id| id as i32)))),
        )),
        Arc::new(LargeListArray::from_iter_primitive::<Int64Type, _, _>(rows())),
        Arc::new(fixed.unwrap()),
        lists_of::<Int8Type>(),
        lists_of::<Int16Type>(),
        lists_of::<UInt8Type>(),
        lists_of::<UInt16Type>(),
        lists_of::<UInt32Type>(),
        lists_of::<UInt64Type>(),
    ];
    for column in lists {
        let kind = column.data_type().clone();
        write(&path, "input_ids", column);
        let batches = collect(&path, "input_ids", options()).unwrap();
        assert_eq!(firsts(&batches), [0, 1, 2, 3, 4, 5], "{kind}");
    }
    let texts = ["fn main() {}", "let x = 1;", "fn main() {}"];
    let texts: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from(texts.to_vec())),
        Arc::new(LargeStringArray::from(texts.to_vec())),
        Arc::new(StringViewArray::from(texts.to_vec())),
        Arc::new(texts.into_iter().collect::<DictionaryArray<Int32Type>>()),
    ];
    let batches: Vec<Vec<Batch>> = texts
        .into_iter()
        .map(|column| {
            write(&path, "text", column);
            collect(&path, "text", StreamOptions { batch_size: 1, ..options() }).unwrap()
        })
        .collect();
    assert!(!batches[0].is_empty() && batches.iter().all(|other| *other == batches[0]));
}

#[test]
fn windows_at_the_start_are_left_out_in_every_epoch() {
    let folder = TempDir::new().unwrap();
    let source = windows(&folder, 10);
    let options = StreamOptions { batch_size: 2, skip: 6, epochs: Some(2), ..options() };
    let batches = collect(&source, "input_ids", options.clone()).unwrap();
    assert_eq!(firsts(&batches), [6, 7, 8, 9, 6, 7, 8, 9]);
    let error = error(&source, "input_ids", StreamOptions { skip: 10, ..options });
    says(&error, &["holds 10 windows", "data.skip"]);
}

#[test]
fn windows_of_text_may_begin_with_the_token_for_it() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("text.parquet");
    write(&path, "text", Arc::new(StringArray::from(vec!["one two three four five six seven"; 3])));
    let options = StreamOptions { batch_size: 1, bos: true, ..options() };
    let with = collect(&path, "text", options.clone()).unwrap();
    let begin = i64::from(tokenizer().begin_of_text());
    assert!(with.len() > 3 && with.iter().all(|batch| batch.tokens[0] == begin));
    let without = collect(&path, "text", StreamOptions { bos: false, ..options }).unwrap();
    let own: Vec<i64> = with.iter().flat_map(|batch| batch.tokens[1..].to_vec()).collect();
    let all: Vec<i64> = without.iter().flat_map(|batch| batch.tokens.clone()).collect();
    let shared = own.len().min(all.len());
    assert_eq!(own[..shared], all[..shared]);
}

#[test]
fn files_of_a_split_are_told_by_their_path() {
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::create_dir_all(at("data/validation")).unwrap();
    for (name, first) in [
        ("train-00000-of-00002.parquet", 0),
        ("train-00001-of-00002.parquet", 1),
        ("data/validation/0.parquet", 2),
    ] {
        let row = Some(vec![Some(first), Some(1), Some(2), Some(3)]);
        write(&at(name), "input_ids", lists(vec![row]));
    }
    let names = |split| {
        let shards = ShardSet::open_split(folder.path(), "input_ids", split).unwrap();
        shards.names().count()
    };
    assert_eq!((names(None), names(Some("train")), names(Some("validation"))), (3, 2, 1));
    let error = ShardSet::open_split(folder.path(), "input_ids", Some("test")).unwrap_err();
    says(&error.to_string(), &["`test`", "train-00000-of-00002.parquet"]);
}

/// Text and windows, whole batches left over and not, several shards and row groups, an epoch's end in between.
fn cursor_cases() -> Vec<(TempDir, PathBuf, &'static str, StreamOptions)> {
    let mut cases = Vec::new();
    for (shuffle_buffer, skip) in [(1, 0), (16, 0), (16, 7), (500, 3)] {
        let folder = TempDir::new().unwrap();
        let source = windows(&folder, 60);
        let windowed =
            StreamOptions { shuffle_buffer, skip, seed: 5, epochs: Some(3), ..options() };
        cases.push((folder, source, "input_ids", windowed));
        let folder = TempDir::new().unwrap();
        for shard in 0..3 {
            let documents: Vec<String> =
                (0..1500).map(|row| format!("let value_{row} = {shard};")).collect();
            let path = folder.path().join(format!("{shard}.parquet"));
            write(&path, "text", Arc::new(StringArray::from(documents)));
        }
        let options = StreamOptions {
            context_length: 64,
            batch_size: 5,
            shuffle_buffer,
            skip,
            seed: 5,
            bos: skip > 0,
            epochs: Some(2),
            ..options()
        };
        let source = folder.path().to_owned();
        cases.push((folder, source, "text", options));
    }
    cases
}

#[test]
fn a_stream_goes_on_from_its_cursor_to_the_exact_next_batch() {
    for (folder, source, column, options) in cursor_cases() {
        let shards = ShardSet::open(&source, column).unwrap();
        let start = || {
            let text = shards.kind() == ColumnKind::Text;
            TokenStream::start(shards.clone(), text.then(tokenizer), options.clone()).unwrap()
        };
        let all: Vec<Batch> = start().map(Result::unwrap).collect();
        assert!(all.len() > 40, "{}", all.len());
        for stop in [0, 1, 2, 17, 33, all.len() - 1, all.len()] {
            let mut stream = start();
            assert!(stream.by_ref().take(stop).map(Result::unwrap).eq(all[..stop].iter().cloned()));
            let path = folder.path().join("cursor");
            stream.cursor().save(&options, &shards, &path).unwrap();
            drop(stream);
            let cursor = Cursor::load(&path, &options, &shards).unwrap();
            let text = shards.kind() == ColumnKind::Text;
            let again =
                TokenStream::resume(shards.clone(), text.then(tokenizer), options.clone(), cursor);
            let mut again = again.unwrap();
            // And once more, from a stream that had been resumed itself.
            let step = (all.len() - stop).min(3);
            assert!(
                again
                    .by_ref()
                    .take(step)
                    .map(Result::unwrap)
                    .eq(all[stop..stop + step].iter().cloned()),
                "{column} {options:?} after {stop}"
            );
            let cursor = again.cursor();
            let rest =
                TokenStream::resume(shards.clone(), text.then(tokenizer), options.clone(), cursor);
            let rest: Vec<Batch> = rest.unwrap().map(Result::unwrap).collect();
            assert!(rest == all[stop + step..], "{column} {options:?} after {stop} and {step}");
        }
    }
}

#[test]
fn a_cursor_reads_only_what_is_left() {
    // The first shard is gone: a cursor in the second does not miss it.
    let folder = TempDir::new().unwrap();
    let source = windows(&folder, 21);
    let shards = ShardSet::open(&source, "input_ids").unwrap();
    let options = StreamOptions { batch_size: 1, ..options() };
    let mut stream = TokenStream::start(shards.clone(), None, options.clone()).unwrap();
    let taken: Vec<Batch> = stream.by_ref().take(16).map(Result::unwrap).collect();
    assert_eq!(firsts(&taken).last(), Some(&15));
    let cursor = stream.cursor();
    drop(stream);
    std::fs::remove_file(shards.names().next().unwrap()).unwrap();
    let rest = TokenStream::resume(shards, None, options, cursor).unwrap();
    let rest: Vec<Batch> = rest.map(Result::unwrap).collect();
    assert_eq!(firsts(&rest), [16, 17, 18, 19, 20]);
}

#[test]
fn a_cursor_of_other_data_or_settings_is_refused() {
    let folder = TempDir::new().unwrap();
    let source = windows(&folder, 20);
    let shards = ShardSet::open(&source, "input_ids").unwrap();
    let stream = TokenStream::start(shards.clone(), None, options()).unwrap();
    let path = folder.path().join("cursor.parquet");
    stream.cursor().save(&options(), &shards, &path).unwrap();
    let other = StreamOptions { seed: 1, ..options() };
    let error = Cursor::load(&path, &other, &shards).unwrap_err().to_string();
    says(&error, &["cursor.parquet", "other data or settings", "seed: 1"]);
    std::fs::write(&path, b"PAR1 and no more").unwrap();
    let error = Cursor::load(&path, &options(), &shards).unwrap_err().to_string();
    says(&error, &["cursor.parquet", "damaged"]);
    std::fs::copy(shards.names().next().unwrap(), &path).unwrap();
    let error = Cursor::load(&path, &options(), &shards).unwrap_err().to_string();
    says(&error, &["it is no cursor"]);
}

#[test]
fn a_damaged_page_is_an_error_that_names_the_file() {
    let folder = TempDir::new().unwrap();
    let source = windows(&folder, 7);
    let path = ShardSet::open(&source, "input_ids").unwrap().names().next().unwrap().to_owned();
    let sound = std::fs::read(&path).unwrap();
    let mut refused = 0;
    for at in (4..sound.len() - 200).step_by(3) {
        let mut bytes = sound.clone();
        for byte in &mut bytes[at..at + 3] {
            *byte ^= 0x5a;
        }
        std::fs::write(&path, bytes).unwrap();
        // Whatever is damaged: the data, an error, no panic.
        if let Err(error) = collect(&source, "input_ids", options()) {
            refused += 1;
            says(&error.to_string(), &[&path.to_string_lossy()]);
        }
    }
    assert!(refused > 0);
}

#[test]
fn a_shard_that_disappears_is_named() {
    let folder = TempDir::new().unwrap();
    let source = windows(&folder, 21);
    let shards = ShardSet::open(&source, "input_ids").unwrap();
    let last = shards.names().last().unwrap().to_owned();
    std::fs::remove_file(&last).unwrap();
    let options = StreamOptions { batch_size: 1, ..options() };
    let mut stream = TokenStream::start(shards, None, options).unwrap();
    // The shuffle buffer has the fourteenth of the first two shards.
    let taken = stream.by_ref().take(13).flatten().count();
    assert_eq!(taken, 13);
    let error = stream.next().unwrap().unwrap_err().to_string();
    says(&error, &[&last.to_string_lossy(), "cannot open"]);
    assert!(stream.next().is_none());
}

#[test]
fn samples_are_the_windows_of_a_stream_and_know_their_source() {
    let folder = TempDir::new().unwrap();
    let documents = ["let x = 1;", "", "fn main() { println!(\"häß ☃\"); }", "struct S;"];
    let long = "the quick brown fox jumps over the lazy dog. ".repeat(4000);
    let documents: Vec<&str> = documents.into_iter().chain([long.as_str()]).collect();
    let path = folder.path().join("text.parquet");
    write(&path, "text", Arc::new(StringArray::from(documents.clone())));
    let shards = ShardSet::open(&path, "text").unwrap();
    let tokenizer = tokenizer();
    for (bos, skip) in [(false, 0), (true, 2)] {
        let options =
            StreamOptions { bos, skip, ..StreamOptions::in_order(16, tokenizer.vocabulary()) };
        let stream = TokenStream::start(shards.clone(), Some(tokenizer.clone()), options.clone());
        let windows: Vec<Vec<i64>> = stream.unwrap().map(|batch| batch.unwrap().tokens).collect();
        let mut samples = Vec::new();
        for_each_sample(&shards, Some(&tokenizer), &options, |sample| {
            samples.push(sample);
            true
        })
        .unwrap();
        // What is said of every token of a document comes with the token, whatever window it is in.
        let mut annotated = Vec::new();
        let own_bytes = |document: &str, bytes: &[[u32; 2]]| {
            assert!(documents.contains(&document));
            Ok(bytes.to_vec())
        };
        for_each_annotated_sample(
            &shards,
            Some(&tokenizer),
            &options,
            own_bytes,
            |sample, notes| {
                for ((id, source), note) in sample.tokens.iter().zip(&sample.sources).zip(notes) {
                    let is_own = *id != tokenizer.end_of_text();
                    assert_eq!(note, if is_own { source.bytes } else { [0; 2] });
                }
                annotated.push(sample);
                true
            },
        )
        .unwrap();
        assert_eq!(annotated, samples);
        let ids = |sample: &Sample| sample.tokens.iter().map(|&id| i64::from(id)).collect();
        assert_eq!(samples.iter().map(ids).collect::<Vec<Vec<i64>>>(), windows);
        for sample in &samples {
            for (id, source) in sample.tokens.iter().zip(&sample.sources).skip(usize::from(bos)) {
                let [from, to] = source.bytes.map(|byte| byte as usize);
                let document = documents[source.row as usize];
                if *id == tokenizer.end_of_text() {
                    assert_eq!([from, to], [document.len(); 2]);
                    continue;
                }
                // A token of a part of a character has the whole character's bytes.
                let text = tokenizer.decode(&[*id]).unwrap();
                let bytes = &document[from..to];
                assert!(bytes == text || text.contains('\u{fffd}'), "{bytes:?} {text:?}");
            }
        }
    }
    // Whoever has enough gets no more.
    let mut seen = 0;
    let options = StreamOptions::in_order(16, tokenizer.vocabulary());
    for_each_sample(&shards, Some(&tokenizer), &options, |_| {
        seen += 1;
        seen < 3
    })
    .unwrap();
    assert_eq!(seen, 3);
}
