//! Pairs of dictionaries: both together, and each alone on the same axes, so that neither hides the other.

use super::{Along, EmbeddedRow, PAIR, PairEmbedding};
use crate::draw::{
    Axis, Draw, Figure, Look, Looks, MOST_POINTS, Marker, Panel, PointText, Series, Stroke,
};
use crate::thin::thin;

/// Colours of cosines, from negative to positive: Brewer's RdBu, with a grey that is seen on white.
const COLOURS: [&str; 7] =
    ["#2166ac", "#67a9cf", "#a9c7dc", "#bdbdbd", "#e8b49c", "#ef8a62", "#b2182b"];
/// What a name of a region is drawn in.
const REGION: Look =
    Look { colour: "#282828", marker: Marker::Cross, stroke: Stroke::Solid, opacity: 1.0 };

/// Strokes of regions in turn.
const STROKES: [Stroke; 3] = [Stroke::Solid, Stroke::Dashed, Stroke::Dotted];

/// A row of three panels a pair, and one of the cosines to each direction.
pub(super) fn figure(found: &[PairEmbedding], looks: &Looks) -> Figure {
    let mut figure = Figure::default();
    for pair in found {
        figure.rows.push(row(pair, looks));
        if pair.are_of_one_group() {
            continue;
        }
        // On disk the first direction alone: the page chooses a pair, a file has all.
        for (number, along) in pair.along.iter().enumerate() {
            let row = coloured(pair, along).into_iter().flatten();
            let row = row.map(|panel| Panel { on_disk: number == 0, ..panel });
            figure.rows.push(row.collect());
        }
    }
    figure.rows.retain(|row| !row.is_empty());
    figure
}

/// The elements of each run, coloured by their cosine to a direction; none where they have none.
fn coloured(pair: &PairEmbedding, along: &Along) -> Option<Vec<Panel>> {
    let greatest = along.cosines.iter().map(|cosine| cosine.abs()).fold(0.0, f32::max);
    if greatest <= 0.0 {
        return None;
    }
    let bins = COLOURS.len() as f32;
    let bin = |cosine: f32| {
        ((f32::midpoint(cosine / greatest, 1.0) * bins) as usize).min(COLOURS.len() - 1)
    };
    let panel = |number: usize| {
        let series = COLOURS.iter().enumerate().map(|(place, colour)| {
            let own = pair.embedding.points.iter().zip(&along.cosines);
            let own = own.filter(|(point, cosine)| point.run == number && bin(**cosine) == place);
            let own: Vec<EmbeddedRow> = own.map(|(point, _)| *point).collect();
            let own = thin(&own, MOST_POINTS);
            let end = |place: usize| greatest * (2.0 * place as f32 / bins - 1.0);
            let name = format!("{:.2} to {:.2}", end(place), end(place + 1));
            let look = Look { colour, opacity: 0.9, ..Look::neutral() };
            cloud(name, look, &own).of(&pair.types[number]).of_run(&pair.runs[number])
        });
        let title =
            format!("{}: {}, cosine to the {}", pair.site, pair.runs[number], along.direction);
        framed(pair, title, series.collect())
    };
    Some((0..pair.runs.len()).map(panel).collect())
}

fn cloud(name: String, look: Look, rows: &[EmbeddedRow]) -> Series {
    let points = rows.iter().map(|point| (f64::from(point.x), f64::from(point.y))).collect();
    let features = rows.iter().map(|point| point.row).collect();
    Series::new(name, look, Draw::Dots, points).with_text(PointText::Features(features))
}

/// On the axes that all panels of a pair have.
fn framed(pair: &PairEmbedding, title: String, series: Vec<Series>) -> Panel {
    let all = &pair.embedding.points;
    let x = Axis::new("").unnamed().range(all.iter().map(|point| f64::from(point.x)));
    let y = Axis::new("").unnamed().range(all.iter().map(|point| f64::from(point.y)));
    let (across, up) = (Axis::new("UMAP 1").unnamed(), Axis::new("UMAP 2").unnamed());
    let panel = Panel::new(title, across.fixed(x.0, x.1), up.fixed(y.0, y.1), series);
    panel.at(pair.site).chosen(PAIR, pair.name(), true)
}

fn row(pair: &PairEmbedding, looks: &Looks) -> Vec<Panel> {
    let all = &pair.embedding.points;
    let own_cloud = |number: usize| {
        let (run, group) = (&pair.runs[number], &pair.types[number]);
        // Runs of one group are told apart by colours of their own.
        let one_group = pair.are_of_one_group();
        let look = if one_group { Look::numbered(number) } else { looks.group(group) };
        let name = if one_group { run.clone() } else { group.to_string() };
        let own: Vec<_> = all.iter().filter(|point| point.run == number).copied().collect();
        cloud(name, look.faint(0.5), &thin(&own, MOST_POINTS)).of(group).of_run(run)
    };
    let clouds: Vec<Series> = (0..pair.runs.len()).map(own_cloud).collect();
    let panel = |title: String, series: Vec<Series>| {
        let drawn = framed(pair, title, series);
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
    let named = pair.regions.iter().enumerate().map(|(number, region)| {
        let look = Look { stroke: STROKES[number % STROKES.len()], ..REGION };
        Series::new(region.name.clone(), look, Draw::Line, region.outline())
    });
    let together = clouds.iter().cloned().chain(named).collect();
    let together = panel(format!("{}: both", pair.site), together);
    let alone = clouds.into_iter().zip(&pair.runs);
    let alone = alone.map(|(cloud, run)| panel(format!("{}: {run} alone", pair.site), vec![cloud]));
    std::iter::once(together).chain(alone).collect()
}
