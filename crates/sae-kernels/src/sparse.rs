//! The SAE where few features are active: decoding, and all gradients, at the cost of the active ones alone. Only the
//! encoder's product has to be dense.
//!
//! `N` tokens, `D` width of the input, `E` of the reconstruction (the same for an SAE), `F` dictionary elements. Every output row is one thread's, summed in one
//! order: the numbers do not depend on how many threads there are.

use rayon::prelude::*;

use crate::dense::{is_active, project_loop};
use crate::instructions::{add_scaled, dot, vectorised};
use crate::rows::{check, check_rows};
use crate::{RowSums, Rows, RowsMut, ShapeError};

/// Rows that a thread takes at a time.
const ROWS: usize = 32;

/// The active features of some tokens, token by token.
#[derive(Debug)]
pub struct SparseCode {
    n_features: usize,
    /// Where each token's begin, and where the last one's end.
    starts: Vec<usize>,
    /// Which features, all below `n_features`.
    features: Vec<u32>,
    /// Their activations.
    values: Vec<f32>,
}

/// What the gradients of a dictionary's parameters are computed from.
#[derive(Debug, Clone, Copy)]
pub struct SparseInputs<'a> {
    /// The gradient with respect to every active feature, of [`SparseCode::feature_gradients`].
    pub pre: &'a [f32],
    /// The dictionary's input x, `[N, D]`.
    pub x: Rows<'a>,
    /// The gradient with respect to the reconstruction, `[N, E]`.
    pub gradient: Rows<'a>,
    /// `[F, E]`.
    pub w_dec: Rows<'a>,
    /// What each row of `w_dec` is multiplied by, F numbers.
    pub scales: &'a [f32],
}

/// Where the gradients of a dictionary's parameters are written.
#[derive(Debug)]
pub struct ParameterGradients<'a> {
    /// `[F, D]`.
    pub w_enc: RowsMut<'a>,
    /// F numbers.
    pub b_enc: &'a mut [f32],
    /// `[F, E]`, of the rows before they were scaled to unit length.
    pub w_dec: RowsMut<'a>,
}

/// The active features of a dictionary, feature by feature.
struct ByFeature {
    starts: Vec<usize>,
    /// Whose token.
    tokens: Vec<u32>,
    /// Where it stands among the active features token by token.
    places: Vec<u32>,
}

