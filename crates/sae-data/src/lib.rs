//! From parquet shards to batches of tokens, without a tensor library.
//!
//! Text is tokenised on all cores, documents are joined by the end-of-text token and cut into windows of the context
//! length, windows go through a seeded shuffle buffer, and batches wait in a bounded channel until they are asked for.
//! Parquet with windows of token ids takes the same path from the shuffle buffer on. The same seed gives the same
//! batches. This crate leaves to its callers what a token means to a model; it checks only that ids are below the
//! vocabulary.
//!
//! ```
//! use sae_data::{StreamOptions, TokenStream, prepare};
//! # let folder = std::env::temp_dir().join(format!("sae-data-doc-{}", std::process::id()));
//! let mut writer = prepare::WindowWriter::create(&folder, 4, 1000)?;
//! for start in 0..10 {
//!     writer.push(&[start, start + 1, start + 2, start + 3])?;
//! }
//! writer.finish()?;
//!
//! // Windows of T = 4 ids below V = 100, in batches of 5, through a shuffle buffer of 8.
//! let options = StreamOptions { batch_size: 5, shuffle_buffer: 8, ..StreamOptions::in_order(4, 100) };
//! let stream = TokenStream::open(&folder, "input_ids", None, options)?;
//! let batches = stream.collect::<Result<Vec<_>, _>>()?;
//! assert_eq!((batches.len(), batches[0].rows, batches[0].tokens.len()), (2, 5, 20));
//! # std::fs::remove_dir_all(&folder).ok();
//! # Ok::<(), sae_data::DataError>(())
//! ```

mod batch_rows;
mod cursor;
mod error;
mod fingerprint;
pub mod hub;
mod overlap;
mod pack;
mod parts;
pub mod prepare;
mod samples;
mod shard;
mod shuffle;
mod stream;
mod tokenize;

pub use cursor::Cursor;
pub use error::DataError;
pub use overlap::Compared;
pub use pack::Packer;
pub use samples::{Sample, TokenSource, for_each_annotated_sample, for_each_sample};
pub use shard::{ColumnKind, ShardSet};
pub use shuffle::ShuffleBuffer;
pub use stream::{Batch, StreamOptions, TokenStream};
pub use tokenize::{END_OF_TEXT, TextTokenizer, train_tokenizer};
