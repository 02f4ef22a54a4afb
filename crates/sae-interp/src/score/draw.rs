//! Which excerpts are shown to score an explanation.

use std::collections::BTreeSet;

use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sae_record::excerpts::{ActiveExcerpt, Excerpt, FeatureExcerpts};
use sae_record::scores::{Item, ItemKind};

use crate::explain::marks;

/// Excerpts of each half of a question: as many, by how strongly the feature is active, as fifths.
const HALF: usize = 5;
/// Of the excerpts that a feature is not active in, those that one near to it is active in, where there are so many.
const NEAR: usize = 3;

/// The excerpts that there are to show, and what the features of a dictionary do in them.
#[derive(Debug, Clone, Copy)]
pub struct Pool<'a> {
    /// The excerpts.
    pub excerpts: &'a [Excerpt],
    /// By feature, where it is active; of all features that are asked about, and of those that are near to them.
    pub features: &'a FeatureExcerpts,
}

/// An excerpt as it is shown.
#[derive(Debug, Clone, PartialEq)]
pub struct ShownExcerpt<'a> {
    /// What it is.
    pub item: Item,
    /// Its tokens.
    pub tokens: &'a [u32],
    /// The marked ones; none marked in detection.
    pub marks: Vec<bool>,
}

/// What is shown of a feature.
#[derive(Debug, Clone, PartialEq)]
pub struct Drawn<'a> {
    /// Excerpts with the feature and without, in an order drawn at random.
    pub detection: Vec<ShownExcerpt<'a>>,
    /// Excerpts with the feature, marked right and wrong, in an order drawn at random.
    pub fuzzing: Vec<ShownExcerpt<'a>>,
}

impl<'a> Pool<'a> {
    /// What is shown of a feature, decided by the seed alone; none where there are fewer than five excerpts that it is active in, or that
    /// it is not active in, or fewer than four in which other tokens can be marked. `near` are features near to it.
    pub fn draw(&self, feature: u32, near: &[u32], seed: u64) -> Option<Drawn<'a>> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(u64::from(feature));
        let active = self.features.get(&feature)?;
        let detection = self.detection(active, near, &mut rng)?;
        let fuzzing = self.fuzzing(active, &mut rng)?;
        Some(Drawn { detection, fuzzing })
    }

    fn detection(
        &self,
        active: &'a [ActiveExcerpt],
        near: &[u32],
        rng: &mut ChaCha8Rng,
    ) -> Option<Vec<ShownExcerpt<'a>>> {
        let own: BTreeSet<u32> = active.iter().map(|active| active.excerpt).collect();
        let with: Vec<u32> =
            by_fifths(active.iter(), 1, rng).into_iter().map(|active| active.excerpt).collect();
        let others = near.iter().filter_map(|near| self.features.get(near)).flatten();
        let hard: BTreeSet<u32> = others.map(|active| active.excerpt).collect();
        let hard: Vec<u32> = hard.difference(&own).copied().collect();
        let hard: Vec<u32> = hard.choose_multiple(rng, NEAR).copied().collect();
        let any: Vec<u32> = (0..self.excerpts.len() as u32)
            .filter(|place| !own.contains(place) && !hard.contains(place))
            .collect();
        let any: Vec<u32> = any.choose_multiple(rng, HALF - hard.len()).copied().collect();
        if with.len() < HALF || hard.len() + any.len() < HALF {
            return None;
        }
        let kinds = [(with, ItemKind::Active), (hard, ItemKind::Near), (any, ItemKind::Inactive)];
        let all = kinds.into_iter().flat_map(|(places, kind)| {
            places.into_iter().map(move |place| (place, kind, Vec::new()))
        });
        let mut shown: Vec<ShownExcerpt<'a>> = all.filter_map(|own| self.shown(own)).collect();
        shown.shuffle(rng);
        Some(shown)
    }

    fn fuzzing(
        &self,
        active: &'a [ActiveExcerpt],
        rng: &mut ChaCha8Rng,
    ) -> Option<Vec<ShownExcerpt<'a>>> {
        // As many tokens without the feature as are marked.
        let can_be_wrong = |active: &&ActiveExcerpt| {
            let marked = marks(&active.activations, active.peak());
            let marked = marked.into_iter().filter(|marked| *marked).count();
            active.activations.iter().filter(|own| **own <= 0.0).count() >= marked
        };
        let drawn = by_fifths(active.iter().filter(can_be_wrong), 2, rng);
        let pairs = drawn.len() / 2;
        if pairs < 2 {
            return None;
        }
        let mut shown = Vec::with_capacity(2 * pairs);
        for pair in drawn.chunks_exact(2) {
            let first_is_wrong = rng.random::<bool>();
            for (active, is_wrong) in pair.iter().zip([first_is_wrong, !first_is_wrong]) {
                let right = marks(&active.activations, active.peak());
                let (kind, marks) = if is_wrong {
                    (ItemKind::Wrong, wrong(&active.activations, &right, rng))
                } else {
                    (ItemKind::Right, right)
                };
                shown.extend(self.shown((active.excerpt, kind, marks)));
            }
        }
        shown.shuffle(rng);
        Some(shown)
    }

    fn shown(&self, (place, kind, marks): (u32, ItemKind, Vec<bool>)) -> Option<ShownExcerpt<'a>> {
        let excerpt = self.excerpts.get(place as usize)?;
        let item = Item { kind, document: (excerpt.file, excerpt.row) };
        Some(ShownExcerpt { item, tokens: &excerpt.tokens, marks })
    }
}

/// So many excerpts of each fifth by activation, from weak to strong, those of a fifth together; fewer where there are fewer.
fn by_fifths<'b>(
    active: impl Iterator<Item = &'b ActiveExcerpt>,
    each: usize,
    rng: &mut ChaCha8Rng,
) -> Vec<&'b ActiveExcerpt> {
    let mut sorted: Vec<&ActiveExcerpt> = active.collect();
    sorted.sort_by(|a, b| a.peak().total_cmp(&b.peak()).then(a.excerpt.cmp(&b.excerpt)));
    let n = sorted.len();
    let fifths = if n >= HALF * each { HALF } else { (n / each).max(1) };
    let fifth = |number: usize| &sorted[n * number / fifths..n * (number + 1) / fifths];
    let mut drawn = Vec::with_capacity(HALF * each);
    for number in 0..fifths {
        drawn.extend(fifth(number).choose_multiple(rng, each).copied());
    }
    drawn
}

/// As many marks as the right ones, on tokens that the feature is not active on.
fn wrong(activations: &[f32], right: &[bool], rng: &mut ChaCha8Rng) -> Vec<bool> {
    let inactive: Vec<usize> =
        (0..activations.len()).filter(|&place| activations[place] <= 0.0).collect();
    let count = right.iter().filter(|marked| **marked).count();
    let mut marks = vec![false; activations.len()];
    for &place in inactive.choose_multiple(rng, count) {
        marks[place] = true;
    }
    marks
}

/// For each of some features another one of them, all different; none of fewer than two.
pub fn derangement(features: &[u32], seed: u64) -> Vec<(u32, u32)> {
    if features.len() < 2 {
        return Vec::new();
    }
    let mut order = features.to_vec();
    order.sort_unstable();
    order.dedup();
    order.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
    let next = order.iter().cycle().skip(1);
    let mut pairs: Vec<(u32, u32)> = order.iter().copied().zip(next.copied()).collect();
    pairs.sort_unstable();
    pairs
}
