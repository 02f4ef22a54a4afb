//! Pairs of dictionaries: both together, and each alone on the same axes, so that neither hides the other.

use super::{PAIR, PairEmbedding};
use crate::draw::{Axis, Draw, Figure, Look, Looks, MOST_POINTS, Panel, PointText, Series};
use crate::thin::thin;

/// A row of three panels a pair.
pub(super) fn figure(found: &[PairEmbedding], looks: &Looks) -> Figure {
    Figure { rows: found.iter().map(|pair| row(pair, looks)).collect() }
}

fn row(pair: &PairEmbedding, looks: &Looks) -> Vec<Panel> {
    let all = &pair.embedding.points;
    let cloud = |number: usize| {
        let (run, group) = (&pair.runs[number], &pair.types[number]);
        // Runs of one group are told apart by colours of their own.
        let one_group = pair.are_of_one_group();
        let look = if one_group { Look::numbered(number) } else { looks.group(group) };
        let name = if one_group { run.clone() } else { group.to_string() };
        let own: Vec<_> = all.iter().filter(|point| point.run == number).copied().collect();
        let own = thin(&own, MOST_POINTS);
        let points = own.iter().map(|point| (f64::from(point.x), f64::from(point.y))).collect();
        let features = own.iter().map(|point| point.row).collect();
        Series::new(name, look.faint(0.5), Draw::Dots, points)
            .of(group)
            .of_run(run)
            .with_text(PointText::Features(features))
    };
    let clouds: Vec<Series> = (0..pair.runs.len()).map(cloud).collect();
    let x = Axis::new("").unnamed().range(all.iter().map(|point| f64::from(point.x)));
    let y = Axis::new("").unnamed().range(all.iter().map(|point| f64::from(point.y)));
    let panel = |title: String, series: Vec<Series>| {
        let (across, up) = (Axis::new("UMAP 1").unnamed(), Axis::new("UMAP 2").unnamed());
        let panel = Panel::new(title, across.fixed(x.0, x.1), up.fixed(y.0, y.1), series);
        let drawn = Panel { on_disk: true, ..panel.at(pair.site).chosen(PAIR, pair.name(), true) };
        if all.len() < pair.embedding.available {
            drawn.noted(format!(
                "{} of {} elements are embedded.",
                all.len(),
                pair.embedding.available
            ))
        } else {
            drawn
        }
    };
    let together = panel(format!("{}: both", pair.site), clouds.clone());
    let alone = clouds.into_iter().zip(&pair.runs);
    let alone = alone.map(|(cloud, run)| panel(format!("{}: {run} alone", pair.site), vec![cloud]));
    std::iter::once(together).chain(alone).collect()
}
