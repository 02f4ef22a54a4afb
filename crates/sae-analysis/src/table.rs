//! Tables as data, and as CSV, Markdown, LaTeX and text for a terminal. (As HTML: `page::html`.)

use comfy_table::{CellAlignment, ContentArrangement, presets};
use sae_config::Site;

use crate::runs::Group;

/// What stands where there is no number.
pub(crate) const NONE: &str = "–";

/// Columns that a table with prose has in a terminal.
const WIDTH: u16 = 120;
/// A text of more words than this is prose.
const PROSE: usize = 4;

/// A table.
#[derive(Debug, Clone)]
pub(crate) struct Table {
    pub caption: String,
    pub columns: Vec<Column>,
    pub rows: Vec<Vec<Cell>>,
}

/// A column.
#[derive(Debug, Clone)]
pub(crate) struct Column {
    /// Its name in CSV.
    pub key: String,
    /// Its name for people.
    pub head: String,
    /// What it says, for those who do not know.
    pub meaning: String,
    audience: Audience,
    varies: bool,
}

/// Whom a column is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Audience {
    All,
    Csv,
    People,
}

/// A cell.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Cell {
    Text(String),
    /// A number as it is, by which rows are sorted, and as people are shown it.
    Number(f64, String),
    /// A whole number, of which every digit counts: a seed may be larger than what `f64` tells apart.
    Count(u64),
    /// A run's id.
    Run(String),
    Group(Group),
    Site(Site),
}

/// Whether a row is the first of a part of a table, of parts with so many rows each; the first row of all is not.
pub(crate) fn starts_a_part(sizes: &[usize], row: usize) -> bool {
    let mut first = 0;
    sizes.iter().any(|size| {
        first += size;
        first == row
    })
}

impl Column {
    pub fn new(key: &str, head: &str, meaning: &str) -> Self {
        let [key, head, meaning] = [key, head, meaning].map(str::to_owned);
        Self { key, head, meaning, audience: Audience::All, varies: true }
    }

    /// A column of the CSV alone.
    pub fn csv(key: &str) -> Self {
        Self { audience: Audience::Csv, ..Self::new(key, "", "") }
    }

    /// A column of the tables for people alone.
    pub fn people(head: &str, meaning: &str) -> Self {
        Self { audience: Audience::People, ..Self::new("", head, meaning) }
    }

    /// The same; where all its cells are equal, the caption says it for people, and the column goes.
    #[must_use]
    pub fn may_be_same(self) -> Self {
        Self { varies: false, ..self }
    }

    pub fn site() -> Self {
        Self::new("site", "site", "Where the dictionary stands").may_be_same()
    }

    pub fn group() -> Self {
        Self::new("type", "type", "The group of runs: architecture, placement, objective")
    }

    pub fn run() -> Self {
        Self::new("run", "run", "The run's id")
    }
}

impl Cell {
    /// A number that is shown with so many decimals.
    pub fn fixed(value: f64, decimals: usize) -> Self {
        Self::Number(value, fixed(value, decimals))
    }

    /// A number that is shown with four significant digits.
    pub fn significant(value: f64) -> Self {
        Self::Number(value, significant(value))
    }

    pub fn count(value: u64) -> Self {
        Self::Count(value)
    }

    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    /// As people are shown it.
    pub fn shown(&self) -> String {
        match self {
            Self::Text(text) | Self::Number(_, text) | Self::Run(text) => text.clone(),
            Self::Count(value) => value.to_string(),
            Self::Group(group) => group.to_string(),
            Self::Site(site) => site.to_string(),
        }
    }

    /// As CSV has it: numbers as the shortest text that reads back the same, nothing where there is none.
    fn written(&self) -> String {
        match self {
            Self::Number(value, _) if value.is_finite() => value.to_string(),
            Self::Number(..) => String::new(),
            other => other.shown(),
        }
    }

    pub fn is_number(&self) -> bool {
        matches!(self, Self::Number(..) | Self::Count(_))
    }
}

