//! Pieces of HTML: text that cannot become markup, numbers, tables.

use std::collections::HashMap;

use plotters::style::RGBColor;
use sae_config::Site;

use crate::SaeType;
use crate::evidence::RunFacts;
use crate::style::{Marker, colour, marker};

/// What stands where there is no number.
const NONE: &str = "–";

/// Text from data, for elements and quoted attributes.
pub(super) fn escape(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut out, c| {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
        out
    })
}

/// Puts values into a template's `{{name}}`. Values are not looked through again: what looks like a name in them stays.
pub(super) fn fill(template: &str, values: &[(&str, &str)]) -> String {
    let mut page = String::with_capacity(template.len());
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        page.push_str(before);
        let Some((name, after)) = after.split_once("}}") else { break };
        if let Some((_, value)) = values.iter().find(|(known, _)| *known == name) {
            page.push_str(value);
        }
        rest = after;
    }
    page.push_str(rest);
    page
}

/// A number with so many decimals.
pub(super) fn fixed(value: f64, decimals: usize) -> String {
    if value.is_finite() { format!("{value:.decimals$}") } else { NONE.to_owned() }
}

/// A number with four significant digits.
pub(super) fn significant(value: f64) -> String {
    if !value.is_finite() {
        return NONE.to_owned();
    }
    let exponent = if value == 0.0 { 0.0 } else { value.abs().log10().floor() };
    if (-4.0..6.0).contains(&exponent) {
        let decimals = (3.0 - exponent).max(0.0) as usize;
        format!("{value:.decimals$}")
    } else {
        format!("{value:.3e}")
    }
}

/// `#rrggbb`.
pub(super) fn hex(RGBColor(red, green, blue): RGBColor) -> String {
    format!("#{red:02x}{green:02x}{blue:02x}")
}

/// A marker's name in the page's script.
pub(super) fn marker_name(marker: Marker) -> &'static str {
    match marker {
        Marker::Circle => "circle",
        Marker::Triangle => "triangle",
        Marker::Square => "square",
        Marker::Cross => "cross",
    }
}

/// A type's name with its marker before it.
pub(super) fn type_name(variant: SaeType) -> String {
    let path = match marker(variant) {
        Marker::Circle => "M1.5 7a5.5 5.5 0 1 0 11 0a5.5 5.5 0 1 0-11 0z",
        Marker::Triangle => "M7 1.5 13 12.5H1z",
        Marker::Square => "M2 2h10v10H2z",
        Marker::Cross => "M3 1 7 5 11 1 13 3 9 7 13 11 11 13 7 9 3 13 1 11 5 7 1 3z",
    };
    format!(
        "<svg class=\"mark\" viewBox=\"0 0 14 14\" aria-hidden=\"true\"><path d=\"{path}\" fill=\"{}\"/></svg>{variant}",
        hex(colour(variant))
    )
}

/// Where each run's configuration stands on the page.
#[derive(Debug)]
pub(super) struct Links<'a>(HashMap<&'a str, usize>);

impl<'a> Links<'a> {
    pub(super) fn of(runs: &'a [RunFacts]) -> Self {
        Self(runs.iter().enumerate().map(|(place, run)| (run.run.as_str(), place)).collect())
    }

    /// The run's name, a link where the run is on the page.
    pub(super) fn to(&self, run: &str) -> String {
        let name = escape(run);
        self.0.get(run).map_or(name.clone(), |place| {
            format!("<a class=\"run\" href=\"#run-{place}\">{name}</a>")
        })
    }
}

/// A table's column: its name, and what it says for those who do not know.
pub(super) struct Column<'a>(pub(super) &'a str, pub(super) &'a str);

/// A table's cell.
pub(super) enum Cell {
    /// Words.
    Text(String),
    /// A number as it is, by which rows are sorted, and as it is shown.
    Number(f64, String),
    /// A run's id.
    Run(String),
    /// A type.
    Type(SaeType),
    /// A site.
    Site(Site),
}

