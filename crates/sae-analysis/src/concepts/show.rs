//! Concepts as a subject: tables, findings, section.

use std::collections::BTreeMap;

use sae_config::Site;
use sae_record::concepts::{FEWEST, GOOD, LEAST, PART};

use super::{
    ConceptEvidence, Coverage, CoverageDifference, RunCoverage, SiteConceptEvidence, figure, find,
};
use crate::AnalysisError;
use crate::draw::Figure;
use crate::evidence::Evidence;
use crate::frontier::base;
use crate::matching;
use crate::runs::facets::Facets;
use crate::study::Study;
use crate::subject::{Block, Comparison, Finding, Subject, TextFile};
use crate::table::{Cell, Column, Table, fixed, thousands};

impl Subject for ConceptEvidence {
    fn name(&self) -> &'static str {
        "concepts"
    }

    fn title(&self) -> &'static str {
        "Concepts"
    }

    fn find(study: &mut Study<'_>) -> Result<Self, AnalysisError> {
        find(study)
    }

    fn is_empty(&self) -> bool {
        self.sites.is_empty()
    }

    fn files(&self, _: &Evidence) -> Result<Vec<TextFile>, AnalysisError> {
        Ok(vec![
            TextFile::csv("concepts", &coverage(self, true)),
            TextFile::csv("concepts_one_by_one", &every_concept(self)),
        ])
    }

    fn figure(&self, evidence: &Evidence) -> Figure {
        figure::figure(self, &evidence.looks())
    }

    fn findings(&self, evidence: &Evidence) -> Vec<Finding> {
        let mut findings = Vec::new();
        for (site, at) in &self.sites {
            let own = || at.differences.iter().filter(|found| found.by == evidence.match_by);
            let base = base(own().flat_map(|found| [&found.less.1, &found.of.1]));
            for found in own().filter(|found| Some(&found.less.1) == base) {
                findings.push(finding(*site, at, found));
            }
        }
        findings
    }

    fn section(&self, evidence: &Evidence) -> Result<Vec<Block>, &'static str> {
        let Some(at) = self.sites.values().next() else {
            return Err(
                "No concepts were measured: sae concepts measures them, where the evaluation data is text in a \
                        language that it knows.",
            );
        };
        let text = format!(
            "Interpretability without a judge: a parser of {} says of every token of the evaluation data which concepts it has \
             (which keyword, the name of a function, within a match arm, …). Of each concept the feature, with a threshold on \
             its activation, whose guess has the greatest F1 on {} tokens of {} documents is measured on {} tokens of {} others. \
             Coverage is the mean of these F1 over the {} concepts with {LEAST} tokens or more in both halves and {FEWEST} documents or more \
             in the second. A concept is split into the features whose best concept it is, with a precision above {GOOD} and a recall \
             of {PART} or more. Intervals are over \
             documents. For comparison the same of the dimensions of the residual stream and its principal directions, both ways, \
             of the neurons of the MLP before, and of random directions, as many as the largest dictionary has features, 4 096 at most.",
            at.language,
            thousands(at.tokens[0]),
            at.documents[0],
            thousands(at.tokens[1]),
            at.documents[1],
            at.concepts.len(),
        );
        let mut numbers = vec![Block::Table(coverage(self, false))];
        numbers
            .extend(self.sites.iter().map(|(site, at)| Block::Table(chosen(*site, at, evidence))));
        Ok(vec![
            Block::Text(text),
            Block::Panels,
            matching::choice(evidence),
            Block::Table(differences(self)),
            Block::Folded("The numbers".to_owned(), numbers),
        ])
    }
}

fn finding(site: Site, at: &SiteConceptEvidence, found: &CoverageDifference) -> Finding {
    Finding {
        site,
        facets: Facets::new(),
        group: found.of.1.clone(),
        base: found.less.1.clone(),
        what: "coverage of concepts".to_owned(),
        value: Comparison::Difference(found.estimate.value),
        range: found.estimate.range(),
        on: format!(
            "runs matched by {}; {} concepts, over {} documents",
            found.by.describe(),
            at.concepts.len(),
            at.documents[1]
        ),
    }
}

/// A row a run, and one a baseline.
fn coverage(found: &ConceptEvidence, is_csv: bool) -> Table {
    let mut columns = vec![
        Column::site(),
        Column::group(),
        Column::run(),
        Column::new("l0", "L0", "Active features per token"),
        Column::new("ce_increase", "CE increase", "Nats per token"),
        Column::new("coverage", "coverage", "Mean over concepts of the best F1"),
    ];
    if is_csv {
        columns.extend(["low", "high", "confidence"].map(Column::csv));
    } else {
        columns.push(Column::people("interval", "Bootstrap confidence interval, over documents"));
    }
    columns.extend([
        Column::new("units", "units", "Features, or directions"),
        Column::new("active", "active", "Of them, those that were active on the first half"),
        Column::new(
            "good",
            "tell one well",
            "Of them, those that tell a concept with an F1 above 0.8",
        ),
        Column::new("split", "split", "Mean number of units that a concept is split into"),
    ]);
    let row = |site: Site, head: [Cell; 4], coverage: &Coverage| {
        let estimate = &coverage.mean;
        let between = if is_csv {
            let ends = estimate.interval.map_or([f64::NAN; 2], |found| [found.low, found.high]);
            let confidence = estimate.options.confidence;
            [ends[0], ends[1], confidence].map(Cell::significant).to_vec()
        } else {
            vec![Cell::Text(estimate.interval_text())]
        };
        let counts = [coverage.units, coverage.active, coverage.good].map(Cell::count);
        std::iter::once(Cell::Site(site))
            .chain(head)
            .chain([Cell::fixed(estimate.value, 4)])
            .chain(between)
            .chain(counts)
            .chain([Cell::fixed(coverage.split, 2)])
            .collect()
    };
    let mut rows: Vec<Vec<Cell>> = Vec::new();
    for (site, at) in &found.sites {
        for RunCoverage { point, coverage } in &at.runs {
            let head = [
                Cell::Group(point.group.clone()),
                Cell::Run(point.run.clone()),
                Cell::fixed(point.l0, 1),
                Cell::fixed(point.ce_increase, 4),
            ];
            rows.push(row(*site, head, coverage));
        }
        for (name, coverage) in &at.baselines {
            let none = || Cell::text("");
            rows.push(row(*site, [Cell::text(name), none(), none(), none()], coverage));
        }
    }
    Table::new("Coverage of concepts", columns).with(rows)
}

