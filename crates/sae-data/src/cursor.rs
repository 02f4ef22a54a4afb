//! Where a stream of batches stands, so that it goes on to the exact next batch, in another process if need be.
//!
//! The thread behind a stream takes a snapshot of its state each time before it reads rows, which is cheap: the shuffle
//! buffer's windows are shared, not copied. A [`Cursor`] is the last snapshot before the last batch that was taken, and
//! how many windows were taken since; going on from it reads those again and drops them.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow_array::builder::{ListBuilder, UInt32Builder};
use arrow_array::cast::AsArray;
use arrow_array::types::UInt32Type;
use arrow_array::{Array, ArrayRef, RecordBatch, StringArray};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use serde::{Deserialize, Serialize};

use crate::shard::Position;
use crate::{DataError, ShardSet, StreamOptions};

/// A window of token ids.
pub(crate) type Window = Arc<[u32]>;

/// The state of a stream between two batches.
#[derive(Debug, Clone, PartialEq)]
pub struct Cursor {
    pub(crate) snapshot: Arc<Snapshot>,
    /// Windows delivered since the snapshot.
    pub(crate) since: u64,
    /// The fingerprint of the data that was read; cursors of earlier versions have none.
    pub(crate) data: Option<Arc<str>>,
}

/// The state of the reading thread before it reads rows.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Snapshot {
    pub place: Place,
    /// Tokens that no window holds yet.
    pub pending: Vec<u32>,
    /// The shuffle buffer, in order.
    pub buffer: Vec<Window>,
    /// Windows of a batch that was not full.
    pub partial: Vec<Window>,
}

/// The numbers of a snapshot.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(crate) struct Place {
    pub epoch: u64,
    pub position: Position,
    /// Windows of this epoch that have been read, those left out at its start included.
    pub read: u64,
    /// Windows in batches sent before.
    pub sent: u64,
    /// How far the shuffle buffer's random numbers have been used; a u128 is more than JSON's readers hold.
    pub random: String,
}

/// What must be the same for a cursor to mean anything.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Belongs {
    context_length: usize,
    shuffle_buffer: usize,
    seed: u64,
    skip: u64,
    bos: bool,
    shards: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    place: Place,
    since: u64,
    belongs: Belongs,
    #[serde(default)]
    data: Option<String>,
}

const KEY: &str = "sae.cursor";
const BUFFER: &str = "buffer";
const PARTIAL: &str = "partial";
const PENDING: &str = "pending";

fn belongs(options: &StreamOptions, shards: &ShardSet) -> Belongs {
    Belongs {
        context_length: options.context_length,
        shuffle_buffer: options.shuffle_buffer,
        seed: options.seed,
        skip: options.skip,
        bos: options.bos,
        // Names alone: a data set may have moved to another folder.
        shards: shards
            .names()
            .map(|path| path.file_name().unwrap_or_default().to_string_lossy().into_owned())
            .collect(),
    }
}

impl Cursor {
    /// Writes the cursor of a stream with these options over these shards as parquet: the windows and tokens in flight,
    /// and where the reading stands in the file's metadata.
    pub fn save(
        &self,
        options: &StreamOptions,
        shards: &ShardSet,
        path: &Path,
    ) -> Result<(), DataError> {
        let write = || -> Result<(), Box<dyn std::error::Error>> {
            let Snapshot { place, pending, buffer, partial } = &*self.snapshot;
            let stored = Stored {
                place: place.clone(),
                since: self.since,
                data: self.data.as_deref().map(str::to_owned),
                belongs: belongs(options, shards),
            };
            let rows = buffer
                .iter()
                .map(|window| (BUFFER, &window[..]))
                .chain(partial.iter().map(|window| (PARTIAL, &window[..])))
                .chain([(PENDING, pending.as_slice())]);
            let (mut kinds, mut ids) = (Vec::new(), ListBuilder::new(UInt32Builder::new()));
            for (kind, window) in rows {
                kinds.push(kind);
                ids.values().append_slice(window);
                ids.append(true);
            }
            let batch = RecordBatch::try_from_iter([
                ("kind", Arc::new(StringArray::from(kinds)) as ArrayRef),
                ("input_ids", Arc::new(ids.finish())),
            ])?;
            let properties = WriterProperties::builder()
                .set_key_value_metadata(Some(vec![KeyValue::new(
                    KEY.to_owned(),
                    serde_json::to_string(&stored)?,
                )]))
                .build();
            let mut writer =
                ArrowWriter::try_new(File::create(path)?, batch.schema(), Some(properties))?;
            writer.write(&batch)?;
            writer.close()?;
            Ok(())
        };
        write()
            .map_err(|error| DataError::Write { path: path.to_owned(), message: error.to_string() })
    }

