//! Largest cosines as histograms, their means against alive features, and differences of means with their intervals.

use sae_config::Site;

use super::{AcrossRuns, AcrossWhat, Difference, Geometry, Within};
use crate::bootstrap::Estimate;
use crate::draw::{Axis, Draw, Figure, Look, Looks, Panel, PointText, Series, outline};
use crate::evidence::Evidence;
use crate::matching::{BY, MatchBy};
use crate::runs::Group;
use crate::table::fixed;

pub(super) fn figure(found: &Geometry, evidence: &Evidence) -> Figure {
    let looks = evidence.looks();
    let mut figure = Figure::default();
    for site in evidence.frontier.sites() {
        let within: Vec<&Within> = found.within.iter().filter(|run| run.site == site).collect();
        if within.is_empty() {
            continue;
        }
        let mut first = Vec::new();
        for by in MatchBy::ALL {
            first.extend(matched(evidence, &looks, site, by, &within));
        }
        for by in MatchBy::ALL {
            // Against alive features, as in the paper, on disk.
            let panel = against(evidence, &looks, site, by, &within);
            first.push(panel.chosen(BY, by.to_string(), by == MatchBy::Alive));
        }
        figure.rows.push(first);
        let compared = [
            across(found, evidence, &looks, site, AcrossWhat::Types),
            across(found, evidence, &looks, site, AcrossWhat::Seeds),
        ];
        let mut compared: Vec<Panel> = compared.into_iter().flatten().collect();
        let mut last = Vec::new();
        for by in MatchBy::ALL {
            let own = found.differences.iter().filter(|pair| pair.site == site && pair.by == by);
            let own: Vec<&Difference> = own.collect();
            if !own.is_empty() {
                let at_first = by == evidence.match_by;
                last.push(differences(site, by, &looks, &own).at(site).chosen(
                    BY,
                    by.to_string(),
                    at_first,
                ));
            }
        }
        // Side by side, where there is room.
        if compared.len() < 2 {
            compared.append(&mut last);
        }
        figure.rows.extend([compared, last]);
    }
    figure.rows.retain(|row| !row.is_empty());
    figure
}

fn share() -> Axis {
    Axis::new("Share of the alive elements").including(0.0)
}

/// Histograms of the runs that are matched by a quantity; where none are, of those that are looked at closely.
fn matched(
    evidence: &Evidence,
    looks: &Looks,
    site: Site,
    by: MatchBy,
    within: &[&Within],
) -> Option<Panel> {
    let found = evidence.matches.iter().find(|found| found.site == site && found.by == by);
    let is_shown = |run: &str| match found {
        Some(found) => found.points.iter().any(|point| point.run == run),
        None => evidence.is_chosen(run, site),
    };
    let mut runs: Vec<&&Within> = within.iter().filter(|run| is_shown(&run.run)).collect();
    runs.sort_by_key(|run| &run.group);
    if runs.is_empty() {
        return None;
    }
    let series = runs.into_iter().map(|run| {
        let name = format!("{}, mean {:.3}", run.group, run.mean.value);
        outline(name, looks.group(&run.group), &run.cosines.histogram)
            .of(&run.group)
            .of_run(&run.run)
    });
    let which = found.map_or_else(
        || "one run of each type".to_owned(),
        |_| format!("runs matched by {}", by.describe()),
    );
    let title = format!("{site}: within the dictionary, {which}");
    let x = Axis::new("Largest cosine to another element");
    let panel = Panel::new(title, x, share(), series.collect()).at(site);
    Some(panel.chosen(BY, by.to_string(), by == evidence.match_by))
}

/// Every run's mean with its interval, against a quantity that runs are matched by.
fn against(
    evidence: &Evidence,
    looks: &Looks,
    site: Site,
    by: MatchBy,
    within: &[&Within],
) -> Panel {
    let place = |run: &Within| {
        let point =
            evidence.frontier.points.iter().find(|own| own.run == run.run && own.site == site);
        // Of the dictionary that was read: where features are counted above a frequency, it has those alone.
        let x = if by == MatchBy::Alive { run.alive as f64 } else { by.of(point?) };
        x.is_finite().then_some(x)
    };
    let mut series = Vec::new();
    for (group, look) in looks.groups() {
        let own = within.iter().filter(|run| run.group == *group);
        let own: Vec<(f64, &&Within)> = own.filter_map(|run| Some((place(run)?, run))).collect();
        for &(x, run) in &own {
            if let Some(interval) = run.mean.interval {
                let bar = vec![(x, interval.low), (x, interval.high)];
                let bar = Series::new("", look.solid(), Draw::Line, bar).unnamed();
                series.push(bar.of(group).of_run(&run.run));
            }
        }
        let points = own.iter().map(|(x, run)| (*x, run.mean.value)).collect();
        let texts = own.iter().map(|(_, run)| (run.run.clone(), point_text(run))).collect();
        if !own.is_empty() {
            let points = Series::new(group.to_string(), look, Draw::Points, points);
            series.push(points.of(group).with_text(PointText::Runs(texts)));
        }
    }
    let title = format!("{site}: mean of every run against {}", by.describe());
    let y = Axis::new("Mean largest cosine to another element");
    let x = Axis::new(match by {
        MatchBy::CeIncrease => "CE increase (nats per token)",
        MatchBy::L0 => "L0 (active features per token)",
        MatchBy::Alive => "Alive features",
    });
    Panel::new(title, x, y, series).at(site)
}

