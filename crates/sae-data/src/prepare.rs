//! Making parquet: text files → text shards, text shards → windows of token ids.
//!
//! Shards are written beside their folder and moved into it when all are there, so that an interrupted or failed
//! preparation leaves nothing that looks like a data set.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::{ArrayRef, FixedSizeListArray, RecordBatch, StringArray, UInt32Array};
use arrow_schema::{DataType, Field};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

use crate::shard::Position;
use crate::stream::{Reader, Step};
use crate::{DataError, ShardSet, StreamOptions, TextTokenizer};

/// What a preparation has written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Prepared {
    /// Rows: documents or windows.
    pub rows: u64,
    /// Bytes of text, or tokens.
    pub units: u64,
    /// Files.
    pub shards: usize,
}

/// Bytes of text in a shard.
const SHARD_BYTES: usize = 32 << 20;

/// Writes text files, in the order given, as parquet shards with the columns `text` and `source`. A file of JSON Lines
/// (`.jsonl`, `.ndjson`) holds a document a line, the text of its key `column`; every other file is one document. A file that
/// is not UTF-8 is left out, with a warning; where nothing is left, that is an error.
pub fn text_shards(files: &[PathBuf], column: &str, out: &Path) -> Result<Prepared, DataError> {
    let mut shards = TextWriter {
        writer: ShardWriter::create(out)?,
        out,
        texts: Vec::new(),
        sources: Vec::new(),
        bytes: 0,
        prepared: Prepared::default(),
    };
    for path in files {
        let raw = std::fs::read(path).map_err(|source| DataError::Io {
            action: "read",
            path: path.clone(),
            source,
        })?;
        let Ok(text) = String::from_utf8(raw) else {
            tracing::warn!("left out {}: not UTF-8", path.display());
            continue;
        };
        let source = path.to_string_lossy();
        let is_lines =
            path.extension().is_some_and(|extension| extension == "jsonl" || extension == "ndjson");
        if !is_lines {
            shards.push(text, source.into_owned())?;
            continue;
        }
        for (line, number) in text.lines().zip(1..).filter(|(line, _)| !line.trim().is_empty()) {
            let document = document(line, column).map_err(|message| DataError::JsonLine {
                path: path.clone(),
                line: number,
                message,
            })?;
            shards.push(document, format!("{source}:{number}"))?;
        }
    }
    if shards.prepared.rows == 0 {
        return Err(DataError::NoDocuments { files: files.len(), out: out.to_owned() });
    }
    shards.finish()
}

/// The text of a line of JSON.
fn document(line: &str, column: &str) -> Result<String, String> {
    let expected = format!("expected an object with text in `{column}`");
    let value: serde_json::Value =
        serde_json::from_str(line).map_err(|error| format!("{expected}: {error}"))?;
    let Some(object) = value.as_object() else {
        return Err(format!("{expected}, found no object"));
    };
    match object.get(column) {
        Some(serde_json::Value::String(text)) => Ok(text.clone()),
        Some(other) => Err(format!("{expected}, found {other} there")),
        None => {
            let keys: Vec<&str> = object.keys().map(String::as_str).collect();
            Err(format!("{expected}, found the keys {}: name one with --column", keys.join(", ")))
        }
    }
}

/// Writes documents, so many bytes of text to a shard.
struct TextWriter<'a> {
    writer: ShardWriter,
    out: &'a Path,
    texts: Vec<String>,
    sources: Vec<String>,
    bytes: usize,
    prepared: Prepared,
}

impl TextWriter<'_> {
    fn push(&mut self, text: String, source: String) -> Result<(), DataError> {
        self.prepared.rows += 1;
        self.prepared.units += text.len() as u64;
        self.bytes += text.len();
        self.texts.push(text);
        self.sources.push(source);
        if self.bytes >= SHARD_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), DataError> {
        self.bytes = 0;
        self.writer.write(&text_batch(&mut self.texts, &mut self.sources, self.out)?)
    }

    fn finish(mut self) -> Result<Prepared, DataError> {
        if !self.texts.is_empty() {
            self.flush()?;
        }
        Ok(Prepared { shards: self.writer.finish()?, ..self.prepared })
    }
}

fn text_batch(
    texts: &mut Vec<String>,
    sources: &mut Vec<String>,
    out: &Path,
) -> Result<RecordBatch, DataError> {
    let column =
        |values: &mut Vec<String>| Arc::new(StringArray::from(std::mem::take(values))) as ArrayRef;
    RecordBatch::try_from_iter([("text", column(texts)), ("source", column(sources))])
        .map_err(|error| write_error(out, &error))
}

/// Tokenises text shards once into parquet windows of `context_length`, column `input_ids`; `bos` says whether each
/// begins with the tokeniser's beginning-of-text token. `progress` is told how many windows there are so far.
pub fn windows(
    shards: &ShardSet,
    tokenizer: &TextTokenizer,
    context_length: usize,
    bos: bool,
    out: &Path,
    mut progress: impl FnMut(u64),
) -> Result<Prepared, DataError> {
    let options =
        StreamOptions { bos, ..StreamOptions::in_order(context_length, tokenizer.vocabulary()) };
    options.check()?;
    let mut writer = WindowWriter::create(out, context_length, 1 << 16)?;
    let mut failed = None;
    let reader = Reader::new(shards, Some(tokenizer), &options);
    reader.windows(Position::default(), 0, Vec::new(), |step| {
        match step {
            Step::Before { read, .. } => progress(read),
            Step::Window(window) => failed = writer.push(&window).err(),
        }
        failed.is_none()
    })?;
    if let Some(error) = failed {
        return Err(error);
    }
    if writer.prepared.rows == 0 {
        return Err(DataError::TooShort {
            path: shards.source().to_owned(),
            found: 0,
            context_length,
            needed: 1,
            purpose: " to write",
        });
    }
    writer.finish()
}

