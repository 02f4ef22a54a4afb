//! Seeds side by side: CE increase and explained variance against the sparsity coefficient, a point a seed.

use std::collections::BTreeSet;

use sae_config::Site;

use super::{Axis, Draw, Figure, Panel, Series};
use crate::SaeType;
use crate::evidence::{Evidence, Seeds};
use crate::style::{Look, Stroke};

/// The metrics that are drawn, with their labels.
const METRICS: [(&str, &str); 4] = [
    ("l0", "L0 (active features per token)"),
    ("ce_increase", "CE increase (nats per token)"),
    ("explained_variance", "Explained variance"),
    ("alive", "Alive features"),
];

/// A row of four panels a site.
pub(crate) fn figure(evidence: &Evidence) -> Figure {
    let mut figure = Figure::new("stability");
    let mut sites: Vec<Site> = evidence.stability.iter().map(|seeds| seeds.site).collect();
    sites.dedup();
    for site in sites {
        let groups: Vec<&Seeds> =
            evidence.stability.iter().filter(|seeds| seeds.site == site).collect();
        figure.rows.push(METRICS.map(|(name, label)| panel(site, &groups, name, label)).into());
    }
    figure
}

fn panel(site: Site, groups: &[&Seeds], name: &str, label: &str) -> Panel {
    let mut series = Vec::new();
    let types: BTreeSet<SaeType> = groups.iter().map(|seeds| seeds.variant).collect();
    for variant in types {
        let look = Look { stroke: Stroke::Solid, ..Look::of(variant) };
        let mut points = Vec::new();
        for seeds in groups.iter().filter(|seeds| seeds.variant == variant) {
            let Some(values) = seeds.metrics.get(name) else { continue };
            let own: Vec<(f64, f64)> = values.iter().map(|&value| (seeds.coeff, value)).collect();
            // A line joins the seeds of a coefficient: its length is what the seed makes.
            series.push(Series::new("", look, Draw::Line, own.clone()).unnamed());
            points.extend(own);
        }
        if !points.is_empty() {
            series.push(Series::new(variant.to_string(), look.faint(0.7), Draw::Points, points));
        }
    }
    let x = Axis::new("Sparsity coefficient").logarithmic();
    Panel::new(format!("{site}: every seed"), x, Axis::new(label), series)
}
