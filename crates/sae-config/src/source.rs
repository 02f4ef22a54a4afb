//! Where models, data and SAEs come from: a path of this machine, or a repository of the Hugging Face hub.

use std::fmt;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a source is in the words of a configuration's reference.
pub(crate) const KIND: &str = "path, or hf://owner/name";

/// A local path, or `hf://owner/name[@revision][:commit][/path]`. Written as text in configurations.
#[derive(Debug, Clone, PartialEq, Eq, Hash, JsonSchema, Serialize, Deserialize)]
#[schemars(with = "String", extend("x-kind" = KIND))]
#[serde(try_from = "String", into = "String")]
pub enum Source {
    /// A path of this machine. In a configuration it is relative to the configuration's file, which makes it absolute when
    /// it is read.
    Local(PathBuf),
    /// A repository of the hub.
    Hub(HubSource),
}

/// A repository of the hub, whether of a model or of data is said by where it is used.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HubSource {
    /// `owner/name`, or a name alone for the hub's oldest models.
    pub repository: String,
    /// The branch, tag or commit that was asked for; the repository's main branch where left out.
    pub revision: Option<String>,
    /// The commit that `revision` stood for when a run began. It is recorded beside what was asked for, so that two
    /// requests stay apart even where they stood for one commit, or for two.
    pub commit: Option<String>,
    /// A file of the repository, or a glob over its files.
    pub path: Option<String>,
}

impl HubSource {
    /// Whether it names a commit, which never stands for anything else.
    pub fn is_pinned(&self) -> bool {
        self.commit.is_some() || self.revision.as_deref().is_some_and(is_commit)
    }

    /// The revision to read: the commit, where there is one, else what was asked for.
    pub fn resolved(&self) -> Option<&str> {
        self.commit.as_deref().or(self.revision.as_deref())
    }
}

fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.chars().all(|c| c.is_ascii_hexdigit())
}

impl Source {
    /// Takes over the commit of a source that asks for the same repository, revision and path, where this one names
    /// none. Another revision is another request, whatever it stands for.
    pub fn adopt_commit(&mut self, pinned: &Self) {
        if let (Self::Hub(own), Self::Hub(other)) = (&mut *self, pinned)
            && !own.is_pinned()
            && (&own.repository, &own.revision, &own.path)
                == (&other.repository, &other.revision, &other.path)
        {
            own.commit.clone_from(&other.commit);
        }
    }

    /// Whether it may stand for something else tomorrow: a branch or tag of the hub without its commit.
    pub fn is_floating(&self) -> bool {
        matches!(self, Self::Hub(hub) if !hub.is_pinned())
    }

    /// Makes a relative path absolute, as seen from `folder`. A glob stays one, whatever the folder is called.
    pub fn resolve(&mut self, folder: &Path) {
        let Self::Local(path) = self else { return };
        let is_glob = path.to_string_lossy().contains(GLOB);
        *path = match is_glob.then(|| resolved(Path::new(""), folder)) {
            Some(folder) if folder.to_string_lossy().contains(GLOB) => {
                resolved(path, Path::new(&escaped(&folder.to_string_lossy())))
            }
            _ => resolved(path, folder),
        };
    }

    /// The path, where it is one of this machine.
    pub fn local(&self) -> Option<&Path> {
        match self {
            Self::Local(path) => Some(path),
            Self::Hub(_) => None,
        }
    }
}

/// What makes a path a glob.
const GLOB: [char; 3] = ['*', '?', '['];

/// A text as a glob that matches it alone.
fn escaped(text: &str) -> String {
    let escape = |c: char| if GLOB.contains(&c) { format!("[{c}]") } else { c.to_string() };
    text.chars().map(escape).collect()
}

/// A path as seen from a folder, absolute. Where it climbs from the folder (`../data`), it climbs from the place that the
/// folder really has, behind symbolic links, as the system does.
pub fn resolved(path: &Path, folder: &Path) -> PathBuf {
    if path.is_absolute() {
        return path.to_owned();
    }
    let here = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let mut whole = std::fs::canonicalize(here)
        .or_else(|_| std::path::absolute(here))
        .unwrap_or_else(|_| here.to_owned());
    let mut climbs = true;
    for part in path.components() {
        climbs &= matches!(part, Component::ParentDir | Component::CurDir);
        match part {
            Component::ParentDir if climbs => {
                whole.pop();
            }
            Component::CurDir => {}
            other => whole.push(other),
        }
    }
    whole
}

impl From<PathBuf> for Source {
    fn from(path: PathBuf) -> Self {
        Self::Local(path)
    }
}

/// A text that names no source.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseSourceError {
    /// A hub reference that names no repository.
    #[error(
        "`{0}` is not a reference to the hub; write hf://owner/name, with a revision hf://owner/name@revision, with its \
         commit hf://owner/name@revision:commit, with a file hf://owner/name/path/in/it"
    )]
    Hub(String),
    /// No text at all.
    #[error("expected a path or hf://owner/name, found an empty text")]
    Empty,
}

impl FromStr for Source {
    type Err = ParseSourceError;

    fn from_str(text: &str) -> Result<Self, ParseSourceError> {
        if text.is_empty() {
            return Err(ParseSourceError::Empty);
        }
        match text.strip_prefix("hf://") {
            None => Ok(Self::Local(PathBuf::from(text))),
            Some(rest) => {
                parse_hub(rest).map(Self::Hub).ok_or_else(|| ParseSourceError::Hub(text.to_owned()))
            }
        }
    }
}

