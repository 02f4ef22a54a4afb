//! How often every feature is active.
//!
//! `F` dictionary elements.

use std::collections::BTreeSet;

use sae_config::Site;
use tch::{Kind, Tensor, no_grad};

use crate::{Member, SpliceError, SplicedModel};

/// Activation counts of an SAE's features over a number of tokens (the reference's `ActFrequencyMetrics`): special
/// tokens count, and windows are taken as they are.
#[derive(Debug)]
pub struct FeatureCounts {
    /// Where the SAE is.
    pub site: Site,
    /// Tokens on which each feature was above 0, `[F]`, i64.
    counts: Tensor,
    /// Tokens counted.
    pub tokens: u64,
}

impl FeatureCounts {
    /// No tokens yet, for every SAE of a member.
    pub fn start(member: &Member) -> Result<Vec<Self>, SpliceError> {
        member
            .saes()
            .iter()
            .map(|(site, sae)| {
                let device = sae.parameters()[0].device();
                let counts = Tensor::f_zeros([sae.n_features() as i64], (Kind::Int64, device))?;
                Ok(Self { site: *site, counts, tokens: 0 })
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

impl SplicedModel {
    /// Counts a batch for every member, each SAE seeing what it saw in training: with several sites and a spliced loss,
    /// a later SAE sees the spliced activation.
    ///
    /// # Shapes
    /// `tokens: [B, T]`.
    pub fn count_active(
        &self,
        members: &[&Member],
        counts: &mut [Vec<FeatureCounts>],
        tokens: &Tensor,
    ) -> Result<(), SpliceError> {
        let mut sites: BTreeSet<Site> = BTreeSet::new();
        for member in members {
            sites.extend(member.saes().iter().map(|(site, _)| *site));
            sites.insert(Site::resid_pre(member.start()));
        }
        let clean = self.clean_pass(tokens, &sites, false)?;
        no_grad(|| {
            for (member, counts) in members.iter().zip(counts) {
                if let [(site, sae)] = member.saes() {
                    counts[0].add(&sae.encode(clean.activation(*site)?)?)?;
                    continue;
                }
                let pass = if member.is_spliced() {
                    let last = member.saes().last().map(|(site, _)| *site);
                    self.spliced_pass(member, &clean, &[], last)?
                } else {
                    self.local_pass(member, &clean)?
                };
                for (sae, counts) in pass.saes.iter().zip(counts) {
                    counts.add(&sae.output.features)?;
                }
            }
            Ok(())
        })
    }
}
