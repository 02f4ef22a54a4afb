//! `tasks/<name>.json` of a run: how a task of two answers goes with its dictionaries spliced in.

use serde::{Deserialize, Serialize};

/// A task of two answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunTask {
    /// By how much the logit of the right answer is above that of the wrong one in the original model, prompt by prompt.
    pub original: Vec<f64>,
    /// The same in the spliced model.
    pub spliced: Vec<f64>,
}

impl RunTask {
    /// The mean difference of the spliced model over that of the original, the prompts counted so many times each: what of the original's
    /// preference is left.
    pub fn faithfulness(&self, weights: &[f64]) -> f64 {
        let sum = |values: &[f64]| -> f64 { values.iter().zip(weights).map(|(v, w)| v * w).sum() };
        sum(&self.spliced) / sum(&self.original)
    }

    /// The shares of prompts after which the original and the spliced model rank the right answer higher.
    pub fn accuracies(&self) -> [f64; 2] {
        let share = |values: &[f64]| {
            let right = values.iter().filter(|value| **value > 0.0).count();
            right as f64 / values.len() as f64
        };
        [share(&self.original), share(&self.spliced)]
    }
}

#[cfg(test)]
mod tests {
    use super::RunTask;

    #[test]
    fn faithfulness_is_what_is_left() {
        let task = RunTask { original: vec![2.0, 4.0, -1.0], spliced: vec![1.0, 3.0, -2.0] };
        assert!((task.faithfulness(&[1.0; 3]) - 2.0 / 5.0).abs() < 1e-12);
        assert!((task.faithfulness(&[0.0, 2.0, 0.0]) - 0.75).abs() < 1e-12);
        let [original, spliced] = task.accuracies();
        assert!((original - 2.0 / 3.0).abs() < 1e-12 && (spliced - 2.0 / 3.0).abs() < 1e-12);
    }
}
