//! Text with commas: cells that hold a comma, a quote or a line break are quoted (RFC 4180).

use std::fmt::Display;

/// A table under construction.
pub(crate) struct Csv {
    text: String,
}

impl Csv {
    pub fn new<'a>(header: impl IntoIterator<Item = &'a str>) -> Self {
        let mut csv = Self { text: String::new() };
        csv.row(header);
        csv
    }

    /// Adds a row.
    pub fn row<T: Display>(&mut self, cells: impl IntoIterator<Item = T>) {
        for (place, cell) in cells.into_iter().enumerate() {
            if place > 0 {
                self.text.push(',');
            }
            self.text.push_str(&quoted(&cell.to_string()));
        }
        self.text.push('\n');
    }

    pub fn finish(self) -> String {
        self.text
    }
}

fn quoted(cell: &str) -> String {
    if cell.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", cell.replace('"', "\"\""))
    } else {
        cell.to_owned()
    }
}

/// A number as its shortest text that reads back the same; empty where it is none.
pub(crate) fn number(value: f64) -> String {
    if value.is_finite() { value.to_string() } else { String::new() }
}

/// The same of a number that may be missing.
pub(crate) fn optional(value: Option<f64>) -> String {
    value.map(number).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::{Csv, number};

    #[test]
    fn cells_with_commas_and_quotes_are_quoted() {
        let mut csv = Csv::new(["run", "x"]);
        csv.row(["a,b \"c\"", &number(0.1)]);
        csv.row(["d", &number(f64::NAN)]);
        assert_eq!(csv.finish(), "run,x\n\"a,b \"\"c\"\"\",0.1\nd,\n");
    }
}
