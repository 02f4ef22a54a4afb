//! What can be wrong with a configuration, said so that the reader knows which file and key to mend.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use crate::keys::FileKind;

/// A configuration that could not be read, understood or used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file could not be read.
    #[error("cannot read the configuration {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file could not be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The text is not TOML or JSON of the expected shape: a syntax error, an unknown key, a value out of range.
    #[error("cannot use the configuration {origin}: {message}")]
    Parse {
        /// The file or other place that the text comes from.
        origin: String,
        /// The parser's message with line and key; for an unknown key, the nearest known one.
        message: String,
    },
    /// A configuration of another kind.
    #[error(
        "cannot use the configuration {origin}: expected {expected}, found {found}, which `{command}` takes"
    )]
    OtherKind {
        /// The file.
        origin: String,
        /// The kind that was expected.
        expected: &'static str,
        /// The kind that it seems to be.
        found: &'static str,
        /// The command for it.
        command: &'static str,
    },
    /// Every value is possible by itself, but not this one together with the others.
    #[error("cannot use the configuration {origin}: {key} is {found}, but {expected}")]
    Invalid {
        /// The file or run.
        origin: String,
        /// The key, dotted.
        key: Cow<'static, str>,
        /// What was found.
        found: String,
        /// What was expected, and what to do.
        expected: String,
    },
}

impl ConfigError {
    /// A value that is possible by itself, but not here.
    pub fn invalid(
        origin: &str,
        key: impl Into<Cow<'static, str>>,
        found: impl std::fmt::Display,
        expected: impl Into<String>,
    ) -> Self {
        Self::Invalid {
            origin: origin.to_owned(),
            key: key.into(),
            found: found.to_string(),
            expected: expected.into(),
        }
    }

    /// Wraps a deserialiser's message; where it names an unknown key, adds the nearest known one, and where a choice is made
    /// twice, what to do.
    pub(crate) fn parse(origin: &str, error: &impl ToString) -> Self {
        let mut message = in_words(error.to_string().trim_end());
        if let Some(nearest) = nearest_key(&message) {
            message.push_str("\ndid you mean `");
            message.push_str(&nearest);
            message.push_str("`?");
        }
        if message.contains("missing field `variants`") {
            message.push_str("\na sweep has a table [[variants]] or several, each with a `name`");
        }
        // toml's words where a table stands for one of several kinds and names two, as a sweep's key beside its base's.
        if message.contains("wanted exactly 1 element") {
            message.push_str(
                "\nit names two kinds where one is chosen: take the other out (in a sweep, by `unset` of the variant)",
            );
        }
        Self::Parse { origin: origin.to_owned(), message }
    }
}

/// A deserialiser's message without the names of Rust's types.
fn in_words(message: &str) -> String {
    const WORDS: [(&str, &str); 11] = [
        (
            "invalid type: unit variant, expected newtype variant",
            "it has options of its own, in a table of its name",
        ),
        ("a nonzero usize", "a whole number of 1 or more"),
        ("a nonzero u64", "a whole number of 1 or more"),
        ("expected usize", "expected a whole number of 0 or more"),
        ("expected u64", "expected a whole number of 0 or more"),
        ("expected f64", "expected a number"),
        ("expected a sequence", "expected a list"),
        ("expected a map", "expected a table"),
        ("invalid type: map", "invalid type: table"),
        ("invalid type: sequence", "invalid type: list"),
        ("expected unit variant", "expected a word"),
    ];
    let mut message = WORDS
        .iter()
        .fold(message.to_owned(), |message, (serde, words)| message.replace(serde, words));
    // A section where there is none is "expected struct TrainConfig".
    while let Some(at) = message.find("expected struct ") {
        let name = at + "expected struct ".len();
        let end = message[name..]
            .find(|c: char| !c.is_ascii_alphanumeric())
            .map_or(message.len(), |length| name + length);
        message.replace_range(at..end, "expected a table");
    }
    message
}

/// A configuration of TOML.
pub(crate) fn from_text<T: DeserializeOwned>(
    text: &str,
    origin: &str,
    kind: FileKind,
) -> Result<T, ConfigError> {
    toml::from_str(text).map_err(|error| {
        let table = toml::from_str(text).unwrap_or_default();
        match FileKind::guess(&table).filter(|guessed| *guessed != kind) {
            Some(other) => ConfigError::OtherKind {
                origin: origin.to_owned(),
                expected: kind.title(),
                found: other.title(),
                command: other.command(),
            },
            None => with_section::<T>(origin, &table, &error),
        }
    })
}

