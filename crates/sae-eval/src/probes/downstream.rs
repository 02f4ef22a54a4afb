//! How close the spliced model's activations stay to the original's at later sites.

use std::collections::BTreeMap;

use sae_config::Site;
use sae_record::metric::{Better, Metric, Scope, name};
use sae_record::summary::Evaluation;
use sae_splice::SpliceError;
use tch::{Kind, Tensor};

use super::{Batch, ErrorSums, PerToken, Probe, Totals, flat, number, square_norms};

pub(super) const METRICS: &[Metric] = &[
    later(name::MSE, Better::Less, "mean over all elements of (spliced − original)²"),
    later(
        name::EXPLAINED_VARIANCE,
        Better::More,
        "1 − Σ‖original − spliced‖² / Σ‖original − μ‖², μ the original's mean over the evaluation set",
    ),
    later(
        "explained_variance_per_token",
        Better::More,
        "mean over tokens of 1 − ‖original − spliced‖² / ‖original − μ‖²",
    ),
    later(
        "explained_variance_std",
        Better::Neither,
        "standard deviation over tokens of 1 − ‖original − spliced‖² / ‖original − μ‖²",
    ),
    later(
        NORMALISED,
        Better::More,
        "1 − Σ‖o − s‖² / Σ‖o − mean o‖², o and s being original and spliced activations that are centred and scaled to unit variance over their \
         elements (a layer norm without weights, whatever norm the model has); the reference's explained_variance_ln is the mean of the \
         ratios of tokens",
    ),
];

const NORMALISED: &str = "explained_variance_normalised";
/// What the reference's layer norm adds to a variance.
const EPSILON: f64 = 1e-5;

const fn later(name: &'static str, better: Better, reduction: &'static str) -> Metric {
    Metric::new(name, Scope::Downstream, "", better, reduction)
}

#[derive(Default)]
pub(super) struct Downstream {
    sites: BTreeMap<Site, (ErrorSums, PerToken, Normalised)>,
}

/// Sums over tokens of layer-normalised activations o of the original and s of the spliced model.
#[derive(Default)]
struct Normalised {
    tokens: f64,
    /// Of ‖o − s‖², and of ‖o‖².
    residual: f64,
    squares: f64,
    /// Of o.
    sum: Option<Tensor>,
}

impl Normalised {
    /// # Shapes
    /// `original, spliced: [N, D]`.
    fn add(&mut self, original: &Tensor, spliced: &Tensor) -> Result<(), SpliceError> {
        let (n, d) = original.size2()?;
        let normalise =
            |x: &Tensor| x.f_layer_norm([d], None::<Tensor>, None::<Tensor>, EPSILON, false);
        let (o, s) = (normalise(original)?, normalise(spliced)?);
        self.tokens += n as f64;
        self.residual += number(&square_norms(&o.f_sub(&s)?)?)?;
        self.squares += number(&square_norms(&o)?)?;
        let sum = o.f_sum_dim_intlist([0_i64].as_slice(), false, Kind::Double)?;
        self.sum = Some(match self.sum.take() {
            Some(before) => before.f_add(&sum)?,
            None => sum,
        });
        Ok(())
    }

    /// `1 − Σ‖o − s‖² / (Σ‖o‖² − ‖Σo‖² / N)`.
    fn explained_variance(&self) -> f64 {
        let of_mean = self.sum.as_ref().and_then(|sum| number(&sum.f_square().ok()?).ok());
        1.0 - self.residual / (self.squares - of_mean.unwrap_or(f64::NAN) / self.tokens)
    }
}

impl Probe for Downstream {
    fn see(&mut self, batch: &Batch<'_>) -> Result<(), SpliceError> {
        for (site, spliced) in &batch.pass.recorded {
            let original = flat(batch.clean.activation(*site)?)?;
            let spliced = flat(spliced)?;
            let (sums, explained, normalised) = self.sites.entry(*site).or_default();
            normalised.add(&original, &spliced)?;
            let residual = square_norms(&spliced.f_sub(&original)?)?;
            let variance = square_norms(&original.f_sub(batch.mean(*site)?)?)?;
            sums.width = original.size2()?.1 as usize;
            sums.residual += number(&residual)?;
            sums.variance += number(&variance)?;
            explained.add(&residual, &variance)?;
        }
        Ok(())
    }

    fn finish(&self, totals: &Totals, found: &mut Evaluation) {
        for (site, (sums, explained, normalised)) in &self.sites {
            let values = found.downstream.entry(*site).or_default();
            values.set(name::MSE, sums.mse(totals));
            values.set(name::EXPLAINED_VARIANCE, sums.explained_variance());
            let [mean, deviation] = explained.of(totals.tokens as f64);
            values.set("explained_variance_per_token", mean);
            values.set("explained_variance_std", deviation);
            values.set(NORMALISED, normalised.explained_variance());
        }
    }
}
