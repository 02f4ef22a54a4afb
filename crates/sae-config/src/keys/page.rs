//! The keys as people read them: in a terminal, and on the page `docs/configuration.md`.

use std::fmt::Write;

use super::schema::text;
use super::{FileKind, Key, Section, Word};

impl Key {
    /// What the key is, for a terminal.
    pub fn explain(&self) -> String {
        let mut text = format!("{}\n  {}\n", self.path, self.meaning);
        for Word { word, meaning } in &self.words {
            let _ = writeln!(text, "    {word}: {meaning}");
        }
        let mut line = |name: &str, value: &str| {
            let _ = writeln!(text, "  {name:<10} {value}");
        };
        line("type", &self.kind);
        line("default", &self.default_text());
        if let Some(unit) = &self.unit {
            line("unit", unit);
        }
        if let Some(reference) = &self.reference {
            line("e2e_sae", reference);
        }
        text
    }

    fn default_text(&self) -> String {
        match (&self.default, self.is_required) {
            (Some(default), _) => default.clone(),
            (None, true) => "none, it must be given".to_owned(),
            (None, false) => "none".to_owned(),
        }
    }
}

impl Section {
    /// What the section is, and its keys, for a terminal.
    pub fn explain(&self) -> String {
        let mut text = format!("{}\n  {}\n", self.heading(), self.meaning);
        for key in &self.keys {
            let unit = key.unit.as_ref().map(|unit| format!(", in {unit}")).unwrap_or_default();
            let default = match (&key.default, key.is_required) {
                (Some(default), _) => format!("; {default} where left out"),
                (None, true) => "; required".to_owned(),
                (None, false) => String::new(),
            };
            let _ = writeln!(
                text,
                "\n  {}  ({}{unit}{default})\n    {}",
                key.path, key.kind, key.meaning
            );
        }
        text
    }

    fn heading(&self) -> String {
        match (self.path.as_str(), self.is_repeated) {
            ("", _) => "At the top of the file".to_owned(),
            (path, false) => format!("[{path}]"),
            (path, true) => format!("[[{path}]]"),
        }
    }
}

/// The page `docs/configuration.md`.
pub fn markdown() -> String {
    let mut page = include_str!("introduction.md").to_owned();
    for kind in FileKind::ALL {
        let folder = match kind {
            FileKind::Run => "configs/runs",
            FileKind::Sweep => "configs/sweeps",
            FileKind::Pretrain => "configs/pretrain",
        };
        let title = kind.title().replacen('a', "A", 1);
        let meaning = text(&kind.schema(), "description").unwrap_or_default();
        let _ =
            writeln!(page, "\n## {title}\n\n{meaning} Examples are in [`{folder}`](../{folder}).");
        let sections = kind.sections();
        for section in &sections {
            let inside = format!("{}.", section.path);
            let holds_tables = sections.iter().any(|section| section.path.starts_with(&inside));
            add_section(&mut page, section, holds_tables);
        }
    }
    page
}

fn add_section(page: &mut String, section: &Section, holds_tables: bool) {
    let heading = match section.path.as_str() {
        "" => section.heading(),
        _ => format!("`{}`", section.heading()),
    };
    let _ = writeln!(page, "\n### {heading}\n");
    if !section.path.is_empty() {
        let needed = match (section.is_required, section.is_repeated) {
            (true, true) => " **Required**, once or several times.",
            (true, false) => "",
            (false, _) => " May be left out.",
        };
        let _ = writeln!(page, "{}{needed}\n", section.meaning);
    }
    if section.keys.is_empty() {
        page.push_str(if holds_tables { "Its keys are tables.\n" } else { "It has no keys.\n" });
        return;
    }
    let has_reference = section.keys.iter().any(|key| key.reference.is_some());
    let cells = |cells: &[String]| -> String {
        let shown = if has_reference { cells } else { &cells[..cells.len() - 1] };
        format!("| {} |\n", shown.join(" | "))
    };
    page.push_str(&cells(&["key", "type", "default", "meaning", "`e2e_sae`"].map(str::to_owned)));
    page.push_str(&cells(&["---"; 5].map(str::to_owned)));
    for key in &section.keys {
        let name = key.path.rsplit('.').next().unwrap_or_default();
        let unit = key.unit.as_ref().map(|unit| format!(", in {unit}")).unwrap_or_default();
        let default = match (&key.default, key.is_required) {
            (Some(default), _) => format!("`{default}`"),
            (None, true) => "**required**".to_owned(),
            (None, false) => "none".to_owned(),
        };
        let words = key.words.iter().map(|Word { word, meaning }| format!(" `{word}`: {meaning}"));
        let meaning = format!("{}{}", key.meaning, words.collect::<String>());
        let reference = key.reference.as_ref().map(|key| format!("`{key}`")).unwrap_or_default();
        let kind = format!("{}{unit}", key.kind);
        let row = [format!("`{name}`"), kind, default, meaning, reference];
        page.push_str(&cells(&row.map(|cell| cell.replace('|', "\\|"))));
    }
}
