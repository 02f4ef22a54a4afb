//! Parquet files as one sequence of rows of a column: text, or windows of token ids.

use std::collections::HashSet;
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Int64Type};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};

use crate::DataError;

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColumnKind {
    /// Documents, to be tokenised.
    Text,
    /// Windows of token ids.
    Windows,
}

/// Parquet files with a column in common, opened and checked; the rows themselves are read later.
#[derive(Debug, Clone)]
pub struct ShardSet {
    source: PathBuf,
    column: String,
    kind: ColumnKind,
    shards: Vec<Shard>,
}

#[derive(Debug, Clone)]
struct Shard {
    path: PathBuf,
    rows: u64,
}

/// Rows of a shard, read together: at most one row group's worth.
pub(crate) enum Rows {
    /// Documents; a null is empty.
    Text(Vec<String>),
    /// The ids of all windows, and the length of each; `None` for a null.
    Windows { ids: Vec<i64>, lengths: Vec<Option<usize>> },
}

/// Rows read from a file at a time.
const ROWS: usize = 1024;

impl ShardSet {
    /// Opens a file, all `.parquet` files of a folder, or those a glob matches, in the order of their names, and checks
    /// that each is whole and has the column.
    pub fn open(source: &Path, column: &str) -> Result<Self, DataError> {
        let paths = list(source)?;
        let mut shards = Vec::with_capacity(paths.len());
        let mut kind = None;
        for path in paths {
            let builder = builder(&path)?;
            let rows = builder.metadata().file_metadata().num_rows() as u64;
            let found = column_kind(&path, &builder, column)?;
            if *kind.get_or_insert(found) != found {
                return Err(DataError::ColumnType {
                    path,
                    column: column.to_owned(),
                    found: format!("{found:?}").to_lowercase(),
                    expected: "the same as the files before it",
                });
            }
            shards.push(Shard { path, rows });
        }
        let kind = kind.ok_or_else(|| DataError::Missing { path: source.to_owned() })?;
        Ok(Self { source: source.to_owned(), column: column.to_owned(), kind, shards })
    }

    /// What the column holds.
    pub fn kind(&self) -> ColumnKind {
        self.kind
    }

    /// What was opened: a file, folder or glob.
    pub fn source(&self) -> &Path {
        &self.source
    }

    /// Rows of all files together.
    pub fn rows(&self) -> u64 {
        self.shards.iter().map(|shard| shard.rows).sum()
    }

    /// The files, in reading order.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.shards.iter().map(|shard| shard.path.as_path())
    }

    /// Refuses evaluation data that has a file in common with the training data, under whatever name, or rows: of the
    /// first thousand documents or windows, a twentieth or more among the first hundred thousand of the training data.
    /// (A few are in common in any large corpus; more rows than that are not read, which would take minutes.)
    pub fn check_disjoint(&self, training: &Self) -> Result<(), DataError> {
        self.check_files(training)?;
        let own: HashSet<u64> = self.row_hashes(1_000)?.into_iter().collect();
        let theirs: HashSet<u64> = training.row_hashes(100_000)?.into_iter().collect();
        let found = own.intersection(&theirs).count();
        if found > 0 && found * 20 >= own.len() {
            return Err(DataError::SharedRows {
                evaluation: self.source.clone(),
                training: training.source.clone(),
                found,
                compared: own.len(),
            });
        }
        Ok(())
    }

    /// Hashes of the first rows; empty documents have none.
    fn row_hashes(&self, most: usize) -> Result<Vec<u64>, DataError> {
        let hash = |row: &dyn Fn(&mut DefaultHasher)| {
            let mut hasher = DefaultHasher::new();
            row(&mut hasher);
            hasher.finish()
        };
        let mut hashes = Vec::new();
        self.for_each_rows(|_, _, rows| {
            match rows {
                Rows::Text(texts) => hashes.extend(
                    texts
                        .iter()
                        .filter(|text| !text.is_empty())
                        .map(|text| hash(&|h| text.hash(h))),
                ),
                Rows::Windows { ids, lengths } => {
                    let mut rest = ids.as_slice();
                    for length in lengths.into_iter().flatten() {
                        let (window, after) = rest.split_at(length);
                        hashes.push(hash(&|h| window.hash(h)));
                        rest = after;
                    }
                }
            }
            Ok(hashes.len() < most)
        })?;
        hashes.truncate(most);
        Ok(hashes)
    }

    fn check_files(&self, training: &Self) -> Result<(), DataError> {
        let fingerprints =
            training.paths().map(fingerprint).collect::<Result<Vec<Fingerprint>, _>>()?;
        for path in self.paths() {
            let own = fingerprint(path)?;
            if let Some(same) = fingerprints.iter().position(|other| *other == own) {
                return Err(DataError::Overlap {
                    evaluation: path.to_owned(),
                    training: training.shards[same].path.clone(),
                });
            }
        }
        Ok(())
    }

    /// Calls `f` with the rows of every file, in order, with the file's path and the number of its first row; stops
    /// where `f` returns `false`.
    pub(crate) fn for_each_rows(
        &self,
        mut f: impl FnMut(&Path, u64, Rows) -> Result<bool, DataError>,
    ) -> Result<(), DataError> {
        for Shard { path, .. } in &self.shards {
            let mut first = 0;
            for batch in self.reader(path)? {
                let batch = batch.map_err(|error| parquet_error(path, &error))?;
                let count = batch.num_rows() as u64;
                let rows = self.rows_of(path, first, batch.column(0))?;
                if !f(path, first, rows)? {
                    return Ok(());
                }
                first += count;
            }
        }
        Ok(())
    }

    fn reader(&self, path: &Path) -> Result<ParquetRecordBatchReader, DataError> {
        let builder = builder(path)?;
        let mask = ProjectionMask::columns(builder.parquet_schema(), [self.column.as_str()]);
        builder
            .with_projection(mask)
            .with_batch_size(ROWS)
            .build()
            .map_err(|error| parquet_error(path, &error))
    }

    fn rows_of(&self, path: &Path, first: u64, array: &Arc<dyn Array>) -> Result<Rows, DataError> {
        let as_type = |to: &DataType| {
            cast(array, to).map_err(|error| DataError::ColumnType {
                path: path.to_owned(),
                column: self.column.clone(),
                found: error.to_string(),
                expected: "text, or lists of integers (token ids)",
            })
        };
        match self.kind {
            ColumnKind::Text => {
                let array = as_type(&DataType::LargeUtf8)?;
                let texts = array.as_string::<i64>();
                Ok(Rows::Text(
                    texts.iter().map(|text| text.unwrap_or_default().to_owned()).collect(),
                ))
            }
            ColumnKind::Windows => {
                let item = Arc::new(Field::new("item", DataType::Int64, true));
                let array = as_type(&DataType::LargeList(item))?;
                let lists = array.as_list::<i64>();
                let mut ids = Vec::with_capacity(lists.values().len());
                let mut lengths = Vec::with_capacity(lists.len());
                for (row, list) in lists.iter().enumerate() {
                    let Some(list) = list else {
                        lengths.push(None);
                        continue;
                    };
                    let values = list.as_primitive::<Int64Type>();
                    if values.null_count() > 0 {
                        return Err(DataError::NullRow {
                            path: path.to_owned(),
                            row: first + row as u64,
                        });
                    }
                    ids.extend_from_slice(values.values());
                    lengths.push(Some(values.len()));
                }
                Ok(Rows::Windows { ids, lengths })
            }
        }
    }
}

