//! How well units (the features of a dictionary, or directions that they are compared with) tell the concepts of a text.
//!
//! After Karvonen et al., *Measuring Progress in Dictionary Learning for Language Model Interpretability with Board Game Models*
//! (arXiv 2408.00113), whose coverage is the mean over board states of the best F1 of any feature: here over the concepts that a
//! parser finds in a text, with the threshold chosen on one half of the documents and F1 measured on the other.
//!
//! `N` tokens, `D` width of the residual stream, `U` units.

use std::collections::HashMap;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};
use rayon::prelude::*;
use sae_record::concepts::{BestUnit, ConceptText, GOOD, LabelledText, PART, UnitConcepts, f1};
use tch::{Kind, TchError, Tensor};

use crate::features::SparseCodes;
use crate::positions::eigenvectors;

/// The tokens of a text: the concepts of each, and its document, of which the first, third, … are one half, the others the second.
#[derive(Debug, Clone)]
pub struct LabelledTokens {
    n_concepts: usize,
    /// Bit `i`: the `i`th concept.
    concepts: Vec<u128>,
    /// In the order in which they came.
    documents: Vec<u32>,
    places: HashMap<(u32, u64), u32>,
}

impl LabelledTokens {
    /// None yet, of at most 128 concepts.
    pub fn new(n_concepts: usize) -> Self {
        let (concepts, documents) = (Vec::new(), Vec::new());
        Self { n_concepts: n_concepts.min(128), concepts, documents, places: HashMap::new() }
    }

    /// Adds a token of a document, told by its file and row.
    pub fn push(&mut self, document: (u32, u64), concepts: u128) {
        let next = self.places.len() as u32;
        self.documents.push(*self.places.entry(document).or_insert(next));
        self.concepts.push(concepts);
    }

    /// Tokens.
    pub fn len(&self) -> usize {
        self.concepts.len()
    }

    /// Whether there is no token.
    pub fn is_empty(&self) -> bool {
        self.concepts.is_empty()
    }

    /// The documents of the second half, to which odd places belong.
    fn measured(&self) -> usize {
        self.places.len() / 2
    }

    fn is_chosen_on(&self, token: u32) -> bool {
        self.documents[token as usize].is_multiple_of(2)
    }

    /// What is known of it; `concepts` are names, groups and meanings.
    pub fn text(&self, language: &str, concepts: &[[&str; 3]]) -> LabelledText {
        let mut tokens = [0; 2];
        let (mut chosen, mut measured) =
            (vec![0_u64; self.n_concepts], vec![vec![0_u32; self.measured()]; self.n_concepts]);
        for (&set, &document) in self.concepts.iter().zip(&self.documents) {
            tokens[document as usize % 2] += 1;
            for concept in bits(set) {
                if document.is_multiple_of(2) {
                    chosen[concept] += 1;
                } else {
                    measured[concept][document as usize / 2] += 1;
                }
            }
        }
        let all = concepts.iter().zip(chosen).zip(measured);
        let documents = self.places.len() as u64;
        LabelledText {
            language: language.to_owned(),
            tokens,
            documents: [documents.div_ceil(2), documents / 2],
            concepts: all
                .map(|(([name, group, meaning], chosen_on), positives)| ConceptText {
                    name: (*name).to_owned(),
                    group: (*group).to_owned(),
                    meaning: (*meaning).to_owned(),
                    chosen_on,
                    positives,
                })
                .collect(),
        }
    }
}

/// The places of the bits that are set.
fn bits(mut set: u128) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let place = (set != 0).then_some(set.trailing_zeros() as usize)?;
        set &= set - 1;
        Some(place)
    })
}

/// Units that are active or not on every token of a text.
pub trait Units: Sync {
    /// How many there are.
    fn count(&self) -> usize;

    /// The activations above 0 of one of them, with the places of their tokens, in any order.
    fn activations(&self, unit: usize) -> Vec<(f32, u32)>;
}

