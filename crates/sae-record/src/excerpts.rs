//! Excerpts of a text and what features do in them: made by a pass of the model, in memory, for who asks whether an explanation tells
//! them apart.

use std::collections::BTreeMap;

/// Tokens that follow one another in one window of one document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Excerpt {
    /// The file of the data, as dashboards count them.
    pub file: u32,
    /// The row in it: the document.
    pub row: u64,
    /// The ids.
    pub tokens: Vec<u32>,
}

/// An excerpt in which a feature is active.
#[derive(Debug, Clone, PartialEq)]
pub struct ActiveExcerpt {
    /// Its place among the excerpts.
    pub excerpt: u32,
    /// The activation on each of its tokens, 0 where the feature is not active; none where only the place was asked for.
    pub activations: Vec<f32>,
}

impl ActiveExcerpt {
    /// The greatest activation.
    pub fn peak(&self) -> f32 {
        self.activations.iter().copied().fold(0.0, f32::max)
    }
}

/// By feature, the excerpts in which it is active, in their order.
pub type FeatureExcerpts = BTreeMap<u32, Vec<ActiveExcerpt>>;
