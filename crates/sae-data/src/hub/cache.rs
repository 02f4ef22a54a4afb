//! The cache folder, in the layout that the hub's clients share: `blobs` by hash, `snapshots` of links to them by
//! commit, `refs` from branches to commits.

use std::ffi::OsStr;
use std::fs::{self, File, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};

use super::part::unique;
use super::verify::Contents;
use super::{Hub, HubError, Target, is_word};

/// The lock of a blob, until it is dropped.
pub(super) struct Lock {
    /// False where the file system has no locks.
    pub is_held: bool,
    _file: File,
}

impl Hub {
    /// The file, if the snapshot that the revision stands for has it; an error where its contents are damaged.
    pub(super) fn cached(&self, target: &Target<'_>) -> Result<Option<PathBuf>, HubError> {
        let (Some(commit), Some(file)) = (self.commit(target), target.file) else {
            return Ok(None);
        };
        let path = self.snapshot(target, &commit).join(file);
        if !path.is_file() {
            return Ok(None);
        }
        // Without a link, the name of the blob is not known.
        let link = fs::read_link(&path).unwrap_or_default();
        let Some(etag) = link.file_name().and_then(OsStr::to_str) else { return Ok(Some(path)) };
        match self.inspect(target, &path, etag)? {
            Contents::Right => Ok(Some(path)),
            Contents::Wrong { sha256 } => Err(HubError::Damaged {
                what: target.what.clone(),
                path: fs::canonicalize(&path).unwrap_or(path),
                expected: etag.to_owned(),
                found: sha256,
            }),
        }
    }

    /// The commit that the revision is, or stood for last.
    pub(super) fn commit(&self, target: &Target<'_>) -> Option<String> {
        let revision = target.repo.revision();
        if is_commit(revision) {
            return Some(revision.to_owned());
        }
        let commit = fs::read_to_string(self.refs(target)).ok()?;
        Some(commit.trim().to_owned()).filter(|commit| is_word(commit))
    }

    /// Records what the revision stands for.
    pub(super) fn note_commit(&self, target: &Target<'_>, commit: &str) -> Result<(), HubError> {
        if is_commit(target.repo.revision()) || self.commit(target).as_deref() == Some(commit) {
            return Ok(());
        }
        write_whole(&self.refs(target), commit)
    }

    /// The names of the files that the snapshot has, sorted.
    pub(super) fn cached_files(&self, target: &Target<'_>) -> Result<Vec<String>, HubError> {
        let missing = || self.not_cached(target);
        let snapshot = self.snapshot(target, &self.commit(target).ok_or_else(missing)?);
        let pattern = format!("{}/**/*", glob::Pattern::escape(&snapshot.to_string_lossy()));
        let mut files: Vec<String> = glob::glob(&pattern)
            .map_err(|_| missing())?
            .filter_map(|path| path.ok().filter(|path| path.is_file()))
            .filter_map(|path| {
                Some(path.strip_prefix(&snapshot).ok()?.to_str()?.replace('\\', "/"))
            })
            .collect();
        files.sort();
        if files.is_empty() { Err(missing()) } else { Ok(files) }
    }

    /// Keeps the names of all files of a commit, which never change.
    pub(super) fn keep_listing(&self, target: &Target<'_>, commit: &str, files: &[String]) {
        // A cache that cannot be written, such as one that a group shares, still serves what it holds.
        if let Err(error) = write_whole(&self.listing_path(target, commit), &files.join("\n")) {
            tracing::debug!("{error}");
        }
    }

    /// The names of all files of the commit that the revision stood for last, where they were listed once.
    pub(super) fn kept_listing(&self, target: &Target<'_>) -> Option<Vec<String>> {
        let text = fs::read_to_string(self.listing_path(target, &self.commit(target)?)).ok()?;
        Some(text.lines().map(str::to_owned).collect())
    }

    fn listing_path(&self, target: &Target<'_>, commit: &str) -> PathBuf {
        self.cache.path().join(target.repo.folder_name()).join("sae-listings").join(commit)
    }

