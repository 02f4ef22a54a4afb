//! Shards → batches, on a thread of its own that works ahead.

use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use crate::shard::Rows;
use crate::{ColumnKind, DataError, Packer, ShardSet, ShuffleBuffer, TextTokenizer};

/// How a stream cuts, orders and bounds its data.
#[derive(Debug, Clone)]
pub struct StreamOptions {
    /// Tokens in a window, T.
    pub context_length: usize,
    /// Windows in a batch, B.
    pub batch_size: usize,
    /// Ids must be below this, V.
    pub vocabulary: usize,
    /// Windows in the shuffle buffer; 1 keeps the order.
    pub shuffle_buffer: usize,
    /// Seed of the order.
    pub seed: u64,
    /// Passes over the data; `None` begins a new one, in another order, whenever the data ends.
    pub epochs: Option<u64>,
    /// Windows to leave out at the start: how a stream goes on where another one stopped.
    pub skip: u64,
}

/// Windows of tokens, `[rows, context_length]` in row-major order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// The ids.
    pub tokens: Vec<i64>,
    /// Windows, B.
    pub rows: usize,
    /// Tokens in a window, T.
    pub context_length: usize,
}

/// An iterator over batches. The thread behind it ends when the stream is dropped.
#[derive(Debug)]
pub struct TokenStream {
    receiver: Option<Receiver<Result<Batch, DataError>>>,
    thread: Option<JoinHandle<()>>,
}

/// Batches that wait to be asked for.
const PREFETCH: usize = 8;

impl TokenStream {
    /// Opens and checks the shards, then starts reading. Text needs a tokeniser. Incomplete batches are dropped.
    pub fn open(
        source: &Path,
        column: &str,
        tokenizer: Option<TextTokenizer>,
        options: StreamOptions,
    ) -> Result<Self, DataError> {
        Self::start(ShardSet::open(source, column)?, tokenizer, options)
    }

    /// Starts reading shards that are open already.
    pub fn start(
        shards: ShardSet,
        tokenizer: Option<TextTokenizer>,
        options: StreamOptions,
    ) -> Result<Self, DataError> {
        match (shards.kind(), &tokenizer) {
            (ColumnKind::Text, None) => {
                return Err(DataError::NeedsTokenizer { path: shards.source().to_owned() });
            }
            (ColumnKind::Text, Some(tokenizer)) => {
                tokenizer.check_vocabulary(options.vocabulary)?;
            }
            (ColumnKind::Windows, _) => {}
        }
        let (sender, receiver) = sync_channel(PREFETCH);
        let thread = std::thread::spawn(move || {
            let mut batcher = Batcher::new(&sender, &options);
            if let Err(error) = produce(&shards, tokenizer.as_ref(), &options, &mut batcher) {
                // A closed channel means that nobody wants to know.
                let _ = sender.send(Err(error));
            }
        });
        Ok(Self { receiver: Some(receiver), thread: Some(thread) })
    }
}

impl Iterator for TokenStream {
    type Item = Result<Batch, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.receiver.as_ref()?.recv().ok()
    }
}

impl Drop for TokenStream {
    fn drop(&mut self) {
        self.receiver = None;
        if let Some(thread) = self.thread.take() {
            // The thread sees the closed channel at its next batch; a panic there has been reported already.
            let _ = thread.join();
        }
    }
}

/// Collects windows into batches and sends them.
struct Batcher<'a> {
    sender: &'a SyncSender<Result<Batch, DataError>>,
    skip: u64,
    windows: u64,
    tokens: Vec<i64>,
    batch_size: usize,
    context_length: usize,
}

impl<'a> Batcher<'a> {
    fn new(sender: &'a SyncSender<Result<Batch, DataError>>, options: &StreamOptions) -> Self {
        let &StreamOptions { batch_size, context_length, skip, .. } = options;
        Self { sender, skip, windows: 0, tokens: Vec::new(), batch_size, context_length }
    }

