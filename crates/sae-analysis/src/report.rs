//! `report.html`: a sweep's evidence on one page, in one file that opens without a network.
//!
//! Rust writes the text and every table; so the page says all it knows where scripts are off, and on paper. What moves
//! is JavaScript (`assets/report/`, no framework): it reads the evidence from a block of JSON and draws the charts, and
//! sorts and filters the tables that are there already.
//!
//! All text from data (names of runs, configurations, notes) is escaped where it becomes HTML, and becomes text nodes
//! where the script writes it. A content security policy forbids everything that is not in the file.

mod data;
mod frontiers;
mod markup;
mod sections;

use std::collections::BTreeSet;

use markup::{escape, fill, type_name};
use sae_config::Site;

use crate::evidence::Evidence;
use crate::findings;
use crate::tables::describe;

const TEMPLATE: &str = include_str!("../assets/report.html");
const STYLE: &str = include_str!("../assets/report.css");

/// The script's parts, which share one scope.
const SCRIPT: [&str; 9] = [
    include_str!("../assets/report/core.js"),
    include_str!("../assets/report/scales.js"),
    include_str!("../assets/report/chart.js"),
    include_str!("../assets/report/frontiers.js"),
    include_str!("../assets/report/geometry.js"),
    include_str!("../assets/report/clouds.js"),
    include_str!("../assets/report/activations.js"),
    include_str!("../assets/report/stability.js"),
    include_str!("../assets/report/page.js"),
];

/// A part of the page.
struct Section {
    id: &'static str,
    title: &'static str,
    body: Body,
}

/// What a section has to show.
enum Body {
    /// HTML.
    Shown(String),
    /// Nothing, and why.
    LeftOut(&'static str),
}

/// The page.
pub fn html(evidence: &Evidence) -> String {
    let mut notes: Vec<String> = evidence.notes.iter().map(|note| escape(note)).collect();
    let (mut contents, mut body) = (Vec::new(), Vec::new());
    for Section { id, title, body: found } in sections::all(evidence) {
        match found {
            Body::Shown(html) => {
                contents.push(format!("<li><a href=\"#{id}\">{title}</a></li>\n"));
                body.push(format!(
                    "<section id=\"{id}\" aria-labelledby=\"{id}-title\">\n<h2 id=\"{id}-title\">{title}</h2>\n\
                     {html}</section>\n"
                ));
            }
            Body::LeftOut(why) => notes.push(format!("Not on this page: {title}. {why}")),
        }
    }
    let script = SCRIPT.concat();
    fill(
        TEMPLATE,
        &[
            ("title", &escape(&evidence.sweep)),
            ("opening", &opening(evidence)),
            ("types", &types(evidence)),
            ("findings", &findings(evidence)),
            ("notes", &if notes.is_empty() { String::new() } else { noted(notes) }),
            ("contents", &contents.concat()),
            ("sections", &body.concat()),
            ("versions", &versions(evidence)),
            ("style", STYLE),
            ("script", &script),
            ("data", &data::json(evidence)),
        ],
    )
}

/// How many runs of what.
fn opening(evidence: &Evidence) -> String {
    let count = |n: usize, one: &str| format!("{n} {one}{}", if n == 1 { "" } else { "s" });
    format!(
        "{} at {}.",
        count(evidence.runs.len(), "finished run"),
        count(evidence.frontier.sites().len(), "site")
    )
}

/// What was found, in sentences, those on a site (and its facets) under its name.
fn findings(evidence: &Evidence) -> String {
    let mut groups: Vec<(String, Vec<String>)> = Vec::new();
    let mut others = Vec::new();
    for line in findings::sentences(evidence) {
        let place = line.split_once(": ").filter(|(place, _)| names_site(place));
        match (place, groups.last_mut()) {
            (Some((place, rest)), Some((last, lines))) if last == place => lines.push(escape(rest)),
            (Some((place, rest)), _) => groups.push((place.to_owned(), vec![escape(rest)])),
            (None, _) => others.push(escape(&line)),
        }
    }
    let mut html: String = groups
        .into_iter()
        .map(|(place, lines)| format!("<h3>{}</h3>\n{}", escape(&place), list(lines)))
        .collect();
    if !others.is_empty() {
        html.push_str(&list(others));
    }
    html
}

/// Whether a sentence's beginning says where, as in `blocks.2.hook_resid_pre, train.lr = 0.001`.
fn names_site(place: &str) -> bool {
    place.split(", ").next().is_some_and(|site| site.parse::<Site>().is_ok())
}

fn types(evidence: &Evidence) -> String {
    evidence
        .types()
        .into_iter()
        .map(|variant| {
            format!("<dt>{}</dt><dd>{}</dd>\n", type_name(variant), escape(&describe(variant)))
        })
        .collect()
}

fn noted(notes: Vec<String>) -> String {
    format!("<h2 id=\"notes\">Notes</h2>\n{}", list(notes))
}

fn list(items: impl IntoIterator<Item = String>) -> String {
    let items: String = items.into_iter().map(|item| format!("<li>{item}</li>\n")).collect();
    format!("<ul>\n{items}</ul>\n")
}

/// What the runs were made with, each combination once.
fn versions(evidence: &Evidence) -> String {
    let lines: BTreeSet<String> = evidence
        .runs
        .iter()
        .map(|run| {
            let versions = &run.versions;
            format!(
                "sae {} ({}), libtorch {}, on {}",
                versions.sae, versions.commit, versions.libtorch, versions.device
            )
        })
        .collect();
    lines.iter().map(|line| format!("<p>{}</p>\n", escape(line))).collect()
}
