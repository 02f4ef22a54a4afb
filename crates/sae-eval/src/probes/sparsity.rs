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
    Metric::new(
        "frac_zeros",
        Scope::Site,
        "",
        Better::Neither,
        "share of activations that are 0: 1 − L0 / F",
    ),
];

#[derive(Default)]
pub(super) struct Sparsity {
    /// Active features of all tokens, and dictionary elements.
    active: BTreeMap<Site, (f64, i64)>,
}

impl Probe for Sparsity {
    fn see(&mut self, batch: &Batch<'_>) -> Result<(), SpliceError> {
        for seen in &batch.pass.dictionaries {
            let features = &seen.output.features;
            let (active, n_features) = self.active.entry(seen.site).or_default();
            *active += number(&features.f_gt(0.0)?)?;
            *n_features = features.size().last().copied().unwrap_or(0);
        }
        Ok(())
    }

    fn finish(&self, totals: &Totals, found: &mut Evaluation) {
        let per_token = |active: f64| active / totals.tokens as f64;
        found
            .values
            .set(name::L0, self.active.values().map(|(active, _)| per_token(*active)).sum());
        for (site, (active, n_features)) in &self.active {
            let values = found.sites.entry(*site).or_default();
            values.set(name::L0, per_token(*active));
            values.set("frac_zeros", 1.0 - per_token(*active) / *n_features as f64);
        }
    }
}
