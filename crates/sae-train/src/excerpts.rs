//! Excerpts of evaluation data and what some features of finished runs do in them: the passes that scores of explanations need.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use sae_config::Site;
use sae_data::{ColumnKind, Sample};
use sae_eval::features::SparseCodes;
use sae_record::excerpts::{ActiveExcerpt, Excerpt, FeatureExcerpts};
use sae_record::summary::Summary;
use sae_splice::Member;
use tch::Device;

use crate::dashboards::{check_inputs, for_each_batch, groups};
use crate::evaluate::member;
use crate::measure::of_one_model;
use crate::progress::Observer;
use crate::setup::Setup;
use crate::{RunSpec, TrainError};

/// The features of a run that are looked at, by site, and whether their activations are needed, or only where they are active.
pub type WantedFeatures = BTreeMap<Site, BTreeMap<u32, bool>>;

/// Excerpts, and where features are active in them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FoundExcerpts {
    /// The excerpts, in the order of the data.
    pub excerpts: Vec<Excerpt>,
    /// By the run's id and site, the features that were asked for.
    pub features: BTreeMap<(String, Site), FeatureExcerpts>,
}

/// How a text is cut into excerpts.
#[derive(Clone, Copy)]
pub struct Cut<'a> {
    /// Tokens of the evaluation data that are looked at, from its beginning.
    pub tokens: u64,
    /// Tokens of an excerpt, at most; excerpts of fewer than half of it are left out.
    pub length: usize,
    /// Whether a row of the data may be shown: by its file, its number, and whether it is a window of token ids.
    pub keeps: &'a dyn Fn(u32, u64, bool) -> bool,
}

/// Cuts windows of the evaluation data into excerpts, each of one document, and looks where features are active in those that are kept.
/// Runs of another model or data than the first, and runs whose SAEs cannot be read, are left out, with a warning.
pub fn find_excerpts(
    runs: &[(RunSpec, WantedFeatures)],
    cut: Cut<'_>,
    device: Device,
    observer: &mut dyn Observer,
) -> Result<FoundExcerpts, TrainError> {
    let specs: Vec<RunSpec> = runs.iter().map(|(run, _)| run.clone()).collect();
    let same = of_one_model(&specs, "no excerpts are looked at");
    let Some(first) = same.first() else { return Ok(FoundExcerpts::default()) };
    let inputs = Summary::load(&first.folder.summary()).ok().and_then(|summary| summary.inputs);
    let is_same = |run: &RunSpec| same.iter().any(|own| own.id == run.id);
    let wanted: Vec<(&RunSpec, &WantedFeatures)> =
        runs.iter().filter(|(run, _)| is_same(run)).map(|(run, wanted)| (run, wanted)).collect();
    let mut found = FoundExcerpts::default();
    for group in groups(&wanted) {
        let config = &group[0].0.config;
        let setup = Setup::model_only(config, device)?;
        let shards = setup.evaluation_data(config)?;
        if let Some(inputs) = &inputs {
            check_inputs(group[0].0, inputs, &setup, &shards)?;
        }
        let (mut members, mut own) = (Vec::new(), Vec::new());
        for (run, wanted) in group {
            match member(&run.config, run.folder.path(), &setup, device) {
                Ok(member) => {
                    own.extend(member.dictionaries().iter().map(|placed| {
                        let wanted = wanted.get(&placed.writes).cloned().unwrap_or_default();
                        let empty = wanted.keys().map(|&feature| (feature, Vec::new()));
                        let empty = empty.collect::<FeatureExcerpts>();
                        ((run.id.clone(), placed.writes), wanted, empty)
                    }));
                    members.push(member);
                }
                Err(error) => tracing::warn!("{}: no excerpts are looked at: {error}", run.id),
            }
        }
        if members.is_empty() {
            continue;
        }
        let are_windows = shards.kind() == ColumnKind::Windows;
        let all: Vec<&Member> = members.iter().collect();
        // Where each member's dictionaries begin among all.
        let starts: Vec<usize> = members
            .iter()
            .scan(0, |next, member| {
                let start = *next;
                *next += member.dictionaries().len();
                Some(start)
            })
            .collect();
        let mut excerpts = Vec::new();
        let mut batch = BatchExcerpts::default();
        for_each_batch(
            &all,
            config,
            (&setup, &shards),
            cut.tokens,
            observer,
            |(member, dictionary), samples, codes| {
                // The first that sees a batch.
                if (member, dictionary) == (0, 0) {
                    batch = BatchExcerpts::of(samples, cut, are_windows, excerpts.len());
                    excerpts.extend(batch.excerpts.iter().cloned());
                }
                let (_, wanted, features) = &mut own[starts[member] + dictionary];
                batch.add(codes, wanted, features);
            },
        )?;
        // The same for every group.
        found.excerpts = excerpts;
        found.features.extend(own.into_iter().map(|(place, _, features)| (place, features)));
    }
    Ok(found)
}

/// The excerpts of a batch.
#[derive(Default)]
struct BatchExcerpts {
    excerpts: Vec<Excerpt>,
    /// The place of the first among all.
    first: usize,
    /// Of each token of the batch, the excerpt that it is of, among these, and its place in it.
    places: Vec<Option<(u32, u32)>>,
}

