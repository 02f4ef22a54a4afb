//! `features.parquet`: a row a feature of every SAE of the run.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow_array::{
    Array, ArrayRef, BooleanArray, Float64Array, RecordBatch, StringArray, UInt32Array,
};
use arrow_schema::ArrowError;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use sae_config::{Site, file};
use serde::{Deserialize, Serialize};

use crate::RecordError;

/// A feature of a dictionary.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Feature {
    /// Its row in the decoder, from 0.
    pub index: u32,
    /// The share of tokens that it is active on, from 0 to 1.
    pub frequency: f64,
    /// Whether it was active at least once on the tokens that the run counted on. (An analysis may ask for more.)
    pub alive: bool,
    /// The Euclidean norm of its row of `w_enc`.
    pub encoder_norm: f64,
    /// The Euclidean norm of its row of `w_dec` as trained; the stored row has unit length.
    pub decoder_norm: f64,
    /// Its encoder bias.
    pub encoder_bias: f64,
}

/// Writes the features of a run's SAEs, by site, whole or not at all.
pub fn write(path: &Path, features: &[(Site, Vec<Feature>)]) -> Result<(), RecordError> {
    let batch = batch(features).map_err(|error| RecordError::format(path, error))?;
    let partial = file::partial(path);
    let write = || -> std::io::Result<()> {
        let file = file::create_new(&partial)?;
        let mut writer =
            ArrowWriter::try_new(file, batch.schema(), None).map_err(std::io::Error::other)?;
        writer.write(&batch).map_err(std::io::Error::other)?;
        writer.close().map_err(std::io::Error::other)?;
        std::fs::rename(&partial, path)
    };
    write().map_err(RecordError::file("write", path))
}

fn batch(features: &[(Site, Vec<Feature>)]) -> Result<RecordBatch, ArrowError> {
    let all = || features.iter().flat_map(|(_, features)| features);
    let numbers = |number: fn(&Feature) -> f64| -> ArrayRef {
        Arc::new(Float64Array::from_iter_values(all().map(number)))
    };
    let sites = features
        .iter()
        .flat_map(|(site, features)| std::iter::repeat_n(site.to_string(), features.len()));
    let alive: BooleanArray = all().map(|feature| Some(feature.alive)).collect();
    let index = UInt32Array::from_iter_values(all().map(|feature| feature.index));
    RecordBatch::try_from_iter([
        ("site", Arc::new(StringArray::from_iter_values(sites)) as ArrayRef),
        ("feature", Arc::new(index)),
        ("frequency", numbers(|feature| feature.frequency)),
        ("alive", Arc::new(alive)),
        ("encoder_norm", numbers(|feature| feature.encoder_norm)),
        ("decoder_norm", numbers(|feature| feature.decoder_norm)),
        ("encoder_bias", numbers(|feature| feature.encoder_bias)),
    ])
}

/// Reads the features at a site, in the order of their indices, which are 0, 1, 2, …
pub fn read(path: &Path, site: Site) -> Result<Vec<Feature>, RecordError> {
    let failed = |message: String| RecordError::format(path, message);
    let file = File::open(path).map_err(RecordError::file("read", path))?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_are_read_as_they_were_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("features.parquet");
        let feature = |index: u32| Feature {
            index,
            frequency: 0.25 * f64::from(index),
            alive: index > 0,
            encoder_norm: 1.0,
            decoder_norm: 2.0,
            encoder_bias: -0.5,
        };
        let (first, second) = (Site::resid_pre(1), Site::resid_pre(2));
        let all = [(first, vec![feature(0)]), (second, (0..3).map(feature).collect())];
        write(&path, &all).unwrap();
        for (site, features) in &all {
            assert_eq!(read(&path, *site).unwrap(), *features);
        }
        let error = read(&path, Site::resid_pre(3)).unwrap_err().to_string();
        assert!(error.contains("found blocks.1.hook_resid_pre, blocks.2"), "{error}");
    }
}
