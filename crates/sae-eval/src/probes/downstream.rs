//! How close the spliced model's activations stay to the original's at later sites.

use std::collections::BTreeMap;

use sae_config::Site;
use sae_record::metric::{Better, Metric, Scope, name};
use sae_record::summary::Evaluation;
use sae_splice::SpliceError;

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
];

const fn later(name: &'static str, better: Better, reduction: &'static str) -> Metric {
    Metric::new(name, Scope::Downstream, "", better, reduction)
}

#[derive(Default)]
pub(super) struct Downstream {
    sites: BTreeMap<Site, (ErrorSums, PerToken)>,
}

impl Probe for Downstream {
    fn see(&mut self, batch: &Batch<'_>) -> Result<(), SpliceError> {
        for (site, spliced) in &batch.pass.recorded {
            let original = flat(batch.clean.activation(*site)?)?;
            let (sums, explained) = self.sites.entry(*site).or_default();
            let residual = square_norms(&flat(spliced)?.f_sub(&original)?)?;
            let variance = square_norms(&original.f_sub(batch.mean(*site)?)?)?;
            sums.width = original.size2()?.1 as usize;
            sums.residual += number(&residual)?;
            sums.variance += number(&variance)?;
            explained.add(&residual, &variance)?;
        }
        Ok(())
    }

    fn finish(&self, totals: &Totals, found: &mut Evaluation) {
        for (site, (sums, explained)) in &self.sites {
            let values = found.downstream.entry(*site).or_default();
            values.set(name::MSE, sums.mse(totals));
            values.set(name::EXPLAINED_VARIANCE, sums.explained_variance());
            let [mean, deviation] = explained.of(totals.tokens as f64);
            values.set("explained_variance_per_token", mean);
            values.set("explained_variance_std", deviation);
        }
    }
}
