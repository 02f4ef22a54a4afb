//! How differently many features tokens have: 0 where an architecture keeps the same number of every token.

use std::collections::BTreeMap;

use sae_config::Site;
use sae_record::metric::{Better, Metric, Scope};
use sae_record::summary::Evaluation;
use sae_splice::SpliceError;
use tch::Kind;

use super::{Batch, Probe, Totals, number};

const L0_STD: &str = "l0_std";

pub(super) const METRICS: &[Metric] = &[Metric::new(
    L0_STD,
    Scope::Site,
    "features",
    Better::Neither,
    "standard deviation over tokens of ‖c‖₀",
)];

/// Sums over tokens of the number of active features, and of its square.
#[derive(Default)]
pub(super) struct Spread {
    sites: BTreeMap<Site, [f64; 2]>,
}

impl Probe for Spread {
    fn see(&mut self, batch: &Batch<'_>) -> Result<(), SpliceError> {
        for seen in &batch.pass.dictionaries {
            let active = seen.output.features.f_gt(0.0)?;
            let active = active.f_sum_dim_intlist([-1_i64].as_slice(), false, Kind::Double)?;
            let [sum, squares] = self.sites.entry(seen.site).or_default();
            *sum += number(&active)?;
            *squares += number(&active.f_square()?)?;
        }
        Ok(())
    }

    fn finish(&self, totals: &Totals, found: &mut Evaluation) {
        for (site, sums) in &self.sites {
            let [mean, square] = sums.map(|sum| sum / totals.tokens as f64);
            // Rounding may take a variance of 0 below it.
            let deviation = (square - mean * mean).max(0.0).sqrt();
            found.sites.entry(*site).or_default().set(L0_STD, deviation);
        }
    }
}
