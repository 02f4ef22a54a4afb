//! The features of matched runs: how often they are active, which are dead, which almost always on.

mod figure;
mod statistics;

use sae_config::Site;
use serde::{Deserialize, Serialize};

pub use self::statistics::{FeatureStatistics, ScatterPoint, ULTRA_DENSE, log10_frequency_edges};
use crate::AnalysisError;
use crate::draw::{Figure, MOST_POINTS};
use crate::evidence::Evidence;
use crate::runs::Group;
use crate::study::Study;
use crate::subject::{Block, Choice, Subject, TextFile};
use crate::table::{Cell, Column, Table, fixed};
use crate::thin::thin;

/// The most features of a run that the evidence holds for scatter plots; evenly spaced where there are more.
const SCATTER: usize = 5000;
/// The most features that are named of a run.
const LISTED: usize = 500;

/// A matched run's features.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunFeatures {
    /// The run's id.
    pub run: String,
    /// Its group.
    #[serde(rename = "type")]
    pub group: Group,
    /// The site.
    pub site: Site,
    /// Frequencies, dead and ultra-dense features, what they go with.
    pub statistics: FeatureStatistics,
}

impl Subject for Vec<RunFeatures> {
    fn name(&self) -> &'static str {
        "features"
    }

    fn title(&self) -> &'static str {
        "Features"
    }

    fn find(study: &mut Study<'_>) -> Result<Self, AnalysisError> {
        let mut found = Vec::new();
        let points: Vec<_> = study.chosen.iter().flat_map(|chosen| chosen.points.clone()).collect();
        for point in points {
            let Some(dictionary) = study.dictionary(&point) else { continue };
            let edges = log10_frequency_edges();
            let mut statistics = FeatureStatistics::of(&dictionary.features, edges, ULTRA_DENSE)?;
            if statistics.scatter.len() > SCATTER {
                study.notes.add(format!(
                    "Density against norm and bias is told of {SCATTER} alive features of a run, evenly spaced in their \
                     order; features.parquet in the run's folder has all."
                ));
                statistics.scatter = thin(&statistics.scatter, SCATTER);
            }
            found.push(RunFeatures {
                run: point.run,
                group: point.group,
                site: point.site,
                statistics,
            });
        }
        found.sort_by(|a, b| (a.site, &a.group).cmp(&(b.site, &b.group)));
        Ok(found)
    }

    fn is_empty(&self) -> bool {
        Vec::is_empty(self)
    }

    fn files(&self, _: &Evidence) -> Result<Vec<TextFile>, AnalysisError> {
        Ok(vec![
            TextFile::csv("features", &alive(self)),
            TextFile::csv("unusual_features", &unusual(self)),
        ])
    }

    fn figure(&self, evidence: &Evidence) -> Figure {
        figure::figure(self, evidence)
    }

    fn section(&self, evidence: &Evidence) -> Result<Vec<Block>, &'static str> {
        if Vec::is_empty(self) {
            return Err("No matched run says how often its features are active.");
        }
        let text = format!(
            "How often features are active, as base-10 logarithms of the share of tokens, and what that goes with. Runs matched \
             by {}; where a site has none, those that the notes name. Of each, at most {MOST_POINTS} features are drawn.",
            evidence.match_by.describe()
        );
        let size = Choice {
            key: figure::SIZE,
            label: "Frequency against",
            values: figure::SIZES
                .iter()
                .map(|(value, label, _)| ((*value).to_owned(), (*label).to_owned()))
                .collect(),
            first: figure::SIZES[0].0.to_owned(),
        };
        let intro = Block::Text("All of them are in unusual_features.csv.".to_owned());
        let lists = self.iter().map(|run| listed(run, evidence));
        Ok(vec![
            Block::Text(text),
            Block::Choice(size),
            Block::Panels,
            Block::Table(counts(self)),
            Block::Folded(
                "Dead and ultra-dense features by number".to_owned(),
                std::iter::once(intro).chain(lists).collect(),
            ),
        ])
    }
}

/// The alive features, as far as the evidence holds them.
fn alive(found: &[RunFeatures]) -> Table {
    let keys = [
        "run",
        "type",
        "site",
        "feature",
        "log10_frequency",
        "decoder_norm_as_trained",
        "encoder_norm",
        "encoder_bias",
    ];
    let rows = found.iter().flat_map(|run| {
        run.statistics.scatter.iter().map(|point| {
            vec![
                Cell::Run(run.run.clone()),
                Cell::Group(run.group.clone()),
                Cell::Site(run.site),
                Cell::count(u64::from(point.feature)),
                Cell::significant(point.log10_frequency),
                Cell::significant(point.decoder_norm),
                Cell::significant(point.encoder_norm),
                Cell::significant(point.encoder_bias),
            ]
        })
    });
    Table::new("Alive features", keys.map(Column::csv).into()).with(rows)
}

/// Features that are dead or ultra-dense, a row each.
fn unusual(found: &[RunFeatures]) -> Table {
    let rows = found.iter().flat_map(|run| {
        let of = [("dead", &run.statistics.dead), ("ultra-dense", &run.statistics.ultra_dense)];
        of.into_iter().flat_map(move |(what, features)| {
            features.iter().map(move |feature| {
                vec![
                    Cell::Run(run.run.clone()),
                    Cell::Group(run.group.clone()),
                    Cell::Site(run.site),
                    Cell::text(what),
                    Cell::count(u64::from(*feature)),
                ]
            })
        })
    });
    let keys = ["run", "type", "site", "what", "feature"];
    Table::new("Dead and ultra-dense features", keys.map(Column::csv).into()).with(rows)
}

fn counts(found: &[RunFeatures]) -> Table {
    let share = |part: usize, all: usize| {
        let percent = fixed(100.0 * part as f64 / all as f64, 1);
        Cell::Number(part as f64, format!("{part} ({percent} %)"))
    };
    let columns = vec![
        Column::site(),
        Column::group(),
        Column::run(),
        Column::new("features", "features", "Dictionary elements"),
        Column::new("dead", "dead", "Features that are not alive"),
        Column::new(
            "ultra_dense",
            "ultra-dense",
            "Features that are active on more tokens than the threshold",
        ),
        Column::new(
            "threshold",
            "threshold",
            "Share of tokens above which a feature is ultra-dense",
        )
        .may_be_same(),
    ];
    let rows = found.iter().map(|run| {
        let found = &run.statistics;
        vec![
            Cell::Site(run.site),
            Cell::Group(run.group.clone()),
            Cell::Run(run.run.clone()),
            Cell::count(found.n_features as u64),
            share(found.dead.len(), found.n_features),
            share(found.ultra_dense.len(), found.n_features),
            Cell::significant(found.ultra_dense_above),
        ]
    });
    Table::new("Features of matched runs", columns).with(rows)
}

/// Dead and ultra-dense features by number.
fn listed(run: &RunFeatures, evidence: &Evidence) -> Block {
    let numbers = |features: &[u32]| {
        let shown: Vec<String> = features.iter().take(LISTED).map(ToString::to_string).collect();
        let more = features.len().saturating_sub(LISTED);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        if shown.is_empty() { "none".to_owned() } else { format!("{}{more}", shown.join(", ")) }
    };
    let dead = if evidence.alive_above > 0.0 { "Dead or too rare" } else { "Dead" };
    let RunFeatures { run, group, site, statistics } = run;
    Block::OfRun {
        site: *site,
        group: group.clone(),
        run: run.clone(),
        lines: vec![
            format!("{dead}: {}.", numbers(&statistics.dead)),
            format!("Ultra-dense: {}.", numbers(&statistics.ultra_dense)),
        ],
    }
}
