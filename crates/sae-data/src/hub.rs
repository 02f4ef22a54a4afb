//! Models and data sets from the Hugging Face hub, through the cache folder that its other clients use too.

use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use hf_hub::api::RepoInfo;
use hf_hub::{Cache, Repo, RepoType};
use ureq::http::{HeaderValue, Uri};
use ureq::{Agent, Proxy};

mod cache;
mod download;
mod error;
mod parquet;
mod part;
mod request;
mod verify;

pub use self::parquet::in_split;
pub(crate) use self::parquet::splits;
pub use error::{HubError, Missing};
use part::Writer;

/// What a repository holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RepositoryKind {
    /// A model.
    Model,
    /// A data set.
    Dataset,
}

/// A repository at a revision.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Repository {
    /// What it holds.
    pub kind: RepositoryKind,
    /// `owner/name`, or `name` alone.
    pub name: String,
    /// A branch, tag or commit; `None` is `main`.
    pub revision: Option<String>,
}

/// Where a [`Hub`] asks, what it keeps and how long it tries.
#[derive(Clone)]
pub struct HubOptions {
    /// The hub's address: `https://huggingface.co`, or a mirror's.
    pub endpoint: String,
    /// The cache folder.
    pub cache: PathBuf,
    /// Sent to the endpoint and to no other host.
    pub token: Option<String>,
    /// Use what the cache holds and make no request.
    pub offline: bool,
    /// Failures in a row after which to give up, or downloads of the wrong contents. A mebibyte received in between
    /// starts the count of failures anew.
    pub attempts: u32,
    /// Wait after the first failure. It doubles up to a minute, and is longer where the hub asks for that.
    pub first_delay: Duration,
    /// A connection that takes this long to make, or is silent for as long, has failed.
    pub stall: Duration,
}

/// The hub: files by repository and name, downloaded once.
///
/// A branch or tag stands for the commit that the cache knows it by, so that the files of a model are of one commit
/// and need no request once they are there; [`Hub::files`] and [`Hub::parquet_files`] look where it stands now.
#[derive(Clone)]
pub struct Hub {
    options: HubOptions,
    endpoint: Uri,
    authorization: Option<HeaderValue>,
    cache: Cache,
    agent: Agent,
}

/// A file of a repository, or its listing, with names that have been checked.
struct Target<'a> {
    repo: Repo,
    file: Option<&'a str>,
    /// File, repository and revision, for messages.
    what: String,
}

impl Repository {
    /// A model at `main`.
    pub fn model(name: impl Into<String>) -> Self {
        Self { kind: RepositoryKind::Model, name: name.into(), revision: None }
    }

    /// A data set at `main`.
    pub fn dataset(name: impl Into<String>) -> Self {
        Self { kind: RepositoryKind::Dataset, name: name.into(), revision: None }
    }

    /// The same at another revision.
    #[must_use]
    pub fn at(self, revision: impl Into<String>) -> Self {
        Self { revision: Some(revision.into()), ..self }
    }

    fn revision(&self) -> &str {
        self.revision.as_deref().unwrap_or("main")
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            RepositoryKind::Model => "model",
            RepositoryKind::Dataset => "data set",
        };
        write!(f, "{kind} {} at revision {}", self.name, self.revision())
    }
}

impl HubOptions {
    /// The public hub with this cache folder, without a token.
    pub fn new(cache: impl Into<PathBuf>) -> Self {
        Self {
            endpoint: "https://huggingface.co".to_owned(),
            cache: cache.into(),
            token: None,
            offline: false,
            attempts: 5,
            first_delay: Duration::from_secs(1),
            stall: Duration::from_secs(30),
        }
    }

    /// What the environment variables say that [`Hub::from_env`] names; `variable` looks one up.
    pub fn from_variables(variable: impl Fn(&str) -> Option<OsString>) -> Result<Self, HubError> {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        let path = |name: &str| set(name).map(PathBuf::from);
        let text = |name: &str| set(name).map(|value| value.to_string_lossy().trim().to_owned());

        let home = path("HF_HOME")
            .or_else(|| Some(path("XDG_CACHE_HOME")?.join("huggingface")))
            .or_else(|| Some(path("HOME").or(path("USERPROFILE"))?.join(".cache/huggingface")));
        let cache = path("HF_HUB_CACHE").or_else(|| Some(home.as_ref()?.join("hub")));
        let token_file = || fs::read_to_string(home.as_ref()?.join("token")).ok();

        let mut options = Self::new(cache.ok_or_else(|| HubError::Invalid {
            name: "the hub's cache (HF_HOME)",
            found: "not set, and neither is HOME".to_owned(),
            expected: "a folder",
        })?);
        options.endpoint = text("HF_ENDPOINT").unwrap_or(options.endpoint);
        options.token = text("HF_TOKEN")
            .or_else(|| text("HUGGING_FACE_HUB_TOKEN"))
            .or_else(|| Some(token_file()?.trim().to_owned()))
            .filter(|token| !token.is_empty());
        options.offline = text("HF_HUB_OFFLINE")
            .is_some_and(|on| matches!(&*on.to_uppercase(), "1" | "ON" | "YES" | "TRUE"));
        Ok(options)
    }
}

