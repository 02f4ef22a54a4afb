//! Edits of features in a spliced pass: what the model does where a feature is ablated, scaled or set.
//!
//! `N` tokens (any leading dimensions), `F` dictionary elements.

use sae_config::Site;
use sae_nn::SaeError;
use tch::Tensor;

use crate::{Member, SpliceError};

/// Another activation of a feature, on every token.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FeatureEdit {
    /// The site that its dictionary writes.
    pub site: Site,
    /// Its number in the dictionary.
    pub feature: u32,
    /// What becomes of its activation.
    pub change: Change,
}

/// What becomes of an activation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Change {
    /// It is multiplied; by 0 the feature is ablated.
    Scale(f64),
    /// It is this, whether the feature was active or not.
    Set(f64),
}

impl FeatureEdit {
    /// A feature whose activation is 0 everywhere.
    pub fn ablation(site: Site, feature: u32) -> Self {
        Self { site, feature, change: Change::Scale(0.0) }
    }

    /// Refuses an edit of a feature that a member does not have.
    pub fn check(&self, member: &Member) -> Result<(), SpliceError> {
        let n_features = member.dictionary(self.site).map(sae_nn::Dictionary::n_features);
        match n_features {
            Some(n_features) if (self.feature as usize) < n_features => Ok(()),
            found => Err(SpliceError::NoFeature {
                site: self.site,
                feature: self.feature,
                n_features: found.unwrap_or(0),
            }),
        }
    }
}

/// The activations with the edits of a site, one after the other.
///
/// # Shapes
/// `features: [..., F]` → the same.
pub(crate) fn apply(
    features: Tensor,
    site: Site,
    edits: &[FeatureEdit],
) -> Result<Tensor, SaeError> {
    let mut own = edits.iter().filter(|edit| edit.site == site).peekable();
    if own.peek().is_none() {
        return Ok(features);
    }
    let mut edited = features.f_zeros_like()?;
    edited.f_copy_(&features)?;
    for edit in own {
        let mut column = edited.f_narrow(-1, i64::from(edit.feature), 1)?;
        let _ = match edit.change {
            Change::Scale(factor) => column.f_mul_scalar_(factor)?,
            Change::Set(value) => column.f_fill_(value)?,
        };
    }
    Ok(edited)
}
