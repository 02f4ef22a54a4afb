//! What can go wrong between a file and a batch.

use std::path::PathBuf;

use crate::hub::HubError;

/// Data that could not be found, read or used. Every variant names the file and what to do.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// What was to be said of a document's tokens.
    #[error("cannot say what the tokens of a document are: {0}")]
    Annotation(String),
    /// Nothing lies where data was expected.
    #[error(
        "no parquet file at {}: give a .parquet file, a folder of them or a glob (`cargo xtask corpus` makes \
         data/corpus)", path.display()
    )]
    Missing {
        /// The path or pattern.
        path: PathBuf,
    },
    /// The system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file is something else.
    #[error(
        "{} is no parquet file (it does not begin with PAR1): `sae prepare --file-list` makes shards of files of text",
        path.display()
    )]
    NotParquet {
        /// The file.
        path: PathBuf,
    },
    /// A file is not readable parquet: truncated or corrupt.
    #[error("cannot read {} as parquet ({message}): the file is truncated or damaged; fetch or write it again", path.display())]
    Parquet {
        /// The file.
        path: PathBuf,
        /// What the parquet reader said.
        message: String,
    },
    /// None of the files of text could be read as such.
    #[error("none of {files} files is text in UTF-8, or none has any: there is nothing to write to {}", out.display())]
    NoDocuments {
        /// How many were given.
        files: usize,
        /// Where shards were to go.
        out: PathBuf,
    },
    /// A size that no data has.
    #[error("{what} is {found}, expected {expected}")]
    Size {
        /// Which size.
        what: &'static str,
        /// What was asked for.
        found: usize,
        /// What would do.
        expected: String,
    },
    /// A file could not be written.
    #[error("cannot write {}: {message}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the writer said.
        message: String,
    },
    /// A line of JSON Lines holds no document.
    #[error("cannot read line {line} of {}: {message}", path.display())]
    JsonLine {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: u64,
        /// What was expected, and what was found.
        message: String,
    },
    /// The column is not there.
    #[error("{} has no column `{column}`; its columns are {}: name one of them, in data.column of a configuration or with --column", path.display(), columns.join(", "))]
    NoColumn {
        /// The file.
        path: PathBuf,
        /// The column asked for.
        column: String,
        /// Those there are.
        columns: Vec<String>,
    },
    /// The column holds neither text nor lists of integers, or not the same as the first file's.
    #[error("column `{column}` of {} holds {found}, expected {expected}", path.display())]
    ColumnType {
        /// The file.
        path: PathBuf,
        /// The column.
        column: String,
        /// Its type.
        found: String,
        /// What would do.
        expected: &'static str,
    },
    /// A window has another length than the context.
    #[error(
        "row {row} of {} has {found} tokens, but windows must be context_length = {expected} long; set \
         data.context_length, or prepare the data again with --context-length {expected}", path.display()
    )]
    WindowLength {
        /// The file.
        path: PathBuf,
        /// The row, counted from 0.
        row: u64,
        /// Tokens found.
        found: usize,
        /// Tokens expected.
        expected: usize,
    },
    /// A token id that the model does not have.
    #[error(
        "row {row} of {} holds token id {id}, but the model has a vocabulary of {vocabulary}: the data was made with \
         another tokeniser", path.display()
    )]
    TokenId {
        /// The file.
        path: PathBuf,
        /// The row, counted from 0.
        row: u64,
        /// The id.
        id: i64,
        /// The vocabulary's size.
        vocabulary: usize,
    },
    /// A row that has to hold tokens is null, or holds what is no token id.
    #[error(
        "row {row} of {} is null, or holds a null or an id above 2^63: expected a list of token ids", path.display()
    )]
    NullRow {
        /// The file.
        path: PathBuf,
        /// The row, counted from 0.
        row: u64,
    },
    /// The tokeniser cannot be loaded or used.
    #[error("cannot {action} the tokeniser {}: {message}", path.display())]
    Tokenizer {
        /// What was being done.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the tokeniser said.
        message: String,
    },
    /// The tokeniser has ids that the model has not.
    #[error(
        "the tokeniser {} has {found} ids, the model a vocabulary of {vocabulary}: they do not belong together; set \
         data.tokenizer to the model's own", path.display()
    )]
    Vocabulary {
        /// The tokeniser's file.
        path: PathBuf,
        /// Ids that it has.
        found: usize,
        /// Ids that the model has.
        vocabulary: usize,
    },
    /// Text was found where no tokeniser was given.
    #[error("{} holds text, but no tokeniser was given; set data.tokenizer", path.display())]
    NeedsTokenizer {
        /// The data.
        path: PathBuf,
    },
    /// The data holds fewer windows than are needed.
    #[error(
        "{} holds {found} windows of {context_length} tokens, but {needed} are needed{purpose}: lower the number of \
         samples or add data", path.display()
    )]
    TooShort {
        /// The data.
        path: PathBuf,
        /// Windows found.
        found: u64,
        /// Their length.
        context_length: usize,
        /// Windows needed.
        needed: u64,
        /// What for.
        purpose: &'static str,
    },
    /// The data holds no text at all.
    #[error(
        "{} holds no text: all its {rows} documents are empty or null, or become no token; a tokeniser without a vocabulary \
         makes none of any text", path.display()
    )]
    Empty {
        /// The data.
        path: PathBuf,
        /// Rows read.
        rows: u64,
    },
    /// Data would be written where other data is.
    #[error(
        "{} holds parquet files already: choose another folder, or remove them; shards of two preparations would be \
         read as one data set", path.display()
    )]
    Occupied {
        /// The folder.
        path: PathBuf,
    },
    /// Rows of the evaluation data are rows of the training data.
    #[error(
        "{found} of {compared} rows of the evaluation data {} are in the training data {} too: an evaluation on rows \
         that were trained on says nothing; choose other data to evaluate on", evaluation.display(), training.display()
    )]
    SharedRows {
        /// The evaluation data.
        evaluation: PathBuf,
        /// The training data.
        training: PathBuf,
        /// Rows of the evaluation data found in the training data.
        found: usize,
        /// Rows of the evaluation data looked for.
        compared: usize,
    },
    /// Training and evaluation data share a file.
    #[error(
        "the evaluation data {} is the training data {}: an evaluation on rows that were trained on says nothing; \
         choose another eval.data, or hold its first windows out with data.skip = eval.n_samples", evaluation.display(),
        training.display()
    )]
    Overlap {
        /// The evaluation's file.
        evaluation: PathBuf,
        /// The training's.
        training: PathBuf,
    },
    /// No file is of the split.
    #[error(
        "{} has no file of the split `{split}`: no path has that word. It has {}{}", path.display(),
        files.iter().take(5).map(String::as_str).collect::<Vec<_>>().join(", "),
        if files.len() > 5 { ", …" } else { "" }
    )]
    NoSplit {
        /// The data.
        path: PathBuf,
        /// The split asked for.
        split: String,
        /// The files that there are.
        files: Vec<String>,
    },
    /// The hub.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// A stream cannot go on from a cursor.
    #[error("cannot go on reading from {}: {message}", path.display())]
    Cursor {
        /// The cursor's file, or the data.
        path: PathBuf,
        /// Why not, and what to do.
        message: String,
    },
}
