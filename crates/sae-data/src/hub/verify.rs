//! Whether contents are those that were announced: the length, and where a blob's name is a SHA-256, that of the bytes.
//!
//! The hub names files that it keeps in LFS by the SHA-256 of their contents, and others by a hash of git's.

use std::fs::{self, File, Metadata};
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use sha2::{Digest, Sha256};

use super::cache::{io, write_whole};
use super::part::Part;
use super::request::Failure;
use super::{Hub, HubError, Target};

/// Length from which hashing takes a while.
const LARGE: u64 = 256 << 20;

/// What a file's contents turned out to be.
pub(super) enum Contents {
    /// What the name promises, as far as it promises anything.
    Right,
    /// Something else, of this SHA-256.
    Wrong { sha256: String },
}

impl Hub {
    /// Compares a blob with its name. Once it was found right, it is hashed again only where its length or time has
    /// changed.
    pub(super) fn inspect(
        &self,
        target: &Target<'_>,
        blob: &Path,
        etag: &str,
    ) -> Result<Contents, HubError> {
        if !is_sha256(etag) {
            return Ok(Contents::Right);
        }
        let read = io("read", blob);
        let file = File::open(blob).map_err(&read)?;
        let found = file.metadata().map_err(&read)?;
        let kept = fs::read_to_string(self.verified_path(target, etag)).ok();
        if kept.is_some() && kept == stamp(&found) {
            return Ok(Contents::Right);
        }
        let contents = compare(target, file, found.len(), etag).map_err(read)?;
        if matches!(contents, Contents::Right) {
            self.keep_verified(target, etag, &found);
        }
        Ok(contents)
    }

    /// Remembers that a blob is what its name says, if that is a SHA-256.
    pub(super) fn keep_verified(&self, target: &Target<'_>, etag: &str, found: &Metadata) {
        let Some(stamp) = stamp(found).filter(|_| is_sha256(etag)) else { return };
        // In a cache that cannot be written, blobs are hashed each time.
        if let Err(error) = write_whole(&self.verified_path(target, etag), &stamp) {
            tracing::debug!("{error}");
        }
    }

    fn verified_path(&self, target: &Target<'_>, etag: &str) -> PathBuf {
        self.cache.path().join(target.repo.folder_name()).join("sae-verified").join(etag)
    }
}

/// Compares a finished download with what was announced, and removes it where it is something else.
pub(super) fn check_part(
    target: &Target<'_>,
    part: &Part,
    etag: &str,
    size: Option<u64>,
) -> Result<Metadata, Failure> {
    let read = io("read", &part.path);
    let file = File::open(&part.path).map_err(&read)?;
    let found = file.metadata().map_err(&read)?;
    let length = found.len();
    let cause = if let Some(size) = size.filter(|&size| size != length) {
        format!("{length} bytes came of a file of {size}")
    } else {
        match compare(target, file, length, etag).map_err(read)? {
            Contents::Right => return Ok(found),
            Contents::Wrong { sha256 } => {
                format!("the {length} bytes that came have the SHA-256 {sha256}, expected {etag}")
            }
        }
    };
    fs::remove_file(&part.path).map_err(io("remove", &part.path))?;
    Err(Failure::Mismatch { cause })
}

fn compare(target: &Target<'_>, file: File, length: u64, etag: &str) -> std::io::Result<Contents> {
    if !is_sha256(etag) {
        return Ok(Contents::Right);
    }
    if length >= LARGE {
        tracing::info!("comparing {} with its SHA-256", target.what);
    }
    let mut hash = Sha256::new();
    std::io::copy(&mut BufReader::with_capacity(1 << 17, file), &mut hash)?;
    let sha256: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    let is_right = sha256.eq_ignore_ascii_case(etag);
    Ok(if is_right { Contents::Right } else { Contents::Wrong { sha256 } })
}

fn is_sha256(etag: &str) -> bool {
    etag.len() == 64 && etag.chars().all(|c| c.is_ascii_hexdigit())
}

/// Length, and time of the last change in nanoseconds: together they show a change.
fn stamp(found: &Metadata) -> Option<String> {
    let modified = found.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
    Some(format!("{} {}", found.len(), modified.as_nanos()))
}
