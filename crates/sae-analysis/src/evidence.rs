//! All that an analysis has found, as it stands in `analysis.json` and in the report: numbers and names, no figures.

use std::collections::{BTreeMap, BTreeSet};

use sae_config::{RunConfig, Site};
use sae_record::metric::Metric;
use sae_record::summary::Versions;
use serde::{Deserialize, Serialize};

use crate::AnalysisError;
use crate::activations::SiteEvidence;
use crate::concepts::ConceptEvidence;
use crate::dashboards::Dashboards;
use crate::downstream::Downstream;
use crate::draw::Looks;
use crate::embedding::PairEmbedding;
use crate::explanations::ExplanationEvidence;
use crate::features::RunFeatures;
use crate::frontier::Frontier;
use crate::geometry::Geometry;
use crate::gradients::Gradients;
use crate::matching::{Match, MatchBy};
use crate::runs::{FinishedRun, Group, SweepRuns};
use crate::stability::Seeds;
use crate::study::Study;
use crate::subject::Subject;
use crate::tasks::Tasks;
use crate::training::Training;

/// Makes the evidence of its subjects: the key in `analysis.json`, and the type that finds and shows it.
macro_rules! subjects {
    ($($(#[doc = $doc:literal])* $key:ident: $Type:ty;)*) => {
        /// The evidence of a sweep.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        pub struct Evidence {
            /// The sweep's name.
            pub sweep: String,
            /// What a reader has to know first: runs left out and why, numbers that are not finite, parts that the sweep has no
            /// runs for.
            pub notes: Vec<String>,
            /// The runs that are in it.
            pub runs: Vec<RunFacts>,
            /// What all runs have in common.
            #[serde(default)]
            pub about: About,
            /// What the metrics are.
            #[serde(default)]
            pub metrics: Vec<Metric>,
            /// What the runs are matched in of which `downstream`, `geometry.across`, `embeddings` and `features` tell.
            /// Where a site has no such match, they tell of a run of each group, and a note says which.
            pub match_by: MatchBy,
            /// Alive are features that are active on more than this share of tokens; 0: all that were active once.
            #[serde(default)]
            pub alive_above: f64,
            $($(#[doc = $doc])* #[serde(default)] pub $key: $Type,)*
        }

        impl Evidence {
            /// Finds all subjects, in this order.
            pub(crate) fn gather(mut study: Study<'_>) -> Result<Self, AnalysisError> {
                $(let $key = <$Type as Subject>::find(&mut study)?;)*
                let (runs, options) = (study.runs, study.options);
                Ok(Self {
                    sweep: runs.name.clone(),
                    runs: runs.finished.iter().map(|run| RunFacts::of(runs, run)).collect::<Result<_, _>>()?,
                    about: About::of(runs),
                    metrics: runs.metrics(),
                    match_by: options.match_by,
                    alive_above: options.alive_above,
                    notes: study.end(),
                    $($key,)*
                })
            }

            /// Nothing but notes, on a sweep of this name.
            pub fn none(sweep: String, notes: Vec<String>) -> Self {
                Self {
                    sweep,
                    notes,
                    runs: Vec::new(),
                    about: About::default(),
                    metrics: Vec::new(),
                    match_by: MatchBy::CeIncrease,
                    alive_above: 0.0,
                    $($key: <$Type>::default(),)*
                }
            }

            /// The subjects, in the order in which they are shown.
            pub(crate) fn subjects(&self) -> Vec<&dyn Subject> {
                vec![$(&self.$key),*]
            }
        }
    };
}

// One line a subject.
subjects! {
    /// Points and ratios.
    frontier: Frontier;
    /// Matched runs, by site and by what they are matched in.
    matches: Vec<Match>;
    /// How close matched runs stay to the original later in the model.
    downstream: Vec<Downstream>;
    /// Similarities within dictionaries and between them.
    geometry: Geometry;
    /// Pairs of matched runs in two dimensions.
    embeddings: Vec<PairEmbedding>;
    /// Activations at every site that was measured.
    activations: BTreeMap<Site, SiteEvidence>;
    /// Runs that differ in nothing but the seed, side by side.
    stability: Vec<Seeds>;
    /// Features of matched runs.
    features: Vec<RunFeatures>;
    /// How well features tell the concepts of a text.
    concepts: ConceptEvidence;
    /// How well explanations tell what features do.
    explanations: ExplanationEvidence;
    /// Single features of matched runs.
    dashboards: Dashboards;
    /// What of tasks of two answers is left.
    tasks: Tasks;
    /// Gradient norms beside what runs have come to.
    gradients: Gradients;
    /// What the runs logged while they were trained.
    training: Vec<Training>;
}

impl Evidence {
    /// The groups of the runs.
    pub fn groups(&self) -> BTreeSet<Group> {
        self.runs.iter().map(|run| run.group.clone()).collect()
    }

    pub(crate) fn looks(&self) -> Looks {
        Looks::of(self.groups())
    }

    /// The group of a run.
    pub(crate) fn group_of(&self, run: &str) -> Option<&Group> {
        self.runs.iter().find(|facts| facts.run == run).map(|facts| &facts.group)
    }

    /// Whether a run is one of those that are looked at closely at a site.
    pub(crate) fn is_chosen(&self, run: &str, site: Site) -> bool {
        let own = || self.features.iter().filter(|features| features.site == site);
        // Where no dictionary can be read, there are the matches still.
        let matched =
            || self.matches.iter().filter(|found| found.site == site && found.by == self.match_by);
        match own().next() {
            Some(_) => own().any(|features| features.run == run),
            None => matched().flat_map(|found| &found.points).any(|point| point.run == run),
        }
    }

    /// Which runs are looked at closely at a site, in words.
    pub(crate) fn choice(&self, site: Site) -> String {
        let by = self.match_by;
        if self.matches.iter().any(|found| found.site == site && found.by == by) {
            format!("runs matched by {}", by.describe())
        } else {
            "one run of each type".to_owned()
        }
    }
}

/// A run, for those who ask what it was.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunFacts {
    /// Its id.
    pub run: String,
    /// Its group.
    #[serde(rename = "type")]
    pub group: Group,
    /// Its folder, relative to the sweep's.
    pub folder: String,
    /// Its configuration, TOML.
    pub config: String,
    /// Values of the keys in which the sweep's runs differ, by dotted key: the facets.
    pub facets: BTreeMap<String, String>,
    /// What it was made with.
    pub versions: Versions,
}

impl RunFacts {
    fn of(runs: &SweepRuns, run: &FinishedRun) -> Result<Self, AnalysisError> {
        // The run's own file has what was resolved when it began; a folder without it has the manifest's.
        let config = match std::fs::read_to_string(runs.folder_of(run).config()) {
            Ok(config) => config,
            Err(_) => run.config.to_toml().map_err(sae_record::RecordError::from)?,
        };
        Ok(Self {
            run: run.id.clone(),
            group: run.group.clone(),
            folder: run.folder.display().to_string(),
            config,
            facets: run.facets.clone(),
            versions: run.summary.versions.clone(),
        })
    }
}

/// What the runs were made of, each value once.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct About {
    /// The language model.
    pub model: Vec<String>,
    /// The training data.
    pub data: Vec<String>,
    /// The evaluation data.
    pub evaluation: Vec<String>,
    /// Tokens trained on.
    pub training_tokens: Vec<u64>,
    /// Tokens evaluated on.
    pub evaluation_tokens: Vec<u64>,
    /// Dictionary elements.
    pub n_features: Vec<u64>,
}

impl About {
    fn of(runs: &SweepRuns) -> Self {
        fn each<T: Ord>(runs: &SweepRuns, of: impl Fn(&FinishedRun) -> Vec<T>) -> Vec<T> {
            runs.finished.iter().flat_map(of).collect::<BTreeSet<T>>().into_iter().collect()
        }
        let text = |of: fn(&RunConfig) -> String| each(runs, |run| vec![of(&run.config)]);
        Self {
            model: text(|config| config.model.path.to_string()),
            data: text(|config| config.data.train.to_string()),
            evaluation: text(|config| config.eval.data.to_string()),
            training_tokens: each(runs, |run| vec![run.summary.training_tokens]),
            evaluation_tokens: each(runs, |run| vec![run.summary.evaluation.tokens]),
            n_features: each(runs, |run| run.summary.n_features.values().copied().collect()),
        }
    }
}
