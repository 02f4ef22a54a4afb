//! Batches of tokens from a thread of their own that works ahead.

use std::cell::Cell;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use crate::cursor::{Cursor, Place, Snapshot, Window};
use crate::shard::{Position, RowBatch, Rows};
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
    /// Windows to leave out at the start of the data, in every epoch.
    pub skip: u64,
    /// Whether windows of text begin with the tokeniser's beginning-of-text token.
    pub bos: bool,
}

impl StreamOptions {
    /// Windows of this length one by one, in order, once.
    pub fn in_order(context_length: usize, vocabulary: usize) -> Self {
        Self {
            context_length,
            batch_size: 1,
            vocabulary,
            shuffle_buffer: 1,
            seed: 0,
            epochs: Some(1),
            skip: 0,
            bos: false,
        }
    }

    /// Refuses sizes that no batch can have.
    pub(crate) fn check(&self) -> Result<(), DataError> {
        let least = 1 + usize::from(self.bos);
        let refused = |what, found, expected: &str| {
            Err(DataError::Size { what, found, expected: expected.to_owned() })
        };
        if self.context_length < least || self.context_length > LONGEST_WINDOW {
            let expected = format!("from {least} to {LONGEST_WINDOW} tokens");
            return refused("the context length", self.context_length, &expected);
        }
        if self.batch_size == 0 || self.batch_size > usize::MAX / self.context_length / 16 {
            return refused("the batch size", self.batch_size, "at least 1, and what memory holds");
        }
        Ok(())
    }
}

/// The longest window, in tokens.
const LONGEST_WINDOW: usize = 1 << 24;

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

/// An iterator over batches. The thread behind it ends by itself once the stream is dropped: at its next batch, or when the
/// download is over that it waits for. Nobody waits for it.
#[derive(Debug)]
pub struct TokenStream {
    receiver: Receiver<Result<Sent, DataError>>,
    /// The last snapshot that came with a batch.
    snapshot: Arc<Snapshot>,
    /// Windows delivered, those before a restart included.
    delivered: u64,
    /// The fingerprint of what is read.
    data: Arc<str>,
}

/// A batch, and the last snapshot before it.
#[derive(Debug)]
struct Sent {
    batch: Batch,
    snapshot: Arc<Snapshot>,
}

/// Documents tokenised together, on all cores.
pub(crate) const DOCUMENTS: usize = 128;
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
        let snapshot = Arc::new(Snapshot {
            place: Place { random: "0".to_owned(), ..Place::default() },
            ..Snapshot::default()
        });
        Self::resume(shards, tokenizer, options, Cursor { snapshot, since: 0, data: None })
    }

    /// Goes on where a stream over the same shards with the same options was.
    pub fn resume(
        shards: ShardSet,
        tokenizer: Option<TextTokenizer>,
        options: StreamOptions,
        cursor: Cursor,
    ) -> Result<Self, DataError> {
        options.check()?;
        match (shards.kind(), &tokenizer) {
            (ColumnKind::Text, None) => {
                return Err(DataError::NeedsTokenizer { path: shards.source().to_owned() });
            }
            (ColumnKind::Text, Some(tokenizer)) => {
                tokenizer.check_vocabulary(options.vocabulary)?;
            }
            (ColumnKind::Windows, _) => {}
        }
        let data: Arc<str> = shards.fingerprint(tokenizer.as_ref())?.into();
        let Cursor { snapshot, since, data: before } = cursor;
        if before.is_some_and(|before| before != data) {
            return Err(DataError::Cursor {
                path: shards.source().to_owned(),
                message: "its files or its tokeniser are not those that were read before, though their names are: give \
                          them back, or begin anew in another folder"
                    .to_owned(),
            });
        }
        let delivered = snapshot.place.sent + since;
        let (sender, receiver) = sync_channel(PREFETCH);
        let start = Arc::clone(&snapshot);
        std::thread::spawn(move || {
            let reader = Reader::new(&shards, tokenizer.as_ref(), &options);
            let mut batcher = Batcher::new(&sender, &options, start, since);
            if let Err(error) = produce(&reader, &mut batcher) {
                // A closed channel means that nobody wants to know.
                let _ = sender.send(Err(error));
            }
        });
        Ok(Self { receiver, snapshot, delivered, data })
    }

    /// Where the stream stands after the last batch that was taken.
    pub fn cursor(&self) -> Cursor {
        Cursor {
            snapshot: Arc::clone(&self.snapshot),
            since: self.delivered - self.snapshot.place.sent,
            data: Some(Arc::clone(&self.data)),
        }
    }
}

