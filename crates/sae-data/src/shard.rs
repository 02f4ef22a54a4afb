//! Parquet files as one sequence of rows of a column: text, or windows of token ids.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::Array;
use arrow_array::cast::AsArray;
use arrow_array::types::{
    ArrowPrimitiveType, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type,
    UInt32Type, UInt64Type,
};
use arrow_schema::DataType;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder,
};

use sae_config::HubSource;
use serde::{Deserialize, Serialize};

use crate::batch_rows::batch_rows;
use crate::hub::{Hub, Repository, in_split, splits};
use crate::{DataError, fingerprint};

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColumnKind {
    /// Documents, to be tokenised.
    Text,
    /// Windows of token ids.
    Windows,
}

/// Parquet files with a column in common. Those of this machine are opened and checked at once; those of the hub are
/// fetched when they are reached, the next one while one is read.
#[derive(Debug, Clone)]
pub struct ShardSet {
    source: PathBuf,
    column: String,
    kind: ColumnKind,
    pub(crate) shards: Vec<Shard>,
    pub(crate) hub: Option<(Hub, Repository)>,
}

#[derive(Debug, Clone)]
pub(crate) struct Shard {
    /// A path, or the name of a file in the hub's repository.
    pub name: PathBuf,
    /// Known of files of this machine.
    pub rows: Option<u64>,
    /// Its length and footer, likewise.
    pub fingerprint: Option<String>,
}

/// A place in a set of shards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Position {
    /// The file, counted from 0.
    pub shard: usize,
    /// The row in it.
    pub row: u64,
}

/// Rows of a shard, read together.
pub(crate) struct RowBatch<'a> {
    pub path: &'a Path,
    /// Where they begin.
    pub position: Position,
    pub rows: Rows,
}

/// What rows hold.
pub(crate) enum Rows {
    /// Documents; a null is empty.
    Text(Vec<String>),
    /// The ids of all windows, and the length of each; `None` for a null.
    Windows { ids: Vec<i64>, lengths: Vec<Option<usize>> },
}

impl ShardSet {
    /// Opens a file, all `.parquet` files of a folder, or those a glob matches, in the order of their names, and checks
    /// that each is whole and has the column.
    pub fn open(source: &Path, column: &str) -> Result<Self, DataError> {
        Self::open_split(source, column, None)
    }

    /// The same for a data set of the hub.
    pub fn open_hub(
        set: &HubSource,
        column: &str,
        split: Option<&str>,
        hub: &Hub,
    ) -> Result<Self, DataError> {
        let (repository, names) =
            hub.parquet_files(&set.repository, set.resolved(), split, set.path.as_deref())?;
        let shards = names
            .into_iter()
            .map(|name| Shard { name: name.into(), rows: None, fingerprint: None })
            .collect();
        let mut shards = Self {
            source: PathBuf::from(set.to_string()),
            column: column.to_owned(),
            kind: ColumnKind::Text,
            shards,
            hub: Some((hub.clone(), repository)),
        };
        // The first file tells what the column holds; the others are checked when they are read.
        let path = shards.fetch(0)?;
        let builder = builder(&path)?;
        shards.kind = column_kind(&path, &builder, column)?;
        shards.shards[0].rows = Some(builder.metadata().file_metadata().num_rows() as u64);
        Ok(shards)
    }

    /// Those of a folder or glob that belong to a split: that have its name in their path as a word of its own.
    pub fn open_split(source: &Path, column: &str, split: Option<&str>) -> Result<Self, DataError> {
        let paths = list(source, split)?;
        let mut shards = Vec::with_capacity(paths.len());
        let mut kind = None;
        for path in paths {
            let builder = builder(&path)?;
            let rows = builder.metadata().file_metadata().num_rows() as u64;
            let found = column_kind(&path, &builder, column)?;
            check_kind(*kind.get_or_insert(found), found, &path, column)?;
            let fingerprint = Some(fingerprint::of_shard(&path)?);
            shards.push(Shard { name: path, rows: Some(rows), fingerprint });
        }
        let kind = kind.ok_or_else(|| DataError::Missing { path: source.to_owned() })?;
        let (source, column) = (source.to_owned(), column.to_owned());
        Ok(Self { source, column, kind, shards, hub: None })
    }

    /// What the column holds.
    pub fn kind(&self) -> ColumnKind {
        self.kind
    }

    /// What was opened: a file, folder, glob or `hf://` reference.
    pub fn source(&self) -> &Path {
        &self.source
    }

    /// Rows of all files together; not known of files that are still to be fetched.
    pub fn rows(&self) -> Option<u64> {
        self.shards.iter().map(|shard| shard.rows).sum()
    }

