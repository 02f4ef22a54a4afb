//! Activations at a site by position in the window, and along principal directions: two rows of three panels a site.

use std::collections::BTreeMap;

use sae_config::Site;
use sae_record::activations::SaeActivations;

use super::SiteEvidence;
use crate::draw::{Axis, Draw, Figure, Look, Looks, Marker, Panel, Series, over_index};
use crate::evidence::Evidence;
use crate::runs::Group;

/// The most principal directions that are drawn over positions.
const DIRECTIONS: usize = 4;

pub(super) fn figure(all: &BTreeMap<Site, SiteEvidence>, evidence: &Evidence) -> Figure {
    let looks = evidence.looks();
    let mut figure = Figure::default();
    for (site, found) in all {
        let runs = shown(evidence, *site, found);
        let rows = [
            vec![
                norms(found),
                by_position(&runs, &looks, "‖SAE(x)‖ / ‖x‖", |run| &run.norm_ratio),
                by_position(&runs, &looks, "Cosine of x and SAE(x)", |run| &run.cosine),
            ],
            vec![directions(found), resampling(found), explained(&runs, &looks)],
        ];
        let at =
            |panel: Panel| Panel { title: format!("{site}: {}", panel.title), ..panel.at(*site) };
        figure.rows.extend(rows.map(|row| row.into_iter().map(at).collect()));
    }
    figure
}

struct Shown<'a> {
    run: &'a str,
    group: Group,
    found: &'a SaeActivations,
}

impl Shown<'_> {
    fn series(&self, looks: &Looks, draw: Draw, points: Vec<(f64, f64)>) -> Series {
        Series::new(self.group.to_string(), looks.group(&self.group), draw, points)
            .of(&self.group)
            .of_run(self.run)
    }
}

/// The measured runs that are looked at closely; of each group the first measured one where there are none.
fn shown<'a>(evidence: &'a Evidence, site: Site, found: &'a SiteEvidence) -> Vec<Shown<'a>> {
    let of = |(run, found): (&'a String, &'a SaeActivations)| {
        Some(Shown { run, group: evidence.group_of(run)?.clone(), found })
    };
    let all = || found.runs.iter().filter_map(of);
    let any_chosen = all().any(|shown| evidence.is_chosen(shown.run, site));
    let mut first: BTreeMap<Group, Shown<'_>> = BTreeMap::new();
    for shown in all().filter(|shown| !any_chosen || evidence.is_chosen(shown.run, site)) {
        first.entry(shown.group.clone()).or_insert(shown);
    }
    first.into_values().collect()
}

fn position() -> Axis {
    Axis::new("Position in the window")
}

fn direction() -> Axis {
    Axis::new("Principal direction, the one of most variance first")
}

fn norms(found: &SiteEvidence) -> Panel {
    let points = over_index(&found.model.norm, 0);
    let series = vec![Series::new("original", Look::neutral().solid(), Draw::Line, points)];
    // The first position's norm is often a hundred times the others'.
    Panel::new("norm by position", position(), Axis::new("Mean of ‖x‖").logarithmic(), series)
}

fn by_position(
    runs: &[Shown<'_>],
    looks: &Looks,
    label: &str,
    of: fn(&SaeActivations) -> &[f64],
) -> Panel {
    let longest = runs.iter().map(|shown| of(shown.found).len()).max().unwrap_or(0);
    let one = (0..longest).map(|place| (place as f64, 1.0)).collect();
    let original = Series::new("original", Look::neutral(), Draw::Line, one);
    let lines =
        runs.iter().map(|shown| shown.series(looks, Draw::Line, over_index(of(shown.found), 0)));
    let series = std::iter::once(original).chain(lines).collect();
    Panel::new(format!("{label} by position"), position(), Axis::new(label), series)
}

fn directions(found: &SiteEvidence) -> Panel {
    let directions = found.model.directions.iter().take(DIRECTIONS).enumerate();
    let series = directions.map(|(number, direction)| {
        let share = 100.0 * direction.variance_share;
        let name = format!("{}: {share:.1} % of the variance", number + 1);
        let points = over_index(&direction.by_position, 0);
        Series::new(name, Look::numbered(number), Draw::Line, points)
    });
    let y = Axis::new("Mean of u · (x − mean x)");
    Panel::new("First principal directions by position", position(), y, series.collect())
}

fn resampling(found: &SiteEvidence) -> Panel {
    let directions = &found.model.directions;
    let kl: Vec<f64> = directions.iter().map(|direction| direction.resampling_kl).collect();
    let random = found.model.random_resampling_kl;
    let random = (1..=directions.len()).map(|place| (place as f64, random)).collect();
    let look = Look { marker: Marker::Circle, ..Look::neutral().solid() };
    let series = vec![
        Series::new("principal direction", look, Draw::MarkedLine, over_index(&kl, 1)),
        Series::new("random direction", Look::neutral(), Draw::Line, random),
    ];
    let y = Axis::new("KL(resampled ‖ original), nats per token").logarithmic();
    Panel::new("What each direction matters to the output", direction(), y, series)
}

fn explained(runs: &[Shown<'_>], looks: &Looks) -> Panel {
    let series = runs.iter().map(|shown| {
        shown.series(looks, Draw::MarkedLine, over_index(&shown.found.explained_variance, 1))
    });
    let y = Axis::new("Explained variance along it").including(1.0);
    Panel::new("What of each direction the dictionary keeps", direction(), y, series.collect())
}