impl Iterator for TokenStream {
    type Item = Result<Batch, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.receiver.recv().ok()? {
            Ok(Sent { batch, snapshot }) => {
                self.delivered += batch.rows as u64;
                self.snapshot = snapshot;
                Some(Ok(batch))
            }
            Err(error) => Some(Err(error)),
        }
    }
}

/// Collects windows into batches and sends them.
struct Batcher<'a> {
    sender: &'a SyncSender<Result<Sent, DataError>>,
    snapshot: Arc<Snapshot>,
    /// Windows that were delivered before a restart, still to be dropped.
    drop: u64,
    /// Windows in batches sent, those before a restart included.
    sent: u64,
    windows: Vec<Window>,
    batch_size: usize,
    context_length: usize,
}

impl<'a> Batcher<'a> {
    fn new(
        sender: &'a SyncSender<Result<Sent, DataError>>,
        options: &StreamOptions,
        snapshot: Arc<Snapshot>,
        drop: u64,
    ) -> Self {
        let &StreamOptions { batch_size, context_length, .. } = options;
        let sent = snapshot.place.sent;
        Self { sender, snapshot, drop, sent, windows: Vec::new(), batch_size, context_length }
    }

    /// Adds a window; `false` once nobody listens any more.
    fn push(&mut self, window: Window) -> bool {
        if self.drop > 0 {
            (self.drop, self.sent) = (self.drop - 1, self.sent + 1);
            return true;
        }
        self.windows.push(window);
        if self.windows.len() < self.batch_size {
            return true;
        }
        let mut tokens = Vec::with_capacity(self.batch_size * self.context_length);
        for window in self.windows.drain(..) {
            tokens.extend(window.iter().map(|&id| i64::from(id)));
        }
        self.sent += self.batch_size as u64;
        let batch = Batch { tokens, rows: self.batch_size, context_length: self.context_length };
        self.sender.send(Ok(Sent { batch, snapshot: Arc::clone(&self.snapshot) })).is_ok()
    }
}

fn produce(reader: &Reader<'_>, batcher: &mut Batcher<'_>) -> Result<(), DataError> {
    let Reader { shards, options, .. } = *reader;
    let start = Arc::clone(&batcher.snapshot);
    if !start.partial.iter().cloned().all(|window| batcher.push(window)) {
        return Ok(());
    }
    let mut resumed = Some(start);
    let first_epoch = batcher.snapshot.place.epoch;
    for epoch in first_epoch..options.epochs.unwrap_or(u64::MAX) {
        if epoch == 1 && options.epochs.is_none() && resumed.is_none() {
            tracing::warn!(
                "{} ended after {} windows: beginning a new epoch in another order",
                shards.source().display(),
                batcher.sent
            );
        }
        let mut buffer = ShuffleBuffer::new(options.shuffle_buffer, options.seed, epoch);
        let (mut position, mut read, mut pending) = (Position::default(), 0, Vec::new());
        if let Some(start) = resumed.take() {
            (position, read, pending) =
                (start.place.position, start.place.read, start.pending.clone());
            // Checked when the cursor was read.
            let random = start.place.random.parse().unwrap_or(0);
            buffer.restore(start.buffer.clone(), random);
        }
        let mut wanted = true;
        let taken = reader.windows(position, read, pending, |step| {
            match step {
                Step::Before { position, read, pending } => {
                    let (items, random) = buffer.state();
                    batcher.snapshot = Arc::new(Snapshot {
                        place: Place {
                            epoch,
                            position,
                            read,
                            sent: batcher.sent,
                            random: random.to_string(),
                        },
                        pending: pending.to_vec(),
                        buffer: items.to_vec(),
                        partial: batcher.windows.clone(),
                    });
                }
                Step::Window(window) => {
                    if let Some(window) = buffer.push(window) {
                        wanted = batcher.push(window);
                    }
                }
            }
            wanted
        })?;
        for window in buffer.finish() {
            wanted = wanted && batcher.push(window);
        }
        if !wanted {
            return Ok(());
        }
        if taken <= options.skip {
            return Err(DataError::TooShort {
                path: shards.source().to_owned(),
                found: taken,
                context_length: options.context_length,
                needed: options.skip + 1,
                purpose: if options.skip > 0 {
                    " after those that data.skip leaves out"
                } else {
                    ""
                },
            });
        }
    }
    Ok(())
}

