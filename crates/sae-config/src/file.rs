//! Reading and writing small files: never more than expected, never half of one, never through somebody else's link.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// The longest file of settings that is read, in bytes.
pub const LONGEST_TEXT: u64 = 64 << 20;

/// Reads a file of text of at most `longest` bytes. A device is refused, so that `/dev/zero` ends in an error and not in
/// all of the memory; a pipe is read.
pub fn read_text(path: &Path, longest: u64) -> io::Result<String> {
    let invalid = |message: String| Err(io::Error::new(io::ErrorKind::InvalidData, message));
    let file = File::open(path)?;
    let kind = file.metadata()?.file_type();
    if kind.is_dir() {
        return invalid("it is a folder, expected a file".to_owned());
    }
    if is_device(kind) {
        return invalid("it is a device, expected a file".to_owned());
    }
    let mut bytes = Vec::new();
    file.take(longest + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > longest {
        return invalid(format!("it has more than {longest} bytes, expected a file of text"));
    }
    String::from_utf8(bytes).or_else(|error| {
        let at = error.utf8_error().valid_up_to();
        invalid(format!("it is not UTF-8 text (byte {at})"))
    })
}

#[cfg(unix)]
fn is_device(kind: std::fs::FileType) -> bool {
    use std::os::unix::fs::FileTypeExt;
    kind.is_char_device() || kind.is_block_device()
}

#[cfg(not(unix))]
fn is_device(_: std::fs::FileType) -> bool {
    false
}

/// Writes a file whole or not at all: beside its place first, then renamed into it.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let partial = partial(path);
    let write = || -> io::Result<()> {
        create_new(&partial)?.write_all(bytes)?;
        std::fs::rename(&partial, path)
    };
    write().inspect_err(|_| {
        // The left-over is of no use, and the first error matters more than one in removing it.
        let _ = std::fs::remove_file(&partial);
    })
}

/// Where a file or folder is written before it is renamed into its place.
pub fn partial(path: &Path) -> PathBuf {
    let mut name: OsString = path.as_os_str().to_owned();
    name.push(".partial");
    PathBuf::from(name)
}

/// Creates a file at a temporary place. What an interrupted call has left there goes first; a symbolic link is removed,
/// not followed.
pub fn create_new(path: &Path) -> io::Result<File> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    File::options().write(true).create_new(true).open(path)
}

/// Creates an empty folder at a temporary place, as [`create_new`] creates a file.
pub fn create_new_folder(path: &Path) -> io::Result<()> {
    // A link is removed as a link, whatever it points to.
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => std::fs::remove_dir_all(path)?,
        Ok(_) => std::fs::remove_file(path)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    std::fs::create_dir(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_read_up_to_their_bound() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("text");
        std::fs::write(&path, "four").unwrap();
        assert_eq!(read_text(&path, 4).unwrap(), "four");
        let error = |path: &Path, longest| read_text(path, longest).unwrap_err().to_string();
        assert!(error(&path, 3).contains("more than 3 bytes"));
        std::fs::write(&path, [b'a', 0xff]).unwrap();
        assert!(error(&path, 4).contains("not UTF-8 text (byte 1)"));
        #[cfg(unix)]
        {
            assert!(error(Path::new("/dev/zero"), 4).contains("device"));
            assert!(error(folder.path(), 4).contains("folder"));
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_link_at_a_temporary_place_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("precious"), "kept").unwrap();
        std::os::unix::fs::symlink(at("precious"), at("out.partial")).unwrap();
        write_atomically(&at("out"), b"new").unwrap();
        assert_eq!(std::fs::read(at("out")).unwrap(), b"new");
        assert_eq!(std::fs::read(at("precious")).unwrap(), b"kept");
        assert!(!at("out.partial").exists());

        std::fs::create_dir(at("folder")).unwrap();
        std::fs::write(at("folder/precious"), "kept").unwrap();
        std::os::unix::fs::symlink(at("folder"), at("run.partial")).unwrap();
        create_new_folder(&at("run.partial")).unwrap();
        assert!(!at("run.partial").is_symlink() && at("folder/precious").exists());
    }
}
