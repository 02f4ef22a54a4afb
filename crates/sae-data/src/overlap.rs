//! Whether evaluation data is training data: the same files, or the same contents, as text or as windows of token ids.
//!
//! A passage is a stretch of an evaluation row: token ids where both sides are windows, bytes of text otherwise (windows
//! are decoded). A window cut at another place, of another length or out of tokenised text still holds passages of it.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::RangeInclusive;
use std::path::Path;

use crate::shard::{Position, Rows};
use crate::{ColumnKind, DataError, ShardSet, TextTokenizer};

/// Evaluation rows that are looked for.
const EVALUATION_ROWS: u64 = 1_000;
/// Training rows that are searched, and the most units (bytes or token ids) of them.
const TRAINING_ROWS: usize = 100_000;
const TRAINING_UNITS: usize = 64 << 20;
/// Training rows where they are windows that have to be decoded, which takes a second for some millions of token ids.
const DECODED_WINDOWS: usize = 20_000;
/// The shortest and the longest passage.
const IDS: RangeInclusive<usize> = 24..=64;
const BYTES: RangeInclusive<usize> = 48..=128;
/// Evaluation data is refused where one row in this many, or more, is training data too. A few are in any large corpus.
const TOLERATED: usize = 20;

/// What of evaluation and training data is looked at.
#[derive(Debug, Clone, Copy, Default)]
pub struct Compared {
    /// Evaluation rows that are used; all where left out.
    pub evaluation_rows: Option<u64>,
    /// Windows that training leaves out at the start of its data, and their length, T tokens: they may be evaluated on.
    pub skipped_windows: u64,
    /// T.
    pub context_length: usize,
}

impl ShardSet {
    /// Refuses evaluation data that has a file in common with the training data, under whatever name, or contents: of the
    /// first thousand documents or windows, a twentieth or more among the first hundred thousand of the training data.
    /// (More than that are not read, which would take minutes; of the hub, the first file alone.) Where one side is text
    /// and the other windows, `tokenizer` decodes the windows; without it those contents are not compared.
    pub fn check_disjoint(
        &self,
        training: &Self,
        tokenizer: Option<&TextTokenizer>,
        compared: Compared,
    ) -> Result<(), DataError> {
        self.check_files(training)?;
        let used = compared.evaluation_rows.unwrap_or(u64::MAX).min(EVALUATION_ROWS) as usize;
        let (found, compared) = match (self.kind(), training.kind(), tokenizer) {
            (ColumnKind::Text, ColumnKind::Text, _) => {
                let own = self.document_hashes(EVALUATION_ROWS as usize)?;
                let theirs = training.document_hashes(TRAINING_ROWS)?;
                (own.intersection(&theirs).count(), own.len())
            }
            (ColumnKind::Windows, ColumnKind::Windows, _) => {
                let decode = |ids: &[i64]| Ok(ids.iter().map(|&id| id as u32).collect());
                let search = Search { used, compared, tokenizer, length: IDS, decode: &decode };
                self.shared_passages(training, &search)?
            }
            (_, _, Some(tokens)) => {
                let decode = |ids: &[i64]| {
                    let ids: Vec<u32> = ids.iter().map(|&id| id as u32).collect();
                    Ok(tokens.decode(&ids)?.bytes().map(u32::from).collect())
                };
                let search = Search { used, compared, tokenizer, length: BYTES, decode: &decode };
                self.shared_passages(training, &search)?
            }
            (_, _, None) => {
                tracing::debug!(
                    "{} and {} are not compared: one is text, the other windows, and no tokeniser is at hand",
                    self.source().display(),
                    training.source().display()
                );
                return Ok(());
            }
        };
        if found > 0 && found * TOLERATED >= compared {
            return Err(DataError::SharedRows {
                evaluation: self.source().to_owned(),
                training: training.source().to_owned(),
                found,
                compared,
            });
        }
        Ok(())
    }

