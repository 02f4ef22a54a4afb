//! What features are found to be, against counting by hand, and against the plain formulas.

#![allow(clippy::unwrap_used, clippy::expect_used)] // In a test, a panic is the report.
#![allow(clippy::float_cmp)] // The same numbers are expected, not near ones.

use std::collections::BTreeMap;
use std::sync::Arc;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sae_data::{Sample, TokenSource};
use sae_eval::features::{
    FeatureGatherer, GatheredFeature, HIGHEST, INTERVALS, PER_INTERVAL, SparseCodes, logit_lens,
    nearest, nearest_within,
};
use sae_model::{ModelConfig, Transformer};
use tch::{Device, Kind, Tensor};

const F: usize = 12;
const T: usize = 8;

/// A window of a document.
fn sample(row: u64) -> Arc<Sample> {
    let source = |position: u32| TokenSource { shard: 0, row, bytes: [position, position + 1] };
    Arc::new(Sample {
        tokens: (0..T as u32).collect(),
        sources: (0..T as u32).map(source).collect(),
    })
}

/// Codes of windows, `[windows, T, F]`: feature 3 only where feature 2 is active, feature 11 nowhere, feature 0 growing.
fn codes(windows: usize) -> Vec<Vec<[f32; F]>> {
    let mut random = ChaCha8Rng::seed_from_u64(7);
    let mut token = |window: usize| {
        let mut code = [0.0; F];
        for value in &mut code[..F - 1] {
            if random.random_bool(0.15) {
                *value = random.random_range(0.01..1.0);
            }
        }
        code[0] *= window as f32;
        code[3] = if random.random_bool(0.5) { code[2] } else { 0.0 };
        code
    };
    (0..windows).map(|window| (0..T).map(|_| token(window)).collect()).collect()
}

fn gather(codes: &[Vec<[f32; F]>], batch: usize, documents: u64) -> Vec<GatheredFeature> {
    let mut gatherer = FeatureGatherer::new(F, 0);
    for (index, windows) in codes.chunks(batch).enumerate() {
        let samples: Vec<Arc<Sample>> = (0..windows.len())
            .map(|window| sample((index * batch + window) as u64 % documents))
            .collect();
        let flat: Vec<f32> = windows.iter().flatten().flatten().copied().collect();
        let tensor = Tensor::from_slice(&flat).view([windows.len() as i64, T as i64, F as i64]);
        gatherer.add(&samples, &SparseCodes::of(&tensor).unwrap());
    }
    assert_eq!(gatherer.tokens(), (codes.len() * T) as u64);
    gatherer.finish()
}

#[test]
fn features_are_what_counting_by_hand_gives() {
    let codes = codes(300);
    let documents = 60;
    let found = gather(&codes, 7, documents);
    assert_eq!(found.len(), F - 1);
    for feature in &found {
        let place = feature.feature as usize;
        let all: Vec<f32> = codes.iter().flatten().map(|code| code[place]).collect();
        let active: Vec<f32> = all.into_iter().filter(|value| *value > 0.0).collect();
        assert_eq!(feature.active, active.len() as u64);
        let mean = active.iter().map(|value| f64::from(*value)).sum::<f64>() / active.len() as f64;
        assert!((feature.mean - mean).abs() < 1e-9);
        let max = active.iter().copied().fold(0.0, f32::max);
        assert!(feature.max == max);
        for (bin, count) in feature.histogram.counts.iter().enumerate() {
            let (from, to) =
                (bin as f32 * feature.histogram.width, (bin + 1) as f32 * feature.histogram.width);
            let inside = active.iter().filter(|value| **value > from && **value <= to).count();
            assert_eq!(*count, inside as u64, "{bin} of {place}");
        }
        // Every interval has as many windows as there are, up to five, beside the highest.
        let of_window =
            |window: usize| codes[window].iter().map(|code| code[place]).fold(0.0, f32::max);
        let mut others = [0; INTERVALS];
        for window in 0..codes.len() {
            let peak = of_window(window);
            let is_highest = feature.highest.iter().any(|example| example.peak == peak);
            if peak > 0.0 && !is_highest {
                others
                    [((peak / max * INTERVALS as f32).ceil() as usize).clamp(1, INTERVALS) - 1] +=
                    1;
            }
        }
        for (examples, others) in feature.intervals.iter().zip(others) {
            // One at the end of an interval may lie in a part of a stratum that others fill.
            assert!(examples.len() >= PER_INTERVAL.min(others), "{} {others}", examples.len());
        }
        // The best window of each document, of the best documents.
        let mut best: BTreeMap<u64, f32> = BTreeMap::new();
        for (window, tokens) in codes.iter().enumerate() {
            let peak = tokens.iter().map(|code| code[place]).fold(0.0, f32::max);
            let of_document = best.entry(window as u64 % documents).or_default();
            *of_document = of_document.max(peak);
        }
        let mut best: Vec<f32> = best.into_values().filter(|peak| *peak > 0.0).collect();
        best.sort_by(|a, b| b.total_cmp(a));
        best.truncate(HIGHEST);
        let highest: Vec<f32> = feature.highest.iter().map(|example| example.peak).collect();
        assert_eq!(highest, best, "{place}");
        assert_eq!(feature.intervals.len(), INTERVALS);
        for (interval, examples) in feature.intervals.iter().enumerate() {
            assert!(examples.len() <= PER_INTERVAL);
            for example in examples {
                let at = example.peak / max * INTERVALS as f32;
                assert!(at > interval as f32 && at <= (interval + 1) as f32, "{at} {interval}");
            }
        }
        for example in feature.highest.iter().chain(feature.intervals.iter().flatten()) {
            let peak = example.activations.iter().find(|(at, _)| *at == example.position).unwrap();
            assert!(peak.1 == example.peak);
            assert!(example.activations.iter().all(|(_, value)| *value <= example.peak));
        }
    }
    // Intervals that hold windows beside the highest have some of them.
    assert!(found[5].intervals.iter().filter(|interval| !interval.is_empty()).count() >= 3);
    // Wherever 3 is active 2 is, which is active on about a seventh of all tokens.
    let partner = found[3].partners[0];
    assert_eq!(partner.feature, 2);
    assert!((partner.share - 1.0).abs() < 1e-6 && partner.lift > 4.0, "{partner:?}");
}

