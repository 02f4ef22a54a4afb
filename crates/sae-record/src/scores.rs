//! `dashboard/<site>/scores.json`: how well explanations tell what features do, as a language model reads them.
//!
//! A language model that sees an explanation and excerpts of text answers of each excerpt yes or no. In *detection*: whether the feature
//! is active in it; in *fuzzing*: whether the marked tokens are those that it is active on (Paulo et al. 2024, arXiv 2410.13928). It is
//! asked the same with the explanation of another feature, which is what guessing, or an explanation of everything, scores.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::RecordError;
use crate::error::{read_json, write_json};

/// The longest file, in bytes.
const LONGEST: u64 = 1 << 30;

/// The scores of a dictionary's explanations.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scores {
    /// What the dashboard was made of whose features were explained.
    pub of: BTreeMap<String, String>,
    /// The language model that wrote the explanations.
    pub explained_by: String,
    /// The language model that answered.
    pub judge: String,
    /// The version of the questions.
    pub questions: u32,
    /// By feature.
    pub features: BTreeMap<u32, FeatureScore>,
}

/// The score of an explanation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeatureScore {
    /// The explanation.
    pub explanation: String,
    /// The feature whose explanation stands for it in the baseline.
    pub shuffled_with: u32,
    /// Is the feature active in the excerpt?
    pub detection: Trial,
    /// Are the marked tokens those that it is active on?
    pub fuzzing: Trial,
}

/// Excerpts of which yes or no was answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trial {
    /// What each is.
    pub items: Vec<Item>,
    /// The answers with the feature's explanation.
    pub own: Answers,
    /// The answers with another feature's explanation.
    pub shuffled: Answers,
}

/// An excerpt that was shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Item {
    /// What it is.
    pub kind: ItemKind,
    /// The document that it is of: the file and the row in it.
    pub document: (u32, u64),
}

/// What an excerpt is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ItemKind {
    /// The feature is active in it.
    Active,
    /// It is not, but one near to it is: by cosine, or active on the same tokens elsewhere.
    Near,
    /// It is not; the excerpt is any.
    Inactive,
    /// The marked tokens are those that the feature is active on.
    Right,
    /// The marked tokens are others of the excerpt, as many.
    Wrong,
}

impl ItemKind {
    /// Whether the right answer is yes.
    pub fn is_positive(self) -> bool {
        matches!(self, Self::Active | Self::Right)
    }
}

/// The answers to a question about excerpts.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answers {
    /// Yes or no, excerpt by excerpt; none where the model gave no answer.
    pub said: Option<Vec<bool>>,
    /// The probability of yes, where the endpoint tells it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probabilities: Option<Vec<f64>>,
    /// Why there is no answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// How often answers are right.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Accuracy {
    /// (share of positives answered yes + share of negatives answered no) / 2; 0.5 is chance.
    pub balanced: f64,
    /// F1 of yes, `2·TP / (2·TP + FP + FN)`.
    pub f1: f64,
    /// The probability that a positive's probability of yes is above a negative's, ties counted half; none where the endpoint tells no
    /// probabilities.
    pub auc: Option<f64>,
}

impl Trial {
    /// How often answers to it are right; none where there are none, or no positives or no negatives.
    pub fn accuracy(&self, answers: &Answers) -> Option<Accuracy> {
        let said = answers.said.as_ref()?;
        let count = |positive: bool, yes: bool| {
            let pairs = self.items.iter().zip(said);
            pairs
                .filter(|(item, said)| item.kind.is_positive() == positive && **said == yes)
                .count() as f64
        };
        let (hits, misses) = (count(true, true), count(true, false));
        let (alarms, rejections) = (count(false, true), count(false, false));
        if hits + misses == 0.0 || alarms + rejections == 0.0 {
            return None;
        }
        Some(Accuracy {
            balanced: f64::midpoint(hits / (hits + misses), rejections / (alarms + rejections)),
            f1: 2.0 * hits / (2.0 * hits + alarms + misses),
            auc: answers.probabilities.as_ref().map(|all| self.auc(all)),
        })
    }

    /// The share of the excerpts of a kind that are answered no; none where there are none.
    pub fn rejected(&self, answers: &Answers, kind: ItemKind) -> Option<f64> {
        let said = answers.said.as_ref()?;
        let own = self.items.iter().zip(said).filter(|(item, _)| item.kind == kind);
        let (no, all) =
            own.fold((0_u32, 0_u32), |(no, all), (_, said)| (no + u32::from(!said), all + 1));
        (all > 0).then(|| f64::from(no) / f64::from(all))
    }

