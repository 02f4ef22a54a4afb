//! What an analysis may be asked for.

use serde::{Deserialize, Serialize};

use crate::bootstrap::BootstrapOptions;
use crate::embedding::{EmbeddingOptions, Region};
use crate::matching::MatchBy;

/// How a sweep is analysed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AnalysisOptions {
    /// What the runs are equal in of which reconstruction downstream, cosines across dictionaries, embeddings and
    /// features are shown. Tables of matches and differences of means are made for every [`MatchBy`] whatever it is.
    pub match_by: MatchBy,
    /// Dotted keys of the configuration, `sae.expansion` for example: runs in which they differ stand on frontiers
    /// of their own.
    pub facets: Vec<String>,
    /// Alive are features that are active on more than this share of the tokens that a run counted on. 0: all that were
    /// active once, as the runs' summaries have it.
    pub alive_above: f64,
    /// How intervals are computed.
    pub bootstrap: BootstrapOptions,
    /// How pairs of dictionaries are embedded.
    pub embedding: EmbeddingOptions,
    /// Named regions of these pictures.
    #[serde(default)]
    pub regions: Vec<Region>,
}

impl Default for AnalysisOptions {
    /// Runs of equal CE increase, no facets, features alive that were active once, intervals as scipy's default has them, and pictures of up to 4000 rows: so
    /// many are as much as a picture shows.
    fn default() -> Self {
        Self {
            match_by: MatchBy::CeIncrease,
            facets: Vec::new(),
            alive_above: 0.0,
            bootstrap: BootstrapOptions::default(),
            embedding: EmbeddingOptions { max_rows: 4000, ..EmbeddingOptions::default() },
            regions: Vec::new(),
        }
    }
}
