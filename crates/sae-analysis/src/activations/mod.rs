//! Activations at the sites of dictionaries: of the model, by position and along principal directions; and what the
//! dictionaries make of them.

mod figure;
mod read;

pub(crate) use self::read::ACTIVATIONS;

use std::collections::BTreeMap;

use sae_config::Site;
use sae_record::activations::{SaeActivations, SiteActivations};
use serde::{Deserialize, Serialize};

use crate::AnalysisError;
use crate::draw::Figure;
use crate::evidence::Evidence;
use crate::study::Study;
use crate::subject::{Block, Subject, TextFile};
use crate::table::{Cell, Column, Table, starts_a_part};

/// Activations at a site, and what the runs' dictionaries make of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SiteEvidence {
    /// The model's.
    pub model: SiteActivations,
    /// Every measured run's, by id.
    pub runs: BTreeMap<String, SaeActivations>,
}

impl Subject for BTreeMap<Site, SiteEvidence> {
    fn name(&self) -> &'static str {
        "activations"
    }

    fn title(&self) -> &'static str {
        "Activations"
    }

    fn find(study: &mut Study<'_>) -> Result<Self, AnalysisError> {
        Ok(read::read(study))
    }

    fn is_empty(&self) -> bool {
        BTreeMap::is_empty(self)
    }

    fn files(&self, evidence: &Evidence) -> Result<Vec<TextFile>, AnalysisError> {
        let ratios = ratios(self, evidence).for_people();
        let sizes: Vec<usize> = self.values().map(|found| found.runs.len()).collect();
        let latex = ratios.latex(|row| starts_a_part(&sizes, row));
        Ok(vec![
            TextFile::csv("activations", &numbers(self)),
            TextFile { stem: "norm_ratios", extension: "tex", text: latex },
        ])
    }

    fn figure(&self, evidence: &Evidence) -> Figure {
        figure::figure(self, evidence)
    }

    fn section(&self, evidence: &Evidence) -> Result<Vec<Block>, &'static str> {
        if BTreeMap::is_empty(self) {
            return Err("No activations were measured.");
        }
        let text = format!(
            "The model's activations where the dictionaries stand, and what these make of them: by position in the window (the \
             first token is often special), and along the principal directions, the directions with the most variance. A \
             direction's resampling KL is what it costs the model's output to replace every token's component along it, but \
             the first's, by another token's, as KL(resampled ‖ original), the paper's direction: variance is not importance. \
             Runs matched by {}; where a site has none, those that the notes name. The tables have every run.",
            evidence.match_by.describe()
        );
        let tables = vec![
            Block::Table(ratios(self, evidence)),
            Block::Table(directions(self)),
            Block::Table(explained(self, evidence)),
        ];
        Ok(vec![Block::Text(text), Block::Panels, Block::Folded("The numbers".to_owned(), tables)])
    }
}

/// A row a number: of the model (without a run) and of every measured run, by position, which counts from 0, and by
/// principal direction, which counts from 1.
fn numbers(all: &BTreeMap<Site, SiteEvidence>) -> Table {
    let keys = ["site", "run", "quantity", "direction", "position", "value"];
    let mut rows = Vec::new();
    for (site, found) in all {
        let mut add = |run: &str, quantity: &str, direction: &str, position: &str, value: f64| {
            let place = [run, quantity, direction, position].map(Cell::text);
            let row = std::iter::once(Cell::Site(*site)).chain(place);
            rows.push(row.chain([Cell::significant(value)]).collect());
        };
        for (position, &value) in found.model.norm.iter().enumerate() {
            add("", "norm", "", &position.to_string(), value);
        }
        for (number, direction) in found.model.directions.iter().enumerate() {
            let number = (number + 1).to_string();
            add("", "variance_share", &number, "", direction.variance_share);
            add("", "resampling_kl", &number, "", direction.resampling_kl);
            for (position, &value) in direction.by_position.iter().enumerate() {
                add("", "projection", &number, &position.to_string(), value);
            }
        }
        add("", "random_resampling_kl", "", "", found.model.random_resampling_kl);
        for own in &found.model.along_first {
            let [low, high] = own.range;
            let width = (high - low) / own.counts.len().max(1) as f64;
            for (bin, &count) in own.counts.iter().enumerate() {
                let place =
                    format!("{} to {}", low + width * bin as f64, low + width * (bin as f64 + 1.0));
                add("", &format!("tokens along it: {}", own.kind), "1", &place, count as f64);
            }
        }
        for (run, of) in &found.runs {
            for (quantity, values) in [("norm_ratio", &of.norm_ratio), ("cosine", &of.cosine)] {
                for (position, &value) in values.iter().enumerate() {
                    add(run, quantity, "", &position.to_string(), value);
                }
            }
            let correlation = figure::or_nan(&of.correlation);
            let along =
                [("explained_variance", &of.explained_variance), ("correlation", &correlation)];
            for (quantity, values) in along {
                for (number, &value) in values.iter().enumerate() {
                    add(run, quantity, &(number + 1).to_string(), "", value);
                }
            }
            for (number, values) in of.reconstructed_by_position.iter().enumerate() {
                let number = (number + 1).to_string();
                for (position, &value) in values.iter().enumerate() {
                    add(run, "projection", &number, &position.to_string(), value);
                }
            }
            let bins = of.cosines.len().max(1) as f64;
            for (bin, &count) in of.cosines.iter().enumerate() {
                let low = 2.0 * bin as f64 / bins - 1.0;
                add(
                    run,
                    "tokens by cosine",
                    "",
                    &format!("{low} to {}", low + 2.0 / bins),
                    count as f64,
                );
            }
        }
    }
    Table::new("Activations", keys.map(Column::csv).into()).with(rows)
}