/// Features, by their codes: 8 bytes an active feature of a token.
#[derive(Debug, Clone)]
pub struct FeatureUnits {
    active: Vec<Vec<(f32, u32)>>,
    tokens: u32,
}

impl FeatureUnits {
    /// The features of a dictionary, on no tokens yet.
    pub fn new(n_features: usize) -> Self {
        Self { active: vec![Vec::new(); n_features], tokens: 0 }
    }

    /// Adds the codes of the tokens that come next.
    pub fn add(&mut self, codes: &SparseCodes) {
        for token in 0..codes.starts.len().saturating_sub(1) {
            for place in codes.starts[token]..codes.starts[token + 1] {
                let feature = codes.features[place] as usize;
                self.active[feature].push((codes.values[place], self.tokens));
            }
            self.tokens += 1;
        }
    }
}

impl Units for FeatureUnits {
    fn count(&self) -> usize {
        self.active.len()
    }

    fn activations(&self, unit: usize) -> Vec<(f32, u32)> {
        self.active[unit].clone()
    }
}

/// Directions in the space of activations: how far a token's activation goes along each, from the mean.
#[derive(Debug, Clone)]
pub struct DirectionUnits<'a> {
    /// Centred, D numbers a token.
    activations: &'a [f32],
    /// D numbers each.
    directions: Vec<Vec<f32>>,
}

/// Activations whose directions are units.
#[derive(Debug)]
pub struct Directions {
    width: usize,
    activations: Vec<f32>,
}

impl Directions {
    /// Of the activations of tokens.
    ///
    /// # Shapes
    /// `activations`: `N · D` numbers, a token's together.
    pub fn new(mut activations: Vec<f32>, width: usize) -> Self {
        let width = width.max(1);
        let n = (activations.len() / width).max(1) as f64;
        let mut mean = vec![0.0_f64; width];
        for row in activations.chunks_exact(width) {
            mean.iter_mut().zip(row).for_each(|(sum, x)| *sum += f64::from(*x));
        }
        for row in activations.chunks_exact_mut(width) {
            row.iter_mut().zip(&mean).for_each(|(x, sum)| *x -= (sum / n) as f32);
        }
        Self { width, activations }
    }

    /// The dimensions of the residual stream, each both ways.
    pub fn basis(&self) -> DirectionUnits<'_> {
        let unit = |place: usize| (0..self.width).map(|own| f32::from(own == place)).collect();
        self.both_ways((0..self.width).map(unit).collect())
    }

    /// The principal directions, each both ways, the one with the most variance first.
    pub fn principal(&self) -> Result<DirectionUnits<'_>, TchError> {
        let d = self.width as i64;
        let mut products = Tensor::f_zeros([d, d], (Kind::Double, tch::Device::Cpu))?;
        // In single precision as they are, in double as they are summed.
        for rows in self.activations.chunks(self.width << 14) {
            let x = Tensor::f_from_slice(rows)?.f_view([-1, d])?.f_to_kind(Kind::Double)?;
            let _ = products.f_add_(&x.f_tr()?.f_mm(&x)?)?;
        }
        let (_, vectors) = eigenvectors(&products)?;
        let numbers: Vec<f32> =
            vectors.f_to_kind(Kind::Float)?.f_contiguous()?.f_view([-1])?.try_into()?;
        Ok(self.both_ways(numbers.chunks_exact(self.width).map(<[f32]>::to_vec).collect()))
    }

    /// So many random directions, evenly from all.
    pub fn random(&self, count: usize, seed: u64) -> DirectionUnits<'_> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut direction = |_| {
            let drawn: Vec<f32> =
                (0..self.width).map(|_| StandardNormal.sample(&mut rng)).collect();
            let norm = drawn.iter().map(|x| x * x).sum::<f32>().sqrt().max(f32::MIN_POSITIVE);
            drawn.into_iter().map(|x| x / norm).collect()
        };
        let directions = (0..count).map(&mut direction).collect();
        DirectionUnits { activations: &self.activations, directions }
    }

    fn both_ways(&self, directions: Vec<Vec<f32>>) -> DirectionUnits<'_> {
        let both = directions.into_iter().flat_map(|direction| {
            let other = direction.iter().map(|x| -x).collect();
            [direction, other]
        });
        DirectionUnits { activations: &self.activations, directions: both.collect() }
    }
}

