//! `examples.parquet` of a dashboard: the windows that features are active in, a feature's together.

use std::fs::File;
use std::ops::Range;
use std::path::Path;

use arrow_array::RecordBatch;
use arrow_array::types::{Float32Type, UInt8Type, UInt32Type, UInt64Type};
use parquet::arrow::arrow_reader::{ParquetRecordBatchReaderBuilder, RowSelection, RowSelector};

use super::columns::{Columns, ROW_GROUP, lists, numbers, write as write_batches};
use crate::RecordError;

/// A window that a feature is active in, or the part of it around the greatest activation.
#[derive(Debug, Clone, PartialEq)]
pub struct ExampleRecord {
    /// The feature.
    pub feature: u32,
    /// The interval of the feature's activation that it was drawn from, counted from 0; none of the highest.
    pub interval: Option<u8>,
    /// The feature's greatest activation in the window.
    pub peak: f32,
    /// Where that is, among the tokens here.
    pub position: u32,
    /// Where the tokens of its document begin and end, among the tokens here: windows may hold parts of several documents.
    pub own: [u32; 2],
    /// The ids of tokens.
    pub tokens: Vec<u32>,
    /// The feature's activation on each; 0 where it is not active.
    pub activations: Vec<f32>,
    /// Where these tokens begin in the window.
    pub first: u32,
    /// The file of the data that the token of the greatest activation is from.
    pub file: u32,
    /// The row of that file: its document.
    pub row: u64,
    /// The bytes of the document that the token stands for.
    pub bytes: [u32; 2],
}

/// What stands for the highest among the intervals.
const HIGHEST: u8 = u8::MAX;

/// Writes the examples of features; returns the rows of each.
pub(super) fn write(
    path: &Path,
    features: impl Iterator<Item = Vec<ExampleRecord>>,
) -> Result<Vec<Range<u64>>, RecordError> {
    let mut rows = Vec::new();
    let (mut next, mut pending, mut is_first) = (0, Vec::new(), true);
    let mut features = features.fuse();
    let batches = std::iter::from_fn(|| {
        while pending.len() < ROW_GROUP {
            let Some(examples) = features.next() else { break };
            rows.push(next..next + examples.len() as u64);
            next += examples.len() as u64;
            pending.extend(examples);
        }
        let take = pending.len().min(ROW_GROUP);
        // A file without examples has its columns all the same.
        if take == 0 && !std::mem::take(&mut is_first) {
            return None;
        }
        is_first = false;
        let examples: Vec<ExampleRecord> = pending.drain(..take).collect();
        Some(batch(&examples).map_err(|error| RecordError::format(path, error)))
    });
    write_batches(path, batches)?;
    Ok(rows)
}

fn batch(examples: &[ExampleRecord]) -> Result<RecordBatch, arrow_schema::ArrowError> {
    let all = || examples.iter();
    let interval = |example: &ExampleRecord| example.interval.unwrap_or(HIGHEST);
    RecordBatch::try_from_iter([
        ("feature", numbers::<UInt32Type>(all().map(|example| example.feature))),
        ("interval", numbers::<UInt8Type>(all().map(interval))),
        ("peak", numbers::<Float32Type>(all().map(|example| example.peak))),
        ("position", numbers::<UInt32Type>(all().map(|example| example.position))),
        ("own_from", numbers::<UInt32Type>(all().map(|example| example.own[0]))),
        ("own_to", numbers::<UInt32Type>(all().map(|example| example.own[1]))),
        ("tokens", lists::<UInt32Type>(all().map(|example| example.tokens.clone()))),
        ("activations", lists::<Float32Type>(all().map(|example| example.activations.clone()))),
        ("first", numbers::<UInt32Type>(all().map(|example| example.first))),
        ("file", numbers::<UInt32Type>(all().map(|example| example.file))),
        ("row", numbers::<UInt64Type>(all().map(|example| example.row))),
        ("byte_from", numbers::<UInt32Type>(all().map(|example| example.bytes[0]))),
        ("byte_to", numbers::<UInt32Type>(all().map(|example| example.bytes[1]))),
    ])
}

/// Reads the rows of some ranges, which come one after another; only their row groups are decoded.
pub(super) fn read(path: &Path, ranges: &[Range<u64>]) -> Result<Vec<ExampleRecord>, RecordError> {
    let failed = |message: String| RecordError::format(path, message);
    let wanted: u64 = ranges.iter().map(|range| range.end.saturating_sub(range.start)).sum();
    if wanted == 0 {
        return Ok(Vec::new());
    }
    let file = File::open(path).map_err(RecordError::file("read", path))?;
    let builder = ParquetRecordBatchReaderBuilder::try_new(file)
        .map_err(|error| failed(format!("it is no whole parquet file: {error}")))?;
    let (mut groups, mut selectors, mut at) = (Vec::new(), Vec::new(), 0);
    for (group, metadata) in builder.metadata().row_groups().iter().enumerate() {
        let own = at..at + metadata.num_rows() as u64;
        at = own.end;
        let inside = ranges.iter().filter_map(|range| {
            let (from, to) = (range.start.max(own.start), range.end.min(own.end));
            (from < to).then_some(from..to)
        });
        let inside: Vec<Range<u64>> = inside.collect();
        if inside.is_empty() {
            continue;
        }
        groups.push(group);
        let mut next = own.start;
        for Range { start, end } in inside {
            selectors.push(RowSelector::skip((start - next) as usize));
            selectors.push(RowSelector::select((end - start) as usize));
            next = end;
        }
        selectors.push(RowSelector::skip((own.end - next) as usize));
    }
    let batches = builder
        .with_row_groups(groups)
        .with_row_selection(RowSelection::from(selectors))
        .build()
        .map_err(|error| failed(format!("cannot read its rows: {error}")))?;
    let mut examples = Vec::new();
    for batch in batches {
        let batch = batch.map_err(|error| failed(format!("cannot read its rows: {error}")))?;
        examples.extend(examples_of(&batch).map_err(failed)?);
    }
    if examples.len() as u64 != wanted {
        return Err(failed(format!("expected {wanted} rows, found {} of them", examples.len())));
    }
    Ok(examples)
}

fn examples_of(batch: &RecordBatch) -> Result<Vec<ExampleRecord>, String> {
    let columns = Columns(batch);
    let number = |name| columns.numbers::<UInt32Type>(name);
    let (feature, position, first) = (number("feature")?, number("position")?, number("first")?);
    let (own_from, own_to) = (number("own_from")?, number("own_to")?);
    let (file, from, to) = (number("file")?, number("byte_from")?, number("byte_to")?);
    let interval = columns.numbers::<UInt8Type>("interval")?;
    let peak = columns.numbers::<Float32Type>("peak")?;
    let row_of = columns.numbers::<UInt64Type>("row")?;
    let tokens = columns.lists::<UInt32Type>("tokens")?;
    let activations = columns.lists::<Float32Type>("activations")?;
    let example = |row: usize| ExampleRecord {
        feature: feature.value(row),
        interval: Some(interval.value(row)).filter(|interval| *interval != HIGHEST),
        peak: peak.value(row),
        position: position.value(row),
        own: [own_from.value(row), own_to.value(row)],
        tokens: tokens.row(row).to_vec(),
        activations: activations.row(row).to_vec(),
        first: first.value(row),
        file: file.value(row),
        row: row_of.value(row),
        bytes: [from.value(row), to.value(row)],
    };
    Ok((0..batch.num_rows()).map(example).collect())
}
