//! What each feature is active on, gathered in one pass over data. Memory is bounded by the number of features; of the data there
//! are, until every feature has its examples, at most the ids of the tokens.
//!
//! `F` dictionary elements, `N` tokens of a batch.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use rayon::prelude::*;
use sae_data::{Sample, TokenSource};
use tch::{Device, Kind, Tensor};

use sae_splice::SpliceError;

use super::reservoir::{Candidate, Reservoir};

/// Examples of the highest activations.
pub const HIGHEST: usize = 20;
/// Intervals of equal width, from 0 to a feature's greatest activation, that further examples are taken from.
pub const INTERVALS: usize = 5;
/// Examples of each interval.
pub const PER_INTERVAL: usize = 5;
/// Bins of a histogram.
pub const BINS: usize = 32;
/// Partners of a feature.
pub const PARTNERS: usize = 8;

/// Strata that examples are gathered in, of equal width from 0 to a power of two: those of the intervals are taken from them
/// once the greatest activation is known, which is more than half of it.
const STRATA: usize = 32;
/// Tokens of each feature whose other active features are looked at.
const TOKENS: usize = 32;
/// Features of such a token that are kept: the first so many, where more are active.
const ACTIVE: usize = 1024;
/// A partner is active on at least this share of the feature's tokens that were looked at, and on two of them.
const LEAST_SHARE: f32 = 0.125;

/// Feature activations of some tokens, of which few are active.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SparseCodes {
    /// Where each token's begin; one more than tokens.
    pub starts: Vec<usize>,
    /// The active features of each token, in their order.
    pub features: Vec<u32>,
    /// Their activations.
    pub values: Vec<f32>,
}

impl SparseCodes {
    /// Those above 0.
    ///
    /// # Shapes
    /// `features: [..., F]`.
    pub fn of(features: &Tensor) -> Result<Self, SpliceError> {
        let f = features.size().last().copied().unwrap_or(0);
        let flat = features.f_detach()?.f_to_kind(Kind::Float)?.f_reshape([-1, f])?;
        if flat.device() == Device::Cpu {
            // Faster than libtorch's search, which goes over the numbers several times, on one core.
            let numbers: Vec<f32> = Vec::try_from(flat.f_reshape([-1])?)?;
            return Ok(Self::of_rows(&numbers, f as usize));
        }
        let rows = flat.size()[0];
        let places = flat.f_gt(0.0)?.f_nonzero()?;
        let at = |column| places.f_select(1, column);
        let values = flat.f_index(&[Some(at(0)?), Some(at(1)?)])?;
        let (at_row, at_feature): (Vec<i64>, Vec<i64>) = (
            Vec::try_from(at(0)?.f_to_device(Device::Cpu)?)?,
            Vec::try_from(at(1)?.f_to_device(Device::Cpu)?)?,
        );
        let mut starts = Vec::with_capacity(rows as usize + 1);
        let mut next = 0;
        for row in 0..=rows {
            while next < at_row.len() && at_row[next] < row {
                next += 1;
            }
            starts.push(next);
        }
        Ok(Self {
            starts,
            features: at_feature.into_iter().map(|feature| feature as u32).collect(),
            values: Vec::try_from(values.f_to_device(Device::Cpu)?)?,
        })
    }

    /// Those above 0 of tokens one after the other, F numbers each.
    fn of_rows(numbers: &[f32], f: usize) -> Self {
        let rows: Vec<(Vec<u32>, Vec<f32>)> = numbers
            .par_chunks(f.max(1))
            .map(|row| {
                let active = row.iter().zip(0..).filter(|(value, _)| **value > 0.0);
                active.map(|(value, feature): (&f32, u32)| (feature, *value)).unzip()
            })
            .collect();
        let mut codes = Self { starts: vec![0], ..Self::default() };
        for (features, values) in rows {
            codes.features.extend(features);
            codes.values.extend(values);
            codes.starts.push(codes.features.len());
        }
        codes
    }

    /// The active features of every token, with their activations, the greatest first.
    pub fn by_activation(&self) -> Vec<Vec<(u32, f32)>> {
        let tokens = 0..self.starts.len().saturating_sub(1);
        tokens
            .map(|token| {
                let mut active: Vec<(u32, f32)> = self.token(token).collect();
                active.sort_by(|a, b| b.1.total_cmp(&a.1));
                active
            })
            .collect()
    }

    /// The active features of a token, with their activations.
    pub fn token(&self, token: usize) -> impl Iterator<Item = (u32, f32)> + '_ {
        let range = self.starts[token]..self.starts[token + 1];
        self.features[range.clone()].iter().copied().zip(self.values[range].iter().copied())
    }
}

