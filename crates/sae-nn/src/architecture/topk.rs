//! The k largest features of every token.

use sae_kernels::RowSums;
use serde_json::json;
use tch::Tensor;

use super::{Algorithm, Buffers, Exported, Kept, Mode};
use crate::{Dictionary, SaeError, kernels};

/// See `sae_config::architecture::TopK`.
#[derive(Debug)]
pub(super) struct TopK {
    k: usize,
}

impl TopK {
    pub fn of(options: sae_config::architecture::TopK) -> Self {
        Self { k: options.k.get() }
    }
}

impl Algorithm for TopK {
    fn keep(&self, features: Tensor, _: &Buffers, _: Mode) -> Result<Kept<Tensor>, SaeError> {
        let f = features.size().last().copied().unwrap_or(0);
        let (values, indices) = features.f_topk((self.k as i64).min(f), -1, true, false)?;
        Ok(Kept::all(features.f_zeros_like()?.f_scatter(-1, &indices, &values)?))
    }

    fn keep_counted(
        &self,
        features: &mut Tensor,
        _: Vec<RowSums>,
        _: &Buffers,
    ) -> Result<Kept<Vec<RowSums>>, SaeError> {
        Ok(Kept::all(kernels::keep_top(features, self.k)?))
    }

    fn exported(&self, _: &Dictionary) -> Result<Exported, SaeError> {
        // Rows of the decoder are stored at unit length, so that their norms would change nothing.
        let keys = [("k", json!(self.k)), ("rescale_acts_by_decoder_norm", json!(false))];
        let keys = keys.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        Ok(Exported { architecture: "topk", keys, threshold: None })
    }
}
