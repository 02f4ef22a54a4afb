//! How many rows of a parquet file are read together, so that rows of megabytes do not fill the memory.

use parquet::arrow::ProjectionMask;
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData};

/// Rows in a batch at most.
const ROWS: u64 = 1024;
/// Bytes in a batch at most, where rows are of like size and none is longer than this.
const BYTES: u64 = 16 << 20;

/// Rows of a file to read at a time: as many as 16 MiB hold of the row group whose rows are largest on average, at
/// least 1 and at most 1024.
pub(crate) fn batch_rows(file: &ParquetMetaData, columns: &ProjectionMask) -> usize {
    let groups = file.row_groups().iter().map(|group| {
        let read = group.columns().iter().enumerate();
        let read = read.filter(|(column, _)| columns.leaf_included(*column));
        let bytes = read.map(|(_, column)| decoded_bytes(column)).sum();
        (group.num_rows() as u64, bytes)
    });
    rows_within(groups)
}

/// The same for row groups of so many rows and bytes.
fn rows_within(groups: impl Iterator<Item = (u64, u64)>) -> usize {
    let largest = groups.filter(|(rows, _)| *rows > 0).map(|(rows, bytes)| bytes.div_ceil(rows));
    let row = largest.max().unwrap_or(0).max(1);
    (BYTES / row).clamp(1, ROWS) as usize
}

/// Bytes of a column chunk in memory, as far as its metadata tell: encoded, text without its dictionary, or ids of 8
/// bytes, whichever are most. (Equal rows are stored once.)
fn decoded_bytes(column: &ColumnChunkMetaData) -> u64 {
    let text = column.unencoded_byte_array_data_bytes().unwrap_or(0);
    column.uncompressed_size().max(text).max(column.num_values().saturating_mul(8)).max(0) as u64
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // In a test, a panic is the report.
mod tests {
    use std::fs::File;
    use std::sync::Arc;

    use arrow_array::{ArrayRef, RecordBatch, StringArray};
    use parquet::arrow::ArrowWriter;

    use super::{BYTES, ROWS, rows_within};
    use crate::ShardSet;
    use crate::shard::{Position, Rows};

    #[test]
    fn the_largest_rows_say_how_many_are_read() {
        let rows = |groups: &[(u64, u64)]| rows_within(groups.iter().copied());
        assert_eq!(rows(&[]), 1024);
        assert_eq!(rows(&[(0, 0), (4096, 4096 * 2000)]), 1024);
        assert_eq!(rows(&[(40, 40 << 20)]), 16);
        assert_eq!(rows(&[(4096, 4096 * 100), (2, 2 << 20)]), 16);
        assert_eq!(rows(&[(1, 1 << 40)]), 1);
    }

    #[test]
    fn rows_of_a_megabyte_are_read_a_few_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        // Rows that differ, and equal ones, which the file has once.
        for (name, differ) in [("differ.parquet", true), ("equal.parquet", false)] {
            let text = |row: usize| format!("{} words {row}", "x".repeat(1 << 20));
            let texts = (0..40).map(|row| text(if differ { row } else { 0 }));
            let column = Arc::new(StringArray::from_iter_values(texts)) as ArrayRef;
            let batch = RecordBatch::try_from_iter([("text", column)]).unwrap();
            let path = folder.path().join(name);
            let file = File::create(&path).unwrap();
            let mut writer = ArrowWriter::try_new(file, batch.schema(), None).unwrap();
            writer.write(&batch).unwrap();
            writer.close().unwrap();
            let shards = ShardSet::open(&path, "text").unwrap();
            let mut batches = Vec::new();
            let read = shards.for_each_rows(Position::default(), false, |batch| {
                let Rows::Text(texts) = batch.rows else { panic!("{name} holds text") };
                batches.push(texts.iter().map(String::len).sum::<usize>());
                Ok(true)
            });
            read.unwrap();
            assert!(batches.iter().sum::<usize>() > 40 << 20, "{name}");
            assert!(batches.iter().all(|bytes| *bytes as u64 <= BYTES), "{name}: {batches:?}");
            assert!(batches.len() <= 4, "{name}: {} batches", batches.len());
        }
    }

    #[test]
    fn small_rows_are_read_by_the_thousand() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = crate::prepare::WindowWriter::create(folder.path(), 4, 3000).unwrap();
        for row in 0..3000 {
            writer.push(&[row, 1, 2, 3]).unwrap();
        }
        writer.finish().unwrap();
        let shards = ShardSet::open(folder.path(), "input_ids").unwrap();
        let mut first = None;
        let read = shards.for_each_rows(Position::default(), false, |batch| {
            let Rows::Windows { lengths, .. } = batch.rows else { panic!("windows") };
            first = Some(lengths.len() as u64);
            Ok(false)
        });
        read.unwrap();
        assert_eq!(first, Some(ROWS));
    }
}
