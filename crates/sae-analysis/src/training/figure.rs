//! A panel for each value of the log, a line a run.

use super::{CURVE, FIRST, L0, Training, label};
use crate::draw::{Axis, Draw, Figure, Looks, Panel, Series};
use crate::runs::Group;

pub(super) fn figure(found: &[Training], names: &[&str], looks: &Looks) -> Figure {
    let panel = |name| panel(found, name, looks);
    // The page's reader chooses what stands beside L0.
    let chosen = names.iter().filter(|name| **name != L0);
    let chosen = chosen.map(|name| panel(name).chosen(CURVE, *name, *name == FIRST));
    let panels: Vec<Panel> = chosen.chain(names.contains(&L0).then(|| panel(L0))).collect();
    Figure { rows: if panels.is_empty() { Vec::new() } else { vec![panels] } }
}

fn panel(found: &[Training], name: &str, looks: &Looks) -> Panel {
    let mut named: Vec<&Group> = Vec::new();
    let (mut series, mut is_positive) = (Vec::new(), true);
    for run in found {
        let Some(values) = run.values.get(name) else { continue };
        let points = run.steps.iter().zip(values);
        let points: Vec<(f64, f64)> =
            points.filter_map(|(step, value)| Some((*step as f64, (*value)?))).collect();
        is_positive &= points.iter().all(|(_, value)| *value > 0.0);
        let look = looks.group(&run.group).solid();
        let line = Series::new(run.group.to_string(), look, Draw::Line, points);
        let line = line.of(&run.group).of_run(&run.run);
        // The legend has a type once.
        series.push(if named.contains(&&run.group) { line.unnamed() } else { line });
        named.push(&run.group);
    }
    let y = Axis::new(label(name));
    let y = if is_positive { y.logarithmic() } else { y };
    let title = format!("{} while the runs were trained", label(name));
    Panel::new(title, Axis::new("Optimiser step"), y, series)
}
