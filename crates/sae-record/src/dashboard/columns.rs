//! Columns of lists, and the reading and writing of a parquet file batch by batch.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow_array::builder::{ListBuilder, PrimitiveBuilder, StringBuilder};
use arrow_array::cast::AsArray;
use arrow_array::types::ArrowPrimitiveType;
use arrow_array::{Array, ArrayRef, PrimitiveArray, RecordBatch, StringArray};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use sae_config::file;

use crate::RecordError;

/// Rows of a row group of examples: what is read for one feature.
pub(super) const ROW_GROUP: usize = 1024;

/// A column of numbers.
pub(super) fn numbers<T: ArrowPrimitiveType>(
    values: impl IntoIterator<Item = T::Native>,
) -> ArrayRef {
    Arc::new(PrimitiveArray::<T>::from_iter_values(values))
}

/// A column of lists of numbers.
pub(super) fn lists<T: ArrowPrimitiveType>(
    rows: impl IntoIterator<Item = Vec<T::Native>>,
) -> ArrayRef {
    let mut builder = ListBuilder::new(PrimitiveBuilder::<T>::new());
    for row in rows {
        builder.values().append_slice(&row);
        builder.append(true);
    }
    Arc::new(builder.finish())
}

/// A column of lists of texts.
pub(super) fn texts(rows: impl IntoIterator<Item = Vec<String>>) -> ArrayRef {
    let mut builder = ListBuilder::new(StringBuilder::new());
    for row in rows {
        for text in row {
            builder.values().append_value(text);
        }
        builder.append(true);
    }
    Arc::new(builder.finish())
}

/// Writes batches of rows whole or not at all.
pub(super) fn write(
    path: &Path,
    batches: impl Iterator<Item = Result<RecordBatch, RecordError>>,
) -> Result<(), RecordError> {
    let failed =
        |error: ParquetError| RecordError::file("write", path)(std::io::Error::other(error));
    let partial = file::partial(path);
    let mut sink = Some(file::create_new(&partial).map_err(RecordError::file("write", path))?);
    let mut writer: Option<ArrowWriter<File>> = None;
    for batch in batches {
        let batch = batch?;
        if let Some(file) = sink.take() {
            let level = ZstdLevel::try_new(3).map_err(failed)?;
            let properties = WriterProperties::builder()
                .set_compression(Compression::ZSTD(level))
                .set_max_row_group_row_count(Some(ROW_GROUP))
                .build();
            let begun = ArrowWriter::try_new(file, batch.schema(), Some(properties));
            writer = Some(begun.map_err(failed)?);
        }
        if let Some(writer) = &mut writer {
            writer.write(&batch).map_err(failed)?;
        }
    }
    if let Some(writer) = writer {
        writer.close().map_err(failed)?;
    }
    std::fs::rename(&partial, path).map_err(RecordError::file("write", path))
}

/// The columns of a batch, by name.
pub(super) struct Columns<'a>(pub &'a RecordBatch);

impl<'a> Columns<'a> {
    fn column(&self, name: &str) -> Result<&'a ArrayRef, String> {
        let column = self.0.column_by_name(name);
        let column = column.ok_or_else(|| format!("it has no column `{name}`"))?;
        if column.null_count() > 0 {
            return Err(format!("its column `{name}` has empty cells, expected none"));
        }
        Ok(column)
    }

    fn unexpected(&self, name: &str) -> String {
        let kind = self.0.column_by_name(name).map(|column| column.data_type().to_string());
        format!("its column `{name}` is of an unexpected type, {}", kind.unwrap_or_default())
    }

    /// The numbers of a column.
    pub fn numbers<T: ArrowPrimitiveType>(
        &self,
        name: &str,
    ) -> Result<&'a PrimitiveArray<T>, String> {
        self.column(name)?.as_primitive_opt::<T>().ok_or_else(|| self.unexpected(name))
    }

    /// The numbers of a column of lists.
    pub fn lists<T: ArrowPrimitiveType>(&self, name: &str) -> Result<Lists<'a, T::Native>, String> {
        let lists = self.column(name)?.as_list_opt::<i32>();
        let lists = lists.ok_or_else(|| self.unexpected(name))?;
        let values = lists.values().as_primitive_opt::<T>().ok_or_else(|| self.unexpected(name))?;
        Ok(Lists { values: values.values(), offsets: lists.value_offsets() })
    }

    /// The texts of a column of lists, row by row.
    pub fn texts(&self, name: &str) -> Result<Vec<Vec<String>>, String> {
        let lists = self.column(name)?.as_list_opt::<i32>();
        let lists = lists.ok_or_else(|| self.unexpected(name))?;
        let values: &StringArray =
            lists.values().as_string_opt().ok_or_else(|| self.unexpected(name))?;
        let text = |at: i32| values.value(at as usize).to_owned();
        let ends = lists.value_offsets().array_windows();
        Ok(ends.map(|&[from, to]| (from..to).map(text).collect()).collect())
    }
}

/// The numbers of a column of lists, without a copy.
#[derive(Clone, Copy)]
pub(super) struct Lists<'a, T> {
    values: &'a [T],
    offsets: &'a [i32],
}

impl<'a, T> Lists<'a, T> {
    /// The numbers of a row.
    pub fn row(&self, row: usize) -> &'a [T] {
        &self.values[self.offsets[row] as usize..self.offsets[row + 1] as usize]
    }
}
