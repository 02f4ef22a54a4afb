//! Where models, data and SAEs come from: a path of this machine, or a repository of the Hugging Face hub.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A local path, or `hf://owner/name[@revision][/path]`. Written as text in configurations.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Source {
    /// A path, relative to the working directory.
    Local(PathBuf),
    /// A repository of the hub.
    Hub(HubSource),
}

/// A repository of the hub, whether of a model or of data is said by where it is used.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HubSource {
    /// `owner/name`, or a name alone for the hub's oldest models.
    pub repository: String,
    /// A branch, tag or commit; the repository's main branch where left out.
    pub revision: Option<String>,
    /// A file of the repository, or a glob over its files.
    pub path: Option<String>,
}

impl HubSource {
    /// Whether the revision is a commit, which never stands for anything else.
    pub fn is_pinned(&self) -> bool {
        let is_commit =
            |text: &str| text.len() == 40 && text.chars().all(|c| c.is_ascii_hexdigit());
        self.revision.as_deref().is_some_and(is_commit)
    }
}

impl Source {
    /// Takes over the commit of a source that is the same but for its revision, where this one names none.
    pub fn adopt_commit(&mut self, pinned: &Self) {
        if let (Self::Hub(own), Self::Hub(other)) = (&mut *self, pinned)
            && other.is_pinned()
            && !own.is_pinned()
            && (&own.repository, &own.path) == (&other.repository, &other.path)
        {
            own.revision.clone_from(&other.revision);
        }
    }

    /// The path, where it is one of this machine.
    pub fn local(&self) -> Option<&Path> {
        match self {
            Self::Local(path) => Some(path),
            Self::Hub(_) => None,
        }
    }
}

impl From<PathBuf> for Source {
    fn from(path: PathBuf) -> Self {
        Self::Local(path)
    }
}

/// A hub reference that names no repository.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no reference to the hub; they are written hf://owner/name, with a revision hf://owner/name@revision, with \
     a file hf://owner/name/path/in/it"
)]
pub struct ParseSourceError(String);

impl FromStr for Source {
    type Err = ParseSourceError;

    fn from_str(text: &str) -> Result<Self, ParseSourceError> {
        match text.strip_prefix("hf://") {
            None => Ok(Self::Local(PathBuf::from(text))),
            Some(rest) => {
                parse_hub(rest).map(Self::Hub).ok_or_else(|| ParseSourceError(text.to_owned()))
            }
        }
    }
}

fn parse_hub(text: &str) -> Option<HubSource> {
    // Other tools write the kind of repository in front.
    let text =
        ["datasets/", "models/"].iter().find_map(|kind| text.strip_prefix(kind)).unwrap_or(text);
    let plain = |part: &str| {
        !part.is_empty()
            && part != "."
            && part != ".."
            && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
    };
    let (name, rest) = match text.split_once('@') {
        Some((name, rest)) => (name, Some(rest)),
        None => (text, None),
    };
    let mut parts = name.splitn(3, '/');
    let owner = parts.next().filter(|part| plain(part))?;
    let repository = match parts.next() {
        None => owner.to_owned(),
        Some(name) if plain(name) => format!("{owner}/{name}"),
        Some(_) => return None,
    };
    let (revision, path) = match rest {
        None => (None, parts.next()),
        // A path before the revision belongs to neither.
        Some(_) if parts.next().is_some() => return None,
        Some(rest) => {
            let rest = &rest.replace("%2F", "/");
            // References such as refs/convert/parquet have three parts, all others one.
            let length = if rest.starts_with("refs/") { 3 } else { 1 };
            let cut = rest.match_indices('/').nth(length - 1).map(|(at, _)| at);
            let revision = &rest[..cut.unwrap_or(rest.len())];
            let revision_ok = revision.split('/').all(plain);
            let path = cut.map(|cut| rest[cut + 1..].to_owned());
            return (revision_ok && path.as_deref() != Some("")).then(|| HubSource {
                repository,
                revision: Some(revision.to_owned()),
                path,
            });
        }
    };
    if path == Some("") {
        return None;
    }
    Some(HubSource { repository, revision, path: path.map(ToOwned::to_owned) })
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local(path) => write!(f, "{}", path.display()),
            Self::Hub(hub) => write!(f, "{hub}"),
        }
    }
}

impl fmt::Display for HubSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "hf://{}", self.repository)?;
        if let Some(revision) = &self.revision {
            write!(f, "@{revision}")?;
        }
        if let Some(path) = &self.path {
            write!(f, "/{path}")?;
        }
        Ok(())
    }
}

impl TryFrom<String> for Source {
    type Error = ParseSourceError;

    fn try_from(text: String) -> Result<Self, ParseSourceError> {
        text.parse()
    }
}

impl From<Source> for String {
    fn from(source: Source) -> Self {
        source.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::{HubSource, Source};

    #[test]
    fn references_round_trip() {
        let cases = [
            ("hf://gpt2", "gpt2", None, None),
            ("hf://roneneldan/TinyStories-1M", "roneneldan/TinyStories-1M", None, None),
            ("hf://a/b@v1.0", "a/b", Some("v1.0"), None),
            ("hf://a/b/data/train-*.parquet", "a/b", None, Some("data/train-*.parquet")),
            ("hf://a/b@refs/convert/parquet", "a/b", Some("refs/convert/parquet"), None),
            ("hf://a/b@refs/pr/1/x.pt", "a/b", Some("refs/pr/1"), Some("x.pt")),
            ("hf://a/b@main/dir/x.pt", "a/b", Some("main"), Some("dir/x.pt")),
        ];
        for (text, repository, revision, path) in cases {
            let source: Source = text.parse().unwrap();
            let expected = HubSource {
                repository: repository.to_owned(),
                revision: revision.map(ToOwned::to_owned),
                path: path.map(ToOwned::to_owned),
            };
            assert_eq!(source, Source::Hub(expected));
            assert_eq!(source.to_string(), text);
        }
        let other: Source = "hf://datasets/a/b@refs%2Fconvert%2Fparquet".parse().unwrap();
        assert_eq!(other.to_string(), "hf://a/b@refs/convert/parquet");
        assert_eq!("data/x".parse::<Source>().unwrap(), Source::Local("data/x".into()));
        for bad in ["hf://", "hf:///x", "hf://a/../b", "hf://a b/c", "hf://a/b@", "hf://a/b/c@x"] {
            assert!(bad.parse::<Source>().is_err(), "{bad}");
        }
    }
}