impl Table {
    /// With these columns, and no rows.
    pub fn new(caption: impl Into<String>, columns: Vec<Column>) -> Self {
        Self { caption: caption.into(), columns, rows: Vec::new() }
    }

    /// The same with these rows, each of which has a cell a column.
    #[must_use]
    pub fn with(self, rows: impl IntoIterator<Item = Vec<Cell>>) -> Self {
        Self { rows: rows.into_iter().collect(), ..self }
    }

    /// What people are shown: the columns for them, and of those that are the same in all rows what they say.
    pub fn for_people(&self) -> Self {
        let several = self.rows.len() > 1;
        let same =
            |place: usize| several && self.rows.iter().all(|row| row[place] == self.rows[0][place]);
        let is_said = |place: usize| !self.columns[place].varies && same(place);
        let shown = |place: &usize| self.columns[*place].audience != Audience::Csv;
        let all = || (0..self.columns.len()).filter(shown);
        let kept: Vec<usize> = all().filter(|place| !is_said(*place)).collect();
        let said: Vec<String> = all()
            .filter(|place| is_said(*place) && !self.rows[0][*place].shown().is_empty())
            .map(|place| format!("{} {}", self.columns[place].head, self.rows[0][place].shown()))
            .collect();
        let mut caption = self.caption.clone();
        if !said.is_empty() {
            caption = format!("{caption} ({})", said.join(", "));
        }
        Self {
            caption,
            columns: kept.iter().map(|place| self.columns[*place].clone()).collect(),
            rows: self
                .rows
                .iter()
                .map(|row| kept.iter().map(|place| row[*place].clone()).collect())
                .collect(),
        }
    }

    /// Text with commas: cells that hold a comma, a quote or a line break are quoted (RFC 4180).
    pub fn csv(&self) -> String {
        let places: Vec<usize> = (0..self.columns.len())
            .filter(|place| self.columns[*place].audience != Audience::People)
            .collect();
        let line = |cells: Vec<String>| format!("{}\n", cells.join(","));
        let mut text = line(places.iter().map(|place| quoted(&self.columns[*place].key)).collect());
        for row in &self.rows {
            text.push_str(&line(
                places.iter().map(|place| quoted(&row[*place].written())).collect(),
            ));
        }
        text
    }

    /// A table in Markdown.
    pub fn markdown(&self) -> String {
        let escaped = |text: &str| text.replace('\\', "\\\\").replace('|', "\\|");
        let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
        let mut text = line(self.columns.iter().map(|column| escaped(&column.head)).collect());
        let rule = |place| if self.is_number(place) { "---:" } else { "---" }.to_owned();
        text.push_str(&line((0..self.columns.len()).map(rule).collect()));
        for row in &self.rows {
            text.push_str(&line(row.iter().map(|cell| escaped(&cell.shown())).collect()));
        }
        text
    }

    /// A `tabular` in LaTeX, with the rules of booktabs; a space before each row that begins another block, as
    /// `is_first` says of its place.
    pub fn latex(&self, is_first: impl Fn(usize) -> bool) -> String {
        let line = |cells: Vec<String>| format!("{} \\\\\n", cells.join(" & "));
        let alignment: String = (0..self.columns.len())
            .map(|place| if self.is_number(place) { 'r' } else { 'l' })
            .collect();
        let mut text = format!(
            "% needs \\usepackage{{booktabs}}\n\\begin{{tabular}}{{{alignment}}}\n\\toprule\n"
        );
        text.push_str(&line(self.columns.iter().map(|column| latex(&column.head)).collect()));
        text.push_str("\\midrule\n");
        for (place, row) in self.rows.iter().enumerate() {
            if place > 0 && is_first(place) {
                text.push_str("\\addlinespace\n");
            }
            text.push_str(&line(row.iter().map(|cell| latex(&cell.shown())).collect()));
        }
        text.push_str("\\bottomrule\n\\end{tabular}\n");
        text
    }

