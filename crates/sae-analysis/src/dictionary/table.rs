//! `features.parquet`: a row a feature of every SAE of the run.

use std::fs::File;
use std::path::Path;

use arrow::array::{Array, BooleanArray, Float64Array, RecordBatch, StringArray, UInt32Array};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use sae_config::Site;

use super::Feature;
use crate::AnalysisError;

/// The features at a site, in the order of their indices, which are 0, 1, 2, …
pub(super) fn read(path: &Path, site: Site) -> Result<Vec<Feature>, AnalysisError> {
    let failed = |message: String| AnalysisError::Format { path: path.to_owned(), message };
    let file =
        File::open(path).map_err(|source| AnalysisError::Read { path: path.to_owned(), source })?;
    let batches = ParquetRecordBatchReaderBuilder::try_new(file)
        .and_then(ParquetRecordBatchReaderBuilder::build)
        .map_err(|error| failed(format!("it is no whole parquet file: {error}")))?;
    let name = site.to_string();
    let (mut features, mut others) = (Vec::new(), Vec::new());
    for batch in batches {
        let batch = batch.map_err(|error| failed(format!("cannot read its rows: {error}")))?;
        let columns = Columns::of(&batch).map_err(failed)?;
        for row in 0..batch.num_rows() {
            let of = columns.site.value(row);
            if of == name {
                features.push(columns.feature(row));
            } else if !others.iter().any(|other| other == of) {
                others.push(of.to_owned());
            }
        }
    }
    if features.is_empty() {
        let found = if others.is_empty() { "no rows".to_owned() } else { others.join(", ") };
        return Err(failed(format!("expected features at {name}, found {found}")));
    }
    features.sort_by_key(|feature| feature.index);
    for (feature, expected) in features.iter().zip(0..) {
        check(feature, expected).map_err(|message| failed(format!("at {name}, {message}")))?;
    }
    Ok(features)
}

fn check(feature: &Feature, expected: u32) -> Result<(), String> {
    let Feature { index, frequency, encoder_norm, decoder_norm, encoder_bias, .. } = *feature;
    if index != expected {
        return Err(format!("expected every feature once, found {index} in place of {expected}"));
    }
    if !(0.0..=1.0).contains(&frequency) {
        return Err(format!("feature {index} has frequency {frequency}, expected 0 to 1"));
    }
    if ![encoder_norm, decoder_norm, encoder_bias].iter().all(|number| number.is_finite()) {
        return Err(format!(
            "feature {index} has encoder_norm {encoder_norm}, decoder_norm {decoder_norm} and encoder_bias \
             {encoder_bias}, expected finite numbers"
        ));
    }
    Ok(())
}

/// The columns of a batch, by the names that a run writes.
struct Columns<'a> {
    site: &'a StringArray,
    index: &'a UInt32Array,
    frequency: &'a Float64Array,
    alive: &'a BooleanArray,
    encoder_norm: &'a Float64Array,
    decoder_norm: &'a Float64Array,
    encoder_bias: &'a Float64Array,
}

impl<'a> Columns<'a> {
    fn of(batch: &'a RecordBatch) -> Result<Self, String> {
        Ok(Self {
            site: column(batch, "site", "text")?,
            index: column(batch, "feature", "32-bit unsigned numbers")?,
            frequency: column(batch, "frequency", "64-bit floats")?,
            alive: column(batch, "alive", "true or false")?,
            encoder_norm: column(batch, "encoder_norm", "64-bit floats")?,
            decoder_norm: column(batch, "decoder_norm", "64-bit floats")?,
            encoder_bias: column(batch, "encoder_bias", "64-bit floats")?,
        })
    }

    fn feature(&self, row: usize) -> Feature {
        Feature {
            index: self.index.value(row),
            frequency: self.frequency.value(row),
            alive: self.alive.value(row),
            encoder_norm: self.encoder_norm.value(row),
            decoder_norm: self.decoder_norm.value(row),
            encoder_bias: self.encoder_bias.value(row),
        }
    }
}

fn column<'a, T: Array + 'static>(
    batch: &'a RecordBatch,
    name: &str,
    expected: &str,
) -> Result<&'a T, String> {
    let column = batch.column_by_name(name).ok_or_else(|| {
        let schema = batch.schema();
        let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        format!("it has no column `{name}`; it has {}", names.join(", "))
    })?;
    if column.null_count() > 0 {
        return Err(format!("its column `{name}` has empty cells, expected none"));
    }
    column.as_any().downcast_ref().ok_or_else(|| {
        format!("its column `{name}` is of type {}, expected {expected}", column.data_type())
    })
}
