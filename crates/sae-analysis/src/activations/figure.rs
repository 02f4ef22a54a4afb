//! Activations at a site by position in the window, and along principal directions: rows of panels a site.

use std::collections::BTreeMap;

use sae_config::Site;
use sae_record::activations::{Direction, SaeActivations};

use super::SiteEvidence;
use crate::draw::{
    Axis, Draw, Figure, Look, Looks, MOST_POINTS, Marker, Panel, Series, outline, over_index,
};
use crate::evidence::Evidence;
use crate::histogram::{Histogram, even_edges};
use crate::runs::Group;
use crate::thin::thin;

/// The most principal directions that are drawn over positions.
const DIRECTIONS: usize = 4;
/// The most of which reconstructions are drawn over positions, a panel each.
const FOLLOWED: usize = 3;

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
            vec![cosines(&runs, &looks), norm_pairs(&runs, &looks), correlations(&runs, &looks)],
            followed(found, &runs, &looks),
            vec![along_first(found)],
        ];
        let at =
            |panel: Panel| Panel { title: format!("{site}: {}", panel.title), ..panel.at(*site) };
        let rows = rows.map(|row| row.into_iter().map(at).collect::<Vec<_>>());
        figure.rows.extend(rows.into_iter().filter(|row| !row.is_empty()));
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

/// Shares of tokens by the cosine between x and its reconstruction.
fn cosines(runs: &[Shown<'_>], looks: &Looks) -> Panel {
    let series = runs.iter().filter_map(|shown| {
        let outline = counted(&shown.found.cosines, [-1.0, 1.0])?;
        Some(shown.series(looks, Draw::Line, outline))
    });
    let x = Axis::new("Cosine of x and SAE(x)");
    Panel::new("Tokens by their cosine", x, share(), series.collect())
}

fn share() -> Axis {
    Axis::new("Share of the tokens").including(0.0)
}

/// The outline of counts in bins that are evenly spaced over a range.
fn counted(counts: &[u64], [low, high]: [f64; 2]) -> Option<Vec<(f64, f64)>> {
    let histogram = Histogram {
        edges: even_edges(low, high, counts.len()),
        counts: counts.to_vec(),
        below: 0,
        above: 0,
    };
    let rises = low < high && !counts.is_empty();
    rises.then(|| outline("", Look::neutral(), &histogram).points)
}

/// The norm of every sampled token's reconstruction against its own.
fn norm_pairs(runs: &[Shown<'_>], looks: &Looks) -> Panel {
    let all = || runs.iter().flat_map(|shown| &shown.found.norms);
    let low = all().map(|[own, _]| *own).fold(f64::INFINITY, f64::min);
    let high = all().map(|[own, _]| *own).fold(f64::NEG_INFINITY, f64::max);
    let mut series = Vec::new();
    if low < high {
        let line = vec![(low, low), (high, high)];
        series.push(Series::new("original", Look::neutral(), Draw::Line, line));
    }
    for shown in runs {
        let points: Vec<[f64; 2]> = thin(&shown.found.norms, MOST_POINTS);
        let points = points.into_iter().map(|[own, hat]| (own, hat)).collect();
        let mut cloud = shown.series(looks, Draw::Dots, points);
        cloud.look = cloud.look.faint(0.5);
        series.push(cloud);
    }
    let x = Axis::new("‖x‖").logarithmic();
    let y = Axis::new("‖SAE(x)‖").logarithmic();
    Panel::new("Norms of tokens", x, y, series)
}

/// What is none as no number.
pub(super) fn or_nan(values: &[Option<f64>]) -> Vec<f64> {
    values.iter().map(|value| value.unwrap_or(f64::NAN)).collect()
}

fn correlations(runs: &[Shown<'_>], looks: &Looks) -> Panel {
    let series = runs.iter().map(|shown| {
        shown.series(looks, Draw::MarkedLine, over_index(&or_nan(&shown.found.correlation), 1))
    });
    let y = Axis::new("Correlation of u · x and u · SAE(x)").including(1.0);
    Panel::new("Correlation along each direction", direction(), y, series.collect())
        .noted("Without the tokens at the first position.")
}

/// A panel a principal direction: the mean component by position, of x and of reconstructions.
fn followed(found: &SiteEvidence, runs: &[Shown<'_>], looks: &Looks) -> Vec<Panel> {
    let panel = |(number, direction): (usize, &Direction)| {
        let points = over_index(&direction.by_position, 0);
        let original = Series::new("original", Look::neutral().solid(), Draw::Line, points);
        let hats = runs.iter().filter_map(|shown| {
            let values = shown.found.reconstructed_by_position.get(number)?;
            Some(shown.series(looks, Draw::Line, over_index(values, 0)))
        });
        let series: Vec<Series> = std::iter::once(original).chain(hats).collect();
        let y = Axis::new("Mean of u · (SAE(x) − mean x)");
        Panel::new(format!("direction {} by position", number + 1), position(), y, series)
    };
    found.model.directions.iter().take(FOLLOWED).enumerate().map(panel).collect()
}

/// Tokens by their component along the first principal direction, apart by what they are.
fn along_first(found: &SiteEvidence) -> Panel {
    let series = found.model.along_first.iter().enumerate().filter_map(|(number, own)| {
        let outline = counted(&own.counts, own.range)?;
        Some(Series::new(own.kind.clone(), Look::numbered(number), Draw::Line, outline))
    });
    let x = Axis::new("u · x along the first principal direction");
    Panel::new("Tokens along the first principal direction", x, share(), series.collect())
        .noted("Of each kind of token by itself.")
}