vectorised!(decode_row => decode_loop(features: &[u32], values: &[f32], scales: &[f32], w_dec: &[f32], out: &mut [f32]));
vectorised!(score_row => score_loop(features: &[u32], scales: &[f32], w_dec: &[f32], gradient: &[f32], out: &mut [f32]));
vectorised!(encoder_row => encoder_loop(features: &[u32], pre: &[f32], w_enc: &[f32], out: &mut [f32]));
vectorised!(feature_row => feature_loop(row: &FeatureRow<'_>, enc: &mut [f32], dec: &mut [f32]) -> f32);

impl SparseCode {
    /// Picks the active ones out of features that [`crate::relu`] has made and counted.
    ///
    /// # Shapes
    /// `features: [N, F]`, `sums`: N.
    pub fn collect(features: Rows<'_>, sums: &[RowSums]) -> Result<Self, ShapeError> {
        let (n, n_features) = features.shape();
        check("counts of active features", n, sums.len())?;
        let mut starts = Vec::with_capacity(n + 1);
        starts.push(0);
        for row in sums {
            starts.push(starts[starts.len() - 1] + row.active as usize);
        }
        let total = starts[n];
        if u32::try_from(total.max(n).max(n_features)).is_err() {
            let expected = "fewer than 2³² tokens, features and active features".to_owned();
            let found = format!("{n} tokens, {n_features} features, {total} active");
            return Err(ShapeError { what: "a sparse code", expected, found });
        }
        let (mut indices, mut values) = (vec![0; total], vec![0.0; total]);
        by_rows(&starts, &mut indices)
            .into_par_iter()
            .zip(by_rows(&starts, &mut values))
            .zip(features.numbers().par_chunks(n_features * ROWS))
            .for_each(|((mut indices, mut values), rows)| {
                for row in rows.chunks(n_features) {
                    let found = row.iter().enumerate().filter(|(_, c)| is_active(**c));
                    let mut count = 0;
                    for ((index, c), (to, value)) in
                        found.zip(indices.iter_mut().zip(values.iter_mut()))
                    {
                        (*to, *value) = (index as u32, *c);
                        count += 1;
                    }
                    indices = &mut std::mem::take(&mut indices)[count..];
                    values = &mut std::mem::take(&mut values)[count..];
                }
            });
        Ok(Self { n_features, starts, features: indices, values })
    }

    /// The code on some of the features alone, counted from the first of them, and where each of its activations stands in
    /// this code.
    pub fn part(&self, features: std::ops::Range<usize>) -> (Self, Vec<u32>) {
        let (mut starts, mut indices) = (vec![0], Vec::new());
        let (mut values, mut places) = (Vec::new(), Vec::new());
        for ends in self.starts.windows(2) {
            for place in ends[0]..ends[1] {
                let feature = self.features[place] as usize;
                if features.contains(&feature) {
                    indices.push((feature - features.start) as u32);
                    values.push(self.values[place]);
                    places.push(place as u32);
                }
            }
            starts.push(indices.len());
        }
        let n_features = features.len();
        (Self { n_features, starts, features: indices, values }, places)
    }

    /// Active features of all tokens together.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether no feature is active on any token.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Tokens, N.
    pub fn n(&self) -> usize {
        self.starts.len() - 1
    }

    /// `mean_n ‖c_n‖_p`.
    pub fn mean_norm(&self, p: f64) -> f64 {
        let sum: f64 = self.norms(p).iter().sum();
        sum / self.n() as f64
    }

    #[allow(clippy::float_cmp)]
    fn norms(&self, p: f64) -> Vec<f64> {
        if p == 1.0 {
            let sum =
                |ends: &[usize]| self.values[ends[0]..ends[1]].iter().map(|c| f64::from(*c)).sum();
            return self.starts.windows(2).map(sum).collect();
        }
        let norm = |ends: &[usize]| {
            let values = self.values[ends[0]..ends[1]].iter().map(|c| f64::from(*c));
            values.map(|c| c.powf(p)).sum::<f64>().powf(1.0 / p)
        };
        self.starts.windows(2).map(norm).collect()
    }

    /// The derivative of `weight · mean_n ‖c_n‖_p` with respect to every active feature.
    #[allow(clippy::float_cmp)]
    pub fn penalties(&self, p: f64, weight: f64) -> Vec<f32> {
        let weight = weight / self.n() as f64;
        if p == 1.0 {
            return vec![weight as f32; self.values.len()];
        }
        let mut penalties = Vec::with_capacity(self.values.len());
        for (ends, norm) in self.starts.windows(2).zip(self.norms(p)) {
            let values = self.values[ends[0]..ends[1]].iter();
            penalties.extend(
                values.map(|c| (weight * f64::from(*c).powf(p - 1.0) * norm.powf(1.0 - p)) as f32),
            );
        }
        penalties
    }

    /// `x̂ = c · dict + b_dec`, the dictionary being the rows of `w_dec` times `scales`.
    ///
    /// # Shapes
    /// `w_dec: [F, D]`, F scales, `bias`: D numbers → `out: [N, D]`.
    pub fn decode(
        &self,
        w_dec: Rows<'_>,
        scales: &[f32],
        bias: &[f32],
        out: RowsMut<'_>,
    ) -> Result<(), ShapeError> {
        let d = w_dec.width();
        check_rows("a decoder", (self.n_features, d), w_dec.shape())?;
        check("scales of a decoder", self.n_features, scales.len())?;
        check("a decoder's bias", d, bias.len())?;
        check_rows("a reconstruction", (self.n(), d), out.shape())?;
        out.into_numbers()
            .par_chunks_mut(d)
            .zip(self.starts.par_windows(2))
            .with_min_len(8)
            .for_each(|(row, ends)| {
                let (features, values) =
                    (&self.features[ends[0]..ends[1]], &self.values[ends[0]..ends[1]]);
                row.copy_from_slice(bias);
                decode_row(features, values, scales, w_dec.numbers(), row);
            });
        Ok(())
    }

    /// The gradient with respect to every active feature before its ReLU: `penalties` and what comes through the decoder.
    ///
    /// # Shapes
    /// `gradient: [N, D]` with respect to the reconstruction, `w_dec: [F, D]`, F scales, a penalty an active feature.
    pub fn feature_gradients(
        &self,
        gradient: Rows<'_>,
        w_dec: Rows<'_>,
        scales: &[f32],
        mut penalties: Vec<f32>,
    ) -> Result<Vec<f32>, ShapeError> {
        let d = w_dec.width();
        check_rows("a decoder", (self.n_features, d), w_dec.shape())?;
        check("scales of a decoder", self.n_features, scales.len())?;
        check_rows("gradients of a reconstruction", (self.n(), d), gradient.shape())?;
        check("penalties", self.len(), penalties.len())?;
        by_rows(&self.starts, &mut penalties)
            .into_par_iter()
            .zip(self.starts[..self.n()].par_chunks(ROWS))
            .zip(gradient.numbers().par_chunks(d * ROWS))
            .enumerate()
            .for_each(|(block, ((mut out, starts), gradient))| {
                for (index, gradient) in (0..starts.len()).zip(gradient.chunks(d)) {
                    let row = block * ROWS + index;
                    let ends = self.starts[row]..self.starts[row + 1];
                    let (own, rest) = std::mem::take(&mut out).split_at_mut(ends.len());
                    score_row(&self.features[ends], scales, w_dec.numbers(), gradient, own);
                    out = rest;
                }
            });
        Ok(penalties)
    }

    /// The gradient with respect to the input, of what [`SparseCode::feature_gradients`] gave.
    ///
    /// # Shapes
    /// `w_enc: [F, D]` → `out: [N, D]`.
    pub fn input_gradient(
        &self,
        pre: &[f32],
        w_enc: Rows<'_>,
        out: RowsMut<'_>,
    ) -> Result<(), ShapeError> {
        let d = w_enc.width();
        check_rows("an encoder", (self.n_features, d), w_enc.shape())?;
        check("gradients of active features", self.len(), pre.len())?;
        check_rows("gradients of an input", (self.n(), d), out.shape())?;
        out.into_numbers()
            .par_chunks_mut(d)
            .zip(self.starts.par_windows(2))
            .with_min_len(8)
            .for_each(|(row, ends)| {
                row.fill(0.0);
                let ends = ends[0]..ends[1];
                encoder_row(&self.features[ends.clone()], &pre[ends], w_enc.numbers(), row);
            });
        Ok(())
    }

    /// The gradients of the parameters but the decoder's bias.
    pub fn parameter_gradients(
        &self,
        inputs: SparseInputs<'_>,
        out: ParameterGradients<'_>,
    ) -> Result<(), ShapeError> {
        let SparseInputs { pre, x, gradient, w_dec, scales } = inputs;
        let (d, e) = (x.width(), w_dec.width());
        let (n, f) = (self.n(), self.n_features);
        check("gradients of active features", self.len(), pre.len())?;
        check_rows("inputs", (n, d), x.shape())?;
        check_rows("gradients of a reconstruction", (n, e), gradient.shape())?;
        check_rows("a decoder", (f, e), w_dec.shape())?;
        check("scales of a decoder", f, scales.len())?;
        check_rows("gradients of an encoder", (f, d), out.w_enc.shape())?;
        check("gradients of an encoder's bias", f, out.b_enc.len())?;
        check_rows("gradients of a decoder", (f, e), out.w_dec.shape())?;
        let by_feature = self.by_feature();
        out.w_enc
            .into_numbers()
            .par_chunks_mut(d)
            .zip(out.w_dec.into_numbers().par_chunks_mut(e))
            .zip(out.b_enc)
            .enumerate()
            .with_min_len(16)
            .for_each(|(feature, ((enc, dec), bias))| {
                let ends = by_feature.starts[feature]..by_feature.starts[feature + 1];
                let row = FeatureRow {
                    tokens: &by_feature.tokens[ends.clone()],
                    places: &by_feature.places[ends],
                    values: &self.values,
                    pre,
                    x: x.numbers(),
                    gradient: gradient.numbers(),
                    w_dec: w_dec.row(feature),
                    scale: scales[feature],
                };
                *bias = feature_row(&row, enc, dec);
            });
        Ok(())
    }

    /// Sorts by feature, tokens in order.
    fn by_feature(&self) -> ByFeature {
        let mut starts = vec![0_usize; self.n_features + 1];
        for feature in &self.features {
            starts[*feature as usize + 1] += 1;
        }
        for feature in 0..self.n_features {
            starts[feature + 1] += starts[feature];
        }
        let mut next = starts.clone();
        let (mut tokens, mut places) = (vec![0; self.features.len()], vec![0; self.features.len()]);
        for (token, ends) in self.starts.windows(2).enumerate() {
            for place in ends[0]..ends[1] {
                let to = &mut next[self.features[place] as usize];
                (tokens[*to], places[*to]) = (token as u32, place as u32);
                *to += 1;
            }
        }
        ByFeature { starts, tokens, places }
    }
}

/// Splits what lies token by token into what [`ROWS`] tokens have.
fn by_rows<'a, T>(starts: &[usize], mut all: &'a mut [T]) -> Vec<&'a mut [T]> {
    let mut blocks = Vec::with_capacity(starts.len() / ROWS + 1);
    let n = starts.len() - 1;
    for first in (0..n).step_by(ROWS) {
        let length = starts[(first + ROWS).min(n)] - starts[first];
        let (block, rest) = all.split_at_mut(length);
        blocks.push(block);
        all = rest;
    }
    blocks
}

