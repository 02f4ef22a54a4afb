//! `features.parquet` of a dashboard: a row a feature that was active.

use std::fs::File;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::path::Path;

use arrow_array::RecordBatch;
use arrow_array::types::{Float32Type, Float64Type, UInt32Type, UInt64Type};
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder,
};

use super::columns::{Columns, Lists, lists, numbers, texts, write as write_batches};
use crate::RecordError;

/// What a feature is, but for its examples.
#[derive(Debug, Clone, PartialEq)]
pub struct FeatureCard {
    /// Its number in the dictionary.
    pub feature: u32,
    /// Tokens that it was active on.
    pub active: u64,
    /// Their share of all tokens.
    pub density: f64,
    /// The mean of its activations where it was active.
    pub mean: f64,
    /// Its greatest activation.
    pub max: f32,
    /// The norm of its decoder row as trained, where that is known; the stored row has unit length.
    pub decoder_norm: Option<f64>,
    /// Its encoder bias.
    pub encoder_bias: f64,
    /// The width of the histogram's bins; the first begins at 0.
    pub histogram_width: f32,
    /// Tokens by the size of its activation.
    pub histogram: Vec<u64>,
    /// The tokens of its highest activations, the most frequent first.
    pub peak_tokens: Vec<u32>,
    /// The tokens that its dictionary element makes likelier directly; none where the lens means nothing at its site.
    pub highest: Vec<LensToken>,
    /// Those that it makes less likely.
    pub lowest: Vec<LensToken>,
    /// The nearest dictionary elements, of its own dictionary and of others.
    pub near: Vec<Near>,
    /// What it is active together with.
    pub partners: Vec<PartnerRecord>,
    /// Its rows in `examples.parquet`.
    pub examples: Range<u64>,
}

/// A token, and what a dictionary element adds to its logit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LensToken {
    /// Its id.
    pub token: u32,
    /// What is added, up to the scale of the final norm.
    pub logit: f32,
}

/// A dictionary element near another.
#[derive(Debug, Clone, PartialEq)]
pub struct Near {
    /// The run that it is of; none of the same dictionary.
    pub run: Option<String>,
    /// Its number in its dictionary.
    pub feature: u32,
    /// The cosine of the two.
    pub cosine: f32,
}

/// A feature of the same dictionary that is active on the same tokens.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PartnerRecord {
    /// Its number.
    pub feature: u32,
    /// The share of the tokens on which it is active too.
    pub share: f32,
    /// That share over the share of all tokens.
    pub lift: f32,
}

/// Cards of a batch.
const BATCH: usize = 4096;

/// Writes cards, with the rows of each in the file of examples.
pub(super) fn write(
    path: &Path,
    cards: &[FeatureCard],
    examples: &[Range<u64>],
) -> Result<(), RecordError> {
    let with_rows: Vec<FeatureCard> = cards
        .iter()
        .zip(examples)
        .map(|(card, examples)| FeatureCard { examples: examples.clone(), ..card.clone() })
        .collect();
    let mut chunks: Vec<&[FeatureCard]> = with_rows.chunks(BATCH).collect();
    if chunks.is_empty() {
        chunks.push(&[]);
    }
    let batches = chunks
        .into_iter()
        .map(|cards| batch(cards).map_err(|error| RecordError::format(path, error)));
    write_batches(path, batches)
}

