//! MSE between a dictionary's reconstruction and the activation that it replaces, as the model computes it, neither detached
//! (the reference's `out_to_in`): an SAE behind another one sees what the first has made.

use sae_nn::loss;
use tch::Tensor;

use super::{AtSplicePoint, Term};
use crate::SpliceError;

#[derive(Debug)]
pub(super) struct Local;

impl Term for Local {
    fn at_splice_point(&self, at: &AtSplicePoint<'_>) -> Result<Option<Tensor>, SpliceError> {
        at.mean(|reconstruction| Ok(loss::mse(reconstruction, at.target)?)).map(Some)
    }
}