    /// The files, in reading order: paths, or names in the hub's repository.
    pub fn names(&self) -> impl Iterator<Item = &Path> {
        self.shards.iter().map(|shard| shard.name.as_path())
    }

    /// The column that is read.
    pub fn column(&self) -> &str {
        &self.column
    }

    /// A shard's path on this machine, fetched where it is not there yet.
    fn fetch(&self, shard: usize) -> Result<PathBuf, DataError> {
        let name = &self.shards[shard].name;
        match &self.hub {
            None => Ok(name.clone()),
            Some((hub, repository)) => Ok(hub.get(repository, &name.to_string_lossy())?),
        }
    }

    /// Calls `f` with the rows from a position on, file by file, in order; stops where `f` returns `false`. With `ahead`,
    /// the next file of the hub downloads while one is read.
    pub(crate) fn for_each_rows(
        &self,
        from: Position,
        ahead: bool,
        mut f: impl FnMut(RowBatch<'_>) -> Result<bool, DataError>,
    ) -> Result<(), DataError> {
        for shard in from.shard..self.shards.len() {
            let path = self.fetch(shard)?;
            let start = if shard == from.shard { from.row } else { 0 };
            if let (true, Some((hub, repository)), Some(next)) =
                (ahead, &self.hub, self.shards.get(shard + 1))
            {
                let (hub, repository, name) =
                    (hub.clone(), repository.clone(), next.name.to_string_lossy().into_owned());
                // What goes wrong there is reported when it is its turn; nobody waits for what is not wanted any more.
                std::thread::spawn(move || hub.get(&repository, &name).ok());
            }
            if !self.read_shard(&path, Position { shard, row: start }, &mut f)? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Reads a file from a row on; `false` where `f` has had enough.
    fn read_shard(
        &self,
        path: &Path,
        from: Position,
        f: &mut impl FnMut(RowBatch<'_>) -> Result<bool, DataError>,
    ) -> Result<bool, DataError> {
        let mut position = from;
        for batch in self.reader(path, from.row)? {
            let batch = batch.map_err(|error| parquet_error(path, &error))?;
            let count = batch.num_rows() as u64;
            let rows = self.rows_of(path, position.row, batch.column(0))?;
            if !f(RowBatch { path, position, rows })? {
                return Ok(false);
            }
            position.row += count;
        }
        Ok(true)
    }

    /// Opens a file at a row: row groups before it are not read at all.
    fn reader(&self, path: &Path, from: u64) -> Result<ParquetRecordBatchReader, DataError> {
        let builder = builder(path)?;
        let found = column_kind(path, &builder, &self.column)?;
        check_kind(self.kind, found, path, &self.column)?;
        let mask = ProjectionMask::columns(builder.parquet_schema(), [self.column.as_str()]);
        let (mut skipped, mut before) = (0, 0);
        for group in builder.metadata().row_groups() {
            let rows = group.num_rows() as u64;
            if before + rows > from {
                break;
            }
            (skipped, before) = (skipped + 1, before + rows);
        }
        let groups = (skipped..builder.metadata().num_row_groups()).collect();
        let rows = batch_rows(builder.metadata(), &mask);
        builder
            .with_row_groups(groups)
            .with_offset((from - before) as usize)
            .with_projection(mask)
            .with_batch_size(rows)
            .build()
            .map_err(|error| parquet_error(path, &error))
    }

    fn rows_of(&self, path: &Path, first: u64, array: &Arc<dyn Array>) -> Result<Rows, DataError> {
        let unexpected = || DataError::ColumnType {
            path: path.to_owned(),
            column: self.column.clone(),
            found: array.data_type().to_string(),
            expected: EXPECTED,
        };
        match self.kind {
            ColumnKind::Text => {
                let texts = array.as_string_opt::<i32>().ok_or_else(unexpected)?;
                Ok(Rows::Text(
                    texts.iter().map(|text| text.unwrap_or_default().to_owned()).collect(),
                ))
            }
            ColumnKind::Windows => {
                let lists = array.as_list_opt::<i32>().ok_or_else(unexpected)?;
                let values = ids(lists.values()).ok_or_else(unexpected)?;
                let mut windows = Vec::with_capacity(values.len());
                let mut lengths = Vec::with_capacity(lists.len());
                for (row, ends) in lists.value_offsets().array_windows().enumerate() {
                    if lists.is_null(row) {
                        lengths.push(None);
                        continue;
                    }
                    let [from, to] = ends.map(|end| end as usize);
                    if lists.values().slice(from, to - from).null_count() > 0 {
                        return Err(DataError::NullRow {
                            path: path.to_owned(),
                            row: first + row as u64,
                        });
                    }
                    windows.extend_from_slice(&values[from..to]);
                    lengths.push(Some(to - from));
                }
                Ok(Rows::Windows { ids: windows, lengths })
            }
        }
    }
}

/// What a column may hold.
const EXPECTED: &str = "text, or lists of integers (token ids)";

/// The numbers of an array of integers of any width; those above `i64::MAX`, which no vocabulary has, become that.
fn ids(array: &dyn Array) -> Option<Vec<i64>> {
    fn of<T: ArrowPrimitiveType>(array: &dyn Array) -> Option<Vec<i64>>
    where
        T::Native: TryInto<i64>,
    {
        let numbers = array.as_primitive_opt::<T>()?.values().iter();
        Some(numbers.map(|number| (*number).try_into().unwrap_or(i64::MAX)).collect())
    }
    match array.data_type() {
        DataType::Int8 => of::<Int8Type>(array),
        DataType::Int16 => of::<Int16Type>(array),
        DataType::Int32 => of::<Int32Type>(array),
        DataType::Int64 => of::<Int64Type>(array),
        DataType::UInt8 => of::<UInt8Type>(array),
        DataType::UInt16 => of::<UInt16Type>(array),
        DataType::UInt32 => of::<UInt32Type>(array),
        DataType::UInt64 => of::<UInt64Type>(array),
        _ => None,
    }
}

fn list(source: &Path, split: Option<&str>) -> Result<Vec<PathBuf>, DataError> {
    let missing = || DataError::Missing { path: source.to_owned() };
    let pattern = if source.is_file() {
        return Ok(vec![source.to_owned()]);
    } else if source.is_dir() {
        format!("{}/**/*.parquet", glob::Pattern::escape(&source.to_string_lossy()))
    } else {
        source.to_string_lossy().into_owned()
    };
    let mut paths: Vec<PathBuf> =
        glob::glob(&pattern).map_err(|_| missing())?.filter_map(Result::ok).collect();
    paths.sort();
    let Some(split) = split.filter(|_| !paths.is_empty()) else {
        return if paths.is_empty() { Err(missing()) } else { Ok(paths) };
    };
    let base = if source.is_dir() { source } else { Path::new("") };
    let name = |path: &Path| path.strip_prefix(base).unwrap_or(path).to_string_lossy().into_owned();
    let names: Vec<String> = paths.iter().map(|path| name(path)).collect();
    // Where no file names a split, all are `train`, as on the hub.
    if split == "train" && splits(&names).is_empty() {
        return Ok(paths);
    }
    paths.retain(|path| in_split(&name(path), split));
    if paths.is_empty() {
        return Err(DataError::NoSplit {
            path: source.to_owned(),
            split: split.to_owned(),
            files: names,
        });
    }
    Ok(paths)
}

fn check_kind(
    expected: ColumnKind,
    found: ColumnKind,
    path: &Path,
    column: &str,
) -> Result<(), DataError> {
    if expected == found {
        return Ok(());
    }
    Err(DataError::ColumnType {
        path: path.to_owned(),
        column: column.to_owned(),
        found: format!("{found:?}").to_lowercase(),
        expected: "the same as the files before it",
    })
}

/// What every parquet file begins with.
const MAGIC: [u8; 4] = *b"PAR1";

fn builder(path: &Path) -> Result<ParquetRecordBatchReaderBuilder<File>, DataError> {
    let io = |action| move |source| DataError::Io { action, path: path.to_owned(), source };
    let mut file = File::open(path).map_err(io("open"))?;
    let mut head = Vec::new();
    file.by_ref().take(MAGIC.len() as u64).read_to_end(&mut head).map_err(io("read"))?;
    // An empty file may be one that was never written to its end.
    if !head.is_empty() && !MAGIC.starts_with(&head) {
        return Err(DataError::NotParquet { path: path.to_owned() });
    }
    // Parquet's own types: text and lists come in one layout each, however their writer held them in memory.
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    ParquetRecordBatchReaderBuilder::try_new_with_options(file, options)
        .map_err(|error| parquet_error(path, &error))
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
        DataType::Utf8 => Some(ColumnKind::Text),
        DataType::List(item) if item.data_type().is_integer() => Some(ColumnKind::Windows),
        _ => None,
    };
    kind.ok_or_else(|| DataError::ColumnType {
        path: path.to_owned(),
        column: column.to_owned(),
        found: field.data_type().to_string(),
        expected: EXPECTED,
    })
}

fn parquet_error(path: &Path, error: &impl ToString) -> DataError {
    DataError::Parquet { path: path.to_owned(), message: error.to_string() }
}
