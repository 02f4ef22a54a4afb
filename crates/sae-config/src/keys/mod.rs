//! Every key of every configuration file, told from the types that read them: a JSON schema for editors, and the reference in
//! `docs/configuration.md`. `sae config` prints both.
//!
//! ```
//! use sae_config::keys::FileKind;
//!
//! let found = FileKind::Run.find("sae.expansion").unwrap();
//! assert_eq!(found.kind, "number above 0");
//! assert_eq!(found.reference.as_deref(), Some("saes.dict_size_to_input_ratio"));
//! ```

mod page;
mod schema;

use serde_json::Value;

use crate::{PretrainConfig, RunConfig, SweepConfig};
use schema::{choices, join, properties, schema_of, text};

pub use page::markdown;

/// The kinds of configuration files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// A run: [`RunConfig`].
    Run,
    /// A sweep: [`SweepConfig`].
    Sweep,
    /// A pretraining run: [`PretrainConfig`].
    Pretrain,
}

/// A key, with what its type says of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Key {
    /// The key, dotted, from the top of the file.
    pub path: String,
    /// The kind of its values, in words.
    pub kind: String,
    /// The value that it has where it is left out, as TOML writes it.
    pub default: Option<String>,
    /// Whether its section must have it.
    pub is_required: bool,
    /// The unit of its values.
    pub unit: Option<String>,
    /// The key of the reference's configuration that is imported into it.
    pub reference: Option<String>,
    /// What it means.
    pub meaning: String,
    /// The words that it takes, where these are few, each with what it means.
    pub words: Vec<Word>,
}

/// A word that a key takes.
#[derive(Debug, Clone, PartialEq)]
pub struct Word {
    /// The word.
    pub word: String,
    /// What it means.
    pub meaning: String,
}

/// A table of a file, with the keys that stand directly in it.
#[derive(Debug, Clone, PartialEq)]
pub struct Section {
    /// The table's name, dotted; empty for the top of the file.
    pub path: String,
    /// What it is about.
    pub meaning: String,
    /// Whether a file must have it.
    pub is_required: bool,
    /// Whether it may stand several times (`[[…]]`).
    pub is_repeated: bool,
    /// Its keys, in the order of their type.
    pub keys: Vec<Key>,
}

impl FileKind {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::Run, Self::Sweep, Self::Pretrain];

    /// The word for it: the name of the schema's file, too.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Sweep => "sweep",
            Self::Pretrain => "pretrain",
        }
    }

    /// What a file of it is.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Run => "a run",
            Self::Sweep => "a sweep",
            Self::Pretrain => "a pretraining run",
        }
    }

    /// The command that takes its files.
    pub const fn command(self) -> &'static str {
        match self {
            Self::Run => "sae train",
            Self::Sweep => "sae sweep",
            Self::Pretrain => "sae pretrain",
        }
    }

    /// The kind that a file seems to be of, told from keys that no other kind has.
    pub fn guess(file: &toml::Table) -> Option<Self> {
        if file.contains_key("variants") || file.contains_key("base") {
            return Some(Self::Sweep);
        }
        if file.contains_key("sae") || file.contains_key("loss") {
            return Some(Self::Run);
        }
        let model = file.get("model").and_then(toml::Value::as_table);
        model.filter(|model| model.contains_key("n_layers")).map(|_| Self::Pretrain)
    }

    /// The JSON schema (draft 7) of its files.
    pub fn schema(self) -> Value {
        match self {
            Self::Sweep => schema::with_keys_of_runs(self.schema_of_types()),
            Self::Run | Self::Pretrain => self.schema_of_types(),
        }
    }

    fn schema_of_types(self) -> Value {
        match self {
            Self::Run => schema_of::<RunConfig>(),
            Self::Sweep => schema_of::<SweepConfig>(),
            Self::Pretrain => schema_of::<PretrainConfig>(),
        }
    }

    /// Its tables, in the order of their types; the top of the file first.
    pub fn sections(self) -> Vec<Section> {
        let mut sections = Vec::new();
        add_section(&mut sections, "", &self.schema_of_types(), true, false);
        // At the top of some files there are tables alone.
        sections.retain(|section| !section.keys.is_empty() || !section.path.is_empty());
        sections
    }

    /// The key of this path.
    pub fn find(self, path: &str) -> Option<Key> {
        self.sections().into_iter().flat_map(|section| section.keys).find(|key| key.path == path)
    }
}