/// Without the token.
impl fmt::Debug for HubOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HubOptions")
            .field("endpoint", &self.endpoint)
            .field("cache", &self.cache)
            .field("token", &self.token.as_ref().map(|_| "(hidden)"))
            .field("offline", &self.offline)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Hub {
    /// As the environment says: `HF_ENDPOINT`; the cache folder `HF_HUB_CACHE`, or `hub` in `HF_HOME`; the token
    /// `HF_TOKEN`, `HUGGING_FACE_HUB_TOKEN`, or the file `token` in `HF_HOME`; `HF_HUB_OFFLINE`.
    pub fn from_env() -> Result<Self, HubError> {
        Self::new(HubOptions::from_variables(|name| std::env::var_os(name))?)
    }

    /// With these settings.
    pub fn new(mut options: HubOptions) -> Result<Self, HubError> {
        options.endpoint.truncate(options.endpoint.trim_end_matches('/').len());
        let endpoint = options.endpoint.parse::<Uri>().ok().filter(|uri| {
            matches!(uri.scheme_str(), Some("http" | "https")) && uri.query().is_none()
        });
        let endpoint = endpoint.ok_or_else(|| HubError::Invalid {
            name: "the hub's endpoint (HF_ENDPOINT)",
            found: format!("`{}`", options.endpoint),
            expected: "an address such as https://huggingface.co",
        })?;
        let mut authorization = None;
        if let Some(token) = &options.token {
            let value = HeaderValue::from_str(&format!("Bearer {token}"));
            let mut value = value.map_err(|_| HubError::Invalid {
                name: "the hub's token (HF_TOKEN)",
                found: "more than printable ASCII".to_owned(),
                expected: "hf_ and letters, as the hub's settings show it",
            })?;
            value.set_sensitive(true);
            authorization = Some(value);
        }
        // A proxy cannot reach this machine's own addresses.
        let is_local = matches!(endpoint.host(), Some("localhost" | "127.0.0.1" | "[::1]"));
        let agent = Agent::config_builder()
            .proxy(if is_local { None } else { Proxy::try_from_env() })
            .http_status_as_error(false)
            .max_redirects(0)
            .user_agent(concat!("sae-data/", env!("CARGO_PKG_VERSION")))
            .timeout_resolve(Some(options.stall))
            .timeout_connect(Some(options.stall))
            .timeout_recv_response(Some(options.stall))
            .timeout_per_read(Some(options.stall))
            .timeout_per_write(Some(options.stall))
            .build()
            .new_agent();
        Ok(Self {
            endpoint,
            authorization,
            cache: Cache::new(options.cache.clone()),
            agent,
            options,
        })
    }

    /// The names of all files of a repository, sorted. Offline, and where the hub cannot be reached, those of the last
    /// listing, or, where there was none, those that the cache holds of it.
    pub fn files(&self, repository: &Repository) -> Result<Vec<String>, HubError> {
        let target = Target::new(repository, None)?;
        // A commit's files never change; offline, a branch is where it was.
        if (self.options.offline || cache::is_commit(repository.revision()))
            && let Some(files) = self.kept_listing(&target)
        {
            return Ok(files);
        }
        if self.options.offline {
            let files = self.cached_files(&target)?;
            tracing::warn!(
                "offline: {} was never fetched here; making do with the {} files in the cache, which may not be all",
                target.what,
                files.len()
            );
            return Ok(files);
        }
        let bytes = match self.retry(&target, || self.listing(&target)) {
            Err(error @ HubError::Network { .. }) => {
                let files = self.kept_listing(&target).ok_or_else(|| error.to_string());
                return match files {
                    Ok(files) => {
                        tracing::warn!("{error}; going on with what was listed last");
                        Ok(files)
                    }
                    Err(_) => Err(error),
                };
            }
            bytes => bytes?,
        };
        let bad = |found| Err(self.bad_reply(&target, found));
        let info: RepoInfo = match serde_json::from_slice(&bytes) {
            Ok(info) => info,
            Err(error) => return bad(format!("the listing is not the JSON expected ({error})")),
        };
        let mut files: Vec<String> = info.siblings.into_iter().map(|file| file.rfilename).collect();
        if let Some(name) = files.iter().find(|name| !is_inside(name)) {
            return bad(format!("the listing has a file outside of its folder, {name:?}"));
        }
        if !is_word(&info.sha) {
            return bad(format!("the listing is of commit {:?}", info.sha));
        }
        // A cache that cannot be written, such as one that a group shares, still serves what it holds.
        if let Err(error) = self.note_commit(&target, &info.sha) {
            tracing::debug!("{error}");
        }
        files.sort();
        self.keep_listing(&target, &info.sha, &files);
        Ok(files)
    }

    /// The commit that the repository's revision stood for when it was last asked for.
    pub fn commit_of(&self, repository: &Repository) -> Result<Option<String>, HubError> {
        Ok(self.commit(&Target::new(repository, None)?))
    }

    /// The path of a file in the cache, downloaded if it is not there or damaged.
    ///
    /// A file that the hub names by its SHA-256, as it does large ones, is compared with it before it gets into the
    /// cache, and again where its length or time has changed since.
    pub fn get(&self, repository: &Repository, file: &str) -> Result<PathBuf, HubError> {
        let target = Target::new(repository, Some(file))?;
        match self.cached(&target) {
            Ok(Some(path)) => return Ok(path),
            Ok(None) if self.options.offline => return Err(self.not_cached(&target)),
            Ok(None) => {}
            Err(error) if self.options.offline => return Err(error),
            Err(error) => {
                tracing::warn!(
                    "{} cannot be used as it is in the cache; fetching it again",
                    target.what
                );
                tracing::debug!("{error}");
            }
        }
        let writer = Writer::new();
        if let Some(commit) = self.commit(&target).filter(|commit| commit != repository.revision())
        {
            let repository = repository.clone().at(commit);
            let pinned = Target::new(&repository, Some(file))?;
            match self.retry(&pinned, || self.download(&pinned, &writer)) {
                // The branch has been rewritten, or has got the file since.
                Err(HubError::NotFound { .. }) => {}
                done => return done,
            }
        }
        self.retry(&target, || self.download(&target, &writer))
    }

    /// Like [`Hub::get`], but `None` where the repository does not have the file. Offline, that is where the cache has
    /// the repository without it.
    pub fn try_get(
        &self,
        repository: &Repository,
        file: &str,
    ) -> Result<Option<PathBuf>, HubError> {
        match self.get(repository, file) {
            Ok(path) => Ok(Some(path)),
            Err(HubError::NotFound { missing: Missing::File, .. }) => Ok(None),
            Err(error @ HubError::NotFound { missing: Missing::Unknown, .. }) => {
                let listed = self.files(repository)?.iter().any(|name| name == file);
                if listed { Err(error) } else { Ok(None) }
            }
            Err(HubError::NotCached { .. }) => self.files(repository).map(|_| None),
            Err(error) => Err(error),
        }
    }
}

