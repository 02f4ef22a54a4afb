//! BatchTopK whose dictionary has nested prefixes, each with a reconstruction of its own. The features are chosen over the
//! whole dictionary, so that the code is BatchTopK's; the prefixes are the options' ([`Architecture::prefixes`]), with which
//! every tape decodes.
//!
//! [`Architecture::prefixes`]: sae_config::Architecture::prefixes

use super::batch_topk::BatchTopK;

/// See `sae_config::architecture::Matryoshka`.
pub(super) fn of(options: &sae_config::architecture::Matryoshka) -> BatchTopK {
    BatchTopK::new(options.k.get())
}
