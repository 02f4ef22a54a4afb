//! How often features are active, and what that goes with: a row of panels a site.

use sae_config::Site;

use super::{RunFeatures, ScatterPoint};
use crate::draw::{Axis, Draw, Figure, Looks, MOST_POINTS, Panel, PointText, Series, outline};
use crate::evidence::Evidence;
use crate::thin::thin;

/// The choice of what is set against the frequency.
pub(super) const SIZE: &str = "size";

type Size = (&'static str, &'static str, fn(&ScatterPoint) -> f64);

/// What may be: its name in the choice, its label, its number.
pub(super) const SIZES: [Size; 3] = [
    ("decoder_norm", "decoder norm as trained (rows are stored at unit length)", |point| {
        point.decoder_norm
    }),
    ("encoder_norm", "encoder norm", |point| point.encoder_norm),
    ("encoder_bias", "encoder bias", |point| point.encoder_bias),
];

pub(super) fn figure(found: &[RunFeatures], evidence: &Evidence) -> Figure {
    let looks = evidence.looks();
    let mut figure = Figure::default();
    let mut sites: Vec<Site> = found.iter().map(|run| run.site).collect();
    sites.dedup();
    for site in sites {
        let runs: Vec<&RunFeatures> = found.iter().filter(|run| run.site == site).collect();
        let mut row =
            vec![frequencies(&format!("frequencies, {}", evidence.choice(site)), &runs, &looks)];
        for size in SIZES {
            // On disk stand those that the paper's figures have.
            let panel = density(&runs, &looks, size).chosen(SIZE, size.0, size.0 != "encoder_norm");
            row.push(panel);
        }
        let at =
            |panel: Panel| Panel { title: format!("{site}: {}", panel.title), ..panel.at(site) };
        figure.rows.push(row.into_iter().map(at).collect());
    }
    figure
}

fn frequencies(title: &str, runs: &[&RunFeatures], looks: &Looks) -> Panel {
    let series = runs.iter().map(|run| {
        let drawn = outline(
            run.group.to_string(),
            looks.group(&run.group),
            &run.statistics.log10_frequency,
        );
        drawn.of(&run.group).of_run(&run.run)
    });
    let y = Axis::new("Share of the alive features").including(0.0);
    Panel::new(title, Axis::new("log₁₀ of the activation frequency"), y, series.collect())
}

fn density(runs: &[&RunFeatures], looks: &Looks, (_, label, of): Size) -> Panel {
    let series = runs.iter().map(|run| {
        let shown = thin(&run.statistics.scatter, MOST_POINTS);
        let points = shown.iter().map(|point| (point.log10_frequency, of(point))).collect();
        let features = shown.iter().map(|point| point.feature as usize).collect();
        Series::new(run.group.to_string(), looks.group(&run.group).faint(0.5), Draw::Dots, points)
            .of(&run.group)
            .of_run(&run.run)
            .with_text(PointText::Features(features))
    });
    let name = label.split(" (").next().unwrap_or(label);
    let mut letters = name.chars();
    let label: String =
        letters.next().into_iter().flat_map(char::to_uppercase).chain(letters).collect();
    let x = Axis::new("log₁₀ of the activation frequency");
    Panel::new(format!("{label} against frequency"), x, Axis::new(label), series.collect())
}
