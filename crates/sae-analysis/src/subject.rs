//! Subjects of an analysis: what each finds, and how it is shown. A subject is a folder.

use sae_config::Site;

use crate::AnalysisError;
use crate::draw::Figure;
use crate::evidence::Evidence;
use crate::runs::Group;
use crate::runs::facets::Facets;
use crate::study::Study;
use crate::table::{Cell, Column, Table};

/// A subject: how it is found, and what is made of it.
pub(crate) trait Subject {
    /// What its files and its section on the page are called.
    fn name(&self) -> &'static str;

    /// What it is called for people.
    fn title(&self) -> &'static str;

    /// Finds it. What is missing of a run is left out and noted.
    fn find(study: &mut Study<'_>) -> Result<Self, AnalysisError>
    where
        Self: Sized;

    /// Whether there is nothing to show; files that an earlier analysis left of it go then.
    fn is_empty(&self) -> bool;

    /// Its numbers, as files beside the others.
    fn files(&self, evidence: &Evidence) -> Result<Vec<TextFile>, AnalysisError>;

    /// Its figure, on disk and on the page; an empty one where it has none.
    fn figure(&self, _evidence: &Evidence) -> Figure {
        Figure::default()
    }

    /// What it comes to: a line each in the table of findings.
    fn findings(&self, _evidence: &Evidence) -> Vec<Finding> {
        Vec::new()
    }

    /// Its section on the page; `Err` says in a sentence why there is none.
    fn section(&self, evidence: &Evidence) -> Result<Vec<Block>, &'static str>;
}

/// A text file in the folder of an analysis.
pub(crate) struct TextFile {
    pub stem: &'static str,
    pub extension: &'static str,
    pub text: String,
}

impl TextFile {
    pub fn csv(stem: &'static str, table: &Table) -> Self {
        Self { stem, extension: "csv", text: table.csv() }
    }

    pub fn json(stem: &'static str, value: &impl serde::Serialize) -> Result<Self, AnalysisError> {
        Ok(Self { stem, extension: "json", text: serde_json::to_string_pretty(value)? })
    }
}

/// What a section is made of.
pub(crate) enum Block {
    /// A paragraph.
    Text(String),
    /// A choice of one of several values, by which panels and blocks are shown.
    Choice(Choice),
    /// The panels of the subject's figure.
    Panels,
    Table(Table),
    /// What chooses a range of steps, smoothing and runs for the panels of a subject whose panels are lines over steps.
    Steps,
    /// The browser of features, of dictionaries with their cards as JSON.
    Features(String),
    /// What is folded at first, below a line.
    Folded(String, Vec<Block>),
    /// What is shown where a choice has a value.
    Chosen(&'static str, String, Vec<Block>),
    /// Text about a run at a site, below its name.
    OfRun {
        site: Site,
        group: Group,
        run: String,
        lines: Vec<String>,
    },
}

/// A choice of one of several values; all controls of one key stay the same.
pub(crate) struct Choice {
    pub key: &'static str,
    pub label: &'static str,
    /// Values, and what they are called.
    pub values: Vec<(String, String)>,
    /// The value at first.
    pub first: String,
}

/// What an analysis comes to, in a line.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Finding {
    pub site: Site,
    /// The values by which frontiers are split.
    pub facets: Facets,
    pub group: Group,
    /// The group that it is compared with.
    pub base: Group,
    pub what: String,
    pub value: Comparison,
    /// Between what the value lies, and what that is.
    pub range: Option<([f64; 2], String)>,
    /// What it is found on: the range of a mean, the runs that are compared; why there is no value, where there is none.
    pub on: String,
}

/// How two groups compare.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Comparison {
    /// The first's ÷ the second's: below 1, less.
    Ratio(Option<f64>),
    /// The lowest and the highest of several such ratios.
    Ratios(f64, f64),
    /// The first's − the second's.
    Difference(f64),
}

/// All findings as a table.
pub(crate) fn findings(evidence: &Evidence) -> Table {
    let mut found: Vec<Finding> =
        evidence.subjects().iter().flat_map(|subject| subject.findings(evidence)).collect();
    // Site by site, and there in the order of the subjects.
    found.sort_by_key(|finding| finding.site);
    let columns = vec![
        Column::site(),
        Column::new("facets", "of", "The values by which the frontiers are split").may_be_same(),
        Column::new("what", "finding", "What is compared"),
        Column::group(),
        Column::new("base", "compared with", "The group that it is divided by, or taken from")
            .may_be_same(),
        Column::new(
            "value",
            "value",
            "×: the type's ÷ the other's, below 1 it needs less; ±: the type's − the other's",
        ),
        Column::new(
            "range",
            "from … to",
            "A bootstrap interval, or the least and the greatest of the ratios that the value is the mean of",
        ),
        Column::new(
            "on",
            "found on",
            "The range that both frontiers cover, or the runs that are compared",
        ),
    ];
    let rows = found.into_iter().map(|finding| {
        let (value, decimals, sign) = match finding.value {
            Comparison::Ratio(value) => (
                value.map_or(Cell::text("–"), |value| {
                    Cell::Number(value, format!("{value:.2} ×"))
                }),
                2,
                " ×",
            ),
            Comparison::Ratios(low, high) => {
                (Cell::Number(low, format!("{low:.2} to {high:.2} ×")), 2, " ×")
            }
            Comparison::Difference(value) => (Cell::Number(value, format!("{value:+.3}")), 3, ""),
        };
        let range = finding.range.map_or_else(String::new, |([low, high], what)| {
            format!("{low:.decimals$} to {high:.decimals$}{sign}, {what}")
        });
        vec![
            Cell::Site(finding.site),
            Cell::text(crate::runs::facets::describe(&finding.facets)),
            Cell::Text(finding.what),
            Cell::Group(finding.group),
            Cell::Group(finding.base),
            value,
            Cell::Text(range),
            Cell::Text(finding.on),
        ]
    });
    Table::new("Each type beside the one that it is compared with", columns).with(rows)
}
