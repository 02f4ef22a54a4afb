//! The paper's dictionary: every feature that a ReLU lets through.

use sae_kernels::RowSums;
use tch::Tensor;

use super::{Algorithm, Buffers, Exported, Kept};
use crate::{Dictionary, SaeError};

/// See `sae_config::architecture::Relu`.
#[derive(Debug)]
pub(super) struct Relu;

impl Algorithm for Relu {
    fn keeps_all(&self) -> bool {
        true
    }

    fn keep_counted(
        &self,
        _: &mut Tensor,
        sums: Vec<RowSums>,
        _: &Buffers,
    ) -> Result<Kept<Vec<RowSums>>, SaeError> {
        Ok(Kept::all(sums))
    }

    fn exported(&self, _: &Dictionary) -> Result<Exported, SaeError> {
        Ok(Exported { architecture: "standard", keys: serde_json::Map::new(), threshold: None })
    }
}
