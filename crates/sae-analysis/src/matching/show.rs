//! Matched runs as a subject: tables, section, and what a reader has to know of them.

use sae_config::Site;

use super::{Match, MatchBy};
use crate::AnalysisError;
use crate::evidence::Evidence;
use crate::frontier;
use crate::study::Study;
use crate::subject::{Block, Choice, Subject, TextFile};
use crate::table::{Cell, Column, Table, fixed, starts_a_part};

/// The ratio above which matched runs are far enough apart for a note.
const FAR: f64 = 1.25;

/// The choice of what runs are matched by.
pub(crate) const BY: &str = "by";

/// The same, as a control.
pub(crate) fn choice(evidence: &Evidence) -> Block {
    Block::Choice(Choice {
        key: BY,
        label: "Runs matched by",
        values: MatchBy::ALL.map(|by| (by.to_string(), by.describe().to_owned())).into(),
        first: evidence.match_by.to_string(),
    })
}

impl Subject for Vec<Match> {
    fn name(&self) -> &'static str {
        "matches"
    }

    fn title(&self) -> &'static str {
        "Matched runs"
    }

    fn find(study: &mut Study<'_>) -> Result<Self, AnalysisError> {
        for site in study.sites.clone() {
            note(study, site);
        }
        if !study.options.facets.is_empty() && !study.matches.is_empty() {
            study.notes.add("Frontiers are split by the facets; runs are matched across them.");
        }
        Ok(study.matches.clone())
    }

    fn is_empty(&self) -> bool {
        false
    }

    fn files(&self, _: &Evidence) -> Result<Vec<TextFile>, AnalysisError> {
        let shown = short(self).for_people();
        let sizes: Vec<usize> = self.iter().map(|found| found.points.len()).collect();
        let text = |extension, text| TextFile { stem: "matches", extension, text };
        let markdown = format!(
            "{}\nL0 in active features per token; CE increase and KL in nats per token; explained variance of what the \
             dictionary writes.\n",
            shown.markdown()
        );
        Ok(vec![
            TextFile::json("matches", self)?,
            TextFile::csv("matches", &exact(self)),
            text("md", markdown),
            text("tex", shown.latex(|row| starts_a_part(&sizes, row))),
        ])
    }

    fn section(&self, evidence: &Evidence) -> Result<Vec<Block>, &'static str> {
        if Vec::is_empty(self) {
            return Err("No site has runs of two groups to set side by side.");
        }
        let text = format!(
            "One run of each group, as equal as the sweep has them in one respect: what differs in the others is what the group \
             makes of it. The last column says how equal they are: the largest number ÷ the smallest, 1 being equal. Sections \
             below that look at single runs show those matched by {}.",
            evidence.match_by.describe()
        );
        let mut blocks = vec![Block::Text(text), choice(evidence)];
        for by in MatchBy::ALL {
            let own: Vec<&Match> = self.iter().filter(|found| found.by == by).collect();
            let block = if own.is_empty() {
                Block::Text(format!("No runs can be matched by {}.", by.describe()))
            } else {
                Block::Table(full(by, &own))
            };
            blocks.push(Block::Chosen(BY, by.to_string(), vec![block]));
        }
        Ok(blocks)
    }
}

/// What a reader has to know of the matches at a site.
fn note(study: &mut Study<'_>, site: Site) {
    let found = |by| study.matches.iter().find(move |found| found.site == site && found.by == by);
    let none: Vec<&str> =
        MatchBy::ALL.into_iter().filter(|by| found(*by).is_none()).map(MatchBy::describe).collect();
    let mut notes = Vec::new();
    if !none.is_empty() {
        notes.push(format!(
            "At {site} no runs of two types could be matched by {}.",
            none.join(", nor by ")
        ));
    }
    for by in MatchBy::ALL {
        let Some(found) = found(by) else { continue };
        if by == study.options.match_by {
            let mut absent: Vec<String> = Vec::new();
            for point in study.runs.points.iter().filter(|point| point.site == site) {
                let name = point.group.to_string();
                if found.of_group(&point.group).is_none() && !absent.contains(&name) {
                    absent.push(name);
                }
            }
            if !absent.is_empty() {
                notes.push(format!(
                    "At {site} no run of {} says enough to be matched by {}; what is said of matched runs leaves it out.",
                    absent.join(" and "),
                    by.describe()
                ));
            }
        }
        if found.ratio > FAR {
            notes.push(format!(
                "At {site} the runs matched by {} are not equal: the largest is {:.2} × the smallest.",
                by.describe(),
                found.ratio
            ));
        }
    }
    for note in notes {
        study.notes.add(note);
    }
}

/// Every number in full.
fn exact(matches: &[Match]) -> Table {
    let keys = [
        "site",
        "by",
        "ratio",
        "type",
        "run",
        "seed",
        "coeff",
        "l0",
        "alive",
        "n_features",
        "ce_increase",
        "kl",
        "explained_variance",
        "grad_norm",
    ];
    let rows = matches.iter().flat_map(|found| {
        found.points.iter().map(|point| {
            vec![
                Cell::Site(found.site),
                Cell::text(found.by.to_string()),
                Cell::significant(found.ratio),
                Cell::Group(point.group.clone()),
                Cell::Run(point.run.clone()),
                Cell::count(point.seed),
                Cell::significant(point.coeff),
                Cell::significant(point.l0),
                Cell::count(point.alive),
                Cell::count(point.n_features),
                Cell::significant(point.ce_increase),
                Cell::significant(point.kl),
                Cell::significant(point.explained_variance),
                Cell::significant(point.grad_norm.unwrap_or(f64::NAN)),
            ]
        })
    });
    Table::new("Matched runs", keys.map(Column::csv).into()).with(rows)
}

/// What fits a page of paper.
fn short(matches: &[Match]) -> Table {
    let heads = [
        "site",
        "matched by",
        "type",
        "run",
        "λ",
        "L0",
        "alive",
        "CE increase",
        "KL",
        "expl. var.",
        "grad. norm",
    ];
    let rows = matches.iter().flat_map(|found| {
        found.points.iter().map(|point| {
            vec![
                Cell::Site(found.site),
                Cell::text(found.by.describe()),
                Cell::Group(point.group.clone()),
                Cell::Run(point.run.clone()),
                Cell::Number(point.strength(), point.strength_text()),
                Cell::fixed(point.l0, 1),
                Cell::Number(point.alive as f64, format!("{}/{}", point.alive, point.n_features)),
                Cell::fixed(point.ce_increase, 4),
                Cell::fixed(point.kl, 4),
                Cell::fixed(point.explained_variance, 3),
                Cell::significant(point.grad_norm.unwrap_or(f64::NAN)),
            ]
        })
    });
    Table::new("Matched runs", heads.map(|head| Column::people(head, "")).into()).with(rows)
}

/// The matches by one quantity, with all columns of points.
fn full(by: MatchBy, matches: &[&Match]) -> Table {
    let mut columns = frontier::columns();
    columns.push(Column::people("equal to", "The largest of the matched numbers ÷ the smallest"));
    let rows = matches.iter().flat_map(|found| {
        let far = if found.ratio > FAR { " (far apart)" } else { "" };
        let ratio = Cell::Number(found.ratio, format!("{}{far}", fixed(found.ratio, 3)));
        found.points.iter().map(move |point| {
            let mut row = frontier::cells(point);
            row.push(ratio.clone());
            row
        })
    });
    Table::new(format!("Runs matched by {}", by.describe()), columns).with(rows)
}
