//! Frontiers as a subject: files, findings, section.

use super::figure::{AXES, figure};
use super::{ALL_ALIVE, Frontier, Ratio, table};
use crate::AnalysisError;
use crate::draw::Figure;
use crate::evidence::Evidence;
use crate::runs::Group;
use crate::study::Study;
use crate::subject::{Block, Choice, Comparison, Finding, Subject, TextFile};
use crate::table::range;

impl Subject for Frontier {
    fn name(&self) -> &'static str {
        "frontier"
    }

    fn title(&self) -> &'static str {
        "Frontiers"
    }

    fn find(study: &mut Study<'_>) -> Result<Self, AnalysisError> {
        let frontier = Self::by(&study.runs.points, &study.options.facets);
        for subset in frontier.subsets() {
            let Some(share) = frontier.least_alive(&subset).filter(|share| *share >= ALL_ALIVE)
            else {
                continue;
            };
            let share = if share < 1.0 {
                format!("at least {:.1} %", (share * 1000.0).floor() / 10.0)
            } else {
                "all".to_owned()
            };
            study.notes.add(format!(
                "At {} {share} of every dictionary is alive: a frontier against alive features would be flat, and is not \
                 drawn.",
                subset.describe()
            ));
        }
        if frontier.points.is_empty() {
            study.notes.add("No run has numbers to compare.");
        } else if frontier.summary.is_empty() {
            study.notes.add("Nothing to compare: no site has `local` runs beside others.");
        }
        Ok(frontier)
    }

    fn is_empty(&self) -> bool {
        false
    }

    fn files(&self, _: &Evidence) -> Result<Vec<TextFile>, AnalysisError> {
        Ok(vec![
            TextFile::json("frontier", self)?,
            TextFile::csv("frontier", &table::points(&self.points)),
        ])
    }

    fn figure(&self, evidence: &Evidence) -> Figure {
        figure(self, &evidence.looks())
    }

    fn findings(&self, _: &Evidence) -> Vec<Finding> {
        self.summary.iter().flat_map(findings).collect()
    }

    fn section(&self, evidence: &Evidence) -> Result<Vec<Block>, &'static str> {
        if self.points.is_empty() {
            return Err("There are no finished runs to draw.");
        }
        let alive = if evidence.alive_above > 0.0 {
            format!("on more than {} of the tokens", evidence.alive_above)
        } else {
            "on any of many tokens".to_owned()
        };
        let text = format!(
            "What a dictionary costs the model, against how many features it needs for that. Cross-entropy (CE) increase is \
             the next-token loss with the dictionary spliced in, less the original model's, in nats per token. L0 is the mean \
             number of features active on a token; a feature is alive if it is active {alive}. Lines join a group's \
             Pareto-optimal runs: those that no other run of the group beats in one number without being worse in the other. \
             The others are faint. Arrow keys go from run to run; a click or Enter opens one."
        );
        let axes = Choice {
            key: AXES,
            label: "Axes",
            values: ["linear", "logarithmic"]
                .map(|value| (value.to_owned(), value.to_owned()))
                .into(),
            first: "linear".to_owned(),
        };
        Ok(vec![Block::Choice(axes), Block::Panels, Block::Text(text)])
    }
}

fn findings(found: &super::Comparison) -> Vec<Finding> {
    let finding = |what: &str, at: &str, ratio: Ratio, decimals: usize| Finding {
        site: found.site,
        facets: found.facets.clone(),
        group: found.group.clone(),
        base: found.base.clone(),
        what: format!("{what} at equal {at}"),
        value: Comparison::Ratio(ratio.mean),
        range: ratio.spread.map(|spread| (spread, "least and greatest".to_owned())),
        on: on(&found.base, at, ratio, decimals),
    };
    vec![
        finding("L0", "CE increase", found.l0_at_equal_ce, 3),
        finding("CE increase", "L0", found.ce_at_equal_l0, 1),
        finding("CE increase", "alive features", found.ce_at_equal_alive, 0),
    ]
}

fn on(base: &Group, at: &str, ratio: Ratio, decimals: usize) -> String {
    match (ratio.mean, ratio.range) {
        (Some(_), Some(shared)) => format!("mean over {at} {}", range(shared, decimals)),
        (None, Some(_)) => format!("one of it and {base} is not above 0 everywhere"),
        _ => format!("it and {base} share no range of {at}"),
    }
}
