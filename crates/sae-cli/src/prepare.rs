//! `sae prepare`: text files → text shards, text shards → a tokeniser, text shards → windows.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use sae_config::Source;
use sae_config::message::counted;
use sae_data::{TextTokenizer, prepare, train_tokenizer};
use sae_record::{Event, Phase};
use sae_train::Sources;
use sae_train::progress::Observer;

use crate::telemetry::Telemetry;

/// Make parquet data: text shards from files, a tokeniser, or windows of token ids
///
/// What is made depends on what is given: text files become text shards (--files, --file-list); text shards become a tokeniser
/// with --train-tokenizer, windows with --tokenizer and --context-length. From files to windows are two calls.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  # Text files, or JSON Lines with the text in a key of its own → data/mine/shard-00000.parquet …
  sae prepare --files notes.txt book.txt --out data/mine
  sae prepare --files train.jsonl --column content --out data/mine
  # Text files, listed one a line → data/corpus/train/shard-00000.parquet …
  sae prepare --file-list train.txt --out data/corpus/train
  # A byte-level BPE tokeniser of 4096 ids → data/rust-lm/tokenizer.json
  sae prepare --shards data/corpus/train --train-tokenizer 4096 --out data/rust-lm
  # Tokenise once into windows of 128 ids, column input_ids
  sae prepare --shards data/corpus/train --tokenizer data/rust-lm --context-length 128 --out data/windows
  # The same for a data set and a tokeniser of the hub
  sae prepare --shards hf://roneneldan/TinyStories --split train --tokenizer hf://roneneldan/TinyStories-1M \\
    --context-length 512 --out data/tinystories")]
pub(crate) struct Arguments {
    /// Text files, a document each; or JSON Lines (.jsonl, .ndjson), a document a line
    #[arg(long, value_name = "PATH", num_args = 1.., conflicts_with_all = OF_SHARDS, conflicts_with = "file_list")]
    files: Vec<PathBuf>,
    /// A file that names such files, one a line, as seen from the working directory
    #[arg(long, value_name = "FILE", conflicts_with_all = OF_SHARDS, required_unless_present_any = ["shards", "files"])]
    file_list: Option<PathBuf>,
    /// Text shards: a parquet file, a folder of them, a glob, or a data set of the hub (hf://owner/name)
    #[arg(long, value_name = "PATH")]
    shards: Option<Source>,
    /// The split, where the shards are of several
    #[arg(long, requires = "shards")]
    split: Option<String>,
    /// The column of the shards, or the key of JSON Lines, that holds the text
    #[arg(long, default_value = "text")]
    column: String,
    /// Train a tokeniser of so many ids on the shards
    #[arg(long, value_name = "IDS", requires = "shards", conflicts_with = "tokenizer")]
    train_tokenizer: Option<usize>,
    /// Tokenise the shards with this tokeniser (its folder, file or hub repository)
    #[arg(long, value_name = "PATH", requires_all = ["shards", "context_length"])]
    tokenizer: Option<Source>,
    /// Begin every window with the tokeniser's beginning-of-text token
    #[arg(long, requires = "tokenizer")]
    bos: bool,
    /// Tokens in a window
    #[arg(long, value_name = "TOKENS")]
    context_length: Option<std::num::NonZeroUsize>,
    /// The folder to write to
    #[arg(long, value_name = "FOLDER")]
    out: PathBuf,
}

/// What is done with shards: files of text become shards first, by a call of their own.
const OF_SHARDS: [&str; 6] =
    ["shards", "split", "train_tokenizer", "tokenizer", "bos", "context_length"];

pub(crate) fn run(arguments: &Arguments, telemetry: &mut Telemetry) -> anyhow::Result<()> {
    let out = &arguments.out;
    let column = &arguments.column;
    if !arguments.files.is_empty() {
        return text(&arguments.files, column, out);
    }
    match (&arguments.file_list, &arguments.shards) {
        (Some(list), _) => text(&listed(list)?, column, out),
        (None, Some(source)) => {
            let sources = Sources::default();
            let shards = sources.shards(source, &arguments.column, arguments.split.as_deref())?;
            match (arguments.train_tokenizer, &arguments.tokenizer, arguments.context_length) {
                (Some(ids), ..) => {
                    let tokenizer = train_tokenizer(&shards, ids, out)?;
                    tracing::info!(
                        "wrote {} with {} ids",
                        tokenizer.path().display(),
                        tokenizer.vocabulary()
                    );
                    Ok(())
                }
                (None, Some(tokenizer), Some(context_length)) => {
                    let tokenizer = TextTokenizer::load(&sources.tokenizer(tokenizer)?)?;
                    tracing::info!("{}", tokenizer.describe(arguments.bos));
                    let context_length = context_length.get();
                    telemetry.notice(Event::began(Phase::Windows, 0, context_length as u64));
                    let progress = |done| telemetry.notice(Event::advanced(done));
                    let bos = arguments.bos;
                    let made =
                        prepare::windows(&shards, &tokenizer, context_length, bos, out, progress)?;
                    telemetry.notice(Event::Ended);
                    tracing::info!(
                        "wrote {} windows, {} tokens, in {} shards to {}",
                        made.rows,
                        made.units,
                        made.shards,
                        out.display()
                    );
                    Ok(())
                }
                _ => bail!(
                    "what to make of --shards? give --train-tokenizer, or --tokenizer with --context-length"
                ),
            }
        }
        (None, None) => bail!("give --files, --file-list or --shards"),
    }
}

/// The files that a list names.
fn listed(list: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let text = std::fs::read_to_string(list)
        .with_context(|| format!("cannot read the list of files {}", list.display()))?;
    Ok(text.lines().filter(|line| !line.is_empty()).map(PathBuf::from).collect())
}

fn text(files: &[PathBuf], column: &str, out: &Path) -> anyhow::Result<()> {
    let made = prepare::text_shards(files, column, out)?;
    tracing::info!(
        "wrote {}, {:.1} kB of text, in {} to {}",
        counted(made.rows as usize, "document"),
        made.units as f64 / 1e3,
        counted(made.shards as usize, "shard"),
        out.display()
    );
    Ok(())
}
