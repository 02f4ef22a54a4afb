//! The k · N largest features of a batch of N tokens in training, those above a threshold in use.

use std::path::Path;

use sae_kernels::RowSums;
use tch::{Device, Kind, Tensor};

use super::{Algorithm, Buffers, Exported, Kept, Mode};
use crate::{Dictionary, SaeError, kernels};

/// What the threshold before counts for in the running mean.
const DECAY: f64 = 0.99;
/// The threshold; 0 before anything was observed.
const THRESHOLD: &str = "threshold";

/// See `sae_config::architecture::BatchTopK`.
#[derive(Debug)]
pub(super) struct BatchTopK {
    k: usize,
}

impl BatchTopK {
    pub fn of(options: sae_config::architecture::BatchTopK) -> Self {
        Self::new(options.k.get())
    }

    pub fn new(k: usize) -> Self {
        Self { k }
    }
}

impl Algorithm for BatchTopK {
    fn keep(
        &self,
        features: Tensor,
        buffers: &Buffers,
        mode: Mode,
    ) -> Result<Kept<Tensor>, SaeError> {
        if mode == Mode::Inference {
            let above = features.f_gt_tensor(buffers.get(THRESHOLD)?)?;
            return Ok(Kept::all(features.f_mul(&above)?));
        }
        let shape = features.size();
        let f = shape.last().copied().unwrap_or(1).max(1);
        let all = features.f_reshape([-1])?;
        let count = (self.k as i64).saturating_mul(all.numel() as i64 / f);
        let (values, indices) = all.f_topk(count.min(all.numel() as i64), 0, true, false)?;
        // Where fewer are above 0 than are kept, the smallest of those that are.
        let largest = values.f_full_like(f64::INFINITY)?;
        let smallest = values.f_detach()?.f_where_self(&values.f_gt(0.0)?, &largest)?.f_min()?;
        let kept = all.f_zeros_like()?.f_scatter(0, &indices, &values)?;
        Ok(Kept { features: kept.f_view(shape.as_slice())?, observed: vec![smallest] })
    }

    fn keep_counted(
        &self,
        features: &mut Tensor,
        sums: Vec<RowSums>,
        _: &Buffers,
    ) -> Result<Kept<Vec<RowSums>>, SaeError> {
        let found = kernels::keep_largest(features, self.k.saturating_mul(sums.len()))?;
        let smallest = found.smallest.unwrap_or(f32::INFINITY);
        Ok(Kept { features: found.sums, observed: vec![Tensor::from(smallest)] })
    }

    fn buffers(&self) -> &'static [(&'static str, f64)] {
        &[(THRESHOLD, 0.0)]
    }

    /// θ ← 0.99 θ + 0.01 of the smallest activation that was kept; the first is copied, and a batch without one is left out.
    fn observe(&self, buffers: &Buffers, observed: &[Tensor]) -> Result<(), SaeError> {
        let mut threshold = buffers.get(THRESHOLD)?.shallow_clone();
        for smallest in observed {
            let smallest = smallest.f_to_device(threshold.device())?.f_to_kind(threshold.kind())?;
            let mean =
                threshold.f_mul_scalar(DECAY)?.f_add(&smallest.f_mul_scalar(1.0 - DECAY)?)?;
            let next = smallest.f_where_self(&threshold.f_eq(0.0)?, &mean)?;
            let next = next.f_where_self(&smallest.f_isfinite()?, &threshold)?;
            threshold.f_copy_(&next)?;
        }
        Ok(())
    }

    fn exported(&self, dictionary: &Dictionary) -> Result<Exported, SaeError> {
        // As SAELens exports its own: at inference it is a ReLU with a threshold.
        let value = dictionary.buffer_values().get(THRESHOLD)?.f_double_value(&[])?;
        let size = [dictionary.n_features() as i64];
        let threshold = Tensor::f_full(size, value, (Kind::Double, Device::Cpu))?;
        let keys = serde_json::Map::new();
        Ok(Exported { architecture: "jumprelu", keys, threshold: Some(threshold) })
    }

    fn import(
        &self,
        dictionary: &Dictionary,
        threshold: &Tensor,
        path: &Path,
    ) -> Result<(), SaeError> {
        let least = threshold.f_min()?.f_double_value(&[])?;
        let most = threshold.f_max()?.f_double_value(&[])?;
        #[allow(clippy::float_cmp)]
        if least != most {
            return Err(SaeError::Format {
                path: path.to_owned(),
                message: format!(
                    "threshold has values from {least} to {most}, expected the same value for every feature of a {} \
                     dictionary",
                    dictionary.options().name()
                ),
            });
        }
        let mut own = dictionary.buffer_values().get(THRESHOLD)?.shallow_clone();
        let _ = own.f_fill_(most)?;
        Ok(())
    }
}
