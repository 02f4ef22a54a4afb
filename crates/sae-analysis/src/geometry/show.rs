//! Geometry as a subject: tables, findings, section.

use std::collections::BTreeSet;

use sae_config::Site;

use super::{AcrossWhat, Difference, Geometry, figure, find};
use crate::AnalysisError;
use crate::bootstrap::Estimate;
use crate::draw::Figure;
use crate::evidence::Evidence;
use crate::frontier::base;
use crate::histogram::Histogram;
use crate::matching;
use crate::runs::Group;
use crate::runs::facets::Facets;
use crate::study::Study;
use crate::subject::{Block, Comparison, Finding, Subject, TextFile};
use crate::table::{Cell, Column, Table};

impl Subject for Geometry {
    fn name(&self) -> &'static str {
        "geometry"
    }

    fn title(&self) -> &'static str {
        "Dictionary geometry"
    }

    fn find(study: &mut Study<'_>) -> Result<Self, AnalysisError> {
        find(study)
    }

    fn is_empty(&self) -> bool {
        self.within.is_empty() && self.across.is_empty()
    }

    fn files(&self, _: &Evidence) -> Result<Vec<TextFile>, AnalysisError> {
        Ok(vec![
            TextFile::csv("geometry", &means(self)),
            TextFile::csv("geometry_grouped", &grouped(self)),
            TextFile::csv("geometry_histograms", &histograms(self)),
        ])
    }

    fn figure(&self, evidence: &Evidence) -> Figure {
        figure::figure(self, evidence)
    }

    fn findings(&self, evidence: &Evidence) -> Vec<Finding> {
        let of_match = || self.differences.iter().filter(|found| found.by == evidence.match_by);
        let is_base = |found: &&Difference| {
            let own = of_match().filter(|other| other.site == found.site);
            base(own.flat_map(|other| [&other.less, &other.of])) == Some(&found.less)
        };
        let told = of_match().filter(is_base);
        told.map(|found| Finding {
            site: found.site,
            facets: Facets::new(),
            group: found.of.clone(),
            base: found.less.clone(),
            what: "mean largest cosine within the dictionary".to_owned(),
            value: Comparison::Difference(found.estimate.value),
            range: found.estimate.range(),
            on: format!(
                "runs matched by {}; over the elements of one run each",
                found.by.describe()
            ),
        })
        .collect()
    }

    fn section(&self, evidence: &Evidence) -> Result<Vec<Block>, &'static str> {
        if self.is_empty() {
            return Err("No dictionary was compared.");
        }
        let text = "How close the directions of dictionary elements are to each other, as cosines. High cosines within a \
                    dictionary mean that it is tightly clustered, a sign of feature splitting; high cosines between two \
                    dictionaries mean that they have found the same directions.";
        let tables = [within(self), differences(self), across(self)];
        let tables = tables.into_iter().filter(|table| !table.rows.is_empty()).map(Block::Table);
        Ok(vec![
            Block::Text(text.to_owned()),
            matching::choice(evidence),
            Block::Panels,
            Block::Folded("The numbers".to_owned(), tables.collect()),
        ])
    }
}

/// A row a site, a column a type: the mean over its runs of their mean largest cosines.
fn grouped(found: &Geometry) -> Table {
    let groups: BTreeSet<&Group> = found.within.iter().map(|run| &run.group).collect();
    let sites: BTreeSet<Site> = found.within.iter().map(|run| run.site).collect();
    let mut columns = vec![Column::site()];
    columns.extend(groups.iter().map(|group| Column::csv(&group.to_string())));
    let rows = sites.into_iter().map(|site| {
        let mean = |group: &&Group| {
            let own = found.within.iter().filter(|run| run.site == site && run.group == **group);
            let means: Vec<f64> = own.map(|run| run.mean.value).collect();
            Cell::significant(means.iter().sum::<f64>() / means.len() as f64)
        };
        std::iter::once(Cell::Site(site)).chain(groups.iter().map(mean)).collect()
    });
    Table::new("Mean largest cosines within dictionaries, by type", columns).with(rows)
}

fn within(found: &Geometry) -> Table {
    let columns = vec![
        Column::site(),
        Column::group(),
        Column::run(),
        Column::new("alive", "alive", "Alive elements"),
        Column::new("mean", "mean", "Mean over the alive elements"),
        Column::new("interval", "interval", "Bootstrap confidence interval of the mean"),
    ];
    let rows = found.within.iter().map(|run| {
        vec![
            Cell::Site(run.site),
            Cell::Group(run.group.clone()),
            Cell::Run(run.run.clone()),
            Cell::count(run.alive as u64),
            Cell::fixed(run.mean.value, 4),
            Cell::Text(run.mean.interval_text()),
        ]
    });
    Table::new("Within dictionaries: each alive element's largest cosine to another", columns)
        .with(rows)
}