fn batch(cards: &[FeatureCard]) -> Result<RecordBatch, arrow_schema::ArrowError> {
    let tokens = |of: fn(&FeatureCard) -> &[LensToken]| {
        let ids = cards.iter().map(|card| of(card).iter().map(|token| token.token).collect());
        let logits = cards.iter().map(|card| of(card).iter().map(|token| token.logit).collect());
        (lists::<UInt32Type>(ids), lists::<Float32Type>(logits))
    };
    let (highest, highest_logits) = tokens(|card| &card.highest);
    let (lowest, lowest_logits) = tokens(|card| &card.lowest);
    let near = |card: &FeatureCard| card.near.clone().into_iter();
    let runs = |card| near(card).map(|near| near.run.unwrap_or_default()).collect();
    let partners = |card: &FeatureCard| card.partners.clone().into_iter();
    let decoder_norm = |card: &FeatureCard| card.decoder_norm.unwrap_or(f64::NAN);
    RecordBatch::try_from_iter([
        ("feature", numbers::<UInt32Type>(cards.iter().map(|card| card.feature))),
        ("active", numbers::<UInt64Type>(cards.iter().map(|card| card.active))),
        ("density", numbers::<Float64Type>(cards.iter().map(|card| card.density))),
        ("mean", numbers::<Float64Type>(cards.iter().map(|card| card.mean))),
        ("max", numbers::<Float32Type>(cards.iter().map(|card| card.max))),
        ("decoder_norm", numbers::<Float64Type>(cards.iter().map(decoder_norm))),
        ("encoder_bias", numbers::<Float64Type>(cards.iter().map(|card| card.encoder_bias))),
        ("histogram_width", numbers::<Float32Type>(cards.iter().map(|card| card.histogram_width))),
        ("histogram", lists::<UInt64Type>(cards.iter().map(|card| card.histogram.clone()))),
        ("peak_tokens", lists::<UInt32Type>(cards.iter().map(|card| card.peak_tokens.clone()))),
        ("highest", highest),
        ("highest_logits", highest_logits),
        ("lowest", lowest),
        ("lowest_logits", lowest_logits),
        ("near_runs", texts(cards.iter().map(runs))),
        (
            "near_features",
            lists::<UInt32Type>(cards.iter().map(|c| near(c).map(|near| near.feature).collect())),
        ),
        (
            "near_cosines",
            lists::<Float32Type>(cards.iter().map(|c| near(c).map(|near| near.cosine).collect())),
        ),
        (
            "partners",
            lists::<UInt32Type>(cards.iter().map(|c| partners(c).map(|p| p.feature).collect())),
        ),
        (
            "partner_shares",
            lists::<Float32Type>(cards.iter().map(|c| partners(c).map(|p| p.share).collect())),
        ),
        (
            "partner_lifts",
            lists::<Float32Type>(cards.iter().map(|c| partners(c).map(|p| p.lift).collect())),
        ),
        ("examples_from", numbers::<UInt64Type>(cards.iter().map(|card| card.examples.start))),
        ("examples_to", numbers::<UInt64Type>(cards.iter().map(|card| card.examples.end))),
    ])
}

/// Reads all cards, in the order of their features.
pub(super) fn read(path: &Path) -> Result<Vec<FeatureCard>, RecordError> {
    let failed = |message: String| RecordError::format(path, message);
    let open = || File::open(path).map_err(RecordError::file("read", path));
    let metadata = ArrowReaderMetadata::load(&open()?, ArrowReaderOptions::default())
        .map_err(|error| failed(format!("it is no whole parquet file: {error}")))?;
    let groups: Vec<usize> = (0..metadata.metadata().num_row_groups()).collect();
    let threads = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let read_groups = |groups: &[usize]| -> Result<Vec<FeatureCard>, RecordError> {
        let rows = ParquetRecordBatchReaderBuilder::new_with_metadata(open()?, metadata.clone())
            .with_row_groups(groups.to_vec())
            .with_batch_size(BATCH)
            .build()
            .map_err(|error| failed(format!("cannot read its rows: {error}")))?;
        let mut cards = Vec::new();
        for batch in rows {
            let batch = batch.map_err(|error| failed(format!("cannot read its rows: {error}")))?;
            cards.extend(cards_of(&batch).map_err(failed)?);
        }
        Ok(cards)
    };
    // Decoding takes nearly all of the time, and people wait for it.
    let read = std::thread::scope(|scope| {
        let chunks = groups.chunks(groups.len().div_ceil(threads).max(1));
        let started: Vec<_> = chunks.map(|own| scope.spawn(|| read_groups(own))).collect();
        let ended = started.into_iter().map(|thread| {
            let stopped = |_| Err(failed("a thread that read it has stopped".to_owned()));
            thread.join().unwrap_or_else(stopped)
        });
        ended.collect::<Result<Vec<_>, _>>()
    })?;
    let cards: Vec<FeatureCard> = read.into_iter().flatten().collect();
    if !cards.is_sorted_by(|a, b| a.feature < b.feature) {
        return Err(failed("expected every feature once, in order".to_owned()));
    }
    let ends = cards.iter().flat_map(|card| [card.examples.start, card.examples.end]);
    if !ends.collect::<Vec<_>>().is_sorted() {
        return Err(failed(
            "expected the examples of one feature after those of another".to_owned(),
        ));
    }
    Ok(cards)
}