/// A window in which a feature is active.
#[derive(Debug, Clone, PartialEq)]
pub struct Example {
    /// The window's tokens.
    pub tokens: Arc<[u32]>,
    /// Where the token of the greatest activation is from.
    pub source: TokenSource,
    /// The tokens around it that are of the same document: windows may hold parts of several.
    pub own: Range<u32>,
    /// Its greatest activation in it.
    pub peak: f32,
    /// Where that is, the first of several, counted in tokens from the start of the window.
    pub position: u32,
    /// Where it is active, with its activations.
    pub activations: Arc<[(u32, f32)]>,
    /// The window's number in the pass.
    number: u64,
}

/// Activations by size.
#[derive(Debug, Clone, PartialEq)]
pub struct Histogram {
    /// The width of a bin; the first begins at 0.
    pub width: f32,
    /// Tokens in each bin.
    pub counts: Vec<u64>,
}

/// A feature that is active together with another.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Partner {
    /// Its number.
    pub feature: u32,
    /// The share of the other's tokens that it is active on, estimated on up to 32 of them.
    pub share: f32,
    /// That share over its share of all tokens.
    pub lift: f32,
}

/// What a feature is active on.
#[derive(Debug, Clone, PartialEq)]
pub struct GatheredFeature {
    /// Its number in the dictionary.
    pub feature: u32,
    /// Tokens that it is active on.
    pub active: u64,
    /// The mean of its activations on them.
    pub mean: f64,
    /// The greatest.
    pub max: f32,
    /// Its activations above 0.
    pub histogram: Histogram,
    /// Windows with the highest activations, the highest first, of different documents where there are enough.
    pub highest: Vec<Example>,
    /// Windows by their greatest activation, in intervals of equal width from 0 to the greatest of all, drawn at random in each;
    /// without the highest.
    pub intervals: Vec<Vec<Example>>,
    /// What it is active together with more than by chance, the greatest lift first.
    pub partners: Vec<Partner>,
}

/// Gathers what the features of a dictionary are active on.
#[derive(Debug)]
pub struct FeatureGatherer {
    features: Vec<State>,
    tokens: u64,
    samples: u64,
    seed: u64,
}

/// What is gathered of a feature.
#[derive(Debug)]
struct State {
    active: u64,
    sum: f64,
    max: f32,
    /// The upper end of the histogram and of the strata, a power of two that is at least `max`.
    cap: f32,
    bins: [u64; BINS],
    highest: Reservoir<Example>,
    /// By the window's greatest activation.
    strata: Vec<Reservoir<Example>>,
    /// A uniform sample of its tokens: a random number each, the least are kept, with the features active on them.
    sampled: Vec<(u64, Arc<[u32]>)>,
    /// The greatest of these numbers, once there are as many as are kept.
    bound: u64,
}

/// The entries of a window, by feature and position.
struct Window {
    number: u64,
    tokens: Arc<[u32]>,
    sources: Arc<Sample>,
    /// Feature, position, activation.
    entries: Vec<(u32, u32, f32)>,
    /// What is active on each token, and the token's random number.
    active: Vec<(u64, Arc<[u32]>)>,
}

impl FeatureGatherer {
    /// Of F features; the seed decides which examples are drawn.
    pub fn new(n_features: usize, seed: u64) -> Self {
        let state = || State {
            active: 0,
            sum: 0.0,
            max: 0.0,
            cap: 0.0,
            bins: [0; BINS],
            highest: Reservoir::new(HIGHEST),
            strata: Vec::new(),
            sampled: Vec::new(),
            bound: u64::MAX,
        };
        let features = std::iter::repeat_with(state).take(n_features).collect();
        Self { features, tokens: 0, samples: 0, seed }
    }

    /// Takes the codes of some windows, of equally many tokens each, window by window.
    pub fn add(&mut self, samples: &[Arc<Sample>], codes: &SparseCodes) {
        let length = samples.first().map_or(0, |sample| sample.tokens.len());
        let (first, seed) = (self.samples, self.seed);
        let windows: Vec<Window> = samples
            .par_iter()
            .enumerate()
            .map(|(index, sample)| {
                let tokens = index * length..(index + 1) * length;
                window(first + index as u64, sample, codes, tokens, seed)
            })
            .collect();
        self.samples += samples.len() as u64;
        self.tokens += (samples.len() * length) as u64;
        let share = self.features.len().div_ceil(8 * rayon::current_num_threads()).max(1);
        self.features.par_chunks_mut(share).enumerate().for_each(|(chunk, states)| {
            let begin = (chunk * share) as u32;
            let end = begin + states.len() as u32;
            for window in &windows {
                let from = window.entries.partition_point(|entry| entry.0 < begin);
                let to = window.entries.partition_point(|entry| entry.0 < end);
                for entries in window.entries[from..to].chunk_by(|a, b| a.0 == b.0) {
                    states[(entries[0].0 - begin) as usize].add(window, entries, seed);
                }
            }
        });
    }

