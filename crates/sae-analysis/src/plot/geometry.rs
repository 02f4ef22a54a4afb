//! How clustered dictionaries are: the largest cosine of each element, within its dictionary and to another one.

use std::collections::BTreeSet;

use sae_config::Site;

use super::histogram::outline;
use super::{Axis, Draw, Figure, Panel, Series, choice};
use crate::SaeType;
use crate::evidence::{AcrossRuns, AcrossWhat, Evidence, Within};
use crate::style::Look;

/// A row of four panels a site.
pub(crate) fn figure(evidence: &Evidence) -> Figure {
    let mut figure = Figure::new("geometry");
    for site in evidence.frontier.sites() {
        let within: Vec<&Within> =
            evidence.geometry.within.iter().filter(|found| found.site == site).collect();
        if within.is_empty() {
            continue;
        }
        figure.rows.push(vec![matched(evidence, site, &within), against_alive(site, &within)]);
        figure.rows.push(vec![
            across(evidence, site, AcrossWhat::Types),
            across(evidence, site, AcrossWhat::Seeds),
        ]);
    }
    figure
}

fn share() -> Axis {
    Axis::new("Share of the alive elements").including(0.0)
}

/// Histograms of the runs that are looked at closely.
fn matched(evidence: &Evidence, site: Site, within: &[&Within]) -> Panel {
    let chosen = |run: &str| {
        evidence.features.iter().any(|features| features.site == site && features.run == run)
    };
    let mut runs: Vec<&&Within> = within.iter().filter(|found| chosen(&found.run)).collect();
    runs.sort_by_key(|found| found.variant);
    let series = runs
        .into_iter()
        .map(|found| {
            let name = format!("{} ({}), mean {:.3}", found.variant, found.run, found.mean.value);
            outline(name, Look::of(found.variant), &found.cosines.histogram)
        })
        .collect();
    let title = format!("{site}: within the dictionary, {}", choice(evidence, site));
    Panel::new(title, Axis::new("Largest cosine to another element"), share(), series)
}

/// Every run's mean with its interval, against its alive features.
fn against_alive(site: Site, within: &[&Within]) -> Panel {
    let mut series = Vec::new();
    let types: BTreeSet<SaeType> = within.iter().map(|found| found.variant).collect();
    for variant in types {
        let own = || within.iter().filter(|found| found.variant == variant);
        let points: Vec<(f64, f64)> =
            own().map(|found| (found.alive as f64, found.mean.value)).collect();
        if points.is_empty() {
            continue;
        }
        for found in own() {
            if let Some(interval) = found.mean.interval {
                let x = found.alive as f64;
                let bar = vec![(x, interval.low), (x, interval.high)];
                let look = Look { stroke: crate::style::Stroke::Solid, ..Look::of(variant) };
                series.push(Series::new("", look, Draw::Line, bar).unnamed());
            }
        }
        series.push(Series::new(variant.to_string(), Look::of(variant), Draw::Points, points));
    }
    let title = format!("{site}: mean of every run, with its interval");
    let y = Axis::new("Mean largest cosine to another element");
    Panel::new(title, Axis::new("Alive features"), y, series)
}

fn across(evidence: &Evidence, site: Site, what: AcrossWhat) -> Panel {
    let found: Vec<&AcrossRuns> = evidence
        .geometry
        .across
        .iter()
        .filter(|found| found.site == site && found.what == what)
        .collect();
    let title = match what {
        AcrossWhat::Types => format!("{site}: to the nearest of another type"),
        AcrossWhat::Seeds => format!("{site}: to the nearest of another seed"),
    };
    if found.is_empty() {
        return Panel::empty(title, "no such runs");
    }
    let variant = |run: &str| {
        let of = |within: &&Within| within.run == run;
        evidence.geometry.within.iter().find(of).map_or(SaeType::OTHER, |within| within.variant)
    };
    let series = found
        .iter()
        .enumerate()
        .map(|(number, found)| match what {
            // Pairs of types have no colour of their own.
            AcrossWhat::Types => {
                let name = format!("{} → {}", variant(&found.from), variant(&found.to));
                let look = Look {
                    stroke: Look::of(variant(&found.to)).stroke,
                    ..Look::of(variant(&found.from))
                };
                outline(name, look, &found.cosines.histogram)
            }
            AcrossWhat::Seeds => {
                let name = format!("{} → {}", found.from, found.to);
                let look = Look {
                    stroke: Look::numbered(number).stroke,
                    ..Look::of(variant(&found.from))
                };
                outline(name, look, &found.cosines.histogram)
            }
        })
        .collect();
    Panel::new(title, Axis::new("Largest cosine to an element of the other"), share(), series)
}
