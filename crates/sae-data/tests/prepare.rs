//! Documents in, shards out: text files and JSON Lines; and shards as others compress them.

#![allow(clippy::unwrap_used)] // In a test, a panic is the report.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{ArrayRef, RecordBatch, StringArray};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{BrotliLevel, Compression, GzipLevel, ZstdLevel};
use parquet::file::properties::WriterProperties;
use sae_data::{ShardSet, StreamOptions, TextTokenizer, TokenStream, prepare, train_tokenizer};

/// The columns `text` and `source` of the only shard in a folder.
fn shard(folder: &Path) -> Vec<(String, String)> {
    let file = std::fs::File::open(folder.join("shard-00000.parquet")).unwrap();
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap();
    reader
        .flat_map(|batch| {
            let batch = batch.unwrap();
            let column = |name: &str| -> Vec<String> {
                let column = batch.column_by_name(name).unwrap().as_string::<i32>().clone();
                column.iter().map(|text| text.unwrap().to_owned()).collect()
            };
            column("text").into_iter().zip(column("source")).collect::<Vec<_>>()
        })
        .collect()
}

fn file(place: &Path, name: &str, text: &str) -> PathBuf {
    let path = place.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

#[test]
fn a_text_file_is_a_document_and_so_is_a_line_of_json() {
    let place = tempfile::tempdir().unwrap();
    let at = place.path();
    let lines = "{\"id\": 1, \"content\": \"one\\ntwo\"}\n\n{\"content\": \"ü\"}\n";
    let files = [file(at, "a.txt", "whole\ntext"), file(at, "b.jsonl", lines)];
    let made = prepare::text_shards(&files, "content", &at.join("out")).unwrap();
    assert_eq!((made.rows, made.units, made.shards), (3, 19, 1));
    let found = shard(&at.join("out"));
    let texts: Vec<&str> = found.iter().map(|(text, _)| text.as_str()).collect();
    assert_eq!(texts, ["whole\ntext", "one\ntwo", "ü"]);
    let ends: Vec<bool> = found
        .iter()
        .zip(["a.txt", "b.jsonl:1", "b.jsonl:3"])
        .map(|((_, source), end)| source.ends_with(end))
        .collect();
    assert_eq!(ends, [true; 3], "{found:?}");
}

#[test]
fn a_line_without_a_document_is_named() {
    let place = tempfile::tempdir().unwrap();
    let cases = [
        ("{\"text\": \"a\"}\n{\"txt\": \"b\"}", "line 2", "the keys txt: name one with --column"),
        ("{\"text\": 3}", "line 1", "found 3 there"),
        ("[1]", "line 1", "found no object"),
        ("{", "line 1", "expected an object with text in `text`"),
    ];
    for (place_of, (text, line, what)) in cases.into_iter().enumerate() {
        let path = file(place.path(), "lines.ndjson", text);
        let out = place.path().join(place_of.to_string());
        let error = prepare::text_shards(&[path], "text", &out).unwrap_err().to_string();
        assert!(
            error.contains(line) && error.contains(what) && error.contains("lines.ndjson"),
            "{error}"
        );
        assert!(!out.join("shard-00000.parquet").exists());
    }
}

/// Every codec that data sets of the hub come in.
#[test]
fn shards_are_read_however_they_are_compressed() {
    let place = tempfile::tempdir().unwrap();
    let codecs = [
        Compression::UNCOMPRESSED,
        Compression::SNAPPY,
        Compression::GZIP(GzipLevel::default()),
        Compression::BROTLI(BrotliLevel::default()),
        Compression::LZ4,
        Compression::LZ4_RAW,
        Compression::ZSTD(ZstdLevel::default()),
    ];
    let tokenizer = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sae-model/tests/fixtures/gpt2");
    let mut found = Vec::new();
    for (number, codec) in codecs.into_iter().enumerate() {
        let path = place.path().join(format!("{number}.parquet"));
        let texts: ArrayRef = Arc::new(StringArray::from(vec!["some text that is long enough"; 4]));
        let batch = RecordBatch::try_from_iter([("text", texts)]).unwrap();
        let properties = WriterProperties::builder().set_compression(codec).build();
        let out = std::fs::File::create(&path).unwrap();
        let mut writer = ArrowWriter::try_new(out, batch.schema(), Some(properties)).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        let tokenizer = TextTokenizer::load(&tokenizer).unwrap();
        let options = StreamOptions::in_order(4, 300);
        let stream = TokenStream::open(&path, "text", Some(tokenizer), options).unwrap();
        found.push(stream.map(|batch| batch.unwrap().tokens).collect::<Vec<_>>());
    }
    assert!(!found[0].is_empty());
    assert!(found.iter().all(|tokens| *tokens == found[0]));
}

#[test]
fn a_tokeniser_has_an_id_a_byte_at_least() {
    let place = tempfile::tempdir().unwrap();
    let at = place.path();
    let files = [file(at, "a.txt", &"some words, and some more words ".repeat(20))];
    prepare::text_shards(&files, "text", &at.join("shards")).unwrap();
    let shards = ShardSet::open(&at.join("shards"), "text").unwrap();
    for ids in [0, 256] {
        let error = train_tokenizer(&shards, ids, &at.join("made")).unwrap_err().to_string();
        assert!(
            error.contains("expected 257 ids or more") && error.contains(&format!("found {ids}")),
            "{error}"
        );
    }
    assert_eq!(train_tokenizer(&shards, 270, &at.join("made")).unwrap().vocabulary(), 270);
}
