//! Coverage and how sure it is: documents are what is resampled, for the tokens of one are not independent.

use sae_record::concepts::{LabelledText, UnitConcepts, f1};

use crate::AnalysisError;
use crate::bootstrap::{self, BootstrapOptions};

pub(super) use crate::bootstrap::Resampled;

/// The counts of the best unit of every concept that counts.
pub(super) struct Counts {
    documents: usize,
    /// Of every concept, document by document: hits, guesses, positives.
    concepts: Vec<Vec<[f64; 3]>>,
}

impl Counts {
    pub fn of(units: &UnitConcepts, text: &LabelledText) -> Self {
        let documents = text.documents[1] as usize;
        let counted = text.concepts.iter().zip(&units.best).filter(|(concept, _)| concept.counts());
        let number = |counts: Option<&Vec<u32>>, document: usize| {
            counts.and_then(|counts| counts.get(document)).map_or(0.0, |&n| f64::from(n))
        };
        let concepts = counted.map(|(concept, best)| {
            let of = |document| {
                [
                    number(best.as_ref().map(|best| &best.hits), document),
                    number(best.as_ref().map(|best| &best.guesses), document),
                    number(Some(&concept.positives), document),
                ]
            };
            (0..documents).map(of).collect()
        });
        Self { documents, concepts: concepts.collect() }
    }

    /// The mean F1 where every document counts so many times.
    fn coverage(&self, weights: &[f64]) -> f64 {
        let of = |counts: &Vec<[f64; 3]>| {
            let mut sums = [0.0; 3];
            for ([hits, guesses, positives], weight) in counts.iter().zip(weights) {
                sums[0] += hits * weight;
                sums[1] += guesses * weight;
                sums[2] += positives * weight;
            }
            f1(sums[0], sums[1], sums[2])
        };
        self.concepts.iter().map(of).sum::<f64>() / self.concepts.len().max(1) as f64
    }

    /// The coverage of the documents, and of resamples of them, the same for all dictionaries of a text.
    pub fn resample(&self, options: BootstrapOptions) -> Result<Resampled, AnalysisError> {
        bootstrap::resample_items(self.documents, options, |weights| self.coverage(weights))
    }
}
