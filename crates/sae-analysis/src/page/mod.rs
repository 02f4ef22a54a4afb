//! `report.html`: the evidence on one page, in one file that opens without a network.
//!
//! Text, tables and charts are written here; so the page says and shows all it knows where scripts are off, and on paper.
//! Its script (no framework) hides what the reader hides, says the numbers of what is pointed at, sorts tables, and
//! opens runs.
//!
//! All text from data (names of runs, configurations, notes) is escaped where it becomes HTML, and becomes text nodes
//! where the script writes it. A content security policy forbids everything that is not in the file.

mod html;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;

use serde::Serialize;

use self::html::{Context, attribute, charts, fill, inert};
use crate::draw::escape;
use crate::evidence::{Evidence, RunFacts};
use crate::frontier;
use crate::runs::Group;
use crate::subject::{self, Block, Choice, Subject};
use crate::table::thousands;

const TEMPLATE: &str = include_str!("../../assets/page.html");
/// The look of all pages: the browser of features is in it.
pub const STYLE: &str =
    concat!(include_str!("../../assets/page.css"), include_str!("../../assets/features.css"));
/// What the scripts of all pages share: the function `featureBrowser` is in it.
pub const SHARED_SCRIPT: &str =
    concat!(include_str!("../../assets/common.js"), include_str!("../../assets/features.js"));
const SCRIPT: &str = include_str!("../../assets/page.js");

/// What the script reads: what the page does not say in its elements.
#[derive(Serialize)]
struct Data<'a> {
    /// In the order in which they are always named.
    types: Vec<String>,
    /// In the order of computation.
    sites: Vec<String>,
    runs: Vec<Facts<'a>>,
}

#[derive(Serialize)]
struct Facts<'a> {
    run: &'a str,
    #[serde(rename = "type")]
    group: &'a Group,
    folder: &'a str,
    facets: &'a BTreeMap<String, String>,
    made_with: String,
}

/// The page.
pub fn html(evidence: &Evidence) -> String {
    let looks = evidence.looks();
    let context = Context::of(&looks, &evidence.runs);
    let mut page = Page { contents: Vec::new(), body: Vec::new() };
    let mut notes: Vec<String> = evidence.notes.iter().map(|note| escape(note)).collect();
    for (place, subject) in evidence.subjects().into_iter().enumerate() {
        match subject.section(evidence) {
            Ok(blocks) => page.add(
                subject.name(),
                subject.title(),
                &shown(blocks, subject, evidence, &context),
            ),
            Err(why) => {
                notes.push(escape(&format!("Not on this page: {}. {why}", subject.title())));
            }
        }
        // What was found follows the frontiers, of which most of it is.
        if place == 0 {
            let findings = subject::findings(evidence);
            if !findings.rows.is_empty() {
                page.add("findings", "Findings", &context.table(&findings));
            }
        }
    }
    if evidence.runs.is_empty() {
        notes.push("Not on this page: All runs. No run is finished.".to_owned());
    } else {
        let points = &evidence.frontier.points;
        let mut tables = context.table(&frontier::all_points(points));
        tables += &frontier::further(points, &evidence.metrics)
            .map_or_else(String::new, |table| context.table(&table));
        page.add("runs", "All runs", &tables);
        page.add("configurations", "Configurations", &configurations(&evidence.runs));
    }
    if !notes.is_empty() {
        page.add("notes", "Notes", &list(notes));
    }
    fill(
        TEMPLATE,
        &[
            ("title", &escape(&evidence.sweep)),
            ("about", &about(evidence)),
            ("types", &types(evidence, &context)),
            ("contents", &page.contents.concat()),
            ("sections", &page.body.concat()),
            ("versions", &versions(&evidence.runs)),
            ("style", STYLE),
            ("shared", SHARED_SCRIPT),
            ("script", SCRIPT),
            ("data", &data(evidence)),
        ],
    )
}

struct Page {
    contents: Vec<String>,
    body: Vec<String>,
}

impl Page {
    fn add(&mut self, id: &str, title: &str, html: &str) {
        self.contents.push(format!("<li><a href=\"#{id}\">{title}</a></li>\n"));
        self.body.push(format!(
            "<section id=\"{id}\" aria-labelledby=\"{id}-title\">\n<h2 id=\"{id}-title\">{title}</h2>\n{html}</section>\n"
        ));
    }
}

/// A section's blocks.
fn shown(
    blocks: Vec<Block>,
    subject: &dyn Subject,
    evidence: &Evidence,
    context: &Context<'_>,
) -> String {
    let block = |block| match block {
        Block::Text(text) => format!("<p>{}</p>\n", escape(&text)),
        Block::Choice(choice) => control(&choice),
        Block::Panels => charts(&subject.figure(evidence).rows),
        Block::Table(table) => context.table(&table),
        Block::Steps => "<div class=\"steps\" hidden></div>\n".to_owned(),
        Block::Features(json) => format!(
            "<div class=\"browser\"><p>The browser of features needs scripts.</p></div>\n\
             <script type=\"application/json\" class=\"features\">{}</script>\n",
            inert(&json)
        ),
        Block::Folded(summary, blocks) => format!(
            "<details><summary>{}</summary>\n{}</details>\n",
            escape(&summary),
            shown(blocks, subject, evidence, context)
        ),
        Block::Chosen(key, value, blocks) => format!(
            "<div{}{}>\n{}</div>\n",
            attribute("data-choice", key),
            attribute("data-value", &value),
            shown(blocks, subject, evidence, context)
        ),
        Block::OfRun { site, group, run, lines } => {
            let lines: String =
                lines.iter().map(|line| format!("<p>{}</p>\n", escape(line))).collect();
            format!(
                "<div{}{}{}>\n<h3>{site}, {}</h3>\n{lines}</div>\n",
                attribute("data-type", &group.to_string()),
                attribute("data-site", &site.to_string()),
                attribute("data-run", &run),
                escape(&run)
            )
        }
    };
    blocks.into_iter().map(block).collect()
}