impl BatchExcerpts {
    fn of(samples: &[Arc<Sample>], cut: Cut<'_>, are_windows: bool, first: usize) -> Self {
        let mut found = Self { first, ..Self::default() };
        for sample in samples {
            let longest = cut.length.min(sample.tokens.len()).max(1);
            let mut start = 0;
            while start < sample.tokens.len() {
                let own = sample.sources[start];
                let end = (start / longest + 1) * longest;
                let same = sample.sources[start..end.min(sample.sources.len())]
                    .iter()
                    .take_while(|source| (source.shard, source.row) == (own.shard, own.row));
                let length = same.count();
                let keeps = (cut.keeps)(own.shard, own.row, are_windows);
                let is_kept = 2 * length >= longest && keeps;
                let number = found.excerpts.len() as u32;
                let place = |place| is_kept.then_some((number, place));
                found.places.extend((0..length as u32).map(place));
                if is_kept {
                    let tokens = sample.tokens[start..start + length].to_vec();
                    found.excerpts.push(Excerpt { file: own.shard, row: own.row, tokens });
                }
                start += length;
            }
        }
        found
    }

    /// Where the features are active.
    fn add(
        &self,
        codes: &SparseCodes,
        wanted: &BTreeMap<u32, bool>,
        features: &mut FeatureExcerpts,
    ) {
        // By feature and excerpt.
        let mut active: HashMap<(u32, u32), Vec<(u32, f32)>> = HashMap::new();
        for (token, place) in self.places.iter().enumerate() {
            let Some((excerpt, place)) = place else { continue };
            for (feature, value) in codes.token(token) {
                if wanted.contains_key(&feature) {
                    active.entry((feature, *excerpt)).or_default().push((*place, value));
                }
            }
        }
        let mut active: Vec<_> = active.into_iter().collect();
        active.sort_unstable_by_key(|(key, _)| *key);
        for ((feature, excerpt), values) in active {
            let mut activations = Vec::new();
            if wanted.get(&feature) == Some(&true) {
                activations = vec![0.0; self.excerpts[excerpt as usize].tokens.len()];
                for (place, value) in values {
                    activations[place as usize] = value;
                }
            }
            let excerpt = self.first as u32 + excerpt;
            features.entry(feature).or_default().push(ActiveExcerpt { excerpt, activations });
        }
    }
}

#[cfg(test)]
mod tests {
    use sae_data::TokenSource;

    use super::*;

    /// A window of documents, by their rows.
    fn sample(rows: &[u64], first_token: u32) -> Arc<Sample> {
        let source = |&row: &u64| TokenSource { shard: 0, row, bytes: [0, 0] };
        let tokens = (0..rows.len() as u32).map(|place| first_token + place).collect();
        Arc::new(Sample { tokens, sources: rows.iter().map(source).collect() })
    }

    #[test]
    fn excerpts_are_of_one_kept_document_each_and_long_enough() {
        let samples = [sample(&[1, 1, 1, 1, 1, 2, 2, 2], 0), sample(&[2, 3, 3, 3, 4, 3, 3, 3], 8)];
        let keeps = |_: u32, row: u64, are_windows: bool| row != 2 && !are_windows;
        let cut = Cut { tokens: 16, length: 4, keeps: &keeps };
        let batch = BatchExcerpts::of(&samples, cut, false, 5);
        let found: Vec<(u64, &[u32])> =
            batch.excerpts.iter().map(|own| (own.row, own.tokens.as_slice())).collect();
        // Of the first window's second half one token is left of 1, too few, and 2 is not kept.
        let expected: [(u64, &[u32]); 3] =
            [(1, &[0, 1, 2, 3]), (3, &[9, 10, 11]), (3, &[13, 14, 15])];
        assert_eq!(found, expected);
        assert_eq!(batch.places.len(), 16);

        let mut features =
            FeatureExcerpts::from([(4, Vec::new()), (6, Vec::new()), (7, Vec::new())]);
        let wanted = BTreeMap::from([(4, true), (6, true), (7, false)]);
        let mut codes = SparseCodes { starts: vec![0], ..SparseCodes::default() };
        for token in 0..16 {
            let active: &[(u32, f32)] = match token {
                1 => &[(4, 0.5), (5, 9.0)],
                3 => &[(4, 2.0)],
                // Of a document that is not kept.
                6 => &[(4, 7.0), (6, 7.0)],
                14 => &[(4, 1.0), (7, 3.0)],
                _ => &[],
            };
            for (feature, value) in active {
                codes.features.push(*feature);
                codes.values.push(*value);
            }
            codes.starts.push(codes.features.len());
        }
        batch.add(&codes, &wanted, &mut features);
        let active = |excerpt, activations: &[f32]| ActiveExcerpt {
            excerpt,
            activations: activations.to_vec(),
        };
        let expected = [active(5, &[0.0, 0.5, 0.0, 2.0]), active(7, &[0.0, 1.0, 0.0])];
        assert_eq!(features[&4], expected);
        assert!(features[&6].is_empty() && !features.contains_key(&5));
        // Only where it is active.
        assert_eq!(features[&7], [active(7, &[])]);
    }
}
