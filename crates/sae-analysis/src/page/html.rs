//! Pieces of HTML: text that cannot become markup, tables, charts.

use std::collections::HashMap;

use crate::draw::{Look, Looks, Marker, Panel, Size, escape, marker};
use crate::evidence::RunFacts;
use crate::runs::Group;
use crate::table::{Cell, Table};

/// The width of a chart in its own units; its letters are 12 of them high.
const WIDTH: f64 = 480.0;

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

/// An attribute, with a space before it.
pub(super) fn attribute(name: &str, value: &str) -> String {
    format!(" {name}=\"{}\"", escape(value))
}

/// What tables and charts need to know of the whole page.
pub(super) struct Context<'a> {
    looks: &'a Looks,
    /// Where each run's configuration stands.
    places: HashMap<&'a str, usize>,
}

impl<'a> Context<'a> {
    pub fn of(looks: &'a Looks, runs: &'a [RunFacts]) -> Self {
        let places = runs.iter().enumerate().map(|(place, run)| (run.run.as_str(), place));
        Self { looks, places: places.collect() }
    }

    /// A group's name with its marker before it.
    pub fn group(&self, group: &Group) -> String {
        format!("{}{}", mark(self.looks.group(group)), escape(&group.to_string()))
    }

    /// A run's name, a link where the run is on the page.
    fn run(&self, run: &str) -> String {
        let name = escape(run);
        self.places.get(run).map_or(name.clone(), |place| {
            format!("<a class=\"run\" href=\"#run-{place}\">{name}</a>")
        })
    }

    fn cell(&self, cell: &Cell) -> String {
        match cell {
            Cell::Text(text) => format!("<td>{}</td>", escape(text)),
            Cell::Number(value, shown) if value.is_finite() => {
                format!("<td class=\"n\" data-value=\"{value}\">{}</td>", escape(shown))
            }
            Cell::Number(_, shown) => format!("<td class=\"n\">{}</td>", escape(shown)),
            Cell::Count(value) => format!("<td class=\"n\" data-value=\"{value}\">{value}</td>"),
            Cell::Run(run) => format!("<td>{}</td>", self.run(run)),
            Cell::Group(group) => format!("<td class=\"type\">{}</td>", self.group(group)),
            Cell::Site(site) => format!("<td>{site}</td>"),
        }
    }

    /// A table with its caption. Each row names its group, site and runs in attributes, by which the page's script hides it.
    pub fn table(&self, whole: &Table) -> String {
        let table = whole.for_people();
        let heads = table.columns.iter().enumerate().map(|(place, column)| {
            let class = if table.is_number(place) { " class=\"n\"" } else { "" };
            let meaning = attribute("title", &column.meaning);
            format!("<th scope=\"col\"{class}{meaning}>{}</th>", escape(&column.head))
        });
        let heads: String = heads.collect();
        let rows = table.rows.iter().zip(&whole.rows).map(|(row, whole)| {
            let cells: String = row.iter().map(|cell| self.cell(cell)).collect();
            format!("<tr{}>{cells}</tr>\n", attributes(whole))
        });
        let (rows, caption): (String, String) = (rows.collect(), escape(&table.caption));
        format!(
            "<div class=\"wide\" role=\"region\" aria-label=\"{caption}\" tabindex=\"0\">\n<table>\n\
             <caption>{caption}</caption>\n<thead><tr>{heads}</tr></thead>\n<tbody>\n{rows}</tbody>\n</table>\n</div>\n"
        )
    }
}

fn attributes(row: &[Cell]) -> String {
    let mut runs = ["data-run", "data-other-run"].into_iter();
    let mut found = String::new();
    for cell in row {
        match cell {
            Cell::Group(group) if !found.contains(" data-type=") => {
                found += &attribute("data-type", &group.to_string());
            }
            Cell::Site(site) => found += &attribute("data-site", &site.to_string()),
            Cell::Run(run) => {
                found += &runs.next().map(|name| attribute(name, run)).unwrap_or_default();
            }
            Cell::Text(_) | Cell::Number(..) | Cell::Count(_) | Cell::Group(_) => {}
        }
    }
    found
}

/// A group's marker.
fn mark(look: Look) -> String {
    let path = marker(look.marker, 7.0, 7.0, 5.0);
    let paint = match look.marker {
        Marker::Cross => format!("fill=\"none\" stroke-width=\"2\" stroke=\"{}\"", look.colour),
        _ => format!("fill=\"{}\"", look.colour),
    };
    format!(
        "<svg class=\"mark\" viewBox=\"0 0 14 14\" aria-hidden=\"true\"><path d=\"{path}\" {paint}/></svg>"
    )
}

/// Rows of charts: as many columns as the row has panels that are shown at once.
pub(super) fn charts<'a>(rows: impl IntoIterator<Item = &'a Vec<Panel>>) -> String {
    rows.into_iter()
        .map(|row| {
            let shown = shown_at_once(row).clamp(1, 4);
            let panels: String = row.iter().map(chart).collect();
            format!("<div class=\"charts of-{shown}\">\n{panels}</div>\n")
        })
        .collect()
}

/// How many panels of a row are shown, whatever is chosen: of those of one value, all; of a choice's values, one.
fn shown_at_once(row: &[Panel]) -> usize {
    let always = row.iter().filter(|panel| panel.choice.is_none()).count();
    let mut values: HashMap<&str, HashMap<&str, usize>> = HashMap::new();
    for (key, value) in row.iter().filter_map(|panel| panel.choice.as_ref()) {
        *values.entry(key).or_default().entry(value).or_default() += 1;
    }
    always + values.values().map(|of| of.values().copied().max().unwrap_or(0)).sum::<usize>()
}

fn chart(panel: &Panel) -> String {
    let mut attributes = String::new();
    if let Some(site) = panel.site {
        attributes += &attribute("data-site", &site.to_string());
    }
    if let Some((key, value)) = &panel.choice {
        attributes += &attribute("data-choice", key);
        attributes += &attribute("data-value", value);
    }
    let note = panel.note.as_deref();
    let note =
        note.map(|note| format!("<p class=\"note\">{}</p>\n", escape(note))).unwrap_or_default();
    let size = Size { width: WIDTH, height: panel.height(WIDTH) };
    format!(
        "<figure class=\"chart\"{attributes}>\n<figcaption>{}</figcaption>\n{}{note}</figure>\n",
        escape(&panel.title),
        panel.svg(size, None)
    )
}

/// JSON within a `script` element: no end tag, no comment, no line separator that old JavaScript minds. These characters
/// occur in JSON within strings only.
pub(super) fn inert(json: &str) -> String {
    json.chars().fold(String::with_capacity(json.len()), |mut out, c| {
        match c {
            '<' => out.push_str("\\u003c"),
            '>' => out.push_str("\\u003e"),
            '&' => out.push_str("\\u0026"),
            '\u{2028}' => out.push_str("\\u2028"),
            '\u{2029}' => out.push_str("\\u2029"),
            c => out.push(c),
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::{fill, inert};

    #[test]
    fn values_are_not_templates() {
        let filled = fill("<{{a}}|{{b}}|{{c}}>", &[("a", "{{b}}"), ("b", "2")]);
        assert_eq!(filled, "<{{b}}|2|>");
    }

    #[test]
    fn a_data_block_holds_no_markup() {
        let text = "</script><!--<img onerror='x'>&amp;\u{2028}\u{2029}\"\\";
        let json = inert(&serde_json::to_string(text).unwrap());
        assert!(!json.contains(['<', '>', '&', '\u{2028}', '\u{2029}']), "{json}");
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
    }
}