impl<'a> Target<'a> {
    fn new(repository: &Repository, file: Option<&'a str>) -> Result<Self, HubError> {
        let invalid = |name, found: &str, expected| {
            Err(HubError::Invalid { name, found: format!("{found:?}"), expected })
        };
        let Repository { kind, name, .. } = repository;
        let of = |more: &'static str| move |c: char| c.is_ascii_alphanumeric() || more.contains(c);
        // Two hyphens stand for the slash in the cache's folder names.
        if !is_inside(name)
            || name.matches('/').count() > 1
            || name.contains("--")
            || !name.chars().all(of("/-_."))
        {
            return invalid("the repository's name", name, "owner/name");
        }
        let revision = repository.revision();
        if !is_inside(revision) || !revision.chars().all(of("/-_.+")) {
            return invalid("the revision", revision, "a branch, tag or commit");
        }
        if let Some(file) = file.filter(|file| !is_inside(file)) {
            return invalid("the file's name", file, "a relative path without `..`");
        }
        let kind = match kind {
            RepositoryKind::Model => RepoType::Model,
            RepositoryKind::Dataset => RepoType::Dataset,
        };
        let file_or_list = file.map_or("the list of files".to_owned(), |file| format!("`{file}`"));
        let what = format!("{file_or_list} of {repository}");
        let repo = Repo::with_revision(name.clone(), kind, revision.to_owned());
        Ok(Self { repo, file, what })
    }
}

/// Whether a path stays in the folder that it is joined to, on any system.
fn is_inside(path: &str) -> bool {
    let is_name = |part| !matches!(part, "" | "." | "..");
    let is_plain = |c: char| !c.is_control() && c != '\\' && !(cfg!(windows) && c == ':');
    path.split('/').all(is_name) && path.chars().all(is_plain)
}

/// Whether a name is one of letters and digits alone, as hashes are.
fn is_word(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c))
}
