//! How close the spliced model's activations stay to the original's at later sites.

use std::collections::BTreeMap;

use sae_config::Site;
use sae_record::metric::{Better, Metric, Scope, name};
use sae_record::summary::Evaluation;
use sae_splice::SpliceError;

use super::{Batch, ErrorSums, Probe, Totals, flat, number, square_norms};

pub(super) const METRICS: &[Metric] = &[
    later(name::MSE, Better::Less, "mean over all elements of (spliced − original)²"),
    later(
        name::EXPLAINED_VARIANCE,
        Better::More,
        "1 − Σ‖original − spliced‖² / Σ‖original − μ‖², μ the original's mean over the evaluation set",
    ),
];

const fn later(name: &'static str, better: Better, reduction: &'static str) -> Metric {
    Metric::new(name, Scope::Downstream, "", better, reduction)
}

#[derive(Default)]
pub(super) struct Downstream {
    sites: BTreeMap<Site, ErrorSums>,
}

impl Probe for Downstream {
    fn see(&mut self, batch: &Batch<'_>) -> Result<(), SpliceError> {
        for (site, spliced) in &batch.pass.recorded {
            let original = flat(batch.clean.activation(*site)?)?;
            let sums = self.sites.entry(*site).or_default();
            sums.width = original.size2()?.1 as usize;
            sums.residual += number(&square_norms(&flat(spliced)?.f_sub(&original)?)?)?;
            sums.variance += number(&square_norms(&original.f_sub(batch.mean(*site)?)?)?)?;
        }
        Ok(())
    }

    fn finish(&self, totals: &Totals, found: &mut Evaluation) {
        for (site, sums) in &self.sites {
            let values = found.downstream.entry(*site).or_default();
            values.set(name::MSE, sums.mse(totals));
            values.set(name::EXPLAINED_VARIANCE, sums.explained_variance());
        }
    }
}
