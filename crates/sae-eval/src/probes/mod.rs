//! The probes of an evaluation, one file each: what each sees of the passes on a batch, and the metrics that it ends with.

mod downstream;
mod prediction;
mod reconstruction;
mod sparsity;
mod spread;

use std::collections::BTreeMap;

use sae_config::Site;
use sae_record::metric::Metric;
use sae_record::summary::Evaluation;
use sae_splice::{CleanPass, MemberPass, SpliceError};
use tch::{Kind, Tensor};

/// A probe sees every batch of a member and ends with its metrics. It implements `see` or `see_outputs`, whichever it needs.
pub(crate) trait Probe {
    /// Takes in the activations of a batch.
    fn see(&mut self, _batch: &Batch<'_>) -> Result<(), SpliceError> {
        Ok(())
    }

    /// Takes in the output distributions of some tokens of a batch.
    fn see_outputs(&mut self, _outputs: &Outputs<'_>) -> Result<(), SpliceError> {
        Ok(())
    }

    /// Writes the metrics that it declares.
    fn finish(&self, totals: &Totals, found: &mut Evaluation);
}

/// A probe in the list of all: its metrics, and its constructor.
struct Registered {
    metrics: &'static [Metric],
    start: fn() -> Box<dyn Probe>,
}

// One line a probe.
const PROBES: &[Registered] = &[
    Registered { metrics: sparsity::METRICS, start: start::<sparsity::Sparsity> },
    Registered { metrics: spread::METRICS, start: start::<spread::Spread> },
    Registered { metrics: prediction::METRICS, start: start::<prediction::Prediction> },
    Registered { metrics: reconstruction::METRICS, start: start::<reconstruction::Reconstruction> },
    Registered { metrics: downstream::METRICS, start: start::<downstream::Downstream> },
];

fn start<P: Probe + Default + 'static>() -> Box<dyn Probe> {
    Box::<P>::default()
}

/// The metrics of an evaluation.
pub fn metrics() -> Vec<Metric> {
    PROBES.iter().flat_map(|probe| probe.metrics).cloned().collect()
}

/// Every probe, with nothing seen yet.
pub(crate) fn all() -> Vec<Box<dyn Probe>> {
    PROBES.iter().map(|probe| (probe.start)()).collect()
}

/// What a member's passes on a batch have computed.
pub(crate) struct Batch<'a> {
    pub pass: &'a MemberPass,
    pub clean: &'a CleanPass,
    /// The mean clean activation over the evaluation set, `[width]` in f64, by site.
    pub means: &'a BTreeMap<Site, Tensor>,
}

impl Batch<'_> {
    /// The mean clean activation at a site, `[width]` in f64.
    fn mean(&self, site: Site) -> Result<&Tensor, SpliceError> {
        self.means.get(&site).ok_or(SpliceError::NotRecorded { site })
    }
}

/// The output distributions of `n` tokens.
pub(crate) struct Outputs<'a> {
    /// Log-probabilities of the original model, `[n, V]`.
    pub log_p: &'a Tensor,
    /// Its probabilities, `[n, V]`.
    pub p: &'a Tensor,
    /// The token that it ranks first, `[n]`.
    pub top: &'a Tensor,
    /// Log-probabilities of the spliced model, `[n, V]`.
    pub log_q: &'a Tensor,
    /// The next tokens.
    pub targets: &'a Targets,
}

/// Next tokens.
pub(crate) struct Targets {
    /// `[n]`, 0 where there is none.
    pub ids: Tensor,
    /// `[n]`, 1 or 0: the last token of a window has none.
    pub valid: Tensor,
}

impl Targets {
    /// Of windows `[B, T]`, n = B · T.
    pub fn of(tokens: &Tensor) -> Result<Self, SpliceError> {
        let (b, t) = tokens.size2()?;
        let ids = tokens.f_zeros_like()?;
        let valid = tokens.f_zeros_like()?;
        ids.f_narrow(1, 0, t - 1)?.f_copy_(&tokens.f_narrow(1, 1, t - 1)?)?;
        let _ = valid.f_narrow(1, 0, t - 1)?.f_fill_(1)?;
        Ok(Self { ids: ids.f_reshape([b * t])?, valid: valid.f_reshape([b * t])? })
    }