fn cards_of(batch: &RecordBatch) -> Result<Vec<FeatureCard>, String> {
    let columns = Columns(batch);
    let feature = columns.numbers::<UInt32Type>("feature")?;
    let active = columns.numbers::<UInt64Type>("active")?;
    let [density, mean, decoder_norm, encoder_bias] =
        ["density", "mean", "decoder_norm", "encoder_bias"]
            .map(|name| columns.numbers::<Float64Type>(name));
    let (density, mean, decoder_norm, encoder_bias) =
        (density?, mean?, decoder_norm?, encoder_bias?);
    let [max, width] = ["max", "histogram_width"].map(|name| columns.numbers::<Float32Type>(name));
    let (max, width) = (max?, width?);
    let ids = |name| columns.lists::<UInt32Type>(name);
    let values = |name| columns.lists::<Float32Type>(name);
    let histogram = columns.lists::<UInt64Type>("histogram")?;
    let peak_tokens = ids("peak_tokens")?;
    let highest = (ids("highest")?, values("highest_logits")?);
    let lowest = (ids("lowest")?, values("lowest_logits")?);
    let near = (columns.texts("near_runs")?, ids("near_features")?, values("near_cosines")?);
    let partners = (ids("partners")?, values("partner_shares")?, values("partner_lifts")?);
    let [from, to] =
        ["examples_from", "examples_to"].map(|name| columns.numbers::<UInt64Type>(name));
    let (from, to) = (from?, to?);
    let lens = |(ids, logits): &(Lists<'_, u32>, Lists<'_, f32>), row: usize| {
        let pairs = ids.row(row).iter().zip(logits.row(row));
        pairs.map(|(&token, &logit)| LensToken { token, logit }).collect()
    };
    let card = |row: usize| FeatureCard {
        feature: feature.value(row),
        active: active.value(row),
        density: density.value(row),
        mean: mean.value(row),
        max: max.value(row),
        decoder_norm: Some(decoder_norm.value(row)).filter(|norm| norm.is_finite()),
        encoder_bias: encoder_bias.value(row),
        histogram_width: width.value(row),
        histogram: histogram.row(row).to_vec(),
        peak_tokens: peak_tokens.row(row).to_vec(),
        highest: lens(&highest, row),
        lowest: lens(&lowest, row),
        near: near.0[row]
            .iter()
            .zip(near.1.row(row))
            .zip(near.2.row(row))
            .map(|((run, &feature), &cosine)| Near {
                run: Some(run.clone()).filter(|run| !run.is_empty()),
                feature,
                cosine,
            })
            .collect(),
        partners: partners
            .0
            .row(row)
            .iter()
            .zip(partners.1.row(row))
            .zip(partners.2.row(row))
            .map(|((&feature, &share), &lift)| PartnerRecord { feature, share, lift })
            .collect(),
        examples: from.value(row)..to.value(row),
    };
    Ok((0..batch.num_rows()).map(card).collect())
}
