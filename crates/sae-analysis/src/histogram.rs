//! Counts of values in bins.

use serde::{Deserialize, Serialize};

use crate::AnalysisError;

/// Counts of values between edges, as `numpy.histogram` has them: a bin holds its left edge and not its right one, but
/// for the last, which holds both.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Histogram {
    /// The bins' edges, rising; one more than there are bins.
    pub edges: Vec<f64>,
    /// Values in each bin.
    pub counts: Vec<u64>,
    /// Values below the first edge.
    pub below: u64,
    /// Values above the last edge.
    pub above: u64,
}

impl Histogram {
    /// Counts `values`; those that are no numbers (NaN) are counted nowhere. Refused are fewer than two edges, and edges
    /// that do not rise.
    pub fn of(
        values: impl IntoIterator<Item = f64>,
        edges: Vec<f64>,
    ) -> Result<Self, AnalysisError> {
        let rising = edges.windows(2).all(|pair| pair[0] < pair[1]);
        let finite = edges.iter().all(|edge| edge.is_finite());
        if edges.len() < 2 || !rising || !finite {
            return Err(AnalysisError::Input {
                action: "make a histogram",
                message: format!("expected two or more finite edges that rise, found {edges:?}"),
            });
        }
        let mut histogram = Self { counts: vec![0; edges.len() - 1], edges, below: 0, above: 0 };
        for value in values {
            histogram.add(value);
        }
        Ok(histogram)
    }

    /// All values that were counted.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum::<u64>() + self.below + self.above
    }

    fn add(&mut self, value: f64) {
        if value.is_nan() {
            return;
        }
        let last = self.counts.len();
        match self.edges.partition_point(|&edge| edge <= value) {
            0 => self.below += 1,
            place if place <= last => self.counts[place - 1] += 1,
            _ if value <= self.edges[last] => self.counts[last - 1] += 1,
            _ => self.above += 1,
        }
    }
}

/// The edges of `bins` equal bins from `low` to `high`, `bins + 1` of them.
pub fn even_edges(low: f64, high: f64, bins: usize) -> Vec<f64> {
    (0..=bins).map(|i| low + (high - low) * i as f64 / bins as f64).collect()
}

#[cfg(test)]
mod tests {
    use super::{Histogram, even_edges};

    #[test]
    fn edges_belong_to_the_bin_on_their_right_and_the_last_to_the_last() {
        let values = [-0.1, 0.0, 0.4, 0.5, 0.9, 1.0, 1.1, f64::NAN, f64::INFINITY];
        let histogram = Histogram::of(values, even_edges(0.0, 1.0, 2)).unwrap();
        assert_eq!(histogram.edges, [0.0, 0.5, 1.0]);
        assert_eq!(histogram.counts, [2, 3]);
        assert_eq!((histogram.below, histogram.above, histogram.total()), (1, 2, 8));
    }

    #[test]
    fn edges_that_are_none_are_refused() {
        for edges in [vec![], vec![1.0], vec![1.0, 1.0], vec![2.0, 1.0], vec![0.0, f64::NAN]] {
            let message = Histogram::of([0.5], edges.clone()).unwrap_err().to_string();
            assert!(message.contains(&format!("{edges:?}")), "{message}");
        }
    }
}
