//! `dashboard/<site>/`: what every alive feature of a dictionary is: what it is active on, what it makes likelier, what is near.
//!
//! | file | what it is |
//! | --- | --- |
//! | `features.parquet` | a row a feature that was active: [`FeatureCard`] |
//! | `examples.parquet` | the windows that it is active in: [`ExampleRecord`], a feature's together |
//! | `vocabulary.json` | the text of every token id, by itself |
//! | `dashboard.json` | what was looked at: [`Gathered`]; written last |
//! | `explanations.json` | what a language model says that features are, where it was asked: [`Explanations`] |
//! | `scores.json` | how well a language model tells by these what features do: [`crate::scores::Scores`] |
//!
//! Cards are read all at once, examples a feature at a time: [`Dashboard`].

mod columns;
mod examples;
mod features;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::RecordError;
use crate::error::{read_json, write_text};
use crate::explanations::Explanations;

pub use examples::ExampleRecord;
pub use features::{FeatureCard, LensToken, Near, PartnerRecord};

/// The longest file of JSON, in bytes.
const LONGEST: u64 = 1 << 30;

/// What was looked at to make a dashboard.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gathered {
    /// Fingerprints of all that it depends on, by name.
    pub of: BTreeMap<String, String>,
    /// The fingerprint of the runs in which near elements were looked for; empty where there were none.
    pub compared_with: String,
    /// Tokens looked at.
    pub tokens: u64,
    /// Tokens in a window, T.
    pub context_length: u64,
    /// Dictionary elements, those that were never active included.
    pub n_features: u64,
    /// The data, and its files in the order in which examples count them.
    pub data: String,
    /// See `data`.
    pub files: Vec<String>,
    /// Whether its rows are windows of token ids, over which documents go on; otherwise a row is a document.
    pub are_windows: bool,
}

/// The dashboard of a dictionary: its cards, and where the rest lies.
#[derive(Debug, Clone)]
pub struct Dashboard {
    folder: PathBuf,
    /// What was looked at.
    pub gathered: Gathered,
    /// Of every feature that was active, in their order.
    pub cards: Vec<FeatureCard>,
    /// The text of every token id.
    pub vocabulary: Vec<String>,
    /// What a language model says that the features are, where it was asked.
    pub explanations: Option<Explanations>,
}

/// Where a dashboard's files lie.
struct Files {
    features: PathBuf,
    examples: PathBuf,
    vocabulary: PathBuf,
    gathered: PathBuf,
}

impl Files {
    fn of(folder: &Path) -> Self {
        Self {
            features: folder.join("features.parquet"),
            examples: folder.join("examples.parquet"),
            vocabulary: folder.join("vocabulary.json"),
            gathered: folder.join("dashboard.json"),
        }
    }
}

impl Gathered {
    /// What a dashboard in this folder was made of; none where there is none.
    pub fn load(folder: &Path) -> Result<Option<Self>, RecordError> {
        let path = Files::of(folder).gathered;
        if path.exists() { read_json(&path, LONGEST).map(Some) } else { Ok(None) }
    }
}

impl Dashboard {
    /// Writes a dashboard into its folder; where it is written to its end, it has `dashboard.json`. `examples` are those of the
    /// cards, card by card.
    pub fn write(
        folder: &Path,
        gathered: &Gathered,
        cards: &[FeatureCard],
        examples: impl Iterator<Item = Vec<ExampleRecord>>,
        vocabulary: &[String],
    ) -> Result<(), RecordError> {
        std::fs::create_dir_all(folder).map_err(RecordError::file("create", folder))?;
        let files = Files::of(folder);
        if files.gathered.exists() {
            let removed = std::fs::remove_file(&files.gathered);
            removed.map_err(RecordError::file("remove", &files.gathered))?;
        }
        let counts = examples::write(&files.examples, examples)?;
        features::write(&files.features, cards, &counts)?;
        let json = |value: serde_json::Result<String>, path: &Path| {
            write_text(path, &value.map_err(RecordError::file("write", path))?)
        };
        json(serde_json::to_string(vocabulary), &files.vocabulary)?;
        json(serde_json::to_string_pretty(gathered), &files.gathered)
    }

    /// Reads the cards of a folder; none where there is no dashboard.
    pub fn load(folder: &Path) -> Result<Option<Self>, RecordError> {
        let Some(gathered) = Gathered::load(folder)? else { return Ok(None) };
        let files = Files::of(folder);
        let cards = features::read(&files.features)?;
        let vocabulary = read_json(&files.vocabulary, LONGEST)?;
        // A dashboard is one without them, too.
        let explanations = Explanations::load(folder, &gathered.of).unwrap_or_default();
        Ok(Some(Self { folder: folder.to_owned(), gathered, cards, vocabulary, explanations }))
    }

    /// Writes the cards and what they were made of anew; the examples stay.
    pub fn rewrite_cards(&self) -> Result<(), RecordError> {
        let files = Files::of(&self.folder);
        let examples: Vec<_> = self.cards.iter().map(|card| card.examples.clone()).collect();
        features::write(&files.features, &self.cards, &examples)?;
        let json = serde_json::to_string_pretty(&self.gathered);
        let json = json.map_err(RecordError::file("write", &files.gathered))?;
        write_text(&files.gathered, &json)
    }

    /// The card of a feature; none where it was never active.
    pub fn card(&self, feature: u32) -> Option<&FeatureCard> {
        let place = self.cards.binary_search_by_key(&feature, |card| card.feature).ok()?;
        Some(&self.cards[place])
    }

    /// What a language model says that a feature is; none where it was not asked, or has not answered.
    pub fn explanation(&self, feature: u32) -> Option<&str> {
        self.explanations.as_ref()?.features.get(&feature)?.text.as_deref()
    }

