//! Gradient norms: of every run, beside the CE increase and the alive features that it has come to.

use sae_config::Site;
use serde::{Deserialize, Serialize};

use crate::AnalysisError;
use crate::draw::{Axis, Draw, Figure, Looks, Panel, PointText, Series};
use crate::evidence::Evidence;
use crate::runs::Point;
use crate::study::Study;
use crate::subject::{Block, Subject, TextFile};
use crate::table::{Cell, Column, Table, fixed, significant};

/// The runs that have logged gradient norms.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Gradients {
    /// A point a run and site.
    pub points: Vec<Point>,
}

impl Subject for Gradients {
    fn name(&self) -> &'static str {
        "gradients"
    }

    fn title(&self) -> &'static str {
        "Gradient norms"
    }

    fn find(study: &mut Study<'_>) -> Result<Self, AnalysisError> {
        let points = study.runs.points.iter().filter(|point| point.grad_norm.is_some());
        let mut points: Vec<Point> = points.cloned().collect();
        points.sort_by(|a, b| (a.site, &a.group, &a.run).cmp(&(b.site, &b.group, &b.run)));
        Ok(Self { points })
    }

    fn is_empty(&self) -> bool {
        self.points.is_empty()
    }

    fn files(&self, _: &Evidence) -> Result<Vec<TextFile>, AnalysisError> {
        Ok(vec![TextFile::csv("gradients", &table(&self.points))])
    }

    fn figure(&self, evidence: &Evidence) -> Figure {
        let looks = evidence.looks();
        let mut sites: Vec<Site> = self.points.iter().map(|point| point.site).collect();
        sites.dedup();
        let row = |site: Site| {
            let own: Vec<&Point> = self.points.iter().filter(|point| point.site == site).collect();
            let alive = Axis::new("Alive features");
            let across = Axis::new("Mean norm of the gradients").logarithmic();
            let ce = Axis::new("CE increase (nats per token)");
            vec![
                panel(
                    site,
                    &own,
                    &looks,
                    (across.clone(), norm),
                    (alive, |point| point.alive as f64),
                ),
                panel(site, &own, &looks, (across, norm), (ce, |point| point.ce_increase)),
            ]
        };
        Figure { rows: sites.into_iter().map(row).collect() }
    }

    fn section(&self, _: &Evidence) -> Result<Vec<Block>, &'static str> {
        if self.points.is_empty() {
            return Err("No run has logged gradient norms.");
        }
        let text = "The mean norm of each run's gradients, before clipping, over the logged steps after the first 40 % (the paper: after \
                    the first 10 000 of 25 000), beside the alive features and the CE increase that it has come to.";
        Ok(vec![
            Block::Text(text.to_owned()),
            Block::Panels,
            Block::Folded("The numbers".to_owned(), vec![Block::Table(table(&self.points))]),
        ])
    }
}

fn norm(point: &Point) -> f64 {
    point.grad_norm.unwrap_or(f64::NAN)
}

/// An axis, and what of a point lies along it.
type Along = (Axis, fn(&Point) -> f64);

fn panel(
    site: Site,
    points: &[&Point],
    looks: &Looks,
    (x, of_x): Along,
    (y, of_y): Along,
) -> Panel {
    let mut series = Vec::new();
    for (group, look) in looks.groups() {
        let mut own: Vec<&&Point> = points.iter().filter(|point| point.group == *group).collect();
        // A line follows what sets the number of active features.
        own.sort_by(|a, b| a.seed.cmp(&b.seed).then(a.strength().total_cmp(&b.strength())));
        let at = own.iter().map(|point| (of_x(point), of_y(point))).collect();
        let texts = own.iter().map(|point| (point.run.clone(), text(point))).collect();
        if !own.is_empty() {
            let points = Series::new(group.to_string(), look, Draw::Points, at);
            series.push(points.of(group).with_text(PointText::Runs(texts)));
        }
    }
    let name = y.label.split(" (").next().unwrap_or_default().to_owned();
    Panel::new(format!("{site}: {name} against gradient norm"), x, y, series).at(site)
}

fn text(point: &Point) -> String {
    [
        point.run.clone(),
        format!("Type: {}", point.group),
        format!("Coefficient: {}", point.strength_text()),
        format!("Mean gradient norm: {}", significant(norm(point))),
        format!("Alive features: {} of {}", point.alive, point.n_features),
        format!("CE increase: {}", fixed(point.ce_increase, 4)),
    ]
    .join("\n")
}

fn table(points: &[Point]) -> Table {
    let columns = vec![
        Column::site(),
        Column::group(),
        Column::run(),
        Column::new("grad_norm", "grad. norm", "Mean norm of the gradients before clipping"),
        Column::new("alive", "alive", "Alive features"),
        Column::new("ce_increase", "CE increase", "Cross-entropy increase, nats per token"),
    ];
    let rows = points.iter().map(|point| {
        vec![
            Cell::Site(point.site),
            Cell::Group(point.group.clone()),
            Cell::Run(point.run.clone()),
            Cell::significant(norm(point)),
            Cell::count(point.alive),
            Cell::fixed(point.ce_increase, 4),
        ]
    });
    Table::new("Gradient norms", columns).with(rows)
}