    /// Adds a window; `false` once nobody listens any more.
    fn push(&mut self, window: &[u32]) -> bool {
        self.windows += 1;
        if self.windows <= self.skip {
            return true;
        }
        self.tokens.extend(window.iter().map(|&id| i64::from(id)));
        if self.tokens.len() < self.batch_size * self.context_length {
            return true;
        }
        let batch = Batch {
            tokens: std::mem::take(&mut self.tokens),
            rows: self.batch_size,
            context_length: self.context_length,
        };
        self.sender.send(Ok(batch)).is_ok()
    }
}

fn produce(
    shards: &ShardSet,
    tokenizer: Option<&TextTokenizer>,
    options: &StreamOptions,
    batcher: &mut Batcher<'_>,
) -> Result<(), DataError> {
    for epoch in 0..options.epochs.unwrap_or(u64::MAX) {
        if epoch == 1 && options.epochs.is_none() {
            tracing::warn!(
                "{} ended after {} windows: beginning a new epoch in another order",
                shards.source().display(),
                batcher.windows
            );
        }
        let before = batcher.windows;
        let mut buffer = ShuffleBuffer::new(options.shuffle_buffer, options.seed, epoch);
        let mut wanted = true;
        for_each_window(shards, tokenizer, options, |window| {
            if let Some(window) = buffer.push(window) {
                wanted = batcher.push(&window);
            }
            wanted
        })?;
        for window in buffer.finish() {
            wanted = wanted && batcher.push(&window);
        }
        if !wanted {
            return Ok(());
        }
        if batcher.windows == before {
            return Err(DataError::TooShort {
                path: shards.source().to_owned(),
                found: 0,
                context_length: options.context_length,
                needed: 1,
                purpose: "",
            });
        }
    }
    Ok(())
}

/// Passes on every window of the shards in order, until `f` returns `false`.
pub(crate) fn for_each_window(
    shards: &ShardSet,
    tokenizer: Option<&TextTokenizer>,
    options: &StreamOptions,
    mut f: impl FnMut(Vec<u32>) -> bool,
) -> Result<(), DataError> {
    let mut packer = tokenizer.map(|t| Packer::new(options.context_length, t.end_of_text()));
    let (mut rows_read, mut empty) = (0_u64, 0_u64);
    shards.for_each_rows(|path, first, rows| {
        let mut wanted = true;
        match (rows, tokenizer, &mut packer) {
            (Rows::Text(texts), Some(tokenizer), Some(packer)) => {
                rows_read += texts.len() as u64;
                for ids in tokenizer.encode_all(&texts)? {
                    if ids.is_empty() {
                        empty += 1;
                        continue;
                    }
                    packer.push(&ids, |window| wanted = wanted && f(window.to_vec()));
                }
            }
            (Rows::Text(_), ..) => {
                return Err(DataError::NeedsTokenizer { path: shards.source().to_owned() });
            }
            (Rows::Windows { ids, lengths }, ..) => {
                let mut start = 0;
                for (row, length) in lengths.into_iter().enumerate() {
                    let row = first + row as u64;
                    let length =
                        length.ok_or_else(|| DataError::NullRow { path: path.to_owned(), row })?;
                    let window = check_window(path, row, &ids[start..start + length], options)?;
                    start += length;
                    wanted = wanted && f(window);
                }
            }
        }
        Ok(wanted)
    })?;
    if empty > 0 && empty == rows_read {
        return Err(DataError::Empty { path: shards.source().to_owned(), rows: rows_read });
    }
    if empty > 0 {
        tracing::warn!(
            "{}: left out {empty} empty documents of {rows_read}",
            shards.source().display()
        );
    }
    Ok(())
}

fn check_window(
    path: &Path,
    row: u64,
    ids: &[i64],
    options: &StreamOptions,
) -> Result<Vec<u32>, DataError> {
    if ids.len() != options.context_length {
        return Err(DataError::WindowLength {
            path: path.to_owned(),
            row,
            found: ids.len(),
            expected: options.context_length,
        });
    }
    ids.iter()
        .map(|&id| match u32::try_from(id) {
            Ok(small) if (small as usize) < options.vocabulary => Ok(small),
            _ => Err(DataError::TokenId {
                path: path.to_owned(),
                row,
                id,
                vocabulary: options.vocabulary,
            }),
        })
        .collect()
}
