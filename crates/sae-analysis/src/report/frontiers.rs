//! The sections on points: frontiers, matched runs, all runs.

use sae_record::metric::Better;

use super::Body;
use super::markup::{Cell, Column, Links, Table, fixed, significant};
use crate::evidence::Evidence;
use crate::facets::describe;
use crate::frontier::Ratio;
use crate::gather::FAR;
use crate::matching::MatchBy;
use crate::tables::{metric_names, sorted};
use crate::{Point, SaeType};

/// Charts, and each type against `local`.
pub(super) fn frontiers(evidence: &Evidence, links: &Links<'_>) -> Body {
    if evidence.frontier.points.is_empty() {
        return Body::LeftOut("There are no finished runs to draw.");
    }
    let alive = if evidence.alive_above > 0.0 {
        format!("on more than {} of the tokens", evidence.alive_above)
    } else {
        "on any of many tokens".to_owned()
    };
    let mut html = format!(
        "<p>What an SAE costs the model, against how many features it needs for that. Cross-entropy (CE) increase is the \
         next-token loss with the SAE spliced in, less the original model's, in nats per token. L0 is the mean number of \
         features active on a token; a feature is alive if it is active {alive}. Lines join a type's Pareto-optimal \
         runs: those that no other run of the type beats in one number without being worse in the other. The others are \
         faint.</p>\n<div data-view=\"frontiers\"></div>\n",
    );
    if !evidence.frontier.summary.is_empty() {
        html.push_str(&ratios(evidence).html(links));
    }
    Body::Shown(html)
}

fn ratios(evidence: &Evidence) -> Table<'static> {
    let cells = |ratio: Ratio, decimals: usize| {
        let range = ratio.range.map_or_else(
            || "no shared range".to_owned(),
            |[low, high]| format!("{} to {}", fixed(low, decimals), fixed(high, decimals)),
        );
        [Cell::fixed(ratio.mean.unwrap_or(f64::NAN), 2), Cell::Text(range)]
    };
    let split = !evidence.frontier.facets.is_empty();
    let mut columns = vec![
        Column("site", "Where the SAE stands"),
        Column("type", "The type that is divided"),
        Column("L0 at equal CE increase", "L0 of the type ÷ L0 of the other"),
        Column("CE increase from … to", "The CE increases that both frontiers cover"),
        Column("CE increase at equal L0", "CE increase of the type ÷ that of the other"),
        Column("L0 from … to", "The L0s that both frontiers cover"),
        Column("CE increase at equal alive", "CE increase of the type ÷ that of the other"),
        Column("alive from … to", "The numbers of alive features that both frontiers cover"),
    ];
    let others = evidence.frontier.summary.iter().any(|found| found.base != SaeType::LOCAL);
    if others {
        columns.insert(2, Column("÷", "The type that it is divided by"));
    }
    if split {
        columns.push(Column("of", "The values by which the frontiers are split"));
    }
    Table {
        caption: format!(
            "Each type ÷ {}: below 1, the type needs less. Means over the range that both frontiers cover, between runs \
             by straight lines",
            if others { "the one beside it" } else { "local" }
        ),
        columns,
        rows: evidence
            .frontier
            .summary
            .iter()
            .map(|found| {
                [Cell::Site(found.site), Cell::Type(found.variant)]
                    .into_iter()
                    .chain(others.then_some(Cell::Type(found.base)))
                    .chain(cells(found.l0_at_equal_ce, 3))
                    .chain(cells(found.ce_at_equal_l0, 1))
                    .chain(cells(found.ce_at_equal_alive, 0))
                    .chain(split.then(|| Cell::Text(describe(&found.facets))))
                    .collect()
            })
            .collect(),
    }
}

