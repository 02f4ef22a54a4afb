//! How many features are active.

use std::collections::BTreeMap;

use sae_config::Site;
use sae_record::metric::{Better, Metric, Scope, name};
use sae_record::summary::Evaluation;
use sae_splice::SpliceError;

use super::{Batch, Probe, Totals, number};

pub(super) const METRICS: &[Metric] = &[
    Metric::new(
        name::L0,
        Scope::Run,
        "features",
        Better::Less,
        "active features per token, summed over the SAEs: mean of ‖c‖₀",
    ),
    Metric::new(
        name::L0,
        Scope::Site,
        "features",
        Better::Less,
        "active features per token: mean of ‖c‖₀",
    ),
];

#[derive(Default)]
pub(super) struct Sparsity {
    active: BTreeMap<Site, f64>,
}

impl Probe for Sparsity {
    fn see(&mut self, batch: &Batch<'_>) -> Result<(), SpliceError> {
        for seen in &batch.pass.dictionaries {
            *self.active.entry(seen.site).or_default() += number(&seen.output.features.f_gt(0.0)?)?;
        }
        Ok(())
    }

    fn finish(&self, totals: &Totals, found: &mut Evaluation) {
        let per_token = |active: &f64| active / totals.tokens as f64;
        found.values.set(name::L0, self.active.values().map(per_token).sum());
        for (site, active) in &self.active {
            found.sites.entry(*site).or_default().set(name::L0, per_token(active));
        }
    }
}