impl Units for DirectionUnits<'_> {
    fn count(&self) -> usize {
        self.directions.len()
    }

    fn activations(&self, unit: usize) -> Vec<(f32, u32)> {
        let direction = &self.directions[unit];
        let rows = self.activations.chunks_exact(direction.len()).zip(0..);
        let along = rows.map(|(row, token)| {
            let product: f32 = row.iter().zip(direction).map(|(x, u)| x * u).sum();
            (product, token)
        });
        along.filter(|(activation, _)| *activation > 0.0).collect()
    }
}

/// A guess: a concept by the activations of a unit that are at least the threshold.
#[derive(Debug, Clone, Copy, Default)]
struct Guess {
    f1: f64,
    threshold: f32,
}

/// What a unit's activations say.
struct Told {
    is_active: bool,
    /// On the first half, of every concept.
    guesses: Vec<Guess>,
    /// The concept with the greatest F1.
    best: Option<BestConcept>,
}

/// The concept that a unit tells best, and what the guess at it is worth on the second half.
#[derive(Debug, Clone, Copy)]
struct BestConcept {
    concept: usize,
    f1: f64,
    precision: f64,
    recall: f64,
}

/// How well units tell the concepts of a text.
pub fn score(units: &impl Units, tokens: &LabelledTokens, text: &LabelledText) -> UnitConcepts {
    let told: Vec<Told> =
        (0..units.count()).into_par_iter().map(|unit| told(units, unit, tokens, text)).collect();
    let mut split = vec![0; tokens.n_concepts];
    let best_of = |told: &Told| told.best;
    for best in told.iter().filter_map(best_of) {
        split[best.concept] += u32::from(best.precision > GOOD && best.recall >= PART);
    }
    let best = (0..tokens.n_concepts).into_par_iter().map(|concept| {
        let of = |unit: &usize| told[*unit].guesses.get(concept).map_or(0.0, |guess| guess.f1);
        // The first of several.
        let unit = (0..told.len()).rev().max_by(|a, b| of(a).total_cmp(&of(b)))?;
        let guess = *told[unit].guesses.get(concept).filter(|guess| guess.f1 > 0.0)?;
        let (guesses, hits) = by_document(units, unit, guess.threshold, concept, tokens);
        let (unit, f1_chosen) = (unit as u32, guess.f1);
        Some(BestUnit { unit, threshold: guess.threshold, f1_chosen, guesses, hits })
    });
    UnitConcepts {
        units: told.len() as u64,
        active: told.iter().filter(|told| told.is_active).count() as u64,
        good: told.iter().filter_map(best_of).filter(|best| best.f1 > GOOD).count() as u64,
        best: best.collect(),
        split,
    }
}

