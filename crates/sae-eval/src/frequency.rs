//! How often every feature is active.
//!
//! `F` dictionary elements.

use sae_config::Site;
use tch::{Kind, Tensor};

use sae_splice::{Member, SpliceError, SplicedModel};

use crate::for_each_code;

/// Activation counts of an SAE's features over a number of tokens (the reference's `ActFrequencyMetrics`): special
/// tokens count, and windows are taken as they are.
#[derive(Debug)]
pub struct FeatureCounts {
    /// The site that the dictionary writes.
    pub site: Site,
    /// Tokens on which each feature was above 0, `[F]`, i64.
    counts: Tensor,
    /// Tokens counted.
    pub tokens: u64,
}

impl FeatureCounts {
    /// No tokens yet, for every dictionary of a member.
    pub fn start(member: &Member) -> Result<Vec<Self>, SpliceError> {
        member
            .dictionaries()
            .iter()
            .map(|placed| {
                let (device, features) =
                    (placed.dictionary.device(), placed.dictionary.n_features() as i64);
                let counts = Tensor::f_zeros([features], (Kind::Int64, device))?;
                Ok(Self { site: placed.writes, counts, tokens: 0 })
            })
            .collect()
    }

    fn add(&mut self, features: &Tensor) -> Result<(), SpliceError> {
        let f = self.counts.size()[0];
        let active = features.f_detach()?.f_reshape([-1, f])?.f_gt(0.0)?;
        self.tokens += active.size()[0] as u64;
        let _ = self.counts.f_add_(&active.f_sum_dim_intlist(
            [0_i64].as_slice(),
            false,
            Kind::Int64,
        )?)?;
        Ok(())
    }

    /// The fraction of tokens on which each feature is active, in the order of the dictionary.
    pub fn frequencies(&self) -> Result<Vec<f64>, SpliceError> {
        let counts: Vec<i64> = Vec::try_from(&self.counts)?;
        let tokens = self.tokens.max(1) as f64;
        Ok(counts.into_iter().map(|count| count as f64 / tokens).collect())
    }

    /// Features active on at least one token.
    pub fn alive(&self) -> Result<u64, SpliceError> {
        Ok(self.counts.f_gt(0.0)?.f_sum(Kind::Int64)?.f_int64_value(&[])? as u64)
    }
}

/// Counts a batch for every member, each dictionary reading what it read in training ([`for_each_code`]).
///
/// # Shapes
/// `tokens: [B, T]`.
pub fn count_active(
    model: &SplicedModel,
    members: &[&Member],
    counts: &mut [Vec<FeatureCounts>],
    tokens: &Tensor,
) -> Result<(), SpliceError> {
    for_each_code(model, members, tokens, |member, dictionary, features| {
        counts[member][dictionary].add(features)
    })
}
