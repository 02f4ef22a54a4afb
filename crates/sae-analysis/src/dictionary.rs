//! The dictionary of a finished run at a site: what `features.parquet` says of its features, and the directions of those
//! that are alive.
//!
//! Read are `features.parquet` and the decoder in `sae/<site>/sae_weights.safetensors`, whose rows the run has stored at
//! unit length. Of the decoder only the alive rows are kept.
//!
//! Legend: F features, A alive ones, D model width.

mod decoder;

use sae_config::Site;
use sae_record::RunFolder;
pub use sae_record::features::Feature;

use crate::AnalysisError;
use crate::matrix::Matrix;

/// A run's dictionary at a site.
#[derive(Debug, Clone, PartialEq)]
pub struct Dictionary {
    /// The site.
    pub site: Site,
    /// All features, in their order: `[F]`.
    pub features: Vec<Feature>,
    /// The indices of the alive features, rising: `[A]`.
    pub alive: Vec<u32>,
    /// Their decoder rows: `[A, D]`.
    pub rows: Matrix,
}

/// The features of the run in `folder` at `site`, in their order. Alive are those that the run calls so and that are active
/// on more than the share `alive_above` of the tokens: 0 leaves it at what the run says.
pub fn features(
    folder: &RunFolder,
    site: Site,
    alive_above: f64,
) -> Result<Vec<Feature>, AnalysisError> {
    let mut features = sae_record::features::read(&folder.features(), site)?;
    for feature in &mut features {
        feature.alive &= alive_above == 0.0 || feature.frequency > alive_above;
    }
    Ok(features)
}

impl Dictionary {
    /// Reads the dictionary of the run in `folder` at `site`; `alive_above` is that of [`features`].
    pub fn load(folder: &RunFolder, site: Site, alive_above: f64) -> Result<Self, AnalysisError> {
        let features = features(folder, site, alive_above)?;
        let alive: Vec<u32> =
            features.iter().filter(|feature| feature.alive).map(|feature| feature.index).collect();
        let path = folder.sae(site).join("sae_weights.safetensors");
        let rows = decoder::read(&path, &features, &folder.features())?;
        Ok(Self { site, features, alive, rows })
    }
}

#[cfg(test)]
mod tests;