fn told(units: &impl Units, unit: usize, tokens: &LabelledTokens, text: &LabelledText) -> Told {
    let (mut first, second): (Vec<_>, Vec<_>) =
        units.activations(unit).into_iter().partition(|&(_, token)| tokens.is_chosen_on(token));
    if first.is_empty() {
        return Told { is_active: false, guesses: Vec::new(), best: None };
    }
    let guesses = choose(&mut first, tokens, text);
    // Of what most tokens are, any guess is a good one.
    let is_rare = |concept: &ConceptText| 2 * concept.chosen_on <= text.tokens[0];
    let counted = |concept: &usize| {
        text.concepts.get(*concept).is_some_and(|concept| concept.counts() && is_rare(concept))
    };
    let all = (0..guesses.len()).filter(counted);
    let best = all.rev().max_by(|&a, &b| guesses[a].f1.total_cmp(&guesses[b].f1));
    let best = best.filter(|concept| guesses[*concept].f1 > 0.0).map(|concept| {
        let threshold = guesses[concept].threshold;
        let guessed = || second.iter().filter(|(activation, _)| *activation >= threshold);
        let is_hit = |token: u32| tokens.concepts[token as usize] >> concept & 1 == 1;
        let hits = guessed().filter(|(_, token)| is_hit(*token)).count() as f64;
        let n = guessed().count() as f64;
        let positives: f64 = text.concepts[concept].positives.iter().map(|&n| f64::from(n)).sum();
        let share = |whole: f64| if whole > 0.0 { hits / whole } else { 0.0 };
        let (precision, recall) = (share(n), share(positives));
        BestConcept { concept, f1: f1(hits, n, positives), precision, recall }
    });
    Told { is_active: true, guesses, best }
}

/// The threshold of the greatest F1 of every concept: F1 grows only where a token that has the concept is let in, so that of all
/// thresholds only those are looked at.
fn choose(first: &mut [(f32, u32)], tokens: &LabelledTokens, text: &LabelledText) -> Vec<Guess> {
    first.sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
    let mut hits = vec![0_u32; tokens.n_concepts];
    let mut guesses = vec![Guess::default(); tokens.n_concepts];
    let mut let_in = 0_u128;
    for (place, &(activation, token)) in first.iter().enumerate() {
        let set = tokens.concepts[token as usize];
        bits(set).for_each(|concept| hits[concept] += 1);
        let_in |= set;
        // Equal activations are let in together.
        if first.get(place + 1).is_some_and(|next| next.0 >= activation) {
            continue;
        }
        for concept in bits(std::mem::take(&mut let_in)) {
            let Some(own) = text.concepts.get(concept) else { continue };
            let positives = own.chosen_on as f64;
            let f1 = f1(f64::from(hits[concept]), (place + 1) as f64, positives);
            if f1 > guesses[concept].f1 {
                guesses[concept] = Guess { f1, threshold: activation };
            }
        }
    }
    guesses
}

