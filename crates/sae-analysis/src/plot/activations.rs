//! Activations at a site: by position in the window, and along principal directions.

use std::collections::BTreeMap;

use sae_config::Site;
use sae_record::activations::SaeActivations;

use super::lines::{marked, over_index};
use super::{Axis, Draw, Figure, Panel, Series};
use crate::SaeType;
use crate::evidence::{Evidence, SiteEvidence};
use crate::style::Look;

/// The most principal directions that are drawn over positions.
const DIRECTIONS: usize = 4;

/// Two rows of three panels a site.
pub(crate) fn figure(evidence: &Evidence) -> Figure {
    let mut figure = Figure::new("activations");
    for (site, found) in &evidence.activations {
        let runs = shown(evidence, *site, found);
        figure.rows.extend([
            vec![
                norms(*site, found),
                by_position(&runs, "‖SAE(x)‖ / ‖x‖", |run| &run.norm_ratio),
                by_position(&runs, "Cosine of x and SAE(x)", |run| &run.cosine),
            ],
            vec![directions(found), resampling(found), explained(&runs)],
        ]);
    }
    figure
}

struct Shown<'a> {
    run: &'a str,
    variant: SaeType,
    found: &'a SaeActivations,
}

/// The measured runs that are looked at closely; of each type the first measured one where there are none.
fn shown<'a>(evidence: &'a Evidence, site: Site, found: &'a SiteEvidence) -> Vec<Shown<'a>> {
    let variant = |run: &str| {
        let facts = evidence.runs.iter().find(|facts| facts.run == run);
        facts.map_or(SaeType::OTHER, |facts| facts.variant)
    };
    let chosen = |run: &str| {
        evidence.features.iter().any(|features| features.site == site && features.run == run)
    };
    let all = || {
        let runs = found.runs.iter();
        runs.map(|(run, found)| Shown { run, variant: variant(run), found })
    };
    let matched: BTreeMap<SaeType, Shown<'_>> =
        all().filter(|shown| chosen(shown.run)).map(|shown| (shown.variant, shown)).collect();
    if !matched.is_empty() {
        return matched.into_values().collect();
    }
    let mut first: BTreeMap<SaeType, Shown<'_>> = BTreeMap::new();
    for shown in all() {
        first.entry(shown.variant).or_insert(shown);
    }
    first.into_values().collect()
}

fn position() -> Axis {
    Axis::new("Position in the window")
}

fn direction() -> Axis {
    Axis::new("Principal direction, the one of most variance first")
}

fn norms(site: Site, found: &SiteEvidence) -> Panel {
    let look = Look { stroke: crate::style::Stroke::Solid, ..Look::neutral() };
    let series = vec![over_index("original", look, &found.model.norm)];
    // The first position's norm is often a hundred times the others'.
    Panel::new(format!("{site}: norm"), position(), Axis::new("Mean of ‖x‖").logarithmic(), series)
}

fn by_position(runs: &[Shown<'_>], label: &str, of: fn(&SaeActivations) -> &[f64]) -> Panel {
    let lines = runs.iter().map(|shown| {
        let name = format!("{} ({})", shown.variant, shown.run);
        over_index(name, Look::of(shown.variant), of(shown.found))
    });
    let longest = runs.iter().map(|shown| of(shown.found).len()).max().unwrap_or(0);
    let one = (0..longest).map(|place| (place as f64, 1.0)).collect();
    let series = std::iter::once(Series::new("original", Look::neutral(), Draw::Line, one))
        .chain(lines)
        .collect();
    Panel::new(format!("{label} by position"), position(), Axis::new(label), series)
}

fn directions(found: &SiteEvidence) -> Panel {
    let directions = found.model.directions.iter().take(DIRECTIONS).enumerate();
    let series = directions.map(|(number, direction)| {
        let share = 100.0 * direction.variance_share;
        let name = format!("{}: {share:.1} % of the variance", number + 1);
        over_index(name, Look::numbered(number), &direction.by_position)
    });
    let y = Axis::new("Mean of u · (x − mean x)");
    Panel::new("First principal directions by position", position(), y, series.collect())
}

fn resampling(found: &SiteEvidence) -> Panel {
    let directions = &found.model.directions;
    let kl: Vec<f64> = directions.iter().map(|direction| direction.resampling_kl).collect();
    let random = found.model.random_resampling_kl;
    let random = (1..=directions.len()).map(|place| (place as f64, random)).collect();
    let solid = Look { stroke: crate::style::Stroke::Solid, ..Look::neutral() };
    let series = vec![
        marked("principal direction", Look { marker: crate::style::Marker::Circle, ..solid }, &kl),
        Series::new("random direction", Look::neutral(), Draw::Line, random),
    ];
    let y = Axis::new("KL(resampled ‖ original), nats per token").logarithmic();
    Panel::new("What each direction matters to the output", direction(), y, series)
}

fn explained(runs: &[Shown<'_>]) -> Panel {
    let series = runs.iter().map(|shown| {
        let name = format!("{} ({})", shown.variant, shown.run);
        marked(name, Look::of(shown.variant), &shown.found.explained_variance)
    });
    let y = Axis::new("Explained variance along it").including(1.0);
    Panel::new("What of each direction the SAE keeps", direction(), y, series.collect())
}