/// The paper's Table 5: mean ratios of norms at the first position and at the later ones.
fn ratios(all: &BTreeMap<Site, SiteEvidence>, evidence: &Evidence) -> Table {
    let columns = vec![
        Column::site(),
        Column::group(),
        Column::run(),
        Column::new("first", "position 0", "Mean of ‖SAE(x)‖ / ‖x‖ at the first position"),
        Column::new("later", "positions > 0", "The same at the others"),
    ];
    let rows = all.iter().flat_map(|(site, found)| {
        found.runs.iter().map(move |(run, sae)| {
            let group =
                evidence.group_of(run).map_or(Cell::text(""), |group| Cell::Group(group.clone()));
            let (first, later) = sae.norm_ratio.split_first().unwrap_or((&f64::NAN, &[]));
            let mean = later.iter().sum::<f64>() / later.len() as f64;
            vec![
                Cell::Site(*site),
                group,
                Cell::Run(run.clone()),
                Cell::fixed(*first, 2),
                Cell::fixed(mean, 2),
            ]
        })
    });
    Table::new("Norms of reconstructions over norms of activations", columns).with(rows)
}

fn directions(all: &BTreeMap<Site, SiteEvidence>) -> Table {
    let columns = vec![
        Column::site(),
        Column::new("direction", "direction", "1 has the most variance"),
        Column::new("variance_share", "variance share", "Share of the total variance"),
        Column::new(
            "resampling_kl",
            "resampling KL",
            "KL(resampled ‖ original), as the paper has it, when every token's component but the first's is another token's, \
             nats",
        ),
        Column::new("random", "of a random direction", "The same, mean over random directions"),
    ];
    let rows = all.iter().flat_map(|(site, found)| {
        let random = found.model.random_resampling_kl;
        found.model.directions.iter().zip(1_u64..).map(move |(direction, place)| {
            vec![
                Cell::Site(*site),
                Cell::count(place),
                Cell::significant(direction.variance_share),
                Cell::significant(direction.resampling_kl),
                Cell::significant(random),
            ]
        })
    });
    Table::new("Principal directions of the model's activations", columns).with(rows)
}

fn explained(all: &BTreeMap<Site, SiteEvidence>, evidence: &Evidence) -> Table {
    let columns = vec![
        Column::site(),
        Column::group(),
        Column::run(),
        Column::new("direction", "direction", "1 has the most variance"),
        Column::new(
            "explained_variance",
            "expl. var.",
            "Share of the variance along the direction that the dictionary keeps",
        ),
    ];
    let rows = all.iter().flat_map(|(site, found)| {
        found.runs.iter().flat_map(move |(run, sae)| {
            let group =
                evidence.group_of(run).map_or(Cell::text(""), |group| Cell::Group(group.clone()));
            sae.explained_variance.iter().zip(1_u64..).map(move |(&explained, place)| {
                let whose = [Cell::Site(*site), group.clone(), Cell::Run(run.clone())];
                whose.into_iter().chain([Cell::count(place), Cell::fixed(explained, 4)]).collect()
            })
        })
    });
    Table::new("Explained variance along principal directions", columns).with(rows)
}
