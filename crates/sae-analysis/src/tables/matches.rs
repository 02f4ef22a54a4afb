//! The matched runs as a table: Markdown, LaTeX and CSV.

use super::csv::{Csv, number};
use crate::Point;
use crate::matching::Match;

/// A column's head in Markdown and LaTeX, and its cell.
type Column = (&'static str, &'static str, fn(&Match, &Point) -> String);

const COLUMNS: [Column; 10] = [
    ("site", "site", |_, p| p.site.to_string()),
    ("matched by", "matched by", |m, _| m.by.describe().to_owned()),
    ("type", "type", |_, p| p.variant.to_string()),
    ("run", "run", |_, p| p.run.clone()),
    ("λ", r"$\lambda$", |_, p| number(p.coeff)),
    ("L0", "$L_0$", |_, p| decimals(p.l0, 1)),
    ("alive", "alive", |_, p| format!("{}/{}", p.alive, p.n_features)),
    ("CE increase", "CE increase", |_, p| decimals(p.ce_increase, 4)),
    ("KL", "KL", |_, p| decimals(p.kl, 4)),
    ("expl. var.", "expl.\\ var.", |_, p| decimals(p.explained_variance, 3)),
];

/// The first column of numbers.
const NUMBERS: usize = 4;

/// A table in Markdown, with what its numbers are below it.
pub(crate) fn markdown(matches: &[Match]) -> String {
    let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    let mut text = line(COLUMNS.iter().map(|column| column.0.to_owned()).collect());
    let rule = (0..COLUMNS.len()).map(|i| if i < NUMBERS { "---" } else { "---:" }.to_owned());
    text.push_str(&line(rule.collect()));
    for (found, point) in rows(matches) {
        let cells = COLUMNS
            .iter()
            .map(|column| column.2(found, point).replace('\\', "\\\\").replace('|', "\\|"));
        text.push_str(&line(cells.collect()));
    }
    text.push_str(
        "\nL0 in active features per token; CE increase and KL in nats per token; explained variance of the SAE's \
         input.\n",
    );
    text
}

/// A `tabular` in LaTeX, with the rules of booktabs.
pub(crate) fn latex(matches: &[Match]) -> String {
    let line = |cells: Vec<String>| format!("{} \\\\\n", cells.join(" & "));
    let alignment = format!("{}{}", "l".repeat(NUMBERS), "r".repeat(COLUMNS.len() - NUMBERS));
    let mut text = format!("% needs \\usepackage{{booktabs}}\n\\begin{{tabular}}{{{alignment}}}\n");
    text.push_str("\\toprule\n");
    text.push_str(&line(COLUMNS.iter().map(|column| column.1.to_owned()).collect()));
    for (place, found) in matches.iter().enumerate() {
        text.push_str(if place == 0 { "\\midrule\n" } else { "\\addlinespace\n" });
        for point in &found.points {
            let cells = COLUMNS.iter().map(|column| escaped(&column.2(found, point)));
            text.push_str(&line(cells.collect()));
        }
    }
    text.push_str("\\bottomrule\n\\end{tabular}\n");
    text
}

/// Every number in full.
pub(crate) fn csv(matches: &[Match]) -> String {
    let mut csv = Csv::new([
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
    ]);
    for (found, p) in rows(matches) {
        csv.row([
            found.site.to_string(),
            found.by.to_string(),
            number(found.ratio),
            p.variant.to_string(),
            p.run.clone(),
            p.seed.to_string(),
            number(p.coeff),
            number(p.l0),
            p.alive.to_string(),
            p.n_features.to_string(),
            number(p.ce_increase),
            number(p.kl),
            number(p.explained_variance),
        ]);
    }
    csv.finish()
}

fn rows(matches: &[Match]) -> impl Iterator<Item = (&Match, &Point)> {
    matches.iter().flat_map(|found| found.points.iter().map(move |point| (found, point)))
}

fn decimals(value: f64, decimals: usize) -> String {
    if value.is_finite() { format!("{value:.decimals$}") } else { "–".to_owned() }
}

/// LaTeX's own characters as text.
fn escaped(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut out, c| {
        match c {
            '_' | '&' | '%' | '#' | '$' | '{' | '}' => out.extend(['\\', c]),
            '\\' => out.push_str("\\textbackslash{}"),
            '~' => out.push_str("\\textasciitilde{}"),
            '^' => out.push_str("\\textasciicircum{}"),
            '–' => out.push_str("--"),
            c => out.push(c),
        }
        out
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn latex_characters_become_text() {
        assert_eq!(super::escaped(r"a_b & 5 % \x"), r"a\_b \& 5 \% \textbackslash{}x");
    }
}