    /// The examples of a card, as they were written: the highest first, then interval by interval.
    pub fn examples(&self, card: &FeatureCard) -> Result<Vec<ExampleRecord>, RecordError> {
        Ok(self.examples_of(&[card])?.remove(0))
    }

    /// The examples of some cards, in the order of the cards, which is that of their features.
    pub fn examples_of(
        &self,
        cards: &[&FeatureCard],
    ) -> Result<Vec<Vec<ExampleRecord>>, RecordError> {
        let path = Files::of(&self.folder).examples;
        let ranges: Vec<_> = cards.iter().map(|card| card.examples.clone()).collect();
        let mut all = examples::read(&path, &ranges)?.into_iter();
        let mut found = Vec::with_capacity(cards.len());
        for card in cards {
            let length = (card.examples.end - card.examples.start) as usize;
            let own: Vec<ExampleRecord> = all.by_ref().take(length).collect();
            if own.iter().any(|example| example.feature != card.feature) {
                let message =
                    "it is not of these cards: it was made anew meanwhile; read both again";
                return Err(RecordError::format(&path, message));
            }
            found.push(own);
        }
        Ok(found)
    }

    /// The text of a token id; `\u{FFFD}` of one that the vocabulary has not.
    pub fn text(&self, id: u32) -> &str {
        self.vocabulary.get(id as usize).map_or("\u{fffd}", String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn card(feature: u32, n_examples: u64) -> FeatureCard {
        FeatureCard {
            feature,
            active: 7,
            density: 0.25,
            mean: 0.5,
            max: 2.0,
            decoder_norm: Some(1.5),
            encoder_bias: -0.25,
            histogram_width: 0.125,
            histogram: vec![1, 2, u64::from(feature)],
            peak_tokens: vec![3, 1],
            highest: vec![LensToken { token: 5, logit: 1.5 }],
            lowest: vec![LensToken { token: 6, logit: -1.5 }],
            near: vec![
                Near { run: None, feature: 9, cosine: 0.75 },
                Near { run: Some("e2e_seed-1".to_owned()), feature: 2, cosine: 0.5 },
            ],
            partners: vec![PartnerRecord { feature: 4, share: 0.5, lift: 8.0 }],
            examples: 0..n_examples,
        }
    }

    fn example(feature: u32, peak: f32) -> ExampleRecord {
        ExampleRecord {
            feature,
            interval: None,
            peak,
            position: 1,
            own: [1, 3],
            tokens: vec![1, 2, 3],
            activations: vec![0.0, peak, 0.0],
            first: 4,
            file: 0,
            row: 11,
            bytes: [3, 5],
        }
    }

    #[test]
    fn a_dashboard_is_read_as_it_was_written_a_feature_at_a_time() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("dashboard/blocks.1.hook_resid_pre");
        assert!(Dashboard::load(&folder).unwrap().is_none());
        let gathered = Gathered {
            of: BTreeMap::from([("model".to_owned(), "abc".to_owned())]),
            compared_with: String::new(),
            tokens: 28,
            context_length: 3,
            n_features: 4000,
            data: "data/validation".to_owned(),
            files: vec!["shard-0.parquet".to_owned()],
            are_windows: false,
        };
        // More examples than a row group has, and a feature without any.
        let features: Vec<u32> = (0..3000).map(|index| index + index / 7).collect();
        let of = |feature: u32| -> Vec<ExampleRecord> {
            let count = feature % 4;
            let interval = |rank: u32| rank.checked_sub(1).map(|interval| interval as u8);
            (0..count)
                .map(|rank| ExampleRecord {
                    interval: interval(rank),
                    ..example(feature, 1.0 + rank as f32)
                })
                .collect()
        };
        let cards: Vec<FeatureCard> = features.iter().map(|&feature| card(feature, 0)).collect();
        let vocabulary = ["a", "b"].map(str::to_owned);
        let examples = features.iter().map(|&feature| of(feature));
        Dashboard::write(&folder, &gathered, &cards, examples, &vocabulary).unwrap();
        let mut found = Dashboard::load(&folder).unwrap().unwrap();
        assert_eq!(found.gathered, gathered);
        assert_eq!(found.cards.len(), features.len());
        for feature in [0, 1, 2, 3, 1601, 2998] {
            let expected = card(feature, 0);
            let card = found.card(feature).unwrap();
            assert_eq!(FeatureCard { examples: 0..0, ..card.clone() }, expected);
            assert_eq!(found.examples(card).unwrap(), of(feature), "{feature}");
        }
        let some: Vec<&FeatureCard> = found.cards.iter().step_by(97).collect();
        let expected: Vec<Vec<ExampleRecord>> = some.iter().map(|card| of(card.feature)).collect();
        assert_eq!(found.examples_of(&some).unwrap(), expected);
        // The examples of others, where they were written anew meanwhile.
        let mut other = found.cards[9].clone();
        other.feature += 1;
        assert!(found.examples(&other).unwrap_err().to_string().contains("made anew"));
        found.cards[1].near.truncate(1);
        found.gathered.compared_with = "others".to_owned();
        found.rewrite_cards().unwrap();
        let again = Dashboard::load(&folder).unwrap().unwrap();
        assert_eq!((again.cards[1].near.len(), again.cards.len()), (1, found.cards.len()));
        assert_eq!(
            again.examples_of(&again.cards.iter().step_by(97).collect::<Vec<_>>()).unwrap(),
            expected
        );
        assert!(found.card(7).is_none());
        assert_eq!([found.text(1), found.text(9)], ["b", "\u{fffd}"]);
    }
}