/// What reading passes on.
pub(crate) enum Step<'a> {
    /// Rows are about to be read, from this position, after so many windows and with these tokens pending.
    Before { position: Position, read: u64, pending: &'a [u32] },
    /// A window.
    Window(Window),
}

/// Reads windows in the order of the files.
pub(crate) struct Reader<'a> {
    shards: &'a ShardSet,
    tokenizer: Option<&'a TextTokenizer>,
    options: &'a StreamOptions,
}

impl<'a> Reader<'a> {
    pub fn new(
        shards: &'a ShardSet,
        tokenizer: Option<&'a TextTokenizer>,
        options: &'a StreamOptions,
    ) -> Self {
        Self { shards, tokenizer, options }
    }

    /// Passes on every window from a position on, until `f` returns `false`; returns how many windows the data has had,
    /// those before the position and those left out at the start included.
    pub fn windows(
        &self,
        from: Position,
        mut read: u64,
        pending: Vec<u32>,
        mut f: impl FnMut(Step<'_>) -> bool,
    ) -> Result<u64, DataError> {
        let options = self.options;
        let mut packer = self.tokenizer.map(|tokenizer| {
            let begin = options.bos.then(|| tokenizer.begin_of_text());
            Packer::new(options.context_length, tokenizer.end_of_text(), begin)
        });
        if let Some(packer) = &mut packer {
            packer.restore(pending);
        }
        let (mut rows_read, mut empty) = (0_u64, 0_u64);
        // Who reads without an end wants every file; an evaluation set may end with the first.
        self.shards.for_each_rows(from, options.epochs.is_none(), |batch| {
            let before = packer.as_ref().map_or(&[][..], |packer| packer.pending());
            let wanted =
                Cell::new(f(Step::Before { position: batch.position, read, pending: before }));
            let mut pass = |window: &mut dyn FnMut() -> Window| {
                read += 1;
                if read > options.skip && wanted.get() {
                    wanted.set(f(Step::Window(window())));
                }
            };
            match (batch.rows, self.tokenizer, &mut packer) {
                (Rows::Text(texts), Some(tokenizer), Some(packer)) => {
                    rows_read += texts.len() as u64;
                    // Some at a time: who has enough need not wait for the rest.
                    for documents in texts.chunks(DOCUMENTS) {
                        for ids in tokenizer.encode_all(documents)? {
                            if ids.is_empty() {
                                empty += 1;
                                continue;
                            }
                            packer.push(&ids, |window| pass(&mut || window.into()));
                        }
                        if !wanted.get() {
                            break;
                        }
                    }
                }
                (Rows::Text(_), ..) => {
                    return Err(DataError::NeedsTokenizer {
                        path: self.shards.source().to_owned(),
                    });
                }
                (Rows::Windows { ids, lengths }, ..) => {
                    let RowBatch { path, position, .. } = batch;
                    check_windows(path, position.row, &ids, &lengths, options)?;
                    for window in ids.chunks_exact(options.context_length) {
                        pass(&mut || window.iter().map(|&id| id as u32).collect());
                    }
                }
            }
            Ok(wanted.get())
        })?;
        let source = self.shards.source();
        if empty > 0 && empty == rows_read && from == Position::default() {
            return Err(DataError::Empty { path: source.to_owned(), rows: rows_read });
        }
        if empty > 0 {
            tracing::warn!("{}: left out {empty} empty documents of {rows_read}", source.display());
        }
        Ok(read)
    }
}

/// Refuses rows that are null, of another length, or hold ids that the model does not have.
pub(crate) fn check_windows(
    path: &Path,
    first: u64,
    ids: &[i64],
    lengths: &[Option<usize>],
    options: &StreamOptions,
) -> Result<(), DataError> {
    let (path, expected) = (path.to_owned(), options.context_length);
    if let Some(row) = lengths.iter().position(|length| *length != Some(expected)) {
        let at = first + row as u64;
        return Err(match lengths[row] {
            None => DataError::NullRow { path, row: at },
            Some(found) => DataError::WindowLength { path, row: at, found, expected },
        });
    }
    let vocabulary = options.vocabulary;
    let known = 0..vocabulary.min(u32::MAX as usize) as i64;
    match ids.iter().position(|id| !known.contains(id)) {
        None => Ok(()),
        Some(at) => {
            let row = first + (at / expected) as u64;
            Err(DataError::TokenId { path, row, id: ids[at], vocabulary })
        }
    }
}
