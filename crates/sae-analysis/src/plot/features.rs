//! The features of matched runs: how often they are active, and what that goes with.

use sae_config::Site;

use super::histogram::outline;
use super::scatter::cloud;
use super::{Axis, Figure, Panel, Series, choice};
use crate::evidence::{Evidence, RunFeatures};
use crate::features::ScatterPoint;
use crate::style::Look;

/// A row of three panels a site.
pub(crate) fn figure(evidence: &Evidence) -> Figure {
    let mut figure = Figure::new("features");
    let mut sites: Vec<Site> = evidence.features.iter().map(|features| features.site).collect();
    sites.dedup();
    for site in sites {
        let runs: Vec<&RunFeatures> =
            evidence.features.iter().filter(|features| features.site == site).collect();
        figure.rows.push(vec![
            frequencies(&format!("{site}, {}", choice(evidence, site)), &runs),
            density(&runs, "Norm of the decoder row as trained", |point| point.decoder_norm),
            density(&runs, "Encoder bias", |point| point.encoder_bias),
        ]);
    }
    figure
}

fn frequencies(title: &str, runs: &[&RunFeatures]) -> Panel {
    let series = runs
        .iter()
        .map(|run| {
            let name = format!("{} ({})", run.variant, run.run);
            outline(name, Look::of(run.variant), &run.statistics.log10_frequency)
        })
        .collect();
    let y = Axis::new("Share of the alive features").including(0.0);
    Panel::new(title, Axis::new("log₁₀ of the activation frequency"), y, series)
}

fn density(runs: &[&RunFeatures], label: &str, of: fn(&ScatterPoint) -> f64) -> Panel {
    let series: Vec<Series> = runs
        .iter()
        .map(|run| {
            let points: Vec<(f64, f64)> = run
                .statistics
                .scatter
                .iter()
                .map(|point| (point.log10_frequency, of(point)))
                .collect();
            cloud(run.variant.to_string(), Look::of(run.variant), &points)
        })
        .collect();
    let x = Axis::new("log₁₀ of the activation frequency");
    Panel::new(format!("{label} against frequency"), x, Axis::new(label), series)
}