fn differences(found: &Geometry) -> Table {
    let columns = vec![
        Column::site(),
        Column::new("by", "matched by", "What the runs are equal in"),
        Column::new("types", "types", "The mean of the first less that of the second"),
        Column::new("difference", "difference", "Above 0: the first is more tightly clustered"),
        Column::new("interval", "interval", "Bootstrap confidence interval of the difference"),
    ];
    let rows = found.differences.iter().map(|pair| {
        vec![
            Cell::Site(pair.site),
            Cell::text(pair.by.describe()),
            Cell::Text(format!("{} − {}", pair.of, pair.less)),
            Cell::fixed(pair.estimate.value, 4),
            Cell::Text(pair.estimate.interval_text()),
        ]
    });
    Table::new("Differences of those means between matched runs", columns).with(rows)
}

fn across(found: &Geometry) -> Table {
    let columns = vec![
        Column::site(),
        Column::new(
            "what",
            "compared",
            "Matched runs of two types, or runs that differ in the seed alone",
        ),
        Column::new("from", "from", "The run whose elements look for a neighbour"),
        Column::new("to", "to", "The run in which they do"),
        Column::new("elements", "elements", "How many look"),
        Column::new("mean", "mean", "Mean of their largest cosines"),
    ];
    let rows = found.across.iter().map(|pair| {
        let what = match pair.what {
            AcrossWhat::Types => "types",
            AcrossWhat::Seeds => "seeds",
        };
        vec![
            Cell::Site(pair.site),
            Cell::text(what),
            Cell::Run(pair.from.clone()),
            Cell::Run(pair.to.clone()),
            Cell::count(pair.cosines.n as u64),
            Cell::fixed(pair.cosines.mean.unwrap_or(f64::NAN), 4),
        ]
    });
    let caption = "Between dictionaries: each alive element's largest cosine to any in the other";
    Table::new(caption, columns).with(rows)
}

/// Means of the largest cosines: `within` a dictionary, `across` two, and the `difference` of two groups' means within.
fn means(found: &Geometry) -> Table {
    let keys = [
        "what",
        "site",
        "by",
        "from",
        "to",
        "alive",
        "mean",
        "low",
        "high",
        "confidence",
        "n_resamples",
        "seed",
    ];
    let none = || Cell::text("");
    let estimated = |estimate: &Estimate| {
        let ends = estimate.interval.map_or([f64::NAN; 2], |found| [found.low, found.high]);
        [
            Cell::significant(estimate.value),
            Cell::significant(ends[0]),
            Cell::significant(ends[1]),
            Cell::significant(estimate.options.confidence),
            Cell::count(estimate.options.n_resamples as u64),
            Cell::count(estimate.options.seed),
        ]
    };
    let run = |run: &str| Cell::Run(run.to_owned());
    let within = found.within.iter().map(|found| {
        let start = [
            Cell::text("within"),
            Cell::Site(found.site),
            none(),
            run(&found.run),
            run(&found.run),
        ];
        let alive = Cell::count(found.alive as u64);
        start.into_iter().chain([alive]).chain(estimated(&found.mean)).collect()
    });
    let differences = found.differences.iter().map(|found| {
        let start =
            [Cell::text("difference"), Cell::Site(found.site), Cell::text(found.by.to_string())];
        let groups = [Cell::Group(found.of.clone()), Cell::Group(found.less.clone()), none()];
        start.into_iter().chain(groups).chain(estimated(&found.estimate)).collect()
    });
    let across = found.across.iter().map(|found| {
        let mean = Cell::significant(found.cosines.mean.unwrap_or(f64::NAN));
        let start = [Cell::text(key(found.what)), Cell::Site(found.site), none()];
        let runs = [run(&found.from), run(&found.to), Cell::count(found.cosines.n as u64), mean];
        start.into_iter().chain(runs).chain([none(), none(), none(), none(), none()]).collect()
    });
    let rows = within.chain(differences).chain(across);
    Table::new("Geometry", keys.map(Column::csv).into()).with(rows)
}

/// The histograms of the largest cosines, a row a bin that is not empty.
fn histograms(found: &Geometry) -> Table {
    let keys = ["what", "site", "from", "to", "from_cosine", "to_cosine", "count"];
    let mut rows = Vec::new();
    let mut add = |start: [Cell; 4], histogram: &Histogram| {
        for (edges, &count) in
            histogram.edges.windows(2).zip(&histogram.counts).filter(|(_, count)| **count > 0)
        {
            let bin =
                [Cell::significant(edges[0]), Cell::significant(edges[1]), Cell::count(count)];
            rows.push(start.iter().cloned().chain(bin).collect());
        }
    };
    let run = |run: &str| Cell::Run(run.to_owned());
    for found in &found.within {
        let start =
            [Cell::text("within"), Cell::Site(found.site), run(&found.run), run(&found.run)];
        add(start, &found.cosines.histogram);
    }
    for found in &found.across {
        let start =
            [Cell::text(key(found.what)), Cell::Site(found.site), run(&found.from), run(&found.to)];
        add(start, &found.cosines.histogram);
    }
    Table::new("Histograms of largest cosines", keys.map(Column::csv).into()).with(rows)
}

/// What two runs have to do with each other, as CSV has it.
fn key(what: AcrossWhat) -> &'static str {
    match what {
        AcrossWhat::Types => "across_types",
        AcrossWhat::Seeds => "across_seeds",
    }
}
