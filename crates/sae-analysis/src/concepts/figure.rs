//! Coverage of concepts against L0 and against CE increase, a row of two panels a site; beside them, as lines, what other directions
//! cover.

use super::{ConceptEvidence, RunCoverage, SiteConceptEvidence};
use crate::draw::{Axis, Draw, Figure, Look, Looks, Panel, PointText, Series};
use crate::runs::Point;
use crate::table::fixed;

pub(super) fn figure(found: &ConceptEvidence, looks: &Looks) -> Figure {
    let mut figure = Figure::default();
    for (site, at) in &found.sites {
        let l0 = panel(at, looks, "L0 (active features per token)", |point| point.l0);
        let ce = panel(at, looks, "CE increase (nats per token)", |point| point.ce_increase);
        let row = [l0, ce].map(|panel| panel.at(*site));
        let titled = row.map(|panel| Panel { title: format!("{site}: {}", panel.title), ..panel });
        figure.rows.push(titled.into());
    }
    figure
}

fn panel(at: &SiteConceptEvidence, looks: &Looks, label: &str, x: fn(&Point) -> f64) -> Panel {
    let usable = |run: &&RunCoverage| x(&run.point).is_finite() && x(&run.point) > 0.0;
    let mut series = Vec::new();
    for (group, look) in looks.groups() {
        let look = if looks.differ_in_colour() { look.solid() } else { look };
        let mut own: Vec<&RunCoverage> =
            at.runs.iter().filter(|run| run.point.group == *group).filter(usable).collect();
        own.sort_by(|a, b| x(&a.point).total_cmp(&x(&b.point)));
        if own.is_empty() {
            continue;
        }
        let points = own.iter().map(|run| (x(&run.point), run.coverage.mean.value)).collect();
        let texts = own.iter().map(|run| (run.point.run.clone(), text(run))).collect();
        series.push(
            Series::new(group.to_string(), look, Draw::MarkedLine, points)
                .of(group)
                .with_text(PointText::Runs(texts)),
        );
    }
    let all = || at.runs.iter().filter(usable).map(|run| x(&run.point));
    let ends = (all().fold(f64::INFINITY, f64::min), all().fold(f64::NEG_INFINITY, f64::max));
    if ends.0 < ends.1 {
        for (number, (name, coverage)) in at.baselines.iter().enumerate() {
            let y = coverage.mean.value;
            let points = vec![(ends.0, y), (ends.1, y)];
            let look = Look::numbered(number).faint(0.8);
            series.push(Series::new(name.clone(), look, Draw::Line, points));
        }
    }
    let name = label.split(" (").next().unwrap_or(label);
    let y = Axis::new("Coverage (mean best F1)");
    Panel::new(
        format!("coverage of concepts against {name}"),
        Axis::new(label).logarithmic(),
        y,
        series,
    )
}

fn text(run: &RunCoverage) -> String {
    let RunCoverage { point, coverage } = run;
    [
        point.run.clone(),
        format!("Type: {}", point.group),
        format!("Coefficient: {}", point.strength_text()),
        format!("Seed: {}", point.seed),
        format!("L0: {}", fixed(point.l0, 1)),
        format!("CE increase: {}", fixed(point.ce_increase, 4)),
        format!("Coverage: {}", fixed(coverage.mean.value, 4)),
        format!("Features that tell a concept well: {} of {}", coverage.good, coverage.units),
    ]
    .join("\n")
}
