//! How a dictionary reconstructs the activation x that it replaces.

use std::collections::BTreeMap;

use sae_config::Site;
use sae_record::metric::{Better, Metric, Scope, name};
use sae_record::summary::Evaluation;
use sae_splice::SpliceError;
use tch::Tensor;

use super::{Batch, ErrorSums, PerToken, Probe, Totals, flat, number, square_norms};

pub(super) const METRICS: &[Metric] = &[
    site(name::MSE, Better::Less, "mean over all elements of (x̂ − x)²"),
    site(
        name::EXPLAINED_VARIANCE,
        Better::More,
        "1 − Σ‖x − x̂‖² / Σ‖x − μ‖², μ the clean activation's mean over the evaluation set",
    ),
    // The reference takes μ over each batch; and for its `out_to_in` it divides by the variance of x̂.
    site(
        "explained_variance_per_token",
        Better::More,
        "mean over tokens of 1 − ‖x − x̂‖² / ‖x − μ‖²",
    ),
    site(
        "explained_variance_std",
        Better::Neither,
        "standard deviation over tokens of 1 − ‖x − x̂‖² / ‖x − μ‖²",
    ),
    site("cosine", Better::More, "mean cosine between x and x̂"),
    site("l2_ratio", Better::Neither, "mean of ‖x̂‖ / ‖x‖"),
];

const fn site(name: &'static str, better: Better, reduction: &'static str) -> Metric {
    Metric::new(name, Scope::Site, "", better, reduction)
}

#[derive(Default)]
pub(super) struct Reconstruction {
    sites: BTreeMap<Site, Sums>,
}

#[derive(Default)]
struct Sums {
    error: ErrorSums,
    explained: PerToken,
    cosine: f64,
    ratio: f64,
}

impl Probe for Reconstruction {
    fn see(&mut self, batch: &Batch<'_>) -> Result<(), SpliceError> {
        for seen in &batch.pass.dictionaries {
            let (x, x_hat) = (flat(&seen.target)?, flat(&seen.output.reconstruction)?);
            let sums = self.sites.entry(seen.site).or_default();
            let residual = square_norms(&x.f_sub(&x_hat)?)?;
            let variance = square_norms(&x.f_sub(batch.mean(seen.site)?)?)?;
            sums.error.width = x.size2()?.1 as usize;
            sums.error.residual += number(&residual)?;
            sums.error.variance += number(&variance)?;
            sums.explained.add(&residual, &variance)?;
            sums.cosine += number(&Tensor::f_cosine_similarity(&x, &x_hat, -1, 1e-8)?)?;
            sums.ratio += number(&square_norms(&x_hat)?.f_div(&square_norms(&x)?)?.f_sqrt()?)?;
        }
        Ok(())
    }

    fn finish(&self, totals: &Totals, found: &mut Evaluation) {
        let tokens = totals.tokens as f64;
        for (site, sums) in &self.sites {
            let values = found.sites.entry(*site).or_default();
            values.set(name::MSE, sums.error.mse(totals));
            values.set(name::EXPLAINED_VARIANCE, sums.error.explained_variance());
            let [mean, deviation] = sums.explained.of(tokens);
            values.set("explained_variance_per_token", mean);
            values.set("explained_variance_std", deviation);
            values.set("cosine", sums.cosine / tokens);
            values.set("l2_ratio", sums.ratio / tokens);
        }
    }
}
