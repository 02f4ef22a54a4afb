//! Points as tables: all their numbers, those that a terminal has room for, metrics without a field of their own.

use std::collections::{BTreeSet, HashSet};

use sae_record::metric::{Better, Metric};

use super::Frontier;
use crate::runs::Point;
use crate::runs::facets::ABSENT;
use crate::table::{Cell, Column, Table};

/// All points, by site, group and what sets the number of active features.
fn sorted(points: &[Point]) -> Vec<&Point> {
    let mut sorted: Vec<&Point> = points.iter().collect();
    sorted.sort_by(|a, b| {
        (a.site, &a.group)
            .cmp(&(b.site, &b.group))
            .then(a.strength().total_cmp(&b.strength()))
            .then(a.seed.cmp(&b.seed))
    });
    sorted
}

/// The columns of a point, and its cells.
pub(crate) fn columns() -> Vec<Column> {
    vec![
        Column::run(),
        Column::group(),
        Column::site(),
        Column::people(
            "coeff",
            "The sparsity coefficient, or the k of an architecture that keeps k features",
        ),
        Column::new("seed", "seed", "The seed of the initialisation").may_be_same(),
        Column::csv("coeff"),
        Column::new("l0", "L0", "Active features per token"),
        Column::new("alive", "alive", "Alive features"),
        Column::new("n_features", "of", "Dictionary elements").may_be_same(),
        Column::new("ce_increase", "CE increase", "Cross-entropy increase, nats per token"),
        Column::new("kl", "KL", "KL(original ‖ spliced), nats per token"),
        Column::new(
            "explained_variance",
            "expl. var.",
            "Explained variance of what the dictionary writes",
        ),
        Column::new("mse", "MSE", "Mean squared error of the dictionary's output"),
        Column::new(
            "ce_recovered",
            "CE recovered",
            "Share of the loss to zero ablation that is recovered",
        ),
        Column::new(
            "top1_agreement",
            "top-1 agr.",
            "Share of tokens at which both models rank the same token first",
        ),
        Column::new(
            "grad_norm",
            "grad. norm",
            "Mean norm of the gradients before clipping, over the steps after the first 40 %",
        ),
        Column::new("training_tokens", "tokens", "Tokens trained on").may_be_same(),
    ]
}

/// A point's cells, in the order of [`columns`].
pub(crate) fn cells(point: &Point) -> Vec<Cell> {
    vec![
        Cell::Run(point.run.clone()),
        Cell::Group(point.group.clone()),
        Cell::Site(point.site),
        Cell::Number(point.strength(), point.strength_text()),
        Cell::count(point.seed),
        Cell::Number(point.coeff, point.coeff.to_string()),
        Cell::fixed(point.l0, 1),
        Cell::count(point.alive),
        Cell::count(point.n_features),
        Cell::fixed(point.ce_increase, 4),
        Cell::fixed(point.kl, 4),
        Cell::fixed(point.explained_variance, 3),
        Cell::significant(point.mse),
        Cell::fixed(point.ce_recovered, 3),
        Cell::fixed(point.top1_agreement, 3),
        Cell::significant(point.grad_norm.unwrap_or(f64::NAN)),
        Cell::count(point.training_tokens),
    ]
}

/// All numbers of all points, metrics without a field and facets too.
pub(crate) fn points(points: &[Point]) -> Table {
    let names = metric_names(points);
    // All points of a sweep have the same facets.
    let facets: Vec<&String> =
        points.first().into_iter().flat_map(|point| point.facets.keys()).collect();
    let mut all = columns();
    all.extend(names.iter().map(|name| Column::csv(name)));
    all.extend(facets.iter().map(|key| Column::csv(key)));
    let rows = sorted(points).into_iter().map(|point| {
        let mut row = cells(point);
        row.extend(names.iter().map(|name| Cell::significant(point.metrics.get(name))));
        row.extend(
            facets
                .iter()
                .map(|key| Cell::text(point.facets.get(*key).map_or(ABSENT, String::as_str))),
        );
        row
    });
    Table::new("All runs, a row a site", all).with(rows)
}

/// The metrics that points have no field of, with what the runs' summaries say of them; none where there are none.
pub(crate) fn further(points: &[Point], metrics: &[Metric]) -> Option<Table> {
    let names = metric_names(points);
    if names.is_empty() {
        return None;
    }
    let told = |name: &str| {
        let found = metrics.iter().find(|metric| metric.name == name);
        found.map_or_else(String::new, |metric| {
            let unit = if metric.unit.is_empty() { "" } else { ", " };
            let better = match metric.better {
                Better::Less => "; less is better",
                Better::More => "; more is better",
                Better::Neither => "",
            };
            format!("{}{unit}{}{better}", metric.reduction, metric.unit)
        })
    };
    let mut columns = vec![Column::run(), Column::group(), Column::site()];
    columns.extend(names.iter().map(|name| Column::new(name, name, &told(name))));
    let rows = sorted(points).into_iter().map(|point| {
        let mut row = vec![
            Cell::Run(point.run.clone()),
            Cell::Group(point.group.clone()),
            Cell::Site(point.site),
        ];
        row.extend(names.iter().map(|name| Cell::significant(point.metrics.get(name))));
        row
    });
    Some(Table::new("Further metrics, a row a site", columns).with(rows))
}

/// The table for a terminal: runs' ids where nothing else tells two of them apart, seeds where there are several, and what splits
/// the frontiers.
pub(crate) fn terminal(frontier: &Frontier) -> Table {
    let seeds: BTreeSet<u64> = frontier.points.iter().map(|point| point.seed).collect();
    let with_seed = seeds.len() > 1 && !frontier.facets.iter().any(|key| key == "sae.seed");
    let mut told = HashSet::new();
    let with_run = !frontier
        .points
        .iter()
        .all(|p| told.insert((p.group.to_string(), p.strength_text(), p.seed, p.site, &p.facets)));
    let people = |head| Column::people(head, "");
    let mut columns: Vec<Column> = with_run.then(|| people("run")).into_iter().collect();
    columns.extend(["type", "coeff"].map(people));
    columns.extend(with_seed.then(|| people("seed")));
    columns.extend(["L0", "alive", "CE increase", "KL", "expl. var.", "site"].map(people));
    columns.extend(frontier.facets.iter().map(|key| people(key)));
    let rows = sorted(&frontier.points).into_iter().map(|p| {
        let mut row: Vec<Cell> = with_run.then(|| Cell::Run(p.run.clone())).into_iter().collect();
        row.push(Cell::Group(p.group.clone()));
        row.push(Cell::Number(p.strength(), p.strength_text()));
        row.extend(with_seed.then(|| Cell::count(p.seed)));
        row.extend([
            Cell::fixed(p.l0, 1),
            Cell::Number(p.alive as f64, format!("{}/{}", p.alive, p.n_features)),
            Cell::fixed(p.ce_increase, 4),
            Cell::fixed(p.kl, 4),
            Cell::fixed(p.explained_variance, 3),
            Cell::Site(p.site),
        ]);
        let value = |key: &String| p.facets.get(key).map_or(ABSENT, String::as_str).to_owned();
        row.extend(frontier.facets.iter().map(|key| Cell::text(value(key))));
        row
    });
    Table::new("All runs", columns).with(rows)
}

/// The metrics that points have no field of, in the order of the first that has each.
fn metric_names(points: &[Point]) -> Vec<&str> {
    let mut names = Vec::new();
    for (name, _) in points.iter().flat_map(|point| point.metrics.iter()) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}
