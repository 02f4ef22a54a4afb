//! What was found as tables: for the terminal, as CSV, Markdown and LaTeX.

mod csv;
pub(crate) mod evidence;
pub(crate) mod matches;

use std::collections::BTreeSet;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use sae_config::Variant;

use self::csv::{Csv, number};
use crate::evidence::Evidence;
use crate::facets::ABSENT;
use crate::{Frontier, Point, SaeType, findings};

/// A column's name, how its cells are written, and whether they are numbers.
struct Column<'a> {
    name: &'a str,
    write: Box<dyn Fn(&Point) -> String + 'a>,
    number: bool,
}

impl<'a> Column<'a> {
    fn text(name: &'a str, write: impl Fn(&Point) -> String + 'a) -> Self {
        Self { name, write: Box::new(write), number: false }
    }

    fn number(name: &'a str, write: impl Fn(&Point) -> String + 'a) -> Self {
        Self { name, write: Box::new(write), number: true }
    }
}

/// The columns of the table of points: seeds where there are several, and what splits the frontiers.
fn columns(frontier: &Frontier) -> Vec<Column<'_>> {
    let mut columns = vec![
        Column::text("type", |p| p.variant.to_string()),
        Column::number("coeff", Point::strength_text),
    ];
    let seeds: BTreeSet<u64> = frontier.points.iter().map(|point| point.seed).collect();
    if seeds.len() > 1 && !frontier.facets.iter().any(|key| key == "sae.seed") {
        columns.push(Column::number("seed", |p| p.seed.to_string()));
    }
    columns.extend([
        Column::number("L0", |p| format!("{:.1}", p.l0)),
        Column::number("alive", |p| format!("{}/{}", p.alive, p.n_features)),
        Column::number("CE increase", |p| format!("{:.4}", p.ce_increase)),
        Column::number("KL", |p| format!("{:.4}", p.kl)),
        Column::number("expl. var.", |p| format!("{:.3}", p.explained_variance)),
        Column::text("site", |p| p.site.to_string()),
    ]);
    let value = |key: &String, point: &Point| {
        point.facets.get(key).map_or(ABSENT, String::as_str).to_owned()
    };
    for key in &frontier.facets {
        columns.push(Column::text(key, move |point| value(key, point)));
    }
    columns
}

/// All points, by type and coefficient.
pub(crate) fn sorted(points: &[Point]) -> Vec<&Point> {
    let mut sorted: Vec<&Point> = points.iter().collect();
    sorted.sort_by(|a, b| {
        (a.site, a.variant)
            .cmp(&(b.site, b.variant))
            .then(a.strength().total_cmp(&b.strength()))
            .then(a.seed.cmp(&b.seed))
    });
    sorted
}

/// The table, the summary and the notes.
pub(crate) fn terminal(evidence: &Evidence) -> String {
    let frontier = &evidence.frontier;
    let mut table = Table::new();
    table
        .load_preset(presets::UTF8_BORDERS_ONLY)
        .set_content_arrangement(ContentArrangement::Disabled);
    let columns = columns(frontier);
    table.set_header(columns.iter().map(|column| column.name));
    for point in sorted(&frontier.points) {
        table.add_row(columns.iter().map(|column| (column.write)(point)));
    }
    for (index, _) in columns.iter().enumerate().filter(|(_, column)| column.number) {
        if let Some(column) = table.column_mut(index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let mut text = table.to_string();
    text.push('\n');
    for line in findings::sentences(evidence).iter().chain(&evidence.notes) {
        text.push('\n');
        text.push_str(line);
    }
    text
}

/// The metrics that points have no field of, in the order of the first that has each.
pub(crate) fn metric_names(points: &[Point]) -> Vec<&str> {
    let mut names = Vec::new();
    for (name, _) in points.iter().flat_map(|point| point.metrics.iter()) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// Every number of every point, and a column a facet.
pub(crate) fn csv(points: &[Point]) -> String {
    let fields = [
        "run",
        "type",
        "site",
        "seed",
        "coeff",
        "l0",
        "alive",
        "n_features",
        "ce_increase",
        "kl",
        "explained_variance",
        "mse",
        "ce_recovered",
        "top1_agreement",
        "training_tokens",
    ];
    // All points of a sweep have the same facets.
    let facets = points.first().into_iter().flat_map(|point| point.facets.keys());
    let metrics = metric_names(points);
    let columns = fields.into_iter().chain(metrics.iter().copied());
    let mut csv = Csv::new(columns.chain(facets.map(String::as_str)));
    for p in sorted(points) {
        let values = [
            p.run.clone(),
            p.variant.to_string(),
            p.site.to_string(),
            p.seed.to_string(),
            number(p.coeff),
            number(p.l0),
            p.alive.to_string(),
            p.n_features.to_string(),
            number(p.ce_increase),
            number(p.kl),
            number(p.explained_variance),
            number(p.mse),
            number(p.ce_recovered),
            number(p.top1_agreement),
            p.training_tokens.to_string(),
        ];
        let further = metrics.iter().map(|name| number(p.metrics.get(name)));
        csv.row(values.into_iter().chain(further).chain(p.facets.values().cloned()));
    }
    csv.finish()
}

/// A type in words.
pub(crate) fn describe(sae_type: SaeType) -> String {
    let minimises = match sae_type.objective {
        Variant::Local => "minimises the MSE between the SAE's input and output",
        Variant::E2e => {
            "minimises the KL divergence between the original model's output and the spliced one's"
        }
        Variant::E2eDs => {
            "minimises that KL divergence, and the MSE to later layers' original activations"
        }
        Variant::Other => "minimises another mixture of terms",
    };
    match sae_type.what() {
        None => minimises.to_owned(),
        Some(what) => format!("{what}; {minimises}"),
    }
}
