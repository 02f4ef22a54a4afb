//! Metrics against what sets the number of active features, a point a seed: a row of four panels a site.

use sae_config::Site;

use super::Seeds;
use crate::draw::{Axis, Draw, Figure, Looks, Panel, PointText, Series};
use crate::runs::facets::describe;
use crate::table::significant;

/// The metrics that are drawn, with their labels.
const METRICS: [(&str, &str); 4] = [
    ("l0", "L0 (active features per token)"),
    ("ce_increase", "CE increase (nats per token)"),
    ("explained_variance", "Explained variance"),
    ("alive", "Alive features"),
];

pub(super) fn figure(found: &[Seeds], looks: &Looks) -> Figure {
    let mut figure = Figure::default();
    let mut sites: Vec<Site> = found.iter().map(|seeds| seeds.site).collect();
    sites.dedup();
    for site in sites {
        let own: Vec<&Seeds> = found.iter().filter(|seeds| seeds.site == site).collect();
        figure.rows.push(METRICS.map(|(name, label)| panel(site, &own, looks, name, label)).into());
    }
    figure
}

fn panel(site: Site, found: &[&Seeds], looks: &Looks, name: &str, label: &str) -> Panel {
    let mut series = Vec::new();
    for (group, look) in looks.groups() {
        let (mut points, mut texts) = (Vec::new(), Vec::new());
        for seeds in found.iter().filter(|seeds| seeds.group == *group) {
            let Some(values) = seeds.metrics.get(name) else { continue };
            let own: Vec<(f64, f64)> =
                values.iter().map(|&value| (seeds.strength, value)).collect();
            // A line joins the seeds of a coefficient: its length is what the seed makes.
            let line = Series::new("", look.solid(), Draw::Line, own.clone()).unnamed();
            series.push(line.of(group));
            points.extend(own);
            texts.extend(seeds.runs.iter().zip(values).map(|((seed, run), value)| {
                let mut text =
                    format!("{run}\nType: {group}\nSeed: {seed}\n{label}: {}", significant(*value));
                if !seeds.facets.is_empty() {
                    text.extend(["\n", &describe(&seeds.facets)]);
                }
                (run.clone(), text)
            }));
        }
        if !points.is_empty() {
            let points = Series::new(group.to_string(), look.faint(0.7), Draw::Points, points);
            series.push(points.of(group).with_text(PointText::Runs(texts)));
        }
    }
    let by_k = found.iter().any(|seeds| seeds.strength.to_bits() != seeds.coeff.to_bits());
    let x = Axis::new(if by_k { "Sparsity coefficient, or k" } else { "Sparsity coefficient" });
    let x = if found.iter().all(|seeds| seeds.strength > 0.0) { x.logarithmic() } else { x };
    let name = label.split(" (").next().unwrap_or(label);
    Panel::new(format!("{site}: {name}, every seed"), x, Axis::new(label), series).at(site)
}
