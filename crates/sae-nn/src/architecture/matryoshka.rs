//! BatchTopK whose dictionary has nested prefixes, each with a reconstruction of its own.

use std::path::Path;

use sae_kernels::RowSums;
use tch::Tensor;

use super::batch_topk::BatchTopK;
use super::{Algorithm, Buffers, Exported, Kept, Mode};
use crate::{Dictionary, SaeError};

/// See `sae_config::architecture::Matryoshka`.
#[derive(Debug)]
pub(super) struct Matryoshka {
    options: sae_config::architecture::Matryoshka,
    /// What chooses the features, over the whole dictionary.
    selection: BatchTopK,
}

impl Matryoshka {
    pub fn of(options: &sae_config::architecture::Matryoshka) -> Self {
        Self { options: options.clone(), selection: BatchTopK::new(options.k.get()) }
    }
}

impl Algorithm for Matryoshka {
    fn keep(
        &self,
        features: Tensor,
        buffers: &Buffers,
        mode: Mode,
    ) -> Result<Kept<Tensor>, SaeError> {
        self.selection.keep(features, buffers, mode)
    }

    fn keep_counted(
        &self,
        features: &mut Tensor,
        sums: Vec<RowSums>,
        buffers: &Buffers,
    ) -> Result<Kept<Vec<RowSums>>, SaeError> {
        self.selection.keep_counted(features, sums, buffers)
    }

    fn buffers(&self) -> &'static [(&'static str, f64)] {
        self.selection.buffers()
    }

    fn observe(&self, buffers: &Buffers, observed: &[Tensor]) -> Result<(), SaeError> {
        self.selection.observe(buffers, observed)
    }

    fn prefixes(&self, n_features: usize) -> Vec<usize> {
        self.options.ends(n_features)
    }

    fn exported(&self, dictionary: &Dictionary) -> Result<Exported, SaeError> {
        self.selection.exported(dictionary)
    }

    fn import(
        &self,
        dictionary: &Dictionary,
        threshold: &Tensor,
        path: &Path,
    ) -> Result<(), SaeError> {
        self.selection.import(dictionary, threshold, path)
    }
}
