//! Pairs of dictionaries in two dimensions: both together, and each alone on the same axes, so that neither hides the
//! other.

use super::scatter::cloud;
use super::{Axis, Figure, Panel, Series};
use crate::evidence::{Evidence, PairEmbedding};
use crate::style::Look;

/// A row of three panels a pair.
pub(crate) fn figure(evidence: &Evidence) -> Figure {
    let mut figure = Figure::new("umap");
    figure.rows = evidence.embeddings.iter().map(row).collect();
    figure
}

fn row(pair: &PairEmbedding) -> Vec<Panel> {
    let points = |run: usize| -> Vec<(f64, f64)> {
        pair.embedding
            .points
            .iter()
            .filter(|point| point.run == run)
            .map(|point| (f64::from(point.x), f64::from(point.y)))
            .collect()
    };
    // Runs of one type are told apart by colours of their own.
    let one_type = pair.types.iter().all(|variant| *variant == pair.types[0]);
    let clouds: Vec<Series> = pair
        .runs
        .iter()
        .zip(&pair.types)
        .enumerate()
        .map(|(number, (run, variant))| {
            let look = if one_type { Look::numbered(number) } else { Look::of(*variant) };
            let name = if one_type { run.clone() } else { format!("{variant} ({run})") };
            cloud(name, look, &points(number))
        })
        .collect();
    let all = pair.embedding.points.iter();
    let x = Axis::new("").unnamed().range(all.clone().map(|point| f64::from(point.x)));
    let y = Axis::new("").unnamed().range(all.map(|point| f64::from(point.y)));
    let panel = |title: String, series: Vec<Series>| {
        let (across, up) = (Axis::new("UMAP 1").unnamed(), Axis::new("UMAP 2").unnamed());
        Panel::new(title, across.fixed(x.0, x.1), up.fixed(y.0, y.1), series)
    };
    let together = panel(format!("{}: both", pair.site), clouds.clone());
    let alone = clouds.into_iter().zip(&pair.runs);
    let alone = alone.map(|(cloud, run)| panel(format!("{run} alone"), vec![cloud]));
    std::iter::once(together).chain(alone).collect()
}
