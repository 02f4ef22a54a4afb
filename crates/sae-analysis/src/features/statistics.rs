//! What the features of a dictionary look like: how often they are active, which are dead, which almost always on.

use serde::{Deserialize, Serialize};

use crate::AnalysisError;
use crate::dictionary::Feature;
use crate::histogram::{Histogram, even_edges};

/// The activation frequency above which a feature counts as ultra-dense: more than one token in ten, the "very high
/// frequency features" of Rajamanoharan et al. (2024, arXiv 2407.14435). They are rarely about anything in particular.
pub const ULTRA_DENSE: f64 = 0.1;

/// The features of a dictionary.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FeatureStatistics {
    /// Dictionary elements.
    pub n_features: usize,
    /// The base-10 logarithms of the alive features' activation frequencies, counted in bins.
    pub log10_frequency: Histogram,
    /// Features that are not alive, rising.
    pub dead: Vec<u32>,
    /// Features with an activation frequency above `ultra_dense_above`, rising.
    pub ultra_dense: Vec<u32>,
    /// The threshold of `ultra_dense`, a share of the tokens.
    pub ultra_dense_above: f64,
    /// The alive features, for scatter plots of density against size.
    pub scatter: Vec<ScatterPoint>,
}

/// An alive feature.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ScatterPoint {
    /// The feature.
    pub feature: u32,
    /// The base-10 logarithm of its activation frequency.
    pub log10_frequency: f64,
    /// The Euclidean norm of its row of `w_dec` as trained; the forward pass normalises it.
    pub decoder_norm: f64,
    /// The Euclidean norm of its row of `w_enc`.
    pub encoder_norm: f64,
    /// Its encoder bias.
    pub encoder_bias: f64,
}

/// Bins for [`FeatureStatistics::of`]: four a power of ten, from one token in ten million to every token.
pub fn log10_frequency_edges() -> Vec<f64> {
    even_edges(-7.0, 0.0, 28)
}

impl FeatureStatistics {
    /// The statistics of `features`, with frequencies counted between `edges` (of log10) and ultra-dense those that are
    /// active on more than the share `ultra_dense_above` of tokens, [`ULTRA_DENSE`] by default.
    ///
    /// A feature that the run calls alive and that has frequency 0 is in neither the histogram nor the scatter plot: its
    /// logarithm is not a number that could stand there.
    pub fn of(
        features: &[Feature],
        edges: Vec<f64>,
        ultra_dense_above: f64,
    ) -> Result<Self, AnalysisError> {
        let scatter: Vec<ScatterPoint> = features
            .iter()
            .filter(|feature| feature.alive && feature.frequency > 0.0)
            .map(|feature| ScatterPoint {
                feature: feature.index,
                log10_frequency: feature.frequency.log10(),
                decoder_norm: feature.decoder_norm,
                encoder_norm: feature.encoder_norm,
                encoder_bias: feature.encoder_bias,
            })
            .collect();
        let indices = |keep: &dyn Fn(&Feature) -> bool| {
            features.iter().filter(|feature| keep(feature)).map(|feature| feature.index).collect()
        };
        Ok(Self {
            n_features: features.len(),
            log10_frequency: Histogram::of(
                scatter.iter().map(|point| point.log10_frequency),
                edges,
            )?,
            dead: indices(&|feature| !feature.alive),
            ultra_dense: indices(&|feature| feature.frequency > ultra_dense_above),
            ultra_dense_above,
            scatter,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{FeatureStatistics, ULTRA_DENSE, log10_frequency_edges};
    use crate::dictionary::Feature;

    fn feature(index: u32, frequency: f64) -> Feature {
        Feature {
            index,
            frequency,
            alive: frequency > 0.0,
            encoder_norm: 2.0,
            decoder_norm: f64::from(index) + 1.0,
            encoder_bias: -0.5,
        }
    }

    #[test]
    fn every_feature_is_counted_once() {
        let features: Vec<Feature> = [0.0, 0.001, 0.1, 0.100_001, 1.0, 0.0, 1e-9]
            .into_iter()
            .zip(0..)
            .map(|(frequency, index)| feature(index, frequency))
            .collect();
        let edges = log10_frequency_edges();
        let found = FeatureStatistics::of(&features, edges, ULTRA_DENSE).unwrap();
        assert_eq!(found.n_features, 7);
        assert_eq!(found.dead, [0, 5]);
        // One in ten itself is not above one in ten.
        assert_eq!(found.ultra_dense, [3, 4]);
        let frequencies = &found.log10_frequency;
        assert_eq!(frequencies.edges.first().zip(frequencies.edges.last()), Some((&-7.0, &0.0)));
        assert_eq!((frequencies.below, frequencies.above, frequencies.total()), (1, 0, 5));
        // −3 opens the bin from −3 to −2.75; 0 closes the last one; −1 and a hair above share a bin.
        assert_eq!([16, 24, 27].map(|bin| frequencies.counts[bin]), [1, 2, 1]);
    }

    #[test]
    fn scatter_points_are_the_alive_features() {
        let found =
            FeatureStatistics::of(&[feature(0, 0.0), feature(1, 0.01)], vec![-3.0, 0.0], 0.5)
                .unwrap();
        assert_eq!(found.scatter.len(), 1);
        let point = found.scatter[0];
        assert_eq!((point.feature, found.ultra_dense.len()), (1, 0));
        let numbers =
            [point.log10_frequency, point.decoder_norm, point.encoder_norm, point.encoder_bias];
        for (found, expected) in numbers.into_iter().zip([-2.0, 2.0, 2.0, -0.5]) {
            assert!((found - expected).abs() < 1e-12, "{found}, expected {expected}");
        }
    }
}
