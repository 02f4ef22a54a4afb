//! Parts: what has come of a blob so far, each in a file that one download alone writes.
//!
//! A lock does not prove that nobody else is writing: some network file systems have none, and on others it holds on
//! one machine only. A part therefore carries the name of its writer, and passes to another writer by a rename, in
//! which only one of several succeeds.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::HubError;
use super::cache::io;

/// A part that has not changed for so long has no writer any more.
const GIVEN_UP_AFTER: Duration = Duration::from_hours(1);
const SUFFIX: &str = ".sae-part";

/// Who writes the parts of one download, through all of its attempts.
pub(super) struct Writer {
    /// What the processes share that see each other's locks on any file system; `None` where that is unknown.
    machine: Option<String>,
    id: String,
}

/// A file that one writer appends to.
pub(super) struct Part {
    pub path: PathBuf,
    pub file: File,
}

/// A part that nobody else is writing.
struct Leftover {
    part: Part,
    length: u64,
}

impl Writer {
    /// A writer like no other, on this machine.
    pub(super) fn new() -> Self {
        Self { machine: machine(), id: unique() }
    }

    /// The part to go on with: what an interrupted download left of the blob, or an empty one.
    pub(super) fn claim(
        &self,
        blob: &Path,
        is_locked: bool,
        size: Option<u64>,
    ) -> Result<Part, HubError> {
        let path = self.part_path(blob, is_locked);
        let mut leftovers = self.leftovers(blob, is_locked);
        // One that is longer than the file is of no use.
        leftovers.sort_by_key(|Leftover { length, .. }| {
            (size.is_none_or(|size| *length <= size), *length)
        });
        let taken = leftovers.into_iter().rev().find_map(|leftover| take(leftover.part, &path));
        if let Some(part) = taken {
            return Ok(part);
        }
        let file = File::options().append(true).create_new(true).open(&path);
        Ok(Part { file: file.map_err(io("create", &path))?, path })
    }

    /// Removes what interrupted downloads left of a blob that is whole.
    pub(super) fn remove_leftovers(&self, blob: &Path, is_locked: bool) {
        for Leftover { part, .. } in self.leftovers(blob, is_locked) {
            if let Err(error) = fs::remove_file(&part.path) {
                tracing::debug!("cannot remove {:?}: {error}", part.path);
            }
        }
    }

    /// The writer names its machine only while it holds the lock.
    fn part_path(&self, blob: &Path, is_locked: bool) -> PathBuf {
        let machine = self.machine.as_deref().filter(|_| is_locked).unwrap_or("unlocked");
        let mut name = blob.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{machine}-{}{SUFFIX}", self.id));
        blob.with_file_name(name)
    }

    fn leftovers(&self, blob: &Path, is_locked: bool) -> Vec<Leftover> {
        let folder = blob.parent().and_then(|folder| fs::read_dir(folder).ok());
        let entries = folder.into_iter().flatten().flatten();
        let parts = entries.filter_map(|entry| {
            let name = entry.file_name();
            let writer = writer_of(name.to_str()?, blob.file_name().and_then(OsStr::to_str)?)?;
            // A link could lead out of the cache.
            if !entry.file_type().ok()?.is_file() {
                return None;
            }
            let path = entry.path();
            // Opened, because a network file system may answer a mere look from memory.
            let file = File::options().append(true).open(&path).ok()?;
            let found = file.metadata().ok()?;
            let idle = found.modified().ok()?.elapsed().unwrap_or_default();
            let is_left = self.may_take(writer, is_locked, idle);
            is_left.then(|| Leftover { part: Part { path, file }, length: found.len() })
        });
        parts.collect()
    }

    /// Whether nobody else can be writing a part of `writer`, unchanged for so long, given that we hold the lock or do
    /// not.
    fn may_take(&self, writer: &str, is_locked: bool, idle: Duration) -> bool {
        let (machine, id) = writer.split_once('-').unwrap_or_default();
        // Its writer needs the lock that we hold now.
        let is_excluded = is_locked && self.machine.as_deref() == Some(machine);
        id == self.id || is_excluded || idle >= GIVEN_UP_AFTER
    }
}

/// Takes a part over, unless another writer was quicker.
fn take(part: Part, path: &Path) -> Option<Part> {
    // A rename keeps the time of the last change, and by an old one the next writer would take the part away again.
    part.file.set_modified(SystemTime::now()).ok()?;
    fs::rename(&part.path, path).ok()?;
    Some(Part { path: path.to_owned(), ..part })
}

/// The writer that a part of the blob is named after: empty for those of earlier releases.
fn writer_of<'a>(name: &'a str, etag: &str) -> Option<&'a str> {
    let writer = name.strip_prefix(etag)?.strip_suffix(SUFFIX)?;
    if writer.is_empty() { Some(writer) } else { writer.strip_prefix('.') }
}

/// The machine, or rather its current run, because node names need not differ.
fn machine() -> Option<String> {
    if !cfg!(target_os = "linux") {
        // Network file systems keep their locks on the server there.
        return Some("local".to_owned());
    }
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(id.chars().filter(char::is_ascii_hexdigit).take(16).collect())
}

