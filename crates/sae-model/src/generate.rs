//! The choice of the next token from its logits.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tch::{Kind, Tensor};

use crate::ModelError;

/// How the next token is chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Sampling {
    /// The likeliest.
    Greedy,
    /// At random.
    Random {
        /// Divides the logits; above 0.
        temperature: f64,
        /// Only the so many likeliest.
        top_k: Option<usize>,
        /// Only the likeliest that together have this probability (of those that `top_k` leaves).
        top_p: Option<f64>,
    },
}

/// Chooses tokens; the same seed chooses the same.
#[derive(Debug)]
pub struct Sampler {
    sampling: Sampling,
    rng: ChaCha8Rng,
}

impl Sampler {
    /// A sampler of this seed.
    pub fn new(sampling: Sampling, seed: u64) -> Self {
        Self { sampling, rng: ChaCha8Rng::seed_from_u64(seed) }
    }

    /// Chooses a token id.
    ///
    /// # Shapes
    /// `logits: [V]`.
    pub fn choose(&mut self, logits: &Tensor) -> Result<i64, ModelError> {
        let logits: Vec<f64> = Vec::try_from(logits.f_to_kind(Kind::Double)?)?;
        Ok(choose(&logits, self.sampling, self.rng.random()) as i64)
    }
}

/// Chooses by `uniform`, a number from 0 to 1.
fn choose(logits: &[f64], sampling: Sampling, uniform: f64) -> usize {
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
    let first = order.first().copied().unwrap_or(0);
    let Sampling::Random { temperature, top_k, top_p } = sampling else { return first };
    order.truncate(top_k.unwrap_or(usize::MAX).max(1));
    let largest = logits.get(first).copied().unwrap_or(0.0);
    let weights: Vec<f64> =
        order.iter().map(|&id| ((logits[id] - largest) / temperature).exp()).collect();
    let total: f64 = weights.iter().sum();
    let mut kept = order.len();
    if let Some(top_p) = top_p {
        let mut sum = 0.0;
        let enough = weights.iter().position(|weight| {
            sum += weight / total;
            sum >= top_p
        });
        kept = enough.map_or(kept, |last| last + 1);
    }
    let mut rest = uniform * weights[..kept].iter().sum::<f64>();
    for (&id, weight) in order.iter().zip(&weights).take(kept) {
        rest -= weight;
        if rest < 0.0 {
            return id;
        }
    }
    first
}

#[cfg(test)]
mod tests {
    use super::{Sampling, choose};

    /// Probabilities 0.5, 0.25, 0.125, 0.125 of the ids 2, 0, 1, 3.
    fn logits() -> Vec<f64> {
        [0.25_f64, 0.125, 0.5, 0.125].map(f64::ln).to_vec()
    }

    fn random(temperature: f64, top_k: Option<usize>, top_p: Option<f64>) -> Sampling {
        Sampling::Random { temperature, top_k, top_p }
    }

    fn chosen(sampling: Sampling) -> Vec<usize> {
        [0.0, 0.49, 0.51, 0.74, 0.76, 0.9].map(|u| choose(&logits(), sampling, u)).to_vec()
    }

    #[test]
    fn tokens_are_chosen_by_their_probability() {
        assert_eq!(chosen(Sampling::Greedy), [2; 6]);
        assert_eq!(chosen(random(1.0, None, None)), [2, 2, 0, 0, 1, 3]);
        // Two left, 2/3 and 1/3.
        assert_eq!(chosen(random(1.0, Some(2), None)), [2, 2, 2, 0, 0, 0]);
        assert_eq!(chosen(random(1.0, None, Some(0.75))), [2, 2, 2, 0, 0, 0]);
        assert_eq!(chosen(random(1.0, None, Some(0.5))), [2; 6]);
        // At temperature 1/2 probabilities are squared: 16, 4, 1, 1 of 22.
        assert_eq!(chosen(random(0.5, None, None)), [2, 2, 2, 0, 0, 0]);
    }
}