    /// For a terminal; texts of many words, as findings have them, are broken where lines would be wider than most terminals.
    pub fn terminal(&self) -> String {
        let mut table = comfy_table::Table::new();
        table
            .load_preset(presets::UTF8_BORDERS_ONLY)
            .set_content_arrangement(ContentArrangement::Disabled)
            .set_header(self.columns.iter().map(|column| &column.head));
        for row in &self.rows {
            table.add_row(row.iter().map(Cell::shown));
        }
        for place in (0..self.columns.len()).filter(|place| self.is_number(*place)) {
            if let Some(column) = table.column_mut(place) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        let has_prose = self
            .rows
            .iter()
            .flatten()
            .any(|cell| matches!(cell, Cell::Text(text) if text.split(' ').count() > PROSE));
        if has_prose {
            table.set_content_arrangement(ContentArrangement::Dynamic).set_width(WIDTH);
        }
        table.to_string()
    }

    /// Whether a column holds numbers.
    pub fn is_number(&self, place: usize) -> bool {
        self.rows.iter().any(|row| row.get(place).is_some_and(Cell::is_number))
    }
}

/// A number with so many decimals.
pub(crate) fn fixed(value: f64, decimals: usize) -> String {
    if value.is_finite() { format!("{value:.decimals$}") } else { NONE.to_owned() }
}

/// A number with four significant digits.
pub(crate) fn significant(value: f64) -> String {
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

/// A whole number with thin spaces between thousands.
pub(crate) fn thousands(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

/// A range of numbers with so many decimals.
pub(crate) fn range([low, high]: [f64; 2], decimals: usize) -> String {
    format!("{} to {}", fixed(low, decimals), fixed(high, decimals))
}

fn quoted(cell: &str) -> String {
    if cell.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", cell.replace('"', "\"\""))
    } else {
        cell.to_owned()
    }
}

/// LaTeX's own characters as text.
fn latex(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut out, c| {
        match c {
            '_' | '&' | '%' | '#' | '$' | '{' | '}' => out.extend(['\\', c]),
            '\\' => out.push_str("\\textbackslash{}"),
            '~' => out.push_str("\\textasciitilde{}"),
            '^' => out.push_str("\\textasciicircum{}"),
            '–' => out.push_str("--"),
            'λ' => out.push_str("$\\lambda$"),
            c => out.push(c),
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::{Cell, Column, Table, fixed, latex, significant};

    fn table() -> Table {
        let columns = vec![
            Column::run(),
            Column::new("seed", "seed", "").may_be_same(),
            Column::new("x", "x|y", ""),
            Column::csv("exact"),
            Column::people("in words", ""),
        ];
        let row = |run: &str, x: f64| {
            let exact = Cell::fixed(0.1 + x, 1);
            vec![
                Cell::Run(run.to_owned()),
                Cell::count(3),
                Cell::fixed(x, 1),
                exact,
                Cell::text("w"),
            ]
        };
        Table::new("Some", columns).with([row("a,b \"c\"", 0.25), row("d", f64::NAN)])
    }

    #[test]
    fn csv_has_every_digit_and_quotes_what_it_must() {
        let expected = "run,seed,x,exact\n\"a,b \"\"c\"\"\",3,0.25,0.35\nd,3,,\n";
        assert_eq!(table().csv(), expected);
    }

    #[test]
    fn people_see_what_differs() {
        let shown = table().for_people();
        assert_eq!(shown.caption, "Some (seed 3)");
        let expected = "| run | x\\|y | in words |\n| --- | ---: | --- |\n| a,b \"c\" | 0.2 | w |\n| d | – | w |\n";
        assert_eq!(shown.markdown(), expected);
        let tex = shown.latex(|_| true);
        assert!(
            tex.contains("{lrl}") && tex.contains("\\addlinespace\nd & -- & w \\\\\n"),
            "{tex}"
        );
        assert!(shown.terminal().contains("a,b \"c\""));
        // A single row is never all the same.
        let one = Table { rows: table().rows[..1].to_vec(), ..table() };
        assert_eq!(one.for_people().columns.len(), 4);
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

    #[test]
    fn latex_characters_become_text() {
        assert_eq!(latex(r"a_b & 5 % \x λ"), r"a\_b \& 5 \% \textbackslash{}x $\lambda$");
    }
}
