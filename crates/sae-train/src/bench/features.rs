//! What it costs to look at features: the gathering alone, and beside an evaluation.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sae_config::RunConfig;
use sae_data::{Sample, TokenSource};
use sae_eval::features::{FeatureGatherer, SparseCodes};
use serde::Serialize;
use tch::Device;

use super::peak_bytes;
use crate::evaluate::member;
use crate::progress::Silent;
use crate::setup::Setup;
use crate::{Sources, TrainError, dashboards};

/// Tokens in a window, and windows in a batch, of random codes.
const WINDOW: usize = 128;
const WINDOWS: usize = 16;

/// A gathering of random codes.
#[derive(Debug, Clone, Serialize)]
pub struct GatheredCodes {
    /// Tokens gathered.
    pub tokens: u64,
    /// What the gathering took, the making of the codes left out.
    pub seconds: f64,
    /// The most memory that the process had, in bytes.
    pub peak_bytes: u64,
    /// Features that were active, with their examples.
    pub features: usize,
}

/// Gathers random codes of `active` features a token, some of which are active far more often than others.
pub fn gather(n_features: u32, active: u32, tokens: u64) -> GatheredCodes {
    let mut random = ChaCha8Rng::seed_from_u64(0);
    let mut gatherer = FeatureGatherer::new(n_features as usize, 0);
    let (mut took, mut row) = (Duration::ZERO, 0);
    while gatherer.tokens() < tokens {
        let mut codes = SparseCodes { starts: vec![0], ..SparseCodes::default() };
        for _ in 0..WINDOWS * WINDOW {
            // Densities over some three orders of magnitude.
            let mut feature = || (f64::from(n_features) * random.random::<f64>().powi(2)) as u32;
            let mut features: Vec<u32> = (0..active).map(|_| feature()).collect();
            features.sort_unstable();
            features.dedup();
            codes.values.extend(features.iter().map(|_| random.random_range(0.01..4.0_f32)));
            codes.features.extend(features);
            codes.starts.push(codes.features.len());
        }
        let samples: Vec<Arc<Sample>> = (0..WINDOWS)
            .map(|_| {
                row += 1;
                let sources = vec![TokenSource { shard: 0, row, bytes: [0; 2] }; WINDOW];
                Arc::new(Sample { tokens: vec![0; WINDOW], sources })
            })
            .collect();
        let began = Instant::now();
        gatherer.add(&samples, &codes);
        took += began.elapsed();
    }
    let (tokens, began) = (gatherer.tokens(), Instant::now());
    let features = gatherer.finish().len();
    let seconds = (took + began.elapsed()).as_secs_f64();
    GatheredCodes { tokens, seconds, peak_bytes: peak_bytes(), features }
}

/// An evaluation, and a gathering of what features are active on, over the same tokens.
#[derive(Debug, Clone, Serialize)]
pub struct BesideEvaluation {
    /// Tokens of each.
    pub tokens: u64,
    /// The evaluation, its data at hand.
    pub evaluation_seconds: f64,
    /// The gathering, from the data set on.
    pub features_seconds: f64,
}

/// Evaluates SAEs, and gathers what their features are active on, on the evaluation set.
pub fn features(
    config: &RunConfig,
    saes: &Path,
    device: Device,
) -> Result<BesideEvaluation, TrainError> {
    let setup = Setup::open(&[config], Sources::default(), device)?;
    let member = member(config, saes, &setup, device)?;
    let tokens: u64 = setup.evaluation.iter().map(|batch| batch.numel() as u64).sum();
    let shards = setup.evaluation_data(config)?;
    // Once before, so that neither is the first to touch memory.
    sae_eval::evaluate(&setup.model, &[&member], &setup.evaluation[..1], &mut |_| {})?;
    let began = Instant::now();
    sae_eval::evaluate(&setup.model, &[&member], &setup.evaluation, &mut |_| {})?;
    let evaluation_seconds = began.elapsed().as_secs_f64();
    let began = Instant::now();
    let gatherers = dashboards::gather(&[&member], config, (&setup, &shards), tokens, &mut Silent)?;
    for gatherer in gatherers.into_iter().flatten() {
        gatherer.finish();
    }
    let features_seconds = began.elapsed().as_secs_f64();
    Ok(BesideEvaluation { tokens, evaluation_seconds, features_seconds })
}