/// All that a feature's gradients are made of.
struct FeatureRow<'a> {
    tokens: &'a [u32],
    places: &'a [u32],
    values: &'a [f32],
    pre: &'a [f32],
    x: &'a [f32],
    gradient: &'a [f32],
    w_dec: &'a [f32],
    scale: f32,
}

#[inline(always)]
fn decode_loop(features: &[u32], values: &[f32], scales: &[f32], w_dec: &[f32], out: &mut [f32]) {
    let d = out.len();
    for (feature, value) in features.iter().zip(values) {
        let feature = *feature as usize;
        add_scaled(value * scales[feature], &w_dec[feature * d..][..d], out);
    }
}

#[inline(always)]
fn score_loop(features: &[u32], scales: &[f32], w_dec: &[f32], gradient: &[f32], out: &mut [f32]) {
    let d = gradient.len();
    for (feature, out) in features.iter().zip(out) {
        let feature = *feature as usize;
        *out += dot(gradient, &w_dec[feature * d..][..d]) * scales[feature];
    }
}

#[inline(always)]
fn encoder_loop(features: &[u32], pre: &[f32], w_enc: &[f32], out: &mut [f32]) {
    let d = out.len();
    for (feature, pre) in features.iter().zip(pre) {
        add_scaled(*pre, &w_enc[*feature as usize * d..][..d], out);
    }
}

/// → the gradient of the feature's bias.
#[inline(always)]
fn feature_loop(row: &FeatureRow<'_>, enc: &mut [f32], dec: &mut [f32]) -> f32 {
    enc.fill(0.0);
    dec.fill(0.0);
    if row.tokens.is_empty() {
        return 0.0;
    }
    let (d, e) = (enc.len(), dec.len());
    let mut bias = 0.0;
    for (token, place) in row.tokens.iter().zip(row.places) {
        let (token, place) = (*token as usize, *place as usize);
        let (c, pre) = (row.values[place], row.pre[place]);
        add_scaled(pre, &row.x[token * d..][..d], enc);
        add_scaled(c, &row.gradient[token * e..][..e], dec);
        bias += pre;
    }
    project_loop(dec, row.w_dec, row.scale);
    bias
}
