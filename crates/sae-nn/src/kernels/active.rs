//! The SAE where few features are active: decoding, and all gradients, at the cost of the active ones alone. Only the
//! encoder's product has to be dense.
//!
//! `N` tokens, `D` width of the activation, `F` dictionary elements. Every output row is one thread's, summed in one
//! order: the numbers do not depend on how many threads there are.

use rayon::prelude::*;
use tch::{Device, Kind, Tensor};

use super::dense::{RowSums, is_active, project_loop};
use super::{Instructions, add_scaled, applies, check, dot, numbers, numbers_mut, vectorised};
use crate::SaeError;

/// Rows that a thread takes at a time.
const ROWS: usize = 32;

/// The active features of some tokens, token by token.
#[derive(Debug)]
pub struct Active {
    n_features: usize,
    /// Where each token's begin, and where the last one's end.
    starts: Vec<usize>,
    /// Which features.
    features: Vec<u32>,
    /// Their activations.
    values: Vec<f32>,
}

/// Gradients of an SAE's loss.
#[derive(Debug)]
pub struct ActiveGradients {
    /// `[F, D]`.
    pub w_enc: Tensor,
    /// `[F]`.
    pub b_enc: Tensor,
    /// `[F, D]`, of the rows before they were scaled to unit length.
    pub w_dec: Tensor,
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

impl Active {
    /// Picks the active ones out of features that [`super::relu`] has made and counted.
    ///
    /// # Shapes
    /// `features: [N, F]`, `rows`: N.
    pub fn collect(features: &Tensor, rows: &[RowSums]) -> Result<Self, SaeError> {
        let (n, f) = features.size2()?;
        let fits = rows.len() == n as usize && u32::try_from(f).is_ok();
        check("f32 features on a CPU, counted", fits && applies(&[features]))?;
        let mut starts = Vec::with_capacity(rows.len() + 1);
        starts.push(0);
        for row in rows {
            starts.push(starts[starts.len() - 1] + row.active as usize);
        }
        let total = starts[rows.len()];
        check("fewer than 2³² active features", u32::try_from(total).is_ok())?;
        let (mut indices, mut values) = (vec![0; total], vec![0.0; total]);
        let n_features = f as usize;
        by_rows(&starts, &mut indices)
            .into_par_iter()
            .zip(by_rows(&starts, &mut values))
            .zip(numbers(features).par_chunks((n_features * ROWS).max(1)))
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

    /// Active features of all tokens together.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether no feature is active on any token.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Tokens.
    fn n(&self) -> usize {
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
    /// `w_dec: [F, D]`, `b_dec: [D]`, F scales → `[N, D]`.
    pub fn decode(
        &self,
        w_dec: &Tensor,
        scales: &[f32],
        b_dec: &Tensor,
    ) -> Result<Tensor, SaeError> {
        let d = self.check_weights(&[w_dec], scales)?;
        check("a bias of D numbers", applies(&[b_dec]) && b_dec.numel() == d)?;
        let mut out = empty(&[self.n(), d])?;
        let (w_dec, bias) = (numbers(w_dec), numbers(b_dec));
        numbers_mut(&mut out)
            .par_chunks_mut(d.max(1))
            .zip(self.starts.par_windows(2))
            .with_min_len(8)
            .for_each(|(row, ends)| {
                let (features, values) =
                    (&self.features[ends[0]..ends[1]], &self.values[ends[0]..ends[1]]);
                row.copy_from_slice(bias);
                decode_row(features, values, scales, w_dec, row);
            });
        Ok(out)
    }

    /// The gradient with respect to every active feature before its ReLU: `penalties` and what comes through the decoder.
    ///
    /// # Shapes
    /// `gradient: [N, D]` with respect to the reconstruction, `w_dec: [F, D]`, F scales.
    pub fn backward(
        &self,
        gradient: &Tensor,
        w_dec: &Tensor,
        scales: &[f32],
        mut penalties: Vec<f32>,
    ) -> Result<Vec<f32>, SaeError> {
        let d = self.check_weights(&[w_dec], scales)?;
        let fits = gradient.size() == [self.n() as i64, d as i64];
        check("a gradient of every token", fits && applies(&[gradient]))?;
        let (w_dec, gradient) = (numbers(w_dec), numbers(gradient));
        by_rows(&self.starts, &mut penalties)
            .into_par_iter()
            .zip(self.starts[..self.n()].par_chunks(ROWS))
            .zip(gradient.par_chunks((d * ROWS).max(1)))
            .enumerate()
            .for_each(|(block, ((mut out, starts), gradient))| {
                for (index, gradient) in (0..starts.len()).zip(gradient.chunks(d)) {
                    let row = block * ROWS + index;
                    let ends = self.starts[row]..self.starts[row + 1];
                    let (own, rest) = std::mem::take(&mut out).split_at_mut(ends.len());
                    score_row(&self.features[ends], scales, w_dec, gradient, own);
                    out = rest;
                }
            });
        Ok(penalties)
    }

    /// The gradient with respect to the SAE's input, of what [`Active::backward`] gave.
    ///
    /// # Shapes
    /// `w_enc: [F, D]` → `[N, D]`.
    pub fn input_gradient(&self, pre: &[f32], w_enc: &Tensor) -> Result<Tensor, SaeError> {
        let d = self.check_weights(&[w_enc], &[])?;
        let mut out = empty(&[self.n(), d])?;
        let w_enc = numbers(w_enc);
        numbers_mut(&mut out)
            .par_chunks_mut(d.max(1))
            .zip(self.starts.par_windows(2))
            .with_min_len(8)
            .for_each(|(row, ends)| {
                row.fill(0.0);
                let ends = ends[0]..ends[1];
                encoder_row(&self.features[ends.clone()], &pre[ends], w_enc, row);
            });
        Ok(out)
    }

    /// The gradients of the parameters but `b_dec`, of what [`Active::backward`] gave.
    ///
    /// # Shapes
    /// `x, gradient: [N, D]`, `w_dec: [F, D]`, F scales.
    pub fn parameter_gradients(
        &self,
        pre: &[f32],
        x: &Tensor,
        gradient: &Tensor,
        w_dec: &Tensor,
        scales: &[f32],
    ) -> Result<ActiveGradients, SaeError> {
        let d = self.check_weights(&[w_dec], scales)?;
        let size = [self.n() as i64, d as i64];
        let fits = x.size() == size && gradient.size() == size && pre.len() == self.values.len();
        check("inputs and gradients of every token", fits && applies(&[x, gradient]))?;
        let f = self.n_features;
        let (mut enc, mut dec) = (empty(&[f, d])?, empty(&[f, d])?);
        let mut bias = empty(&[f])?;
        let by_feature = self.by_feature();
        let (x, gradient, w_dec) = (numbers(x), numbers(gradient), numbers(w_dec));
        let d = d.max(1);
        numbers_mut(&mut enc)
            .par_chunks_mut(d)
            .zip(numbers_mut(&mut dec).par_chunks_mut(d))
            .zip(numbers_mut(&mut bias))
            .enumerate()
            .with_min_len(16)
            .for_each(|(feature, ((enc, dec), bias))| {
                let ends = by_feature.starts[feature]..by_feature.starts[feature + 1];
                let row = FeatureRow {
                    tokens: &by_feature.tokens[ends.clone()],
                    places: &by_feature.places[ends],
                    values: &self.values,
                    pre,
                    x,
                    gradient,
                    w_dec: &w_dec[feature * d..(feature + 1) * d],
                    scale: scales[feature],
                };
                *bias = feature_row(&row, enc, dec);
            });
        Ok(ActiveGradients { w_enc: enc, b_enc: bias, w_dec: dec })
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

    /// Every weight is `[F, D]`; → D.
    fn check_weights(&self, weights: &[&Tensor], scales: &[f32]) -> Result<usize, SaeError> {
        let (f, d) = weights[0].size2()?;
        let fits = f as usize == self.n_features
            && (scales.is_empty() || scales.len() == self.n_features)
            && applies(weights);
        check("f32 weights of these features on a CPU", fits)?;
        Ok(d as usize)
    }
}

fn empty(shape: &[usize]) -> Result<Tensor, SaeError> {
    let shape: Vec<i64> = shape.iter().map(|&n| n as i64).collect();
    Ok(Tensor::f_empty(shape.as_slice(), (Kind::Float, Device::Cpu))?)
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
    let d = enc.len();
    let mut bias = 0.0;
    for (token, place) in row.tokens.iter().zip(row.places) {
        let at = *token as usize * d;
        let (c, pre) = (row.values[*place as usize], row.pre[*place as usize]);
        add_scaled(pre, &row.x[at..][..d], enc);
        add_scaled(c, &row.gradient[at..][..d], dec);
        bias += pre;
    }
    project_loop(dec, row.w_dec, row.scale);
    bias
}
