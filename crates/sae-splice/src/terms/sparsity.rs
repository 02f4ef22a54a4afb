//! `mean_n ‖c_n‖_p / D`, c being a dictionary's features, D the width that it writes. Its gradient is the tape's
//! ([`sae_nn::Penalty`]), which knows which features are active.

use sae_config::loss::SparsityConfig;
use tch::Tensor;

use super::{AtSplicePoint, Term};
use crate::SpliceError;

#[derive(Debug)]
pub(super) struct Sparsity {
    p: f64,
}

impl Sparsity {
    pub(super) fn of(options: &SparsityConfig) -> Self {
        Self { p: options.p.get() }
    }
}

impl Term for Sparsity {
    fn at_splice_point(&self, at: &AtSplicePoint<'_>) -> Result<Option<Tensor>, SpliceError> {
        Ok(Some(at.tape.sparsity(self.p)?))
    }
}