fn parse_hub(text: &str) -> Option<HubSource> {
    // Other tools write the kind of repository in front.
    let text =
        ["datasets/", "models/"].iter().find_map(|kind| text.strip_prefix(kind)).unwrap_or(text);
    let text = text.replace("%2F", "/");
    // A repository's name has neither sign; what stands before the first one is the name.
    let name_end = text.find(['@', ':']).unwrap_or(text.len());
    let (name, rest) = text.split_at(name_end);
    let mut parts = name.splitn(3, '/');
    let owner = parts.next().filter(|part| is_plain(part))?;
    let repository = match parts.next() {
        None => owner.to_owned(),
        Some(name) if is_plain(name) => format!("{owner}/{name}"),
        Some(_) => return None,
    };
    let (mut revision, mut commit, mut path) = (None, None, parts.next());
    // A path before the revision belongs to neither.
    if path.is_some() && !rest.is_empty() {
        return None;
    }
    let mut rest = rest;
    if let Some(after) = rest.strip_prefix('@') {
        // References such as refs/convert/parquet have three parts, all others one.
        let length = if after.starts_with("refs/") { 3 } else { 1 };
        let colon = after.find(':').unwrap_or(after.len());
        let slash = after.match_indices('/').nth(length - 1).map_or(after.len(), |(at, _)| at);
        let end = colon.min(slash);
        revision = Some(&after[..end]).filter(|text| text.split('/').all(is_plain));
        revision?;
        rest = &after[end..];
    }
    if let Some(after) = rest.strip_prefix(':') {
        let end = after.find('/').unwrap_or(after.len());
        commit = Some(&after[..end]).filter(|text| is_commit(text));
        commit?;
        rest = &after[end..];
    }
    if let Some(after) = rest.strip_prefix('/') {
        path = Some(after);
    } else if !rest.is_empty() {
        return None;
    }
    if path == Some("") {
        return None;
    }
    let owned = |text: Option<&str>| text.map(ToOwned::to_owned);
    Some(HubSource {
        repository,
        revision: owned(revision),
        commit: owned(commit),
        path: owned(path),
    })
}

/// Whether a part of a name or revision is made of letters, digits, `-`, `_` and `.`, and stays where it is.
fn is_plain(part: &str) -> bool {
    !matches!(part, "" | "." | "..")
        && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
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
        if let Some(commit) = &self.commit {
            write!(f, ":{commit}")?;
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

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    #[test]
    fn references_round_trip() {
        let pinned = format!("hf://a/b@step1:{COMMIT}/x.pt");
        let main = format!("hf://a/b:{COMMIT}");
        let cases = [
            ("hf://gpt2", "gpt2", None, None, None),
            ("hf://roneneldan/TinyStories-1M", "roneneldan/TinyStories-1M", None, None, None),
            ("hf://a/b@v1.0", "a/b", Some("v1.0"), None, None),
            ("hf://a/b/data/train-*.parquet", "a/b", None, None, Some("data/train-*.parquet")),
            ("hf://a/b@refs/convert/parquet", "a/b", Some("refs/convert/parquet"), None, None),
            ("hf://a/b@refs/pr/1/x.pt", "a/b", Some("refs/pr/1"), None, Some("x.pt")),
            ("hf://a/b@main/dir/x.pt", "a/b", Some("main"), None, Some("dir/x.pt")),
            (&*pinned, "a/b", Some("step1"), Some(COMMIT), Some("x.pt")),
            (&*main, "a/b", None, Some(COMMIT), None),
        ];
        for (text, repository, revision, commit, path) in cases {
            let source: Source = text.parse().unwrap();
            let owned = |text: Option<&str>| text.map(ToOwned::to_owned);
            let expected = HubSource {
                repository: repository.to_owned(),
                revision: owned(revision),
                commit: owned(commit),
                path: owned(path),
            };
            assert_eq!(source, Source::Hub(expected));
            assert_eq!(source.to_string(), text);
        }
        let other: Source = "hf://datasets/a/b@refs%2Fconvert%2Fparquet".parse().unwrap();
        assert_eq!(other.to_string(), "hf://a/b@refs/convert/parquet");
        assert_eq!("data/x".parse::<Source>().unwrap(), Source::Local("data/x".into()));
        for bad in [
            "hf://",
            "hf:///x",
            "hf://a/../b",
            "hf://a b/c",
            "hf://a/b@",
            "hf://a/b/c@x",
            "hf://a/b:step1",
            "hf://a/b@x:",
            "hf://a/b/c:x",
        ] {
            assert!(bad.parse::<Source>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_commit_is_adopted_by_an_equal_request_alone() {
        let pinned: Source = format!("hf://a/b@step1:{COMMIT}").parse().unwrap();
        for (request, adopted) in [
            ("hf://a/b@step1", true),
            ("hf://a/b@step2", false),
            ("hf://a/b", false),
            ("hf://a/c@step1", false),
            ("hf://a/b@step1/x.pt", false),
        ] {
            let mut source: Source = request.parse().unwrap();
            assert!(source.is_floating());
            source.adopt_commit(&pinned);
            assert_eq!(source == pinned, adopted, "{request}");
            assert_eq!(source.is_floating(), !adopted, "{request}");
        }
    }
}