/// Writes windows of token ids, so many to a shard.
#[derive(Debug)]
pub struct WindowWriter {
    shards: ShardWriter,
    ids: Vec<u32>,
    context_length: usize,
    windows_in_shard: usize,
    prepared: Prepared,
}

impl WindowWriter {
    /// A writer of windows of `context_length` into shards in the folder `out`.
    pub fn create(
        out: &Path,
        context_length: usize,
        windows_in_shard: usize,
    ) -> Result<Self, DataError> {
        Ok(Self {
            shards: ShardWriter::create(out)?,
            ids: Vec::new(),
            context_length,
            windows_in_shard,
            prepared: Prepared::default(),
        })
    }

    /// Adds a window.
    pub fn push(&mut self, window: &[u32]) -> Result<(), DataError> {
        if window.len() != self.context_length {
            return Err(DataError::WindowLength {
                path: self.shards.out.clone(),
                row: self.prepared.rows,
                found: window.len(),
                expected: self.context_length,
            });
        }
        self.ids.extend_from_slice(window);
        self.prepared.rows += 1;
        self.prepared.units += window.len() as u64;
        if self.ids.len() >= self.windows_in_shard * self.context_length {
            self.flush()
        } else {
            Ok(())
        }
    }

    /// Writes what is left.
    pub fn finish(mut self) -> Result<Prepared, DataError> {
        if !self.ids.is_empty() {
            self.flush()?;
        }
        Ok(Prepared { shards: self.shards.finish()?, ..self.prepared })
    }

    fn flush(&mut self) -> Result<(), DataError> {
        let out = &self.shards.out;
        let ids = Arc::new(UInt32Array::from(std::mem::take(&mut self.ids)));
        let item = Arc::new(Field::new("item", DataType::UInt32, false));
        let lists = FixedSizeListArray::try_new(item, self.context_length as i32, ids, None)
            .map_err(|error| write_error(out, &error))?;
        let batch = RecordBatch::try_from_iter([("input_ids", Arc::new(lists) as ArrayRef)])
            .map_err(|error| write_error(out, &error))?;
        self.shards.write(&batch)
    }
}

/// Writes record batches as `shard-00000.parquet` and so on into a folder beside `out`, which takes its place when all
/// of them are there.
#[derive(Debug)]
struct ShardWriter {
    out: PathBuf,
    partial: PathBuf,
    shards: usize,
}

impl ShardWriter {
    fn create(out: &Path) -> Result<Self, DataError> {
        // Without a trailing slash, so that the folder beside it is beside it.
        let out: PathBuf = out.components().collect();
        let io = |action: &'static str, path: &Path| {
            let path = path.to_owned();
            move |source| DataError::Io { action, path, source }
        };
        std::fs::create_dir_all(&out).map_err(io("create", &out))?;
        let occupied = std::fs::read_dir(&out)
            .map_err(io("list", &out))?
            .flatten()
            .any(|entry| entry.path().extension().is_some_and(|extension| extension == "parquet"));
        if occupied {
            return Err(DataError::Occupied { path: out });
        }
        let mut partial = out.clone().into_os_string();
        partial.push(".partial");
        let writer = Self { out, partial: PathBuf::from(partial), shards: 0 };
        // What an interrupted preparation has left; where there is nothing, there is nothing to do.
        let _ = std::fs::remove_dir_all(&writer.partial);
        std::fs::create_dir_all(&writer.partial).map_err(io("create", &writer.partial))?;
        Ok(writer)
    }

    fn write(&mut self, batch: &RecordBatch) -> Result<(), DataError> {
        let path = self.partial.join(format!("shard-{:05}.parquet", self.shards));
        let write = || -> Result<(), Box<dyn std::error::Error>> {
            let properties = WriterProperties::builder()
                .set_compression(Compression::ZSTD(ZstdLevel::try_new(3)?))
                .set_max_row_group_row_count(Some(1 << 12))
                .build();
            let mut writer =
                ArrowWriter::try_new(File::create(&path)?, batch.schema(), Some(properties))?;
            writer.write(batch)?;
            writer.close()?;
            Ok(())
        };
        write().map_err(|error| write_error(&path, &error))?;
        self.shards += 1;
        Ok(())
    }

    /// Puts the shards into their place; returns how many there are.
    fn finish(self) -> Result<usize, DataError> {
        let place = || -> std::io::Result<()> {
            // All at once where the folder holds nothing else, which is when it can be removed.
            if std::fs::remove_dir(&self.out).is_ok() {
                return std::fs::rename(&self.partial, &self.out);
            }
            for entry in std::fs::read_dir(&self.partial)? {
                let entry = entry?;
                std::fs::rename(entry.path(), self.out.join(entry.file_name()))?;
            }
            Ok(())
        };
        place().map_err(|error| write_error(&self.out, &error))?;
        Ok(self.shards)
    }
}

impl Drop for ShardWriter {
    fn drop(&mut self) {
        // After a failure, half the shards and a folder that would stay empty; else there is nothing to do.
        let _ = std::fs::remove_dir_all(&self.partial);
        let _ = std::fs::remove_dir(&self.out);
    }
}

fn write_error(path: &Path, error: &impl ToString) -> DataError {
    DataError::Write { path: path.to_owned(), message: error.to_string() }
}
