//! Seeds as a subject: table and section.

use super::{Seeds, figure};
use crate::AnalysisError;
use crate::draw::Figure;
use crate::evidence::Evidence;
use crate::runs::facets::describe;
use crate::study::Study;
use crate::subject::{Block, Subject, TextFile};
use crate::table::{Cell, Column, Table, significant};

impl Subject for Vec<Seeds> {
    fn name(&self) -> &'static str {
        "stability"
    }

    fn title(&self) -> &'static str {
        "Stability across seeds"
    }

    fn find(study: &mut Study<'_>) -> Result<Self, AnalysisError> {
        if study.seeds.is_empty() {
            study
                .notes
                .add("No two runs differ in their seeds alone: nothing is said of stability.");
        }
        Ok(study.seeds.clone())
    }

    fn is_empty(&self) -> bool {
        Vec::is_empty(self)
    }

    fn files(&self, _: &Evidence) -> Result<Vec<TextFile>, AnalysisError> {
        Ok(vec![TextFile::csv("stability", &every_seed(self))])
    }

    fn figure(&self, evidence: &Evidence) -> Figure {
        figure::figure(self, &evidence.looks())
    }

    fn section(&self, _: &Evidence) -> Result<Vec<Block>, &'static str> {
        if Vec::is_empty(self) {
            return Err("No two runs differ in nothing but their seeds.");
        }
        let text = "Runs that differ in nothing but their seeds. Differences between types that are not larger than those \
                    between seeds are no findings.";
        Ok(vec![
            Block::Text(text.to_owned()),
            Block::Panels,
            Block::Folded("The numbers".to_owned(), vec![Block::Table(spreads(self))]),
        ])
    }
}

/// A row a run and metric.
fn every_seed(found: &[Seeds]) -> Table {
    let keys =
        ["group", "type", "site", "coeff", "facets", "differ_in", "metric", "seed", "run", "value"];
    let rows = found.iter().enumerate().flat_map(|(place, seeds)| {
        seeds.metrics.iter().flat_map(move |(metric, values)| {
            seeds.runs.iter().zip(values).map(move |((seed, run), value)| {
                vec![
                    Cell::count(place as u64),
                    Cell::Group(seeds.group.clone()),
                    Cell::Site(seeds.site),
                    Cell::significant(seeds.coeff),
                    Cell::text(describe(&seeds.facets)),
                    Cell::text(seeds.differ_in.join(" ")),
                    Cell::text(metric),
                    Cell::count(*seed),
                    Cell::Run(run.clone()),
                    Cell::significant(*value),
                ]
            })
        })
    });
    Table::new("Seeds", keys.map(Column::csv).into()).with(rows)
}

/// A row a metric of runs that differ in their seeds.
fn spreads(found: &[Seeds]) -> Table {
    let columns = vec![
        Column::site(),
        Column::group(),
        Column::new("coeff", "coeff", "The sparsity coefficient"),
        Column::new("facets", "else", "What else tells these runs from others of the type")
            .may_be_same(),
        Column::new(
            "differ_in",
            "seeds",
            "The seeds that differ: of the initialisation, of the order of the data",
        )
        .may_be_same(),
        Column::new("metric", "metric", "What is compared"),
        Column::new("mean", "mean", "Mean over the seeds"),
        Column::new("range", "range", "The largest less the smallest"),
        Column::new("each", "by seed", "Each seed's value"),
    ];
    let rows = found.iter().flat_map(|seeds| {
        seeds.metrics.iter().map(|(metric, values)| {
            let mean = values.iter().sum::<f64>() / values.len() as f64;
            let low = values.iter().copied().fold(f64::INFINITY, f64::min);
            let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let each = seeds.runs.iter().zip(values);
            let each = each.map(|((seed, _), &value)| format!("{seed}: {}", significant(value)));
            vec![
                Cell::Site(seeds.site),
                Cell::Group(seeds.group.clone()),
                Cell::Number(seeds.coeff, seeds.coeff.to_string()),
                Cell::text(describe(&seeds.facets)),
                Cell::text(seeds.differ_in.join(", ")),
                Cell::text(metric),
                Cell::significant(mean),
                Cell::significant(high - low),
                Cell::text(each.collect::<Vec<_>>().join(", ")),
            ]
        })
    });
    Table::new("Metrics by seed", columns).with(rows)
}