fn add_section(
    sections: &mut Vec<Section>,
    path: &str,
    schema: &Value,
    is_required: bool,
    is_repeated: bool,
) {
    let at = sections.len();
    let of_reference = text(schema, "x-reference");
    let meaning = text(schema, "description").unwrap_or_default();
    let section =
        Section { path: path.to_owned(), meaning, is_required, is_repeated, keys: Vec::new() };
    sections.push(section);
    let required = |name: &String| {
        let names = schema["required"].as_array();
        names.is_some_and(|names| names.iter().any(|required| required == name))
    };
    for (name, property) in properties(schema) {
        let (path, is_required) = (join(path, name), required(name));
        let items = &property["items"];
        if property["properties"].is_object() {
            add_section(sections, &path, property, is_required, false);
        } else if items["properties"].is_object() {
            add_section(sections, &path, items, is_required, true);
        } else {
            let mut key = key(&path, property, is_required);
            // A table that the reference has has its keys, too.
            let inside = |table: String| format!("{table}.{name}");
            key.reference = key.reference.or_else(|| of_reference.clone().map(inside));
            sections[at].keys.push(key);
            for choice in choices(property) {
                for (name, options) in properties(choice) {
                    let at = sections.len();
                    add_section(sections, &join(&path, name), options, false, false);
                    // The choice's own words say what it is, its options' how it works.
                    if let Some(short) = text(choice, "description") {
                        let long = std::mem::take(&mut sections[at].meaning);
                        sections[at].meaning = format!("{short} {long}");
                    }
                }
            }
        }
    }
}

fn key(path: &str, schema: &Value, is_required: bool) -> Key {
    Key {
        path: path.to_owned(),
        kind: kind(schema),
        default: schema.get("default").map(in_toml),
        is_required,
        unit: text(schema, "x-unit"),
        reference: text(schema, "x-reference"),
        meaning: text(schema, "description").unwrap_or_default(),
        words: words(schema),
    }
}

fn words(schema: &Value) -> Vec<Word> {
    let choices = schema["oneOf"].as_array().into_iter().flatten();
    let word = |choice: &Value| {
        let word = choice["const"].as_str().or_else(|| choice["enum"][0].as_str())?;
        let meaning = text(choice, "description").unwrap_or_default();
        Some(Word { word: word.to_owned(), meaning })
    };
    choices.filter_map(word).collect()
}

fn kind(schema: &Value) -> String {
    if let Some(kind) = text(schema, "x-kind") {
        return kind;
    }
    let words = words(schema);
    if !words.is_empty() {
        let words: Vec<String> = words.iter().map(|word| format!("\"{}\"", word.word)).collect();
        return words.join(" or ");
    }
    let tables: Vec<&String> = choices(schema).flat_map(properties).map(|(name, _)| name).collect();
    if !tables.is_empty() {
        let tables: Vec<&str> = tables.into_iter().map(String::as_str).collect();
        return format!("one of the tables {}", tables.join(", "));
    }
    let least = schema["minimum"].as_f64();
    match schema["type"].as_str() {
        Some("integer") => match least {
            Some(least) if least > 0.0 => format!("whole number of {least} or more"),
            _ => "whole number of 0 or more".to_owned(),
        },
        Some("number") => match (least, schema["maximum"].as_f64()) {
            (Some(least), Some(most)) => format!("number from {least} to {most}"),
            (Some(least), None) => format!("number of {least} or more"),
            _ if schema["exclusiveMinimum"].is_number() => {
                format!("number above {}", schema["exclusiveMinimum"])
            }
            _ => "number".to_owned(),
        },
        Some("boolean") => "true or false".to_owned(),
        Some("string") => "text".to_owned(),
        Some("array") => format!("list: {}", kind(&schema["items"])),
        Some("object") => "table".to_owned(),
        _ => "any value".to_owned(),
    }
}

/// A value of a schema as TOML writes it in a line.
fn in_toml(value: &Value) -> String {
    match value {
        Value::Object(map) => {
            let entries = map.iter().map(|(name, value)| format!("{name} = {}", in_toml(value)));
            let entries: Vec<String> = entries.collect();
            if entries.is_empty() {
                "{}".to_owned()
            } else {
                format!("{{ {} }}", entries.join(", "))
            }
        }
        Value::Array(values) => {
            let values: Vec<String> = values.iter().map(in_toml).collect();
            format!("[{}]", values.join(", "))
        }
        other => other.to_string(),
    }
}
