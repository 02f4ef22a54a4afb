//! How close matched runs stay to the original later in the model: MSE and explained variance at every later site.

use sae_config::Site;

use super::{Axis, Draw, Figure, Panel, Series, choice};
use crate::evidence::{Downstream, DownstreamLayer, Evidence};
use crate::style::Look;

pub(crate) fn figure(evidence: &Evidence) -> Figure {
    let mut sites: Vec<Site> = evidence.downstream.iter().map(|found| found.site).collect();
    sites.dedup();
    let mut figure = Figure::new("downstream");
    for site in sites {
        let runs: Vec<&Downstream> =
            evidence.downstream.iter().filter(|found| found.site == site).collect();
        let title = format!("After the SAE at {site}, {}", choice(evidence, site));
        figure.rows.push(vec![
            panel(&title, &runs, "MSE to the original activations", 0.0, |layer| layer.mse),
            panel(&title, &runs, "Explained variance", 1.0, |layer| layer.explained_variance),
        ]);
    }
    figure
}

fn panel(
    title: &str,
    runs: &[&Downstream],
    label: &str,
    original: f64,
    of: fn(&DownstreamLayer) -> f64,
) -> Panel {
    let mut sites: Vec<Site> =
        runs.iter().flat_map(|run| run.layers.iter().map(|layer| layer.site)).collect();
    sites.sort_unstable();
    sites.dedup();
    let place = |site: Site| sites.iter().position(|&other| other == site).unwrap_or(0) as f64;
    let mut series: Vec<Series> = vec![Series::new(
        "original",
        Look::neutral(),
        Draw::Line,
        sites.iter().map(|&site| (place(site), original)).collect(),
    )];
    for run in runs {
        let points = run.layers.iter().map(|layer| (place(layer.site), of(layer))).collect();
        let name = format!("{} ({})", run.variant, run.run);
        series.push(Series::new(name, Look::of(run.variant), Draw::MarkedLine, points));
    }
    let x = Axis::new("Later site, in the order of computation").named(short_names(&sites));
    Panel::new(title, x, Axis::new(label).including(original), series)
}

/// `5.resid_pre` for `blocks.5.hook_resid_pre`.
fn short_names(sites: &[Site]) -> Vec<String> {
    let short =
        |site: &Site| format!("{}.{}", site.block, site.kind.name().trim_start_matches("hook_"));
    sites.iter().map(short).collect()
}