fn list(source: &Path) -> Result<Vec<PathBuf>, DataError> {
    let missing = || DataError::Missing { path: source.to_owned() };
    let pattern = if source.is_file() {
        return Ok(vec![source.to_owned()]);
    } else if source.is_dir() {
        format!("{}/*.parquet", glob::Pattern::escape(&source.to_string_lossy()))
    } else {
        source.to_string_lossy().into_owned()
    };
    let mut paths: Vec<PathBuf> =
        glob::glob(&pattern).map_err(|_| missing())?.filter_map(Result::ok).collect();
    paths.sort();
    if paths.is_empty() { Err(missing()) } else { Ok(paths) }
}

fn builder(path: &Path) -> Result<ParquetRecordBatchReaderBuilder<File>, DataError> {
    let file = File::open(path).map_err(|source| DataError::Io {
        action: "open",
        path: path.to_owned(),
        source,
    })?;
    ParquetRecordBatchReaderBuilder::try_new(file).map_err(|error| parquet_error(path, &error))
}

fn column_kind(
    path: &Path,
    builder: &ParquetRecordBatchReaderBuilder<File>,
    column: &str,
) -> Result<ColumnKind, DataError> {
    let schema = builder.schema();
    let field = schema.field_with_name(column).map_err(|_| DataError::NoColumn {
        path: path.to_owned(),
        column: column.to_owned(),
        columns: schema.fields().iter().map(|field| field.name().clone()).collect(),
    })?;
    let kind = match field.data_type() {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Some(ColumnKind::Text),
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _)
            if item.data_type().is_integer() =>
        {
            Some(ColumnKind::Windows)
        }
        _ => None,
    };
    kind.ok_or_else(|| DataError::ColumnType {
        path: path.to_owned(),
        column: column.to_owned(),
        found: field.data_type().to_string(),
        expected: "text, or lists of integers (token ids)",
    })
}

fn parquet_error(path: &Path, error: &impl ToString) -> DataError {
    DataError::Parquet { path: path.to_owned(), message: error.to_string() }
}

/// Length and last bytes: a parquet file ends with its footer, which holds the offsets and statistics of all it has.
#[derive(PartialEq)]
struct Fingerprint {
    length: u64,
    tail: Vec<u8>,
}

fn fingerprint(path: &Path) -> Result<Fingerprint, DataError> {
    const TAIL: u64 = 1 << 16;
    let read = || {
        let mut file = File::open(path)?;
        let length = file.seek(SeekFrom::End(0))?;
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
        let mut tail = Vec::new();
        file.read_to_end(&mut tail)?;
        Ok(Fingerprint { length, tail })
    };
    read().map_err(|source| DataError::Io { action: "read", path: path.to_owned(), source })
}