/// Part of a name that no other process and no other call gives.
pub(super) fn unique() -> String {
    format!("{:x}-{:016x}", std::process::id(), RandomState::new().hash_one(0))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn writer(machine: Option<&str>) -> Writer {
        Writer { machine: machine.map(str::to_owned), id: unique() }
    }

    fn write(part: &mut Part, bytes: &[u8]) {
        part.file.write_all(bytes).unwrap();
    }

    fn set_age(path: &Path, age: Duration) {
        let file = File::options().append(true).open(path).unwrap();
        file.set_modified(SystemTime::now() - age).unwrap();
    }

    #[test]
    fn a_part_is_taken_where_nobody_else_can_be_writing_it() {
        let ours = writer(Some("here"));
        let own = format!("unlocked-{}", ours.id);
        let hour = Duration::from_hours(1);
        for (writer, is_locked, idle, expected) in [
            (&*own, false, Duration::ZERO, true),
            ("here-1-a", true, Duration::ZERO, true),
            // Without the lock, its writer may be at work.
            ("here-1-a", false, Duration::ZERO, false),
            // Without a lock of its own, it does not wait for ours.
            ("unlocked-1-a", true, Duration::ZERO, false),
            // Locks may hold on each machine alone.
            ("there-1-a", true, Duration::ZERO, false),
            ("there-1-a", true, Duration::from_mins(59), false),
            ("there-1-a", false, hour, true),
            ("unlocked-1-a", false, hour, true),
            // Earlier releases did not say who wrote a part.
            ("", true, Duration::ZERO, false),
            ("", false, hour, true),
        ] {
            let found = ours.may_take(writer, is_locked, idle);
            assert_eq!(found, expected, "{writer:?} {is_locked} {idle:?}");
        }
        assert!(!writer(None).may_take("-1-a", true, Duration::ZERO), "no machine is like none");
    }

    #[test]
    fn writers_that_do_not_see_each_other_share_no_part() {
        // No locks at all; locks on each of two machines alone; machines that are not known.
        for (machines, is_locked) in [
            ([Some("one"), Some("one")], false),
            ([Some("one"), Some("two")], true),
            ([None, None], true),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let blob = folder.path().join("etag");
            let [one, other] = machines.map(writer);
            let mut parts = [&one, &other].map(|w| w.claim(&blob, is_locked, Some(4)).unwrap());
            for bytes in [b"ab", b"cd"] {
                for part in &mut parts {
                    write(part, bytes);
                }
            }
            for part in &parts {
                assert_eq!(fs::read(&part.path).unwrap(), b"abcd", "{machines:?}");
            }
            one.remove_leftovers(&blob, is_locked);
            assert_eq!(parts.map(|part| part.path.exists()), [false, true], "{machines:?}");
        }
    }

    #[test]
    fn a_part_that_was_left_goes_to_one_writer() {
        let folder = tempfile::tempdir().unwrap();
        let blob = folder.path().join("etag");
        write(&mut writer(Some("gone")).claim(&blob, true, None).unwrap(), b"abcd");
        let left = folder.path().read_dir().unwrap().next().unwrap().unwrap().path();
        set_age(&left, Duration::from_hours(2));
        let [one, other] = [Some("one"), Some("two")].map(writer);
        let taken = one.claim(&blob, false, Some(10)).unwrap();
        assert_eq!(fs::read(&taken.path).unwrap(), b"abcd");
        assert!(!left.exists());
        // Though the bytes in it are old, it has a writer again.
        let mut empty = other.claim(&blob, false, Some(10)).unwrap();
        assert_eq!(fs::read(&empty.path).unwrap(), b"");
        write(&mut empty, b"x");
        assert_eq!(fs::read(&taken.path).unwrap(), b"abcd");
    }

    #[test]
    fn of_several_parts_the_longest_that_fits_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let blob = folder.path().join("etag");
        // The last two are of other blobs.
        let names = ["etag.a-1.sae-part", "etag.b-2.sae-part", "etag.sae-part"];
        let others = ["etagx.sae-part", "an-etag.sae-part"];
        for (name, length) in names.into_iter().chain(others).zip([2, 4, 9, 5, 5]) {
            fs::write(folder.path().join(name), vec![0; length]).unwrap();
            set_age(&folder.path().join(name), Duration::from_hours(2));
        }
        let ours = writer(Some("one"));
        let part = ours.claim(&blob, true, Some(8)).unwrap();
        assert_eq!(part.file.metadata().unwrap().len(), 4);
        ours.remove_leftovers(&blob, true);
        let mut left: Vec<_> =
            fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["an-etag.sae-part", "etagx.sae-part"]);
    }

    #[cfg(unix)]
    #[test]
    fn a_link_is_no_part() {
        let folder = tempfile::tempdir().unwrap();
        let (blob, mine) = (folder.path().join("etag"), folder.path().join("mine"));
        fs::write(&mine, "mine").unwrap();
        set_age(&mine, Duration::from_hours(2));
        let ours = writer(Some("one"));
        for path in [folder.path().join("etag.sae-part"), ours.part_path(&blob, true)] {
            std::os::unix::fs::symlink(&mine, path).unwrap();
        }
        let error = ours.claim(&blob, true, None).err().unwrap().to_string();
        assert!(error.contains("cannot create") && error.contains(&ours.id), "{error}");
        assert_eq!(fs::read(&mine).unwrap(), b"mine");
    }
}