    /// Some of them.
    pub fn narrow(&self, start: i64, length: i64) -> Result<Self, SpliceError> {
        let narrow = |tensor: &Tensor| tensor.f_narrow(0, start, length);
        Ok(Self { ids: narrow(&self.ids)?, valid: narrow(&self.valid)? })
    }

    /// The cross-entropy of log-probabilities `[n, V]`, summed over the tokens that have a next one.
    pub fn cross_entropy(&self, log_p: &Tensor) -> Result<f64, SpliceError> {
        let picked = log_p.f_gather(-1, &self.ids.f_unsqueeze(-1)?, false)?.f_squeeze_dim(-1)?;
        Ok(-number(&picked.f_mul(&self.valid)?)?)
    }

    /// How many of these tokens, `[n]`, are the next ones.
    pub fn correct(&self, top: &Tensor) -> Result<f64, SpliceError> {
        number(&top.f_eq_tensor(&self.ids)?.f_mul(&self.valid)?)
    }
}

/// What is counted once for a member's probes, over the evaluation set.
pub(crate) struct Totals {
    pub tokens: u64,
    /// Tokens that have a next one.
    pub predictions: f64,
    /// Sums over the predictions: of the original model's cross-entropy, and of its hits.
    pub ce: f64,
    pub correct: f64,
    /// Sums of cross-entropies with zeros, and with the mean activation, at the sites that the dictionaries write.
    pub ablated: [f64; 2],
}

/// The sum of all elements, in f64.
pub(crate) fn number(x: &Tensor) -> Result<f64, SpliceError> {
    Ok(x.f_sum(Kind::Double)?.f_double_value(&[])?)
}

/// `[B, T, D]` → `[N, D]`, in single precision at least.
pub(crate) fn flat(x: &Tensor) -> Result<Tensor, SpliceError> {
    let d = x.size().last().copied().unwrap_or(1);
    let kind = if x.kind() == Kind::Double { Kind::Double } else { Kind::Float };
    Ok(x.f_reshape([-1, d])?.f_to_kind(kind)?)
}

/// `[N, D]` → `[N]`, in f64.
fn square_norms(x: &Tensor) -> Result<Tensor, SpliceError> {
    Ok(x.f_square()?.f_sum_dim_intlist([-1_i64].as_slice(), false, Kind::Double)?)
}

/// Sums of squared distances at a site: of what is compared, and of the mean.
#[derive(Default)]
struct ErrorSums {
    residual: f64,
    variance: f64,
    width: usize,
}

/// Sums over tokens of the explained variance of each, and of its square.
#[derive(Default)]
struct PerToken {
    sum: f64,
    squares: f64,
}

impl PerToken {
    /// Adds tokens, given the squared distances of each from what is compared, and from the mean, `[n]`.
    fn add(&mut self, residual: &Tensor, variance: &Tensor) -> Result<(), SpliceError> {
        let explained = residual.f_div(variance)?.f_neg()?.f_add_scalar(1.0)?;
        self.sum += number(&explained)?;
        self.squares += number(&explained.f_square()?)?;
        Ok(())
    }

    /// Mean and standard deviation.
    fn of(&self, tokens: f64) -> [f64; 2] {
        let [mean, square] = [self.sum, self.squares].map(|sum| sum / tokens);
        // Rounding may take a variance of 0 below it.
        [mean, (square - mean * mean).max(0.0).sqrt()]
    }
}

impl ErrorSums {
    fn mse(&self, totals: &Totals) -> f64 {
        self.residual / (totals.tokens as f64 * self.width as f64)
    }

    fn explained_variance(&self) -> f64 {
        1.0 - self.residual / self.variance
    }
}
