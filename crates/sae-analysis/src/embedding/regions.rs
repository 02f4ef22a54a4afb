//! Regions of a picture that somebody has named, and the elements in them.

use std::path::Path;

use sae_config::file::{LONGEST_TEXT, read_text};
use serde::{Deserialize, Serialize};

use super::EmbeddedRow;
use crate::AnalysisError;

/// A rectangle of a picture.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Region {
    /// What it is called: a letter, and what it is.
    pub name: String,
    /// The pair of runs whose picture it is of, by their ids in either order; of all pictures where left out.
    #[serde(default)]
    pub runs: Vec<String>,
    /// From where to where, horizontally.
    pub x: [f32; 2],
    /// The same, vertically.
    pub y: [f32; 2],
}

/// A file of regions.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Regions {
    region: Vec<Region>,
}

impl Region {
    /// Reads a file of TOML with a table `[[region]]` each.
    pub fn read(path: &Path) -> Result<Vec<Self>, AnalysisError> {
        let refused = |message: String| AnalysisError::Input {
            action: "read named regions",
            message: format!("{}: {message}", path.display()),
        };
        let text = read_text(path, LONGEST_TEXT).map_err(|error| refused(error.to_string()))?;
        let found: Regions = toml::from_str(&text).map_err(|error| refused(error.to_string()))?;
        for region in &found.region {
            if region.x[0] >= region.x[1] || region.y[0] >= region.y[1] {
                let Self { name, x, y, .. } = region;
                return Err(refused(format!(
                    "expected x and y of {name:?} from a lower to a higher number, found {x:?} and {y:?}"
                )));
            }
            if !matches!(region.runs.len(), 0 | 2) {
                return Err(refused(format!(
                    "expected the ids of two runs for {:?}, or none, found {}",
                    region.name,
                    region.runs.len()
                )));
            }
        }
        Ok(found.region)
    }

    /// Whether it is of the picture of these runs.
    pub(super) fn is_of(&self, runs: &[String]) -> bool {
        self.runs.is_empty() || self.runs.iter().all(|run| runs.contains(run))
    }

    /// Whether an element lies in it.
    pub(super) fn holds(&self, point: &EmbeddedRow) -> bool {
        let between = |[low, high]: [f32; 2], value: f32| (low..=high).contains(&value);
        between(self.x, point.x) && between(self.y, point.y)
    }

    /// Its outline.
    pub(super) fn outline(&self) -> Vec<(f64, f64)> {
        let ([left, right], [low, high]) = (self.x.map(f64::from), self.y.map(f64::from));
        vec![(left, low), (right, low), (right, high), (left, high), (left, low)]
    }
}