    pub(super) fn not_cached(&self, target: &Target<'_>) -> HubError {
        HubError::NotCached { what: target.what.clone(), cache: self.options.cache.clone() }
    }

    /// Waits until no other process has the blob's lock.
    pub(super) fn lock(&self, target: &Target<'_>, etag: &str) -> Result<Lock, HubError> {
        let path = self.cache.path().join(".locks").join(target.repo.folder_name());
        let path = path.join(format!("{etag}.lock"));
        create_parent(&path)?;
        let file = File::create(&path).map_err(io("create", &path))?;
        let is_held = match file.try_lock() {
            Ok(()) => true,
            Err(TryLockError::WouldBlock) => {
                tracing::info!("{}: waiting for the process that is downloading it", target.what);
                file.lock().map_err(io("lock", &path))?;
                true
            }
            // Some network file systems have no locks; what is fetched twice, into two parts, is still right.
            Err(TryLockError::Error(error)) => {
                tracing::debug!("cannot lock {path:?}: {error}");
                false
            }
        };
        Ok(Lock { is_held, _file: file })
    }

    /// Lets the snapshot's file point to the blob.
    pub(super) fn point(
        &self,
        target: &Target<'_>,
        commit: &str,
        blob: &Path,
    ) -> Result<PathBuf, HubError> {
        let file = target.file.unwrap_or_default();
        let pointer = self.snapshot(target, commit).join(file);
        // A link to another blob, which a mirror that names blobs otherwise left, may lead to a damaged one.
        let is_other = fs::read_link(&pointer).is_ok_and(|to| to.file_name() != blob.file_name());
        if pointer.is_file() && !is_other {
            return Ok(pointer);
        }
        create_parent(&pointer)?;
        if pointer.is_symlink() {
            fs::remove_file(&pointer).map_err(io("replace", &pointer))?;
        }
        let made = link(blob, &pointer, file.split('/').count() + 1);
        // Another process may have been quicker.
        if !pointer.is_file() {
            made.map_err(io("link", &pointer))?;
        }
        Ok(pointer)
    }

    fn snapshot(&self, target: &Target<'_>, commit: &str) -> PathBuf {
        self.cache.repo(target.repo.clone()).pointer_path(commit)
    }

    fn refs(&self, target: &Target<'_>) -> PathBuf {
        let folder = self.cache.path().join(target.repo.folder_name());
        folder.join("refs").join(target.repo.revision())
    }
}

/// An error of the system as ours.
pub(super) fn io(action: &'static str, path: &Path) -> impl Fn(std::io::Error) -> HubError + use<> {
    let path = path.to_owned();
    move |source| HubError::Io { action, path: path.clone(), source }
}

pub(super) fn create_parent(path: &Path) -> Result<(), HubError> {
    let folder = path.parent().unwrap_or(path);
    fs::create_dir_all(folder).map_err(io("create", folder))
}

/// Writes a file beside its place and moves it there, so that nobody finds half of it.
pub(super) fn write_whole(path: &Path, text: &str) -> Result<(), HubError> {
    create_parent(path)?;
    let beside = path.with_file_name(format!(".{}.sae-tmp", unique()));
    let write = || {
        let mut file = File::create_new(&beside)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&beside, path)
    };
    write().map_err(|error| {
        let _ = fs::remove_file(&beside);
        io("write", path)(error)
    })
}

/// Whether a revision can never stand for anything else.
pub(super) fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && revision.chars().all(|c| c.is_ascii_hexdigit())
}

/// Relative, so that the cache can be moved.
#[cfg(unix)]
fn link(blob: &Path, pointer: &Path, depth: usize) -> std::io::Result<()> {
    let name = blob.file_name().unwrap_or_default();
    let target = Path::new(&"../".repeat(depth)).join("blobs").join(name);
    std::os::unix::fs::symlink(target, pointer)
}

#[cfg(not(unix))]
fn link(blob: &Path, pointer: &Path, _depth: usize) -> std::io::Result<()> {
    fs::hard_link(blob, pointer).or_else(|_| fs::copy(blob, pointer).map(|_| ()))
}
