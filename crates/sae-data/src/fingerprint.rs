//! Fingerprints of data sets: whether the data under a name is still what it was.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use sae_config::fingerprint::Fingerprint;

use crate::{DataError, ShardSet, TextTokenizer};

/// Blocks of a shard that are read beside its footer, evenly spaced, and the bytes of each.
const BLOCKS: u64 = 16;
const BLOCK: u64 = 4096;

/// A parquet file's length, footer (row counts, sizes and statistics of all that it holds) and some of its contents: two
/// files of uncompressed numbers may have one footer.
pub(crate) fn of_shard(path: &Path) -> Result<String, DataError> {
    let read = || {
        let mut file = File::open(path)?;
        let length = file.seek(SeekFrom::End(0))?;
        let mut read = |from: u64, count: u64| {
            let mut bytes = Vec::new();
            file.seek(SeekFrom::Start(from))?;
            file.by_ref().take(count).read_to_end(&mut bytes)?;
            Ok::<_, std::io::Error>(bytes)
        };
        // The last eight bytes are the footer's length and `PAR1`.
        let end = read(length.saturating_sub(8), 4)?;
        let footer = end.first_chunk().map_or(0, |bytes| u64::from(u32::from_le_bytes(*bytes)));
        let footer = read(length.saturating_sub(8 + footer), 8 + footer)?;
        let mut fingerprint = Fingerprint::new().text(&length).bytes(&footer);
        for block in 0..BLOCKS {
            fingerprint = fingerprint.bytes(&read(length / BLOCKS * block, BLOCK)?);
        }
        Ok(fingerprint.finish())
    };
    read().map_err(|source| DataError::Io { action: "read", path: path.to_owned(), source })
}

impl ShardSet {
    /// The fingerprint of what reading these shards gives: of each its name, rows and contents, in order; the column; the
    /// tokeniser of text. Folders do not count: a data set may be moved. A data set of the hub is told by its repository,
    /// revision and files, which are a commit's where the source was pinned.
    pub fn fingerprint(&self, tokenizer: Option<&TextTokenizer>) -> Result<String, DataError> {
        let mut fingerprint =
            Fingerprint::new().text(&format!("{:?}", self.kind())).text(&self.column());
        if let Some((_, repository)) = &self.hub {
            fingerprint = fingerprint.text(repository);
        }
        for shard in &self.shards {
            let name = match &self.hub {
                Some(_) => shard.name.to_string_lossy(),
                None => shard.name.file_name().unwrap_or_default().to_string_lossy(),
            };
            let own = shard.fingerprint.as_deref().unwrap_or_default();
            fingerprint = fingerprint.text(&name).text(&own);
        }
        if let Some(tokenizer) = tokenizer {
            let path = tokenizer.path();
            fingerprint = fingerprint
                .text(&tokenizer.end_of_text())
                .text(&tokenizer.begin_of_text())
                .file(path)
                .map_err(|source| DataError::Io {
                    action: "read",
                    path: path.to_owned(),
                    source,
                })?;
        }
        Ok(fingerprint.finish())
    }
}