/// A table for each quantity that runs are matched in.
pub(super) fn matches(evidence: &Evidence, links: &Links<'_>) -> Body {
    if evidence.matches.is_empty() {
        return Body::LeftOut("No site has runs of two types to set side by side.");
    }
    let mut html = format!(
        "<p>One run of each type, as equal as the sweep has them in one respect: what differs in the others is what the \
         type makes of it. The last column says how equal they are: the largest number ÷ the smallest, 1 being equal. \
         Sections below that look at single runs show those matched by {}.</p>\n<div data-view=\"matches\"></div>\n",
        evidence.match_by.describe()
    );
    for by in MatchBy::ALL {
        let words = by.describe();
        let matches: Vec<_> = evidence.matches.iter().filter(|found| found.by == by).collect();
        html.extend([format!("<div data-by=\"{by}\">\n")]);
        if matches.is_empty() {
            html.extend([format!("<p>No runs can be matched by {words}.</p>\n")]);
        } else {
            let rows = matches.iter().flat_map(|found| {
                let far = if found.ratio > FAR { " (far apart)" } else { "" };
                let ratio = format!("{}{far}", fixed(found.ratio, 3));
                found.points.iter().map(move |point| {
                    let mut row = cells(point);
                    row.push(Cell::Number(found.ratio, ratio.clone()));
                    row
                })
            });
            let mut columns = columns();
            columns.push(Column("equal to", "The largest of the matched numbers ÷ the smallest"));
            let rows = rows.collect();
            let caption = format!("Runs matched by {words}");
            html.push_str(&Table { caption, columns, rows }.html(links));
        }
        html.push_str("</div>\n");
    }
    Body::Shown(html)
}

/// Every point.
pub(super) fn runs(evidence: &Evidence, links: &Links<'_>) -> Body {
    if evidence.frontier.points.is_empty() {
        return Body::LeftOut("No run is finished.");
    }
    let table = Table {
        caption: "All runs, a row a site".to_owned(),
        columns: columns(),
        rows: sorted(&evidence.frontier.points).into_iter().map(cells).collect(),
    };
    Body::Shown(table.html(links) + &further(evidence, links))
}

/// The metrics that the table of all runs has no column of, with what the runs' summaries say of them.
fn further(evidence: &Evidence, links: &Links<'_>) -> String {
    let names = metric_names(&evidence.frontier.points);
    if names.is_empty() {
        return String::new();
    }
    let told = |name: &&str| {
        let found = evidence.metrics.iter().find(|metric| metric.name == **name);
        found.map_or_else(String::new, |metric| {
            let unit = if metric.unit.is_empty() { "" } else { ", " };
            let better = match metric.better {
                Better::Less => "; less is better",
                Better::More => "; more is better",
                Better::Neither => "",
            };
            format!("{}{unit}{}{better}", metric.reduction, metric.unit)
        })
    };
    let told: Vec<String> = names.iter().map(told).collect();
    let mut columns = vec![
        Column("site", "Where the SAE stands"),
        Column("type", "The type of SAE"),
        Column("run", "The run's id"),
    ];
    columns.extend(names.iter().zip(&told).map(|(name, told)| Column(name, told)));
    let cells = |point: &Point| {
        let number = |name: &&str| Cell::significant(point.metrics.get(name));
        let whose =
            [Cell::Site(point.site), Cell::Type(point.variant), Cell::Run(point.run.clone())];
        whose.into_iter().chain(names.iter().map(number)).collect()
    };
    let rows = sorted(&evidence.frontier.points).into_iter().map(cells).collect();
    Table { caption: "Further metrics, a row a site".to_owned(), columns, rows }.html(links)
}

fn columns() -> Vec<Column<'static>> {
    vec![
        Column("site", "Where the SAE stands"),
        Column("type", "The type of SAE"),
        Column("run", "The run's id"),
        Column(
            "coeff",
            "The sparsity coefficient, or the k of an architecture that keeps k features",
        ),
        Column("seed", "The seed of the initialisation"),
        Column("L0", "Active features per token"),
        Column("alive", "Alive features"),
        Column("of", "Dictionary elements"),
        Column("CE increase", "Cross-entropy increase, nats per token"),
        Column("KL", "KL(original ‖ spliced), nats per token"),
        Column("expl. var.", "Explained variance of the SAE's input"),
        Column("MSE", "Mean squared error of the SAE's output to its input"),
        Column("CE recovered", "Share of the loss to zero ablation that is recovered"),
        Column("top-1 agr.", "Share of tokens at which both models rank the same token first"),
        Column("tokens", "Tokens trained on"),
    ]
}

fn cells(point: &Point) -> Vec<Cell> {
    vec![
        Cell::Site(point.site),
        Cell::Type(point.variant),
        Cell::Run(point.run.clone()),
        Cell::Number(point.strength(), point.strength_text()),
        Cell::count(point.seed),
        Cell::fixed(point.l0, 1),
        Cell::count(point.alive),
        Cell::count(point.n_features),
        Cell::fixed(point.ce_increase, 4),
        Cell::fixed(point.kl, 4),
        Cell::fixed(point.explained_variance, 3),
        Cell::Number(point.mse, significant(point.mse)),
        Cell::fixed(point.ce_recovered, 3),
        Cell::fixed(point.top1_agreement, 3),
        Cell::count(point.training_tokens),
    ]
}
