//! The frontier: CE increase against L0 and against alive features, a row of panels a site and combination of facets.

use super::{Axis, Draw, Figure, Panel, Series};
use crate::facets::describe;
use crate::frontier::Group;
use crate::style::{Look, Stroke};
use crate::{Frontier, Point};

pub(crate) fn figure(frontier: &Frontier) -> Figure {
    let mut figure = Figure::new("frontier");
    for group in frontier.groups() {
        figure.rows.push(vec![
            panel(frontier, &group, "L0 (active features per token)", |p| p.l0),
            panel(frontier, &group, "Alive features", |p| p.alive as f64),
        ]);
    }
    figure
}

fn panel(frontier: &Frontier, group: &Group, label: &str, x: fn(&Point) -> f64) -> Panel {
    let mut series = Vec::new();
    let paper = frontier.variants().iter().all(|own| own.what().is_none());
    for variant in frontier.variants() {
        // Lines between markers are solid where the colours tell the types apart already.
        let look = Look::of(variant);
        let look = if paper { Look { stroke: Stroke::Solid, ..look } } else { look };
        let curve = frontier.group_curve(group, variant, x);
        let dominated: Vec<(f64, f64)> = frontier
            .of_group(group, variant)
            .map(|point| (x(point), point.ce_increase))
            .filter(|at| !curve.points.contains(at))
            .collect();
        if curve.points.is_empty() && dominated.is_empty() {
            continue;
        }
        series.push(Series::new("", look.faint(0.35), Draw::Points, dominated).unnamed());
        series.push(Series::new(variant.to_string(), look, Draw::MarkedLine, curve.points));
    }
    let title = if group.facets.is_empty() {
        group.site.to_string()
    } else {
        format!("{}, {}", group.site, describe(&group.facets))
    };
    let mut panel =
        Panel::new(title, Axis::new(label), Axis::new("CE increase (nats per token)"), series);
    panel.corner = Some("↙ better");
    panel
}