    /// Tokens gathered.
    pub fn tokens(&self) -> u64 {
        self.tokens
    }

    /// The features that were active, in their order.
    pub fn finish(self) -> Vec<GatheredFeature> {
        let (tokens, seed) = (self.tokens.max(1) as f32, self.seed);
        let density: Vec<f32> =
            self.features.iter().map(|state| state.active as f32 / tokens).collect();
        self.features
            .into_par_iter()
            .enumerate()
            .filter(|(_, state)| state.active > 0)
            .map(|(feature, state)| state.finish(feature as u32, &density, seed))
            .collect()
    }
}

fn window(
    number: u64,
    sample: &Arc<Sample>,
    codes: &SparseCodes,
    tokens: Range<usize>,
    seed: u64,
) -> Window {
    let mut entries = Vec::new();
    let mut active = Vec::with_capacity(tokens.len());
    for (position, token) in tokens.enumerate() {
        entries
            .extend(codes.token(token).map(|(feature, value)| (feature, position as u32, value)));
        let features = codes.token(token).map(|(feature, _)| feature).take(ACTIVE).collect();
        active.push((random(seed, number, position as u64), features));
    }
    entries.sort_unstable_by_key(|&(feature, position, _)| (feature, position));
    let tokens = Arc::from(sample.tokens.as_slice());
    Window { number, tokens, sources: Arc::clone(sample), entries, active }
}

impl State {
    /// Takes the activations of a window.
    fn add(&mut self, window: &Window, entries: &[(u32, u32, f32)], seed: u64) {
        let mut peak = entries[0];
        for entry in entries {
            if entry.2 > peak.2 {
                peak = *entry;
            }
        }
        let (feature, position, peak) = peak;
        self.active += entries.len() as u64;
        self.max = self.max.max(peak);
        if peak > self.cap {
            self.widen(peak);
        }
        for &(_, position, value) in entries {
            self.sum += f64::from(value);
            self.bins[place(value, self.cap, BINS)] += 1;
            self.sample(&window.active[position as usize]);
        }
        let highest = rank_of(peak, window.number);
        let stratum = &self.strata[place(peak, self.cap, STRATA)];
        let may_stay =
            self.highest.may_take(highest) || stratum.may_take(drawn(seed, window.number, feature));
        if !may_stay {
            return;
        }
        let example = Example {
            tokens: Arc::clone(&window.tokens),
            source: window.sources.sources[position as usize],
            own: of_its_document(&window.sources.sources, position as usize),
            peak,
            position,
            activations: entries.iter().map(|&(_, position, value)| (position, value)).collect(),
            number: window.number,
        };
        let document = document(&example.source);
        // What is not among the highest, or not any more, may stand for its interval.
        let left = self.highest.offer(Candidate { rank: highest, document, value: example });
        for candidate in left {
            self.offer_to_stratum(feature, candidate, seed);
        }
    }

    fn offer_to_stratum(&mut self, feature: u32, candidate: Candidate<Example>, seed: u64) {
        let Candidate { document, value, .. } = candidate;
        let rank = drawn(seed, value.number, feature);
        self.strata[place(value.peak, self.cap, STRATA)].offer(Candidate { rank, document, value });
    }

    /// Doubles the range of histogram and strata until it holds a value.
    fn widen(&mut self, value: f32) {
        if self.cap == 0.0 {
            self.cap = value.log2().ceil().exp2().max(value);
            self.strata = vec![Reservoir::new(PER_INTERVAL); STRATA];
            return;
        }
        while self.cap < value {
            self.cap *= 2.0;
            let mut bins = [0; BINS];
            for (place, count) in self.bins.iter().enumerate() {
                bins[place / 2] += count;
            }
            self.bins = bins;
            let mut strata = vec![Reservoir::new(PER_INTERVAL); STRATA];
            for (place, stratum) in std::mem::take(&mut self.strata).into_iter().enumerate() {
                for candidate in stratum.into_all() {
                    strata[place / 2].offer(candidate);
                }
            }
            self.strata = strata;
        }
    }

