//! Balanced accuracies of the features of matched runs as violins: to the right with their explanations, to the left with explanations of
//! other features; and their means with intervals.

use super::{ExplanationEvidence, RunScores, SiteExplanations, Task, TaskScores};
use crate::bootstrap::Estimate;
use crate::draw::{Axis, Draw, Figure, Look, Looks, Panel, PointText, Series};
use crate::evidence::Evidence;
use crate::matching::{BY, Match, MatchBy};
use crate::table::fixed;

/// Steps of an outline.
const STEPS: u32 = 80;
/// The width of a violin, of the room between two.
const WIDTH: f64 = 0.42;
/// The least bandwidth: accuracies over ten excerpts are a tenth apart.
const LEAST: f64 = 0.04;

pub(super) fn figure(found: &ExplanationEvidence, evidence: &Evidence) -> Figure {
    let looks = evidence.looks();
    let mut figure = Figure::default();
    for (site, at) in &found.sites {
        let mut row = Vec::new();
        for by in MatchBy::ALL {
            let matched =
                evidence.matches.iter().find(|found| found.site == *site && found.by == by);
            let runs = shown(at, matched);
            let which = matched.map_or_else(
                || "all scored runs".to_owned(),
                |_| format!("runs matched by {}", by.describe()),
            );
            for task in Task::ALL {
                let scored: Vec<(&RunScores, &TaskScores)> =
                    runs.iter().filter_map(|run| Some((*run, run.tasks.get(&task)?))).collect();
                if scored.is_empty() {
                    continue;
                }
                let title = format!("{site}: {task}, {which}");
                let panel = violins(title, &scored, &looks).at(*site);
                row.push(panel.chosen(BY, by.to_string(), by == evidence.match_by));
            }
        }
        figure.rows.push(row);
    }
    figure.rows.retain(|row| !row.is_empty());
    figure
}

/// The scored runs that are matched by a quantity; where none are matched, all.
fn shown<'a>(at: &'a SiteExplanations, matched: Option<&Match>) -> Vec<&'a RunScores> {
    let is_shown = |run: &&RunScores| {
        matched.is_none_or(|found| found.points.iter().any(|point| point.run == run.point.run))
    };
    let mut runs: Vec<&RunScores> = at.runs.iter().filter(is_shown).collect();
    runs.sort_by(|a, b| a.point.group.cmp(&b.point.group));
    runs
}

fn violins(title: String, scored: &[(&RunScores, &TaskScores)], looks: &Looks) -> Panel {
    let mut series = Vec::new();
    let mut names = Vec::new();
    for (place, (run, scores)) in scored.iter().enumerate() {
        let (group, x) = (&run.point.group, place as f64);
        names.push(group.to_string());
        let look = looks.group(group).solid();
        let neutral = Look::neutral().solid().faint(0.7);
        let halves = [
            (&scores.of_features_shuffled, -1.0, neutral, "Explanations of other features"),
            (&scores.of_features, 1.0, look, "Explanations of the features"),
        ];
        for (values, side, look, name) in halves {
            let outline = Series::new(name, look, Draw::Line, outline(values, x, side)).unnamed();
            series.push(outline.of(group).of_run(&run.point.run));
        }
        let means = [
            (scores.shuffled.as_ref(), x - 0.06, neutral, "explanations of other features"),
            (Some(&scores.balanced), x + 0.06, look, "explanations of the features"),
        ];
        for (estimate, x, look, name) in means {
            let Some(estimate) = estimate else { continue };
            if let Some(found) = estimate.interval {
                let bar = vec![(x, found.low), (x, found.high)];
                let bar = Series::new("", look.faint(1.0), Draw::Line, bar).unnamed();
                series.push(bar.of(group).of_run(&run.point.run));
            }
            let points = vec![(x, estimate.value)];
            let text = vec![(run.point.run.clone(), text(run, estimate, name))];
            let look = Look { opacity: 1.0, ..look };
            let point = Series::new("", look, Draw::Points, points).unnamed();
            series.push(point.of(group).with_text(PointText::Runs(text)));
        }
    }
    let last = scored.len() as f64 - 1.0;
    let x = Axis::new("").fixed(-0.6, last + 0.6).named(names);
    let y = Axis::new("Balanced accuracy of a feature").fixed(0.0, 1.0);
    let mut chance = vec![Series::new(
        "chance",
        Look::neutral(),
        Draw::Line,
        vec![(-0.6, 0.5), (last + 0.6, 0.5)],
    )];
    chance.append(&mut series);
    Panel::new(title, x, y, chance)
        .noted("To the right: with the feature's own explanation. To the left, grey: with that of another feature. Points are means, with intervals over features.")
}

fn text(run: &RunScores, estimate: &Estimate, name: &str) -> String {
    [
        run.point.run.clone(),
        format!("Type: {}", run.point.group),
        format!("Mean balanced accuracy, {name}: {}", fixed(estimate.value, 3)),
        format!("Interval: {}", estimate.interval_text()),
    ]
    .join("\n")
}

/// Half of the outline of a density (Gaussian kernels, Scott's bandwidth), as wide as [`WIDTH`] where it is highest.
fn outline(values: &[f64], x: f64, side: f64) -> Vec<(f64, f64)> {
    let n = values.len() as f64;
    if values.is_empty() {
        return Vec::new();
    }
    let centre = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|value| (value - centre).powi(2)).sum::<f64>() / n;
    let width = (variance.sqrt() * n.powf(-0.2)).max(LEAST);
    let density = |y: f64| -> f64 {
        values.iter().map(|value| (-0.5 * ((y - value) / width).powi(2)).exp()).sum()
    };
    let places = (0..=STEPS).map(|step| f64::from(step) / f64::from(STEPS));
    let densities: Vec<(f64, f64)> = places.map(|y| (y, density(y))).collect();
    let highest = densities.iter().map(|(_, density)| *density).fold(f64::MIN_POSITIVE, f64::max);
    let mut points: Vec<(f64, f64)> = densities
        .into_iter()
        .filter(|(_, density)| *density > 0.002 * highest)
        .map(|(y, density)| (x + side * WIDTH * density / highest, y))
        .collect();
    if let (Some(&(_, low)), Some(&(_, high))) = (points.first(), points.last()) {
        points.insert(0, (x, low));
        points.extend([(x, high), (x, low)]);
    }
    points
}