/// A configuration of a table that a sweep has put together.
pub(crate) fn from_table<T: DeserializeOwned>(
    table: toml::Table,
    origin: &str,
) -> Result<T, ConfigError> {
    let copy = table.clone();
    table.try_into().map_err(|error| with_section::<T>(origin, &copy, &error))
}

/// The error of a section that no configuration has, where there is one: what stands in a misspelt section is missing from the
/// one that was meant, and that error comes first. An error that names an unknown key is as it should be.
fn with_section<T: DeserializeOwned>(
    origin: &str,
    table: &toml::Table,
    error: &toml::de::Error,
) -> ConfigError {
    let unknown = |key: &String| {
        let alone = toml::Table::from_iter([(key.clone(), toml::Table::new().into())]);
        let message = alone.try_into::<T>().err()?.message().to_owned();
        message.starts_with(&format!("unknown field `{key}`")).then_some(message)
    };
    if error.message().starts_with("unknown field") {
        return ConfigError::parse(origin, error);
    }
    match table.keys().find_map(unknown) {
        Some(message) => ConfigError::parse(origin, &message),
        None => ConfigError::parse(origin, error),
    }
}

/// The folder that relative paths in a file are seen from.
pub(crate) fn folder_of(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new(""))
}

/// Reads a file of configuration.
pub(crate) fn read(path: &Path) -> Result<String, ConfigError> {
    crate::file::read_text(path, crate::file::LONGEST_TEXT)
        .map_err(|source| ConfigError::Read { path: path.to_owned(), source })
}

/// From serde's "unknown field `x`, expected one of `a`, `b`", the known field nearest to `x`.
fn nearest_key(message: &str) -> Option<String> {
    let (_, rest) = message.split_once("unknown field `")?;
    let mut quoted = rest.split('`').step_by(2);
    let unknown = quoted.next()?;
    let known = quoted.filter(|known| !known.is_empty() && !known.contains(char::is_whitespace));
    nearest(unknown, known).map(str::to_owned)
}

/// The nearest of the known names, if any is near.
pub fn nearest<'a>(unknown: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known
        .map(|known| (strsim::normalized_damerau_levenshtein(unknown, known), known))
        .filter(|(similarity, _)| *similarity > 0.3)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use super::{from_table, from_text, in_words, nearest_key};
    use crate::keys::FileKind;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Whole {
        #[allow(dead_code)]
        train: Train,
    }

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Train {
        #[allow(dead_code)]
        steps: u64,
        #[allow(dead_code)]
        rate: Option<f64>,
    }

    #[test]
    fn a_misspelt_section_comes_before_what_is_missing_for_it() {
        let text = "[trian]\nsteps = 3\n[train]\nrate = 0.1\n";
        let from_text = |text: &str, origin: &str| from_text::<Whole>(text, origin, FileKind::Run);
        let by_text = from_text(text, "run.toml").unwrap_err().to_string();
        let table = toml::from_str(text).unwrap();
        let by_table = from_table::<Whole>(table, "run.toml").unwrap_err().to_string();
        for error in [by_text, by_table] {
            assert!(error.contains("`trian`") && error.contains("did you mean `train`"), "{error}");
        }
        // A key of a section keeps its line.
        let error = from_text("[train]\nsteps = 3\nraet = 1\n", "x").unwrap_err().to_string();
        assert!(error.contains("line 3") && error.contains("did you mean `rate`"), "{error}");
        // What is missing, where no section is misspelt.
        let error = from_text("[train]\nrate = 0.1\n", "x").unwrap_err().to_string();
        assert!(error.contains("missing field `steps`"), "{error}");
    }

    #[test]
    fn types_of_rust_are_told_in_words() {
        for (serde, words) in [
            (
                "invalid type: string \"x\", expected a nonzero usize",
                "invalid type: string \"x\", expected a whole number of 1 or more",
            ),
            (
                "invalid type: integer `3`, expected struct TrainConfig\nin `train`",
                "invalid type: integer `3`, expected a table\nin `train`",
            ),
            ("missing field `steps`", "missing field `steps`"),
        ] {
            assert_eq!(in_words(serde), words);
        }
    }

    #[test]
    fn the_nearest_known_key_is_named() {
        let message = "unknown field `learning_rat`, expected one of `lr`, `learning_rate`, `seed`";
        assert_eq!(nearest_key(message).as_deref(), Some("learning_rate"));
        assert_eq!(nearest_key("unknown field `zzz`, expected `lr`"), None);
        assert_eq!(nearest_key("invalid type: string"), None);
    }
}