    /// Keeps a token if its random number is among the least.
    fn sample(&mut self, (number, active): &(u64, Arc<[u32]>)) {
        if *number >= self.bound {
            return;
        }
        if self.sampled.len() == TOKENS {
            self.sampled.retain(|(kept, _)| *kept != self.bound);
        }
        self.sampled.push((*number, Arc::clone(active)));
        if self.sampled.len() == TOKENS {
            self.bound = self.sampled.iter().map(|(number, _)| *number).max().unwrap_or(0);
        }
    }

    fn finish(mut self, feature: u32, density: &[f32], seed: u64) -> GatheredFeature {
        let partners = self.partners(feature, density);
        let highest = std::mem::replace(&mut self.highest, Reservoir::new(HIGHEST));
        let (highest, left) = highest.into_best();
        for candidate in left {
            self.offer_to_stratum(feature, candidate, seed);
        }
        let highest: Vec<Example> = highest.into_iter().map(|kept| kept.value).collect();
        let mut intervals = vec![Reservoir::new(PER_INTERVAL); INTERVALS];
        for candidate in self.strata.into_iter().flat_map(Reservoir::into_all) {
            intervals[place(candidate.value.peak, self.max, INTERVALS)].offer(candidate);
        }
        let examples = |interval: Reservoir<Example>| {
            let mut examples: Vec<Example> =
                interval.into_best().0.into_iter().map(|kept| kept.value).collect();
            examples.sort_unstable_by(|a, b| b.peak.total_cmp(&a.peak));
            examples
        };
        GatheredFeature {
            feature,
            active: self.active,
            mean: self.sum / self.active.max(1) as f64,
            max: self.max,
            histogram: Histogram { width: self.cap / BINS as f32, counts: self.bins.to_vec() },
            highest,
            intervals: intervals.into_iter().map(examples).collect(),
            partners,
        }
    }

    fn partners(&self, feature: u32, density: &[f32]) -> Vec<Partner> {
        let looked_at = self.sampled.len() as f32;
        let mut counts: HashMap<u32, u32> = HashMap::new();
        for other in self.sampled.iter().flat_map(|(_, active)| active.iter()) {
            if *other != feature {
                *counts.entry(*other).or_default() += 1;
            }
        }
        let mut partners: Vec<Partner> = counts
            .into_iter()
            .filter(|(_, count)| *count > 1 && *count as f32 >= LEAST_SHARE * looked_at)
            .map(|(feature, count)| {
                let share = count as f32 / looked_at;
                let lift = share / density[feature as usize].max(f32::MIN_POSITIVE);
                Partner { feature, share, lift }
            })
            .filter(|partner| partner.lift > 1.0)
            .collect();
        partners.sort_unstable_by(|a, b| b.lift.total_cmp(&a.lift).then(a.feature.cmp(&b.feature)));
        partners.truncate(PARTNERS);
        partners
    }
}

/// The place of a value among `n` of equal width from 0, not included, to `end`, included.
fn place(value: f32, end: f32, n: usize) -> usize {
    let place = (value / end * n as f32).ceil() as usize;
    place.clamp(1, n) - 1
}

/// By what a window of a feature is drawn among others of its interval.
fn drawn(seed: u64, window: u64, feature: u32) -> u64 {
    random(seed, window, u64::from(feature) << 32)
}

/// Greater for greater activations, and, of equal ones, for earlier windows.
fn rank_of(activation: f32, number: u64) -> u64 {
    // Positive floats are in the order of their bits.
    (u64::from(activation.to_bits()) << 32)
        | u64::from(u32::MAX - number.min(u64::from(u32::MAX)) as u32)
}

/// The places around a token whose tokens are of its document.
fn of_its_document(sources: &[TokenSource], place: usize) -> Range<u32> {
    let own = document(&sources[place]);
    let is_own = |source: &&TokenSource| document(source) == own;
    let before = sources[..place].iter().rev().take_while(is_own).count();
    let after = sources[place..].iter().take_while(is_own).count();
    (place - before) as u32..(place + after) as u32
}

fn document(source: &TokenSource) -> u64 {
    (u64::from(source.shard) << 40) | source.row
}

/// A number that is as good as random: SplitMix64 of its arguments.
fn random(seed: u64, number: u64, within: u64) -> u64 {
    let mut x = seed
        .wrapping_add(number.wrapping_mul(0x9e37_79b9_7f4a_7c15))
        .wrapping_add(within.wrapping_mul(0xd1b5_4a32_d192_ed03));
    for factor in [0xbf58_476d_1ce4_e5b9_u64, 0x94d0_49bb_1331_11eb] {
        x = (x ^ (x >> 30)).wrapping_mul(factor);
    }
    x ^ (x >> 31)
}