impl Cell {
    pub(super) fn fixed(value: f64, decimals: usize) -> Self {
        Self::Number(value, fixed(value, decimals))
    }

    pub(super) fn significant(value: f64) -> Self {
        Self::Number(value, significant(value))
    }

    pub(super) fn count(value: u64) -> Self {
        Self::Number(value as f64, value.to_string())
    }

    fn html(&self, links: &Links<'_>) -> String {
        match self {
            Self::Text(text) => format!("<td>{}</td>", escape(text)),
            Self::Number(value, shown) if value.is_finite() => {
                format!("<td class=\"n\" data-value=\"{value}\">{}</td>", escape(shown))
            }
            Self::Number(_, shown) => format!("<td class=\"n\">{}</td>", escape(shown)),
            Self::Run(run) => format!("<td>{}</td>", links.to(run)),
            Self::Type(variant) => format!("<td class=\"type\">{}</td>", type_name(*variant)),
            Self::Site(site) => format!("<td>{site}</td>"),
        }
    }
}

/// A table with a caption.
pub(super) struct Table<'a> {
    pub(super) caption: String,
    pub(super) columns: Vec<Column<'a>>,
    pub(super) rows: Vec<Vec<Cell>>,
}

impl Table<'_> {
    /// Each row names its type, site and run in attributes, by which the page's script hides it.
    pub(super) fn html(&self, links: &Links<'_>) -> String {
        let head: String = self
            .columns
            .iter()
            .enumerate()
            .map(|(place, Column(name, meaning))| {
                let number =
                    self.rows.iter().any(|row| matches!(row.get(place), Some(Cell::Number(..))));
                let class = if number { " class=\"n\"" } else { "" };
                format!(
                    "<th scope=\"col\"{class} title=\"{}\">{}</th>",
                    escape(meaning),
                    escape(name)
                )
            })
            .collect();
        let body: String = self
            .rows
            .iter()
            .map(|row| {
                let cells: String = row.iter().map(|cell| cell.html(links)).collect();
                format!("<tr{}>{cells}</tr>\n", attributes(row))
            })
            .collect();
        let caption = escape(&self.caption);
        format!(
            "<div class=\"wide\" role=\"region\" aria-label=\"{caption}\" tabindex=\"0\">\n<table>\n\
             <caption>{caption}</caption>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody>\n</table>\n</div>\n"
        )
    }
}

fn attributes(row: &[Cell]) -> String {
    let mut runs = ["run", "other-run"].into_iter();
    row.iter()
        .map(|cell| match cell {
            Cell::Type(variant) => format!(" data-type=\"{variant}\""),
            Cell::Site(site) => format!(" data-site=\"{site}\""),
            Cell::Run(run) => runs
                .next()
                .map(|name| format!(" data-{name}=\"{}\"", escape(run)))
                .unwrap_or_default(),
            Cell::Text(_) | Cell::Number(..) => String::new(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{escape, fill, fixed, significant};

    #[test]
    fn text_from_data_is_escaped() {
        assert_eq!(escape("<a href='x'>&\""), "&lt;a href=&#39;x&#39;&gt;&amp;&quot;");
    }

    #[test]
    fn values_are_not_templates() {
        let filled = fill("<{{a}}|{{b}}|{{c}}>", &[("a", "{{b}}"), ("b", "2")]);
        assert_eq!(filled, "<{{b}}|2|>");
    }

    #[test]
    fn numbers_have_the_digits_that_they_need() {
        let shown = [0.0, 1.5, 0.012_345, -1234.56, 0.000_012_345, 12_345_678.0];
        let expected = ["0.000", "1.500", "0.01235", "-1235", "1.234e-5", "1.235e7"];
        for (value, expected) in shown.into_iter().zip(expected) {
            assert_eq!(significant(value), expected);
        }
        assert_eq!(significant(f64::NAN), "–");
        assert_eq!((fixed(f64::INFINITY, 2), fixed(0.125, 1)), ("–".to_owned(), "0.1".to_owned()));
    }
}