    fn check_files(&self, training: &Self) -> Result<(), DataError> {
        let overlap = |evaluation: &Path, training: &Path| DataError::Overlap {
            evaluation: evaluation.to_owned(),
            training: training.to_owned(),
        };
        if let (Some((_, own)), Some((_, theirs))) = (&self.hub, &training.hub) {
            let shared = self.names().find(|name| training.names().any(|other| other == *name));
            return match shared {
                Some(name) if own == theirs => Err(overlap(name, name)),
                _ => Ok(()),
            };
        }
        for own in self.shards.iter().filter(|shard| shard.fingerprint.is_some()) {
            let same = training.shards.iter().find(|other| other.fingerprint == own.fingerprint);
            if let Some(same) = same {
                return Err(overlap(&own.name, &same.name));
            }
        }
        Ok(())
    }

    /// Hashes of the first documents that are not empty.
    fn document_hashes(&self, most: usize) -> Result<HashSet<u64>, DataError> {
        let mut hashes = HashSet::new();
        let mut left = most;
        self.at_hand().for_each_rows(Position::default(), false, |batch| {
            if let Rows::Text(texts) = batch.rows {
                for text in texts.iter().filter(|text| !text.is_empty()).take(left) {
                    let mut hasher = DefaultHasher::new();
                    text.hash(&mut hasher);
                    hashes.insert(hasher.finish());
                    left -= 1;
                }
            }
            Ok(left > 0)
        })?;
        Ok(hashes)
    }

    /// How many of the first rows have their passage in the training data, and how many were looked for.
    fn shared_passages(
        &self,
        training: &Self,
        search: &Search<'_>,
    ) -> Result<(usize, usize), DataError> {
        let (shortest, longest) = (*search.length.start(), *search.length.end());
        let (mut middles, mut rows) = (Vec::new(), HashSet::new());
        let first = Rest { rows: search.used, windows: 0, tokens: 0 };
        self.for_each_row(first, search, |row| {
            let start = row.len().saturating_sub(longest) / 2;
            middles.push(row[start..row.len().min(start + longest)].to_vec());
            rows.insert(row.iter().copied().fold(0, extend));
        })?;
        let mut lengths: Vec<usize> = middles.iter().map(Vec::len).collect();
        lengths.sort_unstable();
        let typical = lengths.get(lengths.len() / 2).copied().unwrap_or_default();
        let rest = search.training(self.kind(), training.kind());
        if typical < shortest {
            // Passages as short as these occur by chance: whole rows count alone.
            let mut found: HashSet<u64> = HashSet::new();
            training.for_each_row(rest, search, |row| {
                let hash = row.iter().copied().fold(0, extend);
                found.extend(rows.get(&hash));
            })?;
            return Ok((found.len(), rows.len()));
        }
        // Three quarters of a typical row, so that rows cut at other places still hold most passages whole.
        let length = (typical * 3 / 4).max(shortest);
        let mut wanted = HashSet::new();
        for middle in middles.iter().filter(|middle| middle.len() >= length) {
            let start = (middle.len() - length) / 2;
            wanted.insert(middle[start..start + length].iter().copied().fold(0, extend));
        }
        let mut passages = Passages::new(length, &wanted);
        training.for_each_row(rest, search, |row| passages.add(row))?;
        Ok((passages.found.len(), wanted.len()))
    }

    /// Calls `f` with rows as units: the bytes of text, or what token ids are decoded to.
    fn for_each_row(
        &self,
        mut rest: Rest,
        search: &Search<'_>,
        mut f: impl FnMut(&[u32]),
    ) -> Result<(), DataError> {
        let mut units = 0;
        let mut see = |row: &[u32], rest: &mut Rest| {
            f(row);
            rest.rows -= 1;
            units += row.len();
            rest.rows > 0 && units < TRAINING_UNITS
        };
        self.at_hand().for_each_rows(Position::default(), false, |batch| {
            let mut wanted = rest.rows > 0;
            match batch.rows {
                Rows::Text(texts) => {
                    for text in texts {
                        if rest.tokens > 0
                            && let Some(tokenizer) = search.tokenizer
                        {
                            let tokens = tokenizer.encode(&text)?.len() as u64 + 1;
                            rest.tokens = rest.tokens.saturating_sub(tokens);
                            continue;
                        }
                        let bytes: Vec<u32> = text.bytes().map(u32::from).collect();
                        wanted = wanted && see(&bytes, &mut rest);
                    }
                }
                Rows::Windows { ids, lengths } => {
                    let mut after = ids.as_slice();
                    for length in lengths.into_iter().flatten() {
                        let own;
                        (own, after) = after.split_at(length);
                        if rest.windows > 0 {
                            rest.windows -= 1;
                        } else {
                            wanted = wanted && see(&(search.decode)(own)?, &mut rest);
                        }
                    }
                }
            }
            Ok(wanted)
        })
    }

