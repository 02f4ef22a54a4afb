//! All that an analysis has found, as it stands in `analysis.json` and in the report: numbers and names, no pictures.

use std::collections::{BTreeMap, BTreeSet};

use sae_config::Site;
use sae_record::activations::{SaeActivations, SiteActivations};
use sae_record::metric::Metric;
use sae_record::summary::Versions;
use serde::{Deserialize, Serialize};

use crate::bootstrap::Estimate;
use crate::embedding::Embedding;
use crate::features::FeatureStatistics;
use crate::matching::{Match, MatchBy};
use crate::similarity::SimilaritySummary;
use crate::{Frontier, SaeType};

/// A sweep's evidence.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// The sweep's name.
    pub sweep: String,
    /// What a reader has to know first: runs left out and why, numbers that are none, parts that the sweep has no runs
    /// for.
    pub notes: Vec<String>,
    /// The runs that are in it.
    pub runs: Vec<RunFacts>,
    /// What the metrics are.
    #[serde(default)]
    pub metrics: Vec<Metric>,
    /// Points and ratios.
    pub frontier: Frontier,
    /// Matched runs, by site and by what they are matched in.
    pub matches: Vec<Match>,
    /// What the runs are matched in of which `downstream`, `geometry.across`, `embeddings` and `features` tell. Where a
    /// site has no such match, they tell of a run of each type, and a note says which.
    pub match_by: MatchBy,
    /// Alive are features that are active on more than this share of tokens; 0: all that were active once.
    #[serde(default)]
    pub alive_above: f64,
    /// How close matched runs stay to the original later in the model.
    pub downstream: Vec<Downstream>,
    /// Similarities within dictionaries and between them.
    pub geometry: Geometry,
    /// Pairs of matched runs in two dimensions.
    pub embeddings: Vec<PairEmbedding>,
    /// Activations at every site that was measured.
    pub activations: BTreeMap<Site, SiteEvidence>,
    /// Runs that differ in nothing but the seed, side by side.
    pub stability: Vec<Seeds>,
    /// Features of matched runs.
    pub features: Vec<RunFeatures>,
}

impl Evidence {
    /// The types of the runs.
    pub fn types(&self) -> BTreeSet<SaeType> {
        self.runs.iter().map(|run| run.variant).collect()
    }

    /// Nothing but notes, on a sweep of this name.
    pub fn none(sweep: String, notes: Vec<String>) -> Self {
        Self {
            sweep,
            notes,
            runs: Vec::new(),
            metrics: Vec::new(),
            frontier: Frontier::of(&[]),
            matches: Vec::new(),
            match_by: MatchBy::CeIncrease,
            alive_above: 0.0,
            downstream: Vec::new(),
            geometry: Geometry { within: Vec::new(), differences: Vec::new(), across: Vec::new() },
            embeddings: Vec::new(),
            activations: BTreeMap::new(),
            stability: Vec::new(),
            features: Vec::new(),
        }
    }
}

/// A run, for those who ask what it was.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunFacts {
    /// Its id.
    pub run: String,
    /// The type of SAE.
    #[serde(rename = "type")]
    pub variant: SaeType,
    /// Its folder, relative to the sweep's.
    pub folder: String,
    /// Its configuration, TOML.
    pub config: String,
    /// Values of the keys in which the sweep's runs differ, by dotted key: the facets.
    pub facets: BTreeMap<String, String>,
    /// What it was made with.
    pub versions: Versions,
}

/// Reconstruction downstream of a matched run's SAE.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Downstream {
    /// The run's id.
    pub run: String,
    /// The type of SAE.
    #[serde(rename = "type")]
    pub variant: SaeType,
    /// The SAE's site.
    pub site: Site,
    /// At every later site, in the order of computation.
    pub layers: Vec<DownstreamLayer>,
}

/// At one later site. The original activations themselves have MSE 0 and explained variance 1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct DownstreamLayer {
    /// Where.
    pub site: Site,
    /// Mean over all elements of `(spliced − original)²`.
    pub mse: f64,
    /// Explained variance.
    pub explained_variance: f64,
}

/// Similarities of dictionary elements.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Geometry {
    /// Each alive element to its nearest neighbour in its own dictionary, every run and site.
    pub within: Vec<Within>,
    /// Differences of the means of `within` between types, for matched runs.
    pub differences: Vec<Difference>,
    /// Each alive element to its nearest in another dictionary: matched runs of two types, runs of two seeds.
    pub across: Vec<AcrossRuns>,
}

/// Within a dictionary.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Within {
    /// The run's id.
    pub run: String,
    /// The type of SAE.
    #[serde(rename = "type")]
    pub variant: SaeType,
    /// The site.
    pub site: Site,
    /// Alive elements.
    pub alive: usize,
    /// Histogram of the largest cosines.
    pub cosines: SimilaritySummary,
    /// Their mean with its interval.
    pub mean: Estimate,
}

/// The mean of one run less that of another, both matched.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// The site.
    pub site: Site,
    /// What they are matched in: `ce`, `l0` or `alive`.
    pub by: MatchBy,
    /// The first type.
    pub of: SaeType,
    /// The type that is taken away.
    pub less: SaeType,
    /// The difference with its interval.
    pub estimate: Estimate,
}

/// From one dictionary to another.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AcrossRuns {
    /// The site.
    pub site: Site,
    /// The run whose elements look for a neighbour.
    pub from: String,
    /// The run in which they do.
    pub to: String,
    /// Why these two: `types` or `seeds`.
    pub what: AcrossWhat,
    /// Histogram of the largest cosines.
    pub cosines: SimilaritySummary,
}

/// Why two runs' dictionaries are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AcrossWhat {
    /// Matched runs of two types.
    Types,
    /// Runs that differ in the seed alone.
    Seeds,
}

/// Two runs' dictionaries in two dimensions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PairEmbedding {
    /// The site.
    pub site: Site,
    /// The runs, in the order of the embedding's numbers.
    pub runs: Vec<String>,
    /// Their types.
    pub types: Vec<SaeType>,
    /// Where each element lies.
    pub embedding: Embedding,
}

/// Activations at a site, and what the matched runs' SAEs make of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SiteEvidence {
    /// The model's.
    pub model: SiteActivations,
    /// Every measured run's, by id.
    pub runs: BTreeMap<String, SaeActivations>,
}

/// Runs that differ in nothing but their seeds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Seeds {
    /// The type of SAE.
    #[serde(rename = "type")]
    pub variant: SaeType,
    /// The site.
    pub site: Site,
    /// The sparsity coefficient.
    pub coeff: f64,
    /// What else tells these runs from others of the type at the site, by key.
    pub facets: BTreeMap<String, String>,
    /// The seeds that differ: `sae.seed` of the initialisation, `data.seed` of the order of the data, or both.
    pub differ_in: Vec<String>,
    /// The seeds (of the initialisation, unless that of the data differs alone), and the runs' ids.
    pub runs: Vec<(u64, String)>,
    /// By name of the metric: every seed's value, in the order of the runs.
    pub metrics: BTreeMap<String, Vec<f64>>,
}

/// A matched run's features.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunFeatures {
    /// The run's id.
    pub run: String,
    /// The type of SAE.
    #[serde(rename = "type")]
    pub variant: SaeType,
    /// The site.
    pub site: Site,
    /// Frequencies, dead and ultra-dense features, what they go with.
    pub statistics: FeatureStatistics,
}
