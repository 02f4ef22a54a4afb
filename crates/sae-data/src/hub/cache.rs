//! The cache folder, in the layout that the hub's clients share: `blobs` by hash, `snapshots` of links to them by
//! commit, `refs` from branches to commits.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use super::{Hub, HubError, Target, is_word};

impl Hub {
    /// The file, if the snapshot that the revision stands for has it.
    pub(super) fn cached(&self, target: &Target<'_>) -> Option<PathBuf> {
        let path = self.snapshot(target, &self.commit(target)?).join(target.file?);
        path.is_file().then_some(path)
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
        let written = self.cache.repo(target.repo.clone()).create_ref(commit);
        written.map_err(io("write", &self.refs(target)))
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
        let path = self.listing_path(target, commit);
        let written = create_parent(&path)
            .and_then(|()| fs::write(&path, files.join("\n")).map_err(io("write", &path)));
        // A cache that cannot be written, such as one that a group shares, still serves what it holds.
        if let Err(error) = written {
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

    /// Waits until no other process is writing the blob.
    pub(super) fn lock(&self, target: &Target<'_>, etag: &str) -> Result<File, HubError> {
        let path = self.cache.path().join(".locks").join(target.repo.folder_name());
        let path = path.join(format!("{etag}.lock"));
        create_parent(&path)?;
        let file = File::create(&path).map_err(io("create", &path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                tracing::info!("{}: waiting for the process that is downloading it", target.what);
                file.lock().map_err(io("lock", &path))?;
            }
            // Some network file systems have no locks; what is fetched twice is still right.
            Err(TryLockError::Error(error)) => tracing::debug!("cannot lock {path:?}: {error}"),
        }
        Ok(file)
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
        if pointer.is_file() {
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