/// On the second half, document by document: the tokens that a unit guesses to have a concept, and those of them that have it.
fn by_document(
    units: &impl Units,
    unit: usize,
    threshold: f32,
    concept: usize,
    tokens: &LabelledTokens,
) -> (Vec<u32>, Vec<u32>) {
    let mut guesses = vec![0; tokens.measured()];
    let mut hits = guesses.clone();
    for (activation, token) in units.activations(unit) {
        if activation < threshold || tokens.is_chosen_on(token) {
            continue;
        }
        let document = tokens.documents[token as usize] as usize / 2;
        guesses[document] += 1;
        hits[document] += u32::from(tokens.concepts[token as usize] >> concept & 1 == 1);
    }
    (guesses, hits)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Four documents of three tokens each; the second and third token of each have concept 0, the third has concept 1.
    fn tokens() -> LabelledTokens {
        let mut tokens = LabelledTokens::new(2);
        for document in 0..4 {
            for set in [0, 0b01, 0b11] {
                tokens.push((0, document), set);
            }
        }
        tokens
    }

    /// The text, as if it had a hundred times its tokens, so that its concepts count.
    fn text(tokens: &LabelledTokens) -> LabelledText {
        let found = tokens.text("test", &[["a", "g", ""], ["b", "g", ""]]);
        assert_eq!((found.tokens, found.documents), ([6, 6], [2, 2]));
        assert_eq!(found.concepts[0].positives, [2, 2]);
        assert_eq!((found.concepts[0].chosen_on, found.concepts[1].chosen_on), (4, 2));
        found
    }

    struct Given(Vec<Vec<(f32, u32)>>);

    impl Units for Given {
        fn count(&self) -> usize {
            self.0.len()
        }

        fn activations(&self, unit: usize) -> Vec<(f32, u32)> {
            self.0[unit].clone()
        }
    }

    #[test]
    fn thresholds_are_chosen_on_one_half_and_measured_on_the_other() {
        let tokens = tokens();
        let text = text(&tokens);
        // Unit 0 is never active. Unit 1 is high on concept 1 and low on all tokens: its threshold for concept 1 is 2; on the second
        // half it misses one of two and guesses one wrongly. Unit 2 is active on concept 0, with equal activations.
        let own = |values: [f32; 12]| -> Vec<(f32, u32)> {
            values.into_iter().zip(0..).filter(|(value, _)| *value > 0.0).collect()
        };
        let units = Given(vec![
            Vec::new(),
            own([0.5, 0.5, 3.0, 2.5, 0.5, 0.5, 0.5, 0.5, 2.0, 0.0, 0.0, 9.0]),
            own([0.0, 1.0, 1.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0]),
        ]);
        let found = score(&units, &tokens, &text);
        assert_eq!((found.units, found.active), (3, 2));
        let b = found.best[1].as_ref().unwrap();
        assert_eq!((b.unit, b.threshold, b.f1_chosen), (1, 2.0, 1.0));
        assert_eq!((b.guesses.as_slice(), b.hits.as_slice()), (&[1, 1][..], &[0, 1][..]));
        assert!((b.f1(&text.concepts[1]) - 0.5).abs() < 1e-12);
        let a = found.best[0].as_ref().unwrap();
        assert_eq!((a.unit, a.threshold, a.f1(&text.concepts[0])), (2, 1.0, 1.0));
        // No concept has 50 tokens: none counts.
        assert_eq!((found.good, found.split.as_slice()), (0, &[0, 0][..]));
        let mut frequent = text.clone();
        frequent.tokens = [10_000; 2];
        for concept in &mut frequent.concepts {
            concept.chosen_on = 60;
            concept.positives = vec![12; 5];
        }
        // Guesses are as few as before: precision is theirs, recall is not.
        let found = score(&units, &tokens, &frequent);
        assert_eq!((found.good, found.split.iter().sum::<u32>()), (0, 1));
    }

    #[test]
    fn directions_are_what_their_numbers_say() {
        // Mean (1, 2); the first dimension varies most.
        let numbers = vec![1.0 + 3.0, 2.0, 1.0 - 3.0, 2.0, 1.0, 2.0 + 1.0, 1.0, 2.0 - 1.0];
        let directions = Directions::new(numbers, 2);
        let basis = directions.basis();
        assert_eq!(basis.count(), 4);
        assert_eq!(basis.activations(0), [(3.0, 0)]);
        assert_eq!(basis.activations(1), [(3.0, 1)]);
        assert_eq!(basis.activations(3), [(1.0, 3)]);
        let principal = directions.principal().unwrap();
        let both: Vec<u32> = [0, 1]
            .into_iter()
            .flat_map(|unit| principal.activations(unit))
            .map(|at| at.1)
            .collect();
        assert!(both.contains(&0) && both.contains(&1) && !both.contains(&2), "{both:?}");
        let random = directions.random(5, 0);
        assert_eq!(random.count(), 5);
        for direction in &random.directions {
            assert!((direction.iter().map(|x| x * x).sum::<f32>() - 1.0).abs() < 1e-6);
        }
    }

    #[test]
    fn codes_are_gathered_feature_by_feature() {
        let codes = SparseCodes {
            starts: vec![0, 1, 3],
            features: vec![2, 0, 2],
            values: vec![0.5, 1.0, 2.0],
        };
        let mut units = FeatureUnits::new(3);
        units.add(&codes);
        units.add(&codes);
        assert_eq!(units.activations(2), [(0.5, 0), (2.0, 1), (0.5, 2), (2.0, 3)]);
        assert!(units.activations(1).is_empty());
    }
}
