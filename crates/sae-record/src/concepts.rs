//! How well the features of a dictionary tell the concepts of a text: `concepts.json` of a run, and what they are compared with,
//! `concepts/<site>.json` of a sweep.
//!
//! Documents are dealt in two halves. Of a unit (a feature, or a direction that features are compared with) and a concept, the
//! threshold is chosen on the first, as the one with the greatest F1 of "the unit's activation is at least the threshold" as a guess
//! at "the token has the concept"; what it is worth is measured on the second. `F1 = 2·TP / (TP + FP + P)`, P being the tokens that have
//! the concept.

use std::collections::BTreeMap;

use sae_config::Site;
use serde::{Deserialize, Serialize};

/// A unit is a good guess at a concept above this F1.
pub const GOOD: f64 = 0.8;
/// A concept is split into units that each are right on this share of its tokens at least.
pub const PART: f64 = 0.05;
/// Documents of the second half that a concept stands in, at least, for it to count: otherwise resamples of them lack it.
pub const FEWEST: usize = 5;
/// Tokens of either half that have a concept, at least, for it to count: of a rare one, F1 is chance.
pub const LEAST: u64 = 50;

/// A run's dictionaries, by site.
pub type RunConcepts = BTreeMap<Site, UnitConcepts>;

/// A text whose tokens' concepts are known, and what dictionaries at a site are compared with on it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SiteConcepts {
    /// The text.
    pub text: LabelledText,
    /// By name: what features are compared with.
    pub baselines: BTreeMap<String, UnitConcepts>,
}

/// What is known of a text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LabelledText {
    /// The language that it is parsed as.
    pub language: String,
    /// Tokens of the first and of the second half.
    pub tokens: [u64; 2],
    /// Documents of each.
    pub documents: [u64; 2],
    /// The concepts.
    pub concepts: Vec<ConceptText>,
}

/// A concept in a text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConceptText {
    /// Its name.
    pub name: String,
    /// What kind of concept it is.
    pub group: String,
    /// When a token has it.
    pub meaning: String,
    /// Tokens of the first half that have it.
    pub chosen_on: u64,
    /// Tokens of the second half that have it, document by document.
    pub positives: Vec<u32>,
}

impl ConceptText {
    /// Whether it is frequent enough to count.
    pub fn counts(&self) -> bool {
        let second: u64 = self.positives.iter().map(|&n| u64::from(n)).sum();
        let documents = self.positives.iter().filter(|n| **n > 0).count();
        self.chosen_on >= LEAST && second >= LEAST && documents >= FEWEST
    }
}

/// How well the units of a dictionary, or other directions, tell concepts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnitConcepts {
    /// Units there are.
    pub units: u64,
    /// Units that were active on a token of the first half.
    pub active: u64,
    /// Units whose best concept, by F1 on the first half, they tell with an F1 above [`GOOD`] on the second; of concepts that at most
    /// half of the tokens have.
    pub good: u64,
    /// The best unit of every concept, in the order of [`LabelledText::concepts`]; none where none was active on it.
    pub best: Vec<Option<BestUnit>>,
    /// Of every concept, the units whose best concept it is, and whose guesses have a precision above [`GOOD`] and a recall of
    /// [`PART`] or more on the second half: into how many it is split.
    pub split: Vec<u32>,
}

/// The unit that tells a concept best on the first half.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BestUnit {
    /// Its number.
    pub unit: u32,
    /// The least activation that counts.
    pub threshold: f32,
    /// F1 on the first half, which is too good: it was chosen there.
    pub f1_chosen: f64,
    /// On the second half, document by document: tokens on which it is at least at the threshold.
    pub guesses: Vec<u32>,
    /// And those of them that have the concept.
    pub hits: Vec<u32>,
}

/// F1 of counts; 0 where there is nothing to find.
pub fn f1(hits: f64, guesses: f64, positives: f64) -> f64 {
    if guesses + positives > 0.0 { 2.0 * hits / (guesses + positives) } else { 0.0 }
}

impl BestUnit {
    /// F1 on the second half.
    pub fn f1(&self, concept: &ConceptText) -> f64 {
        let sum = |counts: &[u32]| counts.iter().map(|&n| f64::from(n)).sum::<f64>();
        f1(sum(&self.hits), sum(&self.guesses), sum(&concept.positives))
    }
}

impl UnitConcepts {
    /// The mean F1, on the second half, of the best unit of every concept that counts.
    pub fn coverage(&self, text: &LabelledText) -> f64 {
        let counted = || {
            let all = text.concepts.iter().zip(&self.best);
            all.filter(|(concept, _)| concept.counts())
        };
        let f1 =
            counted().map(|(concept, best)| best.as_ref().map_or(0.0, |best| best.f1(concept)));
        f1.sum::<f64>() / counted().count().max(1) as f64
    }

    /// The mean number of units that a concept that counts is split into.
    pub fn mean_split(&self, text: &LabelledText) -> f64 {
        let counted =
            || text.concepts.iter().zip(&self.split).filter(|(concept, _)| concept.counts());
        counted().map(|(_, split)| f64::from(*split)).sum::<f64>() / counted().count().max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coverage_is_the_mean_over_concepts_that_count() {
        let concept = |positives: &[u32]| ConceptText {
            name: "fn".to_owned(),
            group: "keywords".to_owned(),
            meaning: String::new(),
            chosen_on: 60,
            positives: positives.to_vec(),
        };
        let text = LabelledText {
            language: "rust".to_owned(),
            tokens: [1000, 1000],
            documents: [5, 5],
            // The last stands in a single document.
            concepts: vec![
                concept(&[36, 20, 1, 1, 2]),
                concept(&[50, 47, 1, 1, 1]),
                concept(&[300, 0, 0, 0, 0]),
            ],
        };
        let best = |guesses: &[u32], hits: &[u32]| {
            Some(BestUnit {
                unit: 7,
                threshold: 0.5,
                f1_chosen: 0.9,
                guesses: guesses.to_vec(),
                hits: hits.to_vec(),
            })
        };
        let units = UnitConcepts {
            units: 9,
            active: 8,
            good: 1,
            best: vec![best(&[30, 10], &[30, 5]), None, best(&[3, 0], &[3, 0])],
            split: vec![3, 0, 9],
        };
        // 2·35 / (40 + 60) = 0.7, and 0.
        assert!((units.coverage(&text) - 0.35).abs() < 1e-12);
        assert!((units.mean_split(&text) - 1.5).abs() < 1e-12);
    }
}
