//! MSE and explained variance at every later site, a pair of panels a site of dictionaries.

use sae_config::Site;

use super::{Downstream, DownstreamLayer};
use crate::draw::{Axis, Draw, Figure, Look, Looks, Panel, PointText, Series};
use crate::evidence::Evidence;
use crate::table::{fixed, significant};

pub(super) fn figure(found: &[Downstream], evidence: &Evidence) -> Figure {
    let looks = evidence.looks();
    let mut sites: Vec<Site> = found.iter().map(|run| run.site).collect();
    sites.dedup();
    let mut figure = Figure::default();
    for site in sites {
        let runs: Vec<&Downstream> = found.iter().filter(|run| run.site == site).collect();
        let title = format!("After {site}, {}", evidence.choice(site));
        let mut row = vec![
            panel(&title, &runs, &looks, "MSE to the original activations", 0.0, |layer| layer.mse)
                .at(site),
            panel(&title, &runs, &looks, "Explained variance", 1.0, |layer| {
                layer.explained_variance
            })
            .at(site),
        ];
        let is_normalised = |layer: &DownstreamLayer| layer.explained_variance_normalised.is_some();
        if runs.iter().all(|run| run.layers.iter().all(is_normalised)) {
            let label = "Explained variance after a layer norm";
            let normalised = panel(&title, &runs, &looks, label, 1.0, |layer| {
                layer.explained_variance_normalised.unwrap_or(f64::NAN)
            });
            row.push(normalised.at(site));
        }
        figure.rows.push(row);
    }
    figure
}

fn panel(
    title: &str,
    runs: &[&Downstream],
    looks: &Looks,
    label: &str,
    original: f64,
    of: fn(&DownstreamLayer) -> f64,
) -> Panel {
    let mut sites: Vec<Site> =
        runs.iter().flat_map(|run| run.layers.iter().map(|layer| layer.site)).collect();
    sites.sort_unstable();
    sites.dedup();
    let place = |site: Site| sites.iter().position(|&other| other == site).unwrap_or(0) as f64;
    let line = sites.iter().map(|&site| (place(site), original)).collect();
    let mut series = vec![Series::new("original", Look::neutral(), Draw::Line, line)];
    for run in runs {
        let points = run.layers.iter().map(|layer| (place(layer.site), of(layer))).collect();
        let texts =
            run.layers.iter().map(|layer| (run.run.clone(), point_text(run, layer))).collect();
        let drawn =
            Series::new(run.group.to_string(), looks.group(&run.group), Draw::MarkedLine, points);
        series.push(drawn.of(&run.group).of_run(&run.run).with_text(PointText::Runs(texts)));
    }
    let x = Axis::new("Later site, in the order of computation").named(short_names(&sites));
    Panel::new(format!("{title}: {label}"), x, Axis::new(label).including(original), series)
}

fn point_text(run: &Downstream, layer: &DownstreamLayer) -> String {
    format!(
        "{}\nType: {}\nAt: {}\nExplained variance: {}\nMSE: {}",
        run.run,
        run.group,
        layer.site,
        fixed(layer.explained_variance, 4),
        significant(layer.mse)
    )
}

/// `5.resid_pre` for `blocks.5.hook_resid_pre`.
fn short_names(sites: &[Site]) -> Vec<String> {
    let short =
        |site: &Site| format!("{}.{}", site.block, site.kind.name().trim_start_matches("hook_"));
    sites.iter().map(short).collect()
}