fn point_text(run: &Within) -> String {
    let mean = fixed(run.mean.value, 4);
    format!(
        "{}\nType: {}\nAlive: {}\nMean: {mean}\n{}",
        run.run,
        run.group,
        run.alive,
        interval(&run.mean)
    )
}

fn interval(estimate: &Estimate) -> String {
    let percent = estimate.options.confidence * 100.0;
    estimate.interval.map_or_else(
        || "No interval".to_owned(),
        |found| {
            format!("{percent} % interval: {} to {}", fixed(found.low, 4), fixed(found.high, 4))
        },
    )
}

/// From one dictionary to another: the colour is that of the group that looks, the stroke that of the other.
fn across(
    found: &Geometry,
    evidence: &Evidence,
    looks: &Looks,
    site: Site,
    what: AcrossWhat,
) -> Option<Panel> {
    let pairs: Vec<&AcrossRuns> =
        found.across.iter().filter(|pair| pair.site == site && pair.what == what).collect();
    if pairs.is_empty() {
        return None;
    }
    let look =
        |run: &str| evidence.group_of(run).map_or_else(Look::neutral, |group| looks.group(group));
    let name = |run: &str| evidence.group_of(run).map(Group::to_string).unwrap_or_default();
    let series = pairs.iter().enumerate().map(|(number, pair)| {
        let (name, stroke) = match what {
            AcrossWhat::Types => {
                (format!("{} → {}", name(&pair.from), name(&pair.to)), look(&pair.to).stroke)
            }
            AcrossWhat::Seeds => {
                (format!("{} → {}", pair.from, pair.to), Look::numbered(number).stroke)
            }
        };
        let drawn = outline(name, Look { stroke, ..look(&pair.from) }, &pair.cosines.histogram);
        let drawn = drawn.of_run(&pair.from);
        evidence.group_of(&pair.from).map_or(drawn.clone(), |group| drawn.of(group))
    });
    let (title, note) = match what {
        AcrossWhat::Types => (
            format!("{site}: to the nearest of another type, {}", evidence.choice(site)),
            "Colour: the type whose elements look for a neighbour. Strokes: the type in which they do.",
        ),
        AcrossWhat::Seeds => (
            format!("{site}: to the nearest of another seed"),
            "Runs that differ from those that are looked at closely in the seed alone.",
        ),
    };
    let x = Axis::new("Largest cosine to an element of the other");
    Some(Panel::new(title, x, share(), series.collect()).at(site).noted(note))
}

/// A row a pair of groups.
fn differences(site: Site, by: MatchBy, looks: &Looks, found: &[&Difference]) -> Panel {
    let names: Vec<String> =
        found.iter().map(|pair| format!("{} − {}", pair.of, pair.less)).collect();
    let mut series = Vec::new();
    let last = found.len() as f64 - 1.0;
    series.push(
        Series::new("", Look::neutral(), Draw::Line, vec![(0.0, -0.5), (0.0, last + 0.5)])
            .unnamed(),
    );
    for (place, (pair, name)) in found.iter().zip(&names).enumerate() {
        // The first is at the top.
        let y = last - place as f64;
        let look = looks.group(&pair.of).solid();
        if let Some(interval) = pair.estimate.interval {
            let bar = vec![(interval.low, y), (interval.high, y)];
            series.push(Series::new("", look, Draw::Line, bar).unnamed().of(&pair.of));
        }
        let text = format!(
            "{name}\nDifference: {}\n{}",
            fixed(pair.estimate.value, 4),
            interval(&pair.estimate)
        );
        let point = Series::new("", look, Draw::Points, vec![(pair.estimate.value, y)]).unnamed();
        series.push(point.of(&pair.of).with_text(PointText::Runs(vec![(String::new(), text)])));
    }
    let title =
        format!("{site}: differences of mean largest cosines, runs matched by {}", by.describe());
    let x = Axis::new("Difference, with its interval").including(0.0);
    let y = Axis::new("").fixed(-0.5, last + 0.5).named(names.into_iter().rev().collect());
    Panel::new(title, x, y, series)
        .noted("Above 0, the first is the more tightly clustered. An interval is over the elements of one run each.")
}