#[test]
fn batches_and_threads_change_nothing() {
    let codes = codes(200);
    let whole = gather(&codes, 200, 200);
    let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    assert!(one.install(|| gather(&codes, 3, 200)) == whole);
    assert_eq!(gather(&codes, 64, 200), whole);
}

#[test]
fn the_lens_is_the_unembedding_of_the_final_norm() {
    let config = ModelConfig::gpt2(1, 8, 2, 4, 30); // layers, D, heads, context, vocabulary
    let model = Transformer::random(config, 3, Device::Cpu, Kind::Double).unwrap();
    tch::manual_seed(0);
    let directions = Tensor::randn([5, 8], (Kind::Double, Device::Cpu));
    // Of a long vector nothing but its direction is left of a layer norm.
    let logits = |x: &Tensor| model.logits(&model.final_norm(x).unwrap()).unwrap();
    let base = logits(&Tensor::zeros([1, 8], (Kind::Double, Device::Cpu)));
    let scale = directions.std_dim([-1].as_slice(), false, true);
    let expected = (logits(&(&directions * 1e4)) - base) * scale;
    let found = model.direct_logits(&directions).unwrap();
    let difference = f64::try_from((&found - &expected).abs().max()).unwrap();
    assert!(difference < 1e-6, "{difference}");
    let lens = logit_lens(&model, &directions, 4).unwrap();
    for (row, lens) in lens.iter().enumerate() {
        let of_row: Vec<f64> = found.get(row as i64).try_into().unwrap();
        let mut order: Vec<usize> = (0..of_row.len()).collect();
        order.sort_by(|a, b| of_row[*b].total_cmp(&of_row[*a]));
        let ids = |pairs: &[(u32, f32)]| -> Vec<usize> {
            pairs.iter().map(|(id, _)| *id as usize).collect()
        };
        assert_eq!(ids(&lens.highest), order[..4]);
        order.reverse();
        assert_eq!(ids(&lens.lowest), order[..4]);
    }
}

#[test]
fn neighbours_are_the_greatest_cosines() {
    tch::manual_seed(1);
    let unit = |n: i64| {
        let rows = Tensor::randn([n, 6], (Kind::Float, Device::Cpu));
        let norms = rows.norm_scalaropt_dim(2.0, [1].as_slice(), true);
        rows / norms
    };
    let (a, b) = (unit(9), unit(14));
    let cosines: Vec<Vec<f32>> = a.mm(&b.tr()).try_into().unwrap();
    for (row, found) in nearest(&a, &b, 3).unwrap().iter().enumerate() {
        let mut expected: Vec<usize> = (0..14).collect();
        expected.sort_by(|x, y| cosines[row][*y].total_cmp(&cosines[row][*x]));
        let found: Vec<usize> = found.iter().map(|near| near.feature as usize).collect();
        assert_eq!(found, expected[..3]);
    }
    let own = [4, 0];
    let within = nearest_within(&a, &own, 20).unwrap();
    for (feature, found) in own.iter().zip(&within) {
        assert_eq!(found.len(), 8);
        assert!(found.iter().all(|near| near.feature != *feature && near.cosine < 0.999));
    }
}

#[test]
fn an_example_knows_which_of_its_tokens_are_of_its_document() {
    // Three tokens of a document, then five of another.
    let row = |position: usize| u64::from(position >= 3);
    let mut two = (*sample(0)).clone();
    for (position, source) in two.sources.iter_mut().enumerate() {
        source.row = row(position);
    }
    let mut gatherer = FeatureGatherer::new(2, 0);
    // Feature 0 is active in the first, feature 1 at the window's end.
    let mut codes = vec![0.0_f32; T * 2];
    (codes[2 * 2], codes[2 * 7 + 1]) = (1.0, 2.0);
    let tensor = Tensor::from_slice(&codes).view([1, T as i64, 2]);
    gatherer.add(&[Arc::new(two)], &SparseCodes::of(&tensor).unwrap());
    let found = gatherer.finish();
    assert_eq!((&found[0].highest[0].own, found[0].highest[0].source.row), (&(0..3), 0));
    assert_eq!((&found[1].highest[0].own, found[1].highest[0].source.row), (&(3..8), 1));
}
