//! Fingerprints of what a result was computed from: SHA-256 over contents, so that equal names with other contents are
//! told apart, and equal contents under other names are not.

use std::fs::File;
use std::io;
use std::path::Path;

use sha2::{Digest, Sha256};

/// A fingerprint in the making.
#[derive(Debug, Clone, Default)]
pub struct Fingerprint(Sha256);

impl Fingerprint {
    /// Of nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds bytes, set apart from those before and after.
    #[must_use]
    pub fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.update((bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
        self
    }

    /// Adds what prints.
    #[must_use]
    pub fn text(self, text: &impl ToString) -> Self {
        self.bytes(text.to_string().as_bytes())
    }

    /// Adds a file's contents; its name does not count.
    pub fn file(self, path: &Path) -> io::Result<Self> {
        let mut file = File::open(path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "expected a regular file"));
        }
        let mut own = Sha256::new();
        io::copy(&mut file, &mut own)?;
        Ok(self.bytes(&own.finalize()))
    }

    /// The fingerprint, 32 hexadecimal digits.
    pub fn finish(self) -> String {
        self.0.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::Fingerprint;

    #[test]
    fn contents_count_and_names_do_not() {
        let folder = tempfile::tempdir().unwrap();
        let of = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            Fingerprint::new().file(&path).unwrap().finish()
        };
        assert_eq!(of("a", "x"), of("b", "x"));
        assert_ne!(of("a", "x"), of("a", "y"));
        let parts = |a: &str, b: &str| Fingerprint::new().text(&a).text(&b).finish();
        assert_ne!(parts("ab", "c"), parts("a", "bc"));
        assert_eq!(parts("a", "b").len(), 32);
        assert!(Fingerprint::new().file(folder.path()).is_err());
    }
}