    fn auc(&self, probabilities: &[f64]) -> f64 {
        let of = |positive: bool| {
            let pairs = self.items.iter().zip(probabilities);
            pairs.filter(move |(item, _)| item.kind.is_positive() == positive).map(|(_, p)| *p)
        };
        let (mut wins, mut pairs) = (0.0, 0.0);
        for positive in of(true) {
            for negative in of(false) {
                pairs += 1.0;
                wins += match positive.total_cmp(&negative) {
                    std::cmp::Ordering::Greater => 1.0,
                    std::cmp::Ordering::Equal => 0.5,
                    std::cmp::Ordering::Less => 0.0,
                };
            }
        }
        wins / pairs
    }
}

impl Scores {
    fn path(dashboard: &Path) -> PathBuf {
        dashboard.join("scores.json")
    }

    /// Those beside a dashboard, where they are of it; none otherwise.
    pub fn load(
        dashboard: &Path,
        of: &BTreeMap<String, String>,
    ) -> Result<Option<Self>, RecordError> {
        let path = Self::path(dashboard);
        if !path.exists() {
            return Ok(None);
        }
        let found: Self = read_json(&path, LONGEST)?;
        for (feature, score) in &found.features {
            for trial in [&score.detection, &score.fuzzing] {
                for answers in [&trial.own, &trial.shuffled] {
                    let lengths = [
                        answers.said.as_ref().map(Vec::len),
                        answers.probabilities.as_ref().map(Vec::len),
                    ];
                    if lengths.into_iter().flatten().any(|length| length != trial.items.len()) {
                        let message = format!(
                            "feature {feature} has other numbers of answers than of excerpts"
                        );
                        return Err(RecordError::format(&path, message));
                    }
                }
            }
        }
        Ok(Some(found).filter(|found| found.of == *of))
    }

    /// Writes them beside their dashboard, whole or not at all.
    pub fn save(&self, dashboard: &Path) -> Result<(), RecordError> {
        write_json(&Self::path(dashboard), self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trial(kinds: &[ItemKind]) -> Trial {
        let items = kinds.iter().map(|&kind| Item { kind, document: (0, 1) }).collect();
        Trial { items, own: Answers::default(), shuffled: Answers::default() }
    }

    #[test]
    fn accuracies_are_those_counted_by_hand() {
        use ItemKind::{Active, Inactive, Near};
        let trial = trial(&[Active, Active, Near, Inactive, Inactive]);
        let answers = Answers {
            said: Some(vec![true, false, true, false, false]),
            probabilities: Some(vec![0.9, 0.4, 0.6, 0.4, 0.1]),
            error: None,
        };
        let found = trial.accuracy(&answers).unwrap();
        // One of two positives and two of three negatives; of six pairs 4 wins and a tie.
        assert!((found.balanced - 7.0 / 12.0).abs() < 1e-12);
        assert!((found.f1 - 0.5).abs() < 1e-12);
        assert!((found.auc.unwrap() - 4.5 / 6.0).abs() < 1e-12);
        assert_eq!(trial.rejected(&answers, Near), Some(0.0));
        assert_eq!(trial.rejected(&answers, Inactive), Some(1.0));
        assert_eq!(trial.rejected(&answers, ItemKind::Wrong), None);
        assert_eq!(trial.accuracy(&Answers::default()), None);
        let one_sided = super::tests::trial(&[Active]);
        let said = Answers { said: Some(vec![true]), ..Answers::default() };
        assert_eq!(one_sided.accuracy(&said), None);
    }

    #[test]
    fn scores_are_read_as_written_and_not_with_answers_too_few() {
        let place = tempfile::tempdir().unwrap();
        let of = BTreeMap::from([("model".to_owned(), "abc".to_owned())]);
        assert_eq!(Scores::load(place.path(), &of).unwrap(), None);
        let mut detection = trial(&[ItemKind::Active, ItemKind::Near]);
        detection.own.said = Some(vec![true, false]);
        detection.shuffled.error = Some("the model refuses".to_owned());
        let fuzzing = trial(&[ItemKind::Right, ItemKind::Wrong]);
        let score =
            FeatureScore { explanation: "Names.".to_owned(), shuffled_with: 3, detection, fuzzing };
        let mut scores = Scores { of: of.clone(), judge: "b".to_owned(), ..Scores::default() };
        scores.features.insert(7, score);
        scores.save(place.path()).unwrap();
        assert_eq!(Scores::load(place.path(), &of).unwrap(), Some(scores.clone()));
        assert_eq!(Scores::load(place.path(), &BTreeMap::new()).unwrap(), None);
        if let Some(score) = scores.features.get_mut(&7) {
            score.detection.items.pop();
        }
        scores.save(place.path()).unwrap();
        let error = Scores::load(place.path(), &of).unwrap_err();
        assert!(error.to_string().contains("feature 7"), "{error}");
    }
}