/// A choice, which the script makes work; without scripts everything is shown, and there is nothing to choose.
fn control(choice: &Choice) -> String {
    let options = choice.values.iter().map(|(value, label)| {
        let selected = if *value == choice.first { " selected" } else { "" };
        format!("<option{}{selected}>{}</option>", attribute("value", value), escape(label))
    });
    format!(
        "<label class=\"pick\" hidden>{} <select{}>{}</select></label>\n",
        choice.label,
        attribute("data-choose", choice.key),
        options.collect::<String>()
    )
}

/// What all runs have in common.
fn about(evidence: &Evidence) -> String {
    let about = &evidence.about;
    let mut facts: Vec<(&str, String)> = Vec::new();
    let mut add = |name, values: Vec<String>| {
        if !values.is_empty() {
            facts.push((name, values.join(", ")));
        }
    };
    add("Model", about.model.clone());
    add("Trained on", about.data.clone());
    add("Tokens", numbers(&about.training_tokens));
    add("Evaluated on", about.evaluation.clone());
    add("Tokens of it", numbers(&about.evaluation_tokens));
    add("Dictionary elements", numbers(&about.n_features));
    let sites: Vec<String> = evidence.frontier.sites().iter().map(ToString::to_string).collect();
    add(if sites.len() == 1 { "Site" } else { "Sites" }, sites);
    add("Finished runs", vec![evidence.runs.len().to_string()]);
    let commits: BTreeSet<String> =
        evidence.runs.iter().map(|run| run.versions.commit.clone()).collect();
    add("Code", commits.into_iter().collect());
    facts
        .iter()
        .map(|(name, value)| format!("<div><dt>{name}</dt><dd>{}</dd></div>\n", escape(value)))
        .collect()
}

/// Numbers with thin spaces between thousands; of many, the least and the greatest.
fn numbers(values: &[u64]) -> Vec<String> {
    match values {
        [first, .., last] if values.len() > 3 => {
            vec![format!("{} to {}", thousands(*first), thousands(*last))]
        }
        few => few.iter().map(|value| thousands(*value)).collect(),
    }
}

fn types(evidence: &Evidence, context: &Context<'_>) -> String {
    let groups = evidence.groups().into_iter();
    groups
        .map(|group| {
            format!("<dt>{}</dt><dd>{}</dd>\n", context.group(&group), escape(&group.describe()))
        })
        .collect()
}

fn list(items: impl IntoIterator<Item = impl Display>) -> String {
    let items: String = items.into_iter().map(|item| format!("<li>{item}</li>\n")).collect();
    format!("<ul>\n{items}</ul>\n")
}

fn configurations(runs: &[RunFacts]) -> String {
    let run = |(place, run): (usize, &RunFacts)| {
        let name = escape(&run.run);
        format!(
            "<details class=\"configuration\" id=\"run-{place}\"{}{}><summary>{name}</summary>\n<p>Folder: {}</p>\n\
             <pre tabindex=\"0\">{}</pre>\n</details>\n",
            attribute("data-type", &run.group.to_string()),
            attribute("data-run", &run.run),
            escape(&run.folder),
            escape(&run.config)
        )
    };
    runs.iter().enumerate().map(run).collect()
}

fn made_with(run: &RunFacts) -> String {
    let versions = &run.versions;
    format!(
        "sae {} ({}), libtorch {}, on {}",
        versions.sae, versions.commit, versions.libtorch, versions.device
    )
}

/// What the runs were made with, each combination once.
fn versions(runs: &[RunFacts]) -> String {
    let lines: BTreeSet<String> = runs.iter().map(made_with).collect();
    lines.iter().map(|line| format!("<p>{}</p>\n", escape(line))).collect()
}

fn data(evidence: &Evidence) -> String {
    fn facts(run: &RunFacts) -> Facts<'_> {
        let RunFacts { run: name, group, folder, facets, .. } = run;
        Facts { run: name, group, folder, facets, made_with: made_with(run) }
    }
    let data = Data {
        types: evidence.groups().iter().map(Group::to_string).collect(),
        sites: evidence.frontier.sites().iter().map(ToString::to_string).collect(),
        runs: evidence.runs.iter().map(facts).collect(),
    };
    // Nothing in it refuses to become JSON; if it did, the page would still stand, which `null` says to the script.
    inert(&serde_json::to_string(&data).unwrap_or_else(|_| "null".to_owned()))
}