fn differences(found: &ConceptEvidence) -> Table {
    let columns = vec![
        Column::site(),
        Column::new("by", "matched by", "What the runs are equal in"),
        Column::new("types", "types", "The coverage of the first less that of the second"),
        Column::new("difference", "difference", "Above 0: the first tells concepts better"),
        Column::new(
            "interval",
            "interval",
            "Bootstrap confidence interval, over the same documents",
        ),
    ];
    let rows = found.sites.iter().flat_map(|(site, at)| {
        at.differences.iter().map(|pair| {
            vec![
                Cell::Site(*site),
                Cell::text(pair.by.describe()),
                Cell::Text(format!("{} − {}", pair.of.1, pair.less.1)),
                Cell::fixed(pair.estimate.value, 4),
                Cell::Text(pair.estimate.interval_text()),
            ]
        })
    });
    Table::new("Differences of coverage between matched runs", columns).with(rows)
}

/// The concepts at a site, with the best F1 of the runs that are looked at closely and of what they are compared with.
fn chosen(site: Site, at: &SiteConceptEvidence, evidence: &Evidence) -> Table {
    let shown: Vec<(String, &Coverage)> = at
        .runs
        .iter()
        .filter(|run| evidence.is_chosen(&run.point.run, site))
        .map(|run| (run.point.group.to_string(), &run.coverage))
        .chain(at.baselines.iter().map(|(name, coverage)| (name.clone(), coverage)))
        .collect();
    let mut columns = vec![
        Column::new("group", "kind", "What kind of concept it is"),
        Column::new("concept", "concept", "What a token is, or stands in"),
        Column::new("tokens", "tokens", "Tokens that have it, of those that F1 is measured on"),
    ];
    for (name, _) in &shown {
        let key = format!("f1_{name}");
        columns.push(Column::new(
            &key,
            name,
            "F1 of its best feature or direction, and its number",
        ));
    }
    let rows = at.concepts.iter().enumerate().map(|(place, concept)| {
        let head =
            [Cell::text(&concept.group), Cell::text(&concept.name), Cell::count(concept.tokens)];
        let of = |(_, coverage): &(String, &Coverage)| match coverage.best.get(place) {
            Some(Some(best)) => {
                Cell::Number(best.f1, format!("{} ({})", fixed(best.f1, 2), best.unit))
            }
            _ => Cell::text("–"),
        };
        head.into_iter().chain(shown.iter().map(of)).collect()
    });
    let caption = format!("The best F1 of every concept at {site}, of {}", evidence.choice(site));
    Table::new(caption, columns).with(rows)
}

/// A row a concept of a run or baseline.
fn every_concept(found: &ConceptEvidence) -> Table {
    let keys = [
        "site",
        "type",
        "run",
        "group",
        "concept",
        "tokens",
        "unit",
        "threshold",
        "f1_chosen",
        "f1",
        "split",
    ];
    let mut rows: Vec<Vec<Cell>> = Vec::new();
    for (site, at) in &found.sites {
        let of_runs = at.runs.iter().map(|run| {
            let RunCoverage { point, coverage } = run;
            ([Cell::Group(point.group.clone()), Cell::Run(point.run.clone())], coverage)
        });
        let baselines: BTreeMap<_, _> = at.baselines.iter().collect();
        let of_baselines = baselines
            .into_iter()
            .map(|(name, coverage)| ([Cell::text(name), Cell::text("")], coverage));
        for (head, coverage) in of_runs.chain(of_baselines) {
            for (concept, best) in at.concepts.iter().zip(&coverage.best) {
                let what = [
                    Cell::text(&concept.group),
                    Cell::text(&concept.name),
                    Cell::count(concept.tokens),
                ];
                let Some(best) = best else { continue };
                let numbers = [
                    Cell::count(u64::from(best.unit)),
                    Cell::significant(f64::from(best.threshold)),
                    Cell::significant(best.f1_chosen),
                    Cell::significant(best.f1),
                    Cell::count(u64::from(best.split)),
                ];
                let start = std::iter::once(Cell::Site(*site)).chain(head.clone());
                rows.push(start.chain(what).chain(numbers).collect());
            }
        }
    }
    Table::new("Concepts one by one", keys.map(Column::csv).into()).with(rows)
}