    /// Of the hub, the first file alone: the others may not be here yet, and are not fetched for this.
    fn at_hand(&self) -> Self {
        let mut own = self.clone();
        if own.hub.is_some() {
            own.shards.truncate(1);
        }
        own
    }
}

/// What units a window's token ids stand for.
type Decode<'a> = dyn Fn(&[i64]) -> Result<Vec<u32>, DataError> + 'a;

/// How contents are compared.
struct Search<'a> {
    /// Evaluation rows.
    used: usize,
    compared: Compared,
    tokenizer: Option<&'a TextTokenizer>,
    /// The shortest and the longest passage.
    length: RangeInclusive<usize>,
    decode: &'a Decode<'a>,
}

impl Search<'_> {
    /// The training rows that are searched.
    fn training(&self, evaluation: ColumnKind, training: ColumnKind) -> Rest {
        let decoded = evaluation == ColumnKind::Text && training == ColumnKind::Windows;
        let windows = self.compared.skipped_windows;
        Rest {
            rows: if decoded { DECODED_WINDOWS } else { TRAINING_ROWS },
            windows,
            tokens: windows.saturating_mul(self.compared.context_length as u64),
        }
    }
}

/// Rows still to be seen, after windows, or tokens of text, still to be left out.
#[derive(Clone, Copy)]
struct Rest {
    rows: usize,
    windows: u64,
    tokens: u64,
}

/// The factor of the rolling hash, odd.
const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

/// Adds a unit to the hash of those before it (Karp and Rabin 1987, modulo 2⁶⁴).
fn extend(hash: u64, unit: u32) -> u64 {
    hash.wrapping_mul(FACTOR).wrapping_add(u64::from(unit) + 1)
}

/// Looks for passages of one length in a sequence of units, in one pass.
struct Passages<'a> {
    wanted: &'a HashSet<u64>,
    /// Whether any wanted hash begins with these 16 bits: most units are told by this alone.
    begins: Vec<bool>,
    found: HashSet<u64>,
    /// The last units, in a ring.
    last: Vec<u32>,
    seen: usize,
    hash: u64,
    /// What the unit that leaves the ring counts for.
    leaving: u64,
}

impl<'a> Passages<'a> {
    fn new(length: usize, wanted: &'a HashSet<u64>) -> Self {
        let leaving = (0..length).fold(1_u64, |power, _| power.wrapping_mul(FACTOR));
        let last = vec![0; length.max(1)];
        let mut begins = vec![false; 1 << 16];
        for hash in wanted {
            begins[(hash >> 48) as usize] = true;
        }
        Self { wanted, begins, found: HashSet::new(), last, seen: 0, hash: 0, leaving }
    }

    fn add(&mut self, units: &[u32]) {
        let length = self.last.len();
        for &unit in units {
            self.hash = extend(self.hash, unit);
            let place = &mut self.last[self.seen % length];
            if self.seen >= length {
                let left = (u64::from(*place) + 1).wrapping_mul(self.leaving);
                self.hash = self.hash.wrapping_sub(left);
            }
            *place = unit;
            self.seen += 1;
            let may_be = self.seen >= length && self.begins[(self.hash >> 48) as usize];
            if may_be && self.wanted.contains(&self.hash) {
                self.found.insert(self.hash);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passages_are_found_wherever_they_begin() {
        let text: Vec<u32> = (0..1000_u32).map(|i| i.wrapping_mul(i) % 251).collect();
        let hash = |passage: &[u32]| passage.iter().copied().fold(0, extend);
        let wanted = HashSet::from([hash(&text[17..37]), hash(&text[980..]), hash(&[7; 20])]);
        let mut search = Passages::new(20, &wanted);
        // In pieces, as rows come.
        text.chunks(33).for_each(|piece| search.add(piece));
        assert_eq!(search.found.len(), 2);
        assert!(!search.found.contains(&hash(&[7; 20])));
    }
}