    /// Reads a cursor, for a stream with these options over these shards.
    pub fn load(
        path: &Path,
        options: &StreamOptions,
        shards: &ShardSet,
    ) -> Result<Self, DataError> {
        let failed = |message: String| DataError::Cursor { path: path.to_owned(), message };
        let damaged = |error: &dyn std::fmt::Display| {
            failed(format!("it is damaged ({error}); an earlier checkpoint may be whole"))
        };
        let file = File::open(path).map_err(|source| DataError::Io {
            action: "open",
            path: path.to_owned(),
            source,
        })?;
        let builder =
            ParquetRecordBatchReaderBuilder::try_new(file).map_err(|error| damaged(&error))?;
        let metadata = builder.metadata().file_metadata().key_value_metadata();
        let text = metadata
            .and_then(|all| all.iter().find(|entry| entry.key == KEY)?.value.clone())
            .ok_or_else(|| failed(format!("it has no metadata `{KEY}`: it is no cursor")))?;
        let stored: Stored = serde_json::from_str(&text).map_err(|error| damaged(&error))?;
        let wanted = belongs(options, shards);
        if stored.belongs != wanted {
            return Err(failed(format!(
                "it belongs to other data or settings (it says {:?}, now there are {wanted:?}): give the data and \
                 settings back, or begin anew in another folder",
                stored.belongs
            )));
        }
        let mut snapshot = Snapshot { place: stored.place, ..Snapshot::default() };
        for batch in builder.build().map_err(|error| damaged(&error))? {
            let batch = batch.map_err(|error| damaged(&error))?;
            let kinds =
                batch.column_by_name("kind").and_then(|column| column.as_string_opt::<i32>());
            let ids =
                batch.column_by_name("input_ids").and_then(|column| column.as_list_opt::<i32>());
            let (Some(kinds), Some(ids)) = (kinds, ids) else {
                return Err(damaged(&"its columns are missing"));
            };
            for (kind, window) in kinds.iter().zip(ids.iter()) {
                let window = window.ok_or_else(|| damaged(&"a row is null"))?;
                let window = window
                    .as_primitive_opt::<UInt32Type>()
                    .filter(|window| window.null_count() == 0)
                    .ok_or_else(|| damaged(&"a row holds no token ids"))?
                    .values();
                match kind {
                    Some(PENDING) => snapshot.pending = window.to_vec(),
                    Some(_) if window.len() != options.context_length => {
                        return Err(damaged(&"a window has another length"));
                    }
                    Some(BUFFER) => snapshot.buffer.push(window.as_ref().into()),
                    Some(PARTIAL) => snapshot.partial.push(window.as_ref().into()),
                    other => return Err(damaged(&format!("a row of kind {other:?}"))),
                }
            }
        }
        if snapshot.place.random.parse::<u128>().is_err()
            || snapshot.place.position.shard > shards.names().count()
        {
            return Err(damaged(&"its numbers are out of range"));
        }
        Ok(Self {
            snapshot: Arc::new(snapshot),
            since: stored.since,
            data: stored.data.map(Into::into),
        })
    }
}
