//! CE increase against L0 and against alive features, a row of panels a site and combination of facets.

use super::{ALL_ALIVE, Frontier, Subset};
use crate::draw::{Axis, Draw, Figure, Looks, Panel, PointText, Series};
use crate::runs::Point;
use crate::table::{fixed, significant};

/// The choice of linear and logarithmic axes.
pub(super) const AXES: &str = "axes";

pub(super) fn figure(frontier: &Frontier, looks: &Looks) -> Figure {
    let mut figure = Figure::default();
    for subset in frontier.subsets() {
        let mut row = Vec::new();
        // Where every feature is alive there is nothing to see against their number.
        let all_alive = frontier.least_alive(&subset).is_some_and(|share| share >= ALL_ALIVE);
        for logarithmic in [false, true] {
            row.push(panel(
                frontier,
                looks,
                &subset,
                "L0 (active features per token)",
                logarithmic,
                |p| p.l0,
            ));
            if !all_alive {
                row.push(panel(frontier, looks, &subset, "Alive features", logarithmic, |p| {
                    p.alive as f64
                }));
            }
        }
        figure.rows.push(row);
    }
    figure
}

fn panel(
    frontier: &Frontier,
    looks: &Looks,
    subset: &Subset,
    label: &str,
    logarithmic: bool,
    x: fn(&Point) -> f64,
) -> Panel {
    let mut series = Vec::new();
    let usable = |point: &&Point| {
        let [x, y] = [x(point), point.ce_increase];
        x.is_finite() && y.is_finite() && (!logarithmic || (x > 0.0 && y > 0.0))
    };
    let mut left_out = 0;
    for (group, look) in looks.groups() {
        // Lines between markers are solid where the colours tell the groups apart already.
        let look = if looks.differ_in_colour() { look.solid() } else { look };
        let curve = frontier.curve(subset, group, x);
        let mut own: Vec<&Point> = frontier.points_of(subset, group).filter(usable).collect();
        left_out += frontier.points_of(subset, group).count() - own.len();
        own.sort_by(|a, b| x(a).total_cmp(&x(b)));
        let (best, dominated): (Vec<&Point>, Vec<&Point>) = own
            .into_iter()
            .partition(|point| curve.points.contains(&(x(point), point.ce_increase)));
        let made = |points: Vec<&Point>, look, draw| {
            let at = points.iter().map(|point| (x(point), point.ce_increase)).collect();
            let texts = points.iter().map(|point| (point.run.clone(), point_text(point))).collect();
            Series::new(group.to_string(), look, draw, at)
                .of(group)
                .with_text(PointText::Runs(texts))
        };
        if !dominated.is_empty() {
            series.push(made(dominated, look.faint(0.35), Draw::Points).unnamed());
        }
        if !best.is_empty() {
            series.push(made(best, look, Draw::MarkedLine));
        }
    }
    let axis = |label: &str| {
        if logarithmic { Axis::new(label).logarithmic() } else { Axis::new(label) }
    };
    let value = if logarithmic { "logarithmic" } else { "linear" };
    let title = format!("{}: CE increase against {}", subset.describe(), name(label));
    let mut panel = Panel::new(title, axis(label), axis("CE increase (nats per token)"), series)
        .at(subset.site)
        .chosen(AXES, value, !logarithmic);
    panel.corner = Some("↙ better");
    if left_out > 0 {
        let runs = if left_out == 1 { "run has" } else { "runs have" };
        panel = panel.noted(format!("{left_out} {runs} no number that could stand here."));
    }
    panel
}

/// What an axis says, without its unit, within a sentence.
fn name(label: &str) -> String {
    let name = label.split(" (").next().unwrap_or(label);
    name.replace("Alive", "alive")
}

/// What is said of a point.
fn point_text(point: &Point) -> String {
    [
        point.run.clone(),
        format!("Type: {}", point.group),
        format!("Coefficient: {}", point.strength_text()),
        format!("Seed: {}", point.seed),
        format!("L0: {}", fixed(point.l0, 1)),
        format!("Alive features: {} of {}", point.alive, point.n_features),
        format!("CE increase: {}", fixed(point.ce_increase, 4)),
        format!("KL: {}", fixed(point.kl, 4)),
        format!("Explained variance: {}", fixed(point.explained_variance, 3)),
        format!("MSE: {}", significant(point.mse)),
    ]
    .join("\n")
}
