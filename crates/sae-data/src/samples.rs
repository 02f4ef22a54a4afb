//! Windows whose tokens know where they come from, so that an example can be found again in its file.

use crate::shard::{Position, RowBatch, Rows};
use crate::stream::{DOCUMENTS, check_windows};
use crate::{DataError, Packer, ShardSet, StreamOptions, TextTokenizer};

/// A window of tokens, each with its source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// The ids, T of them.
    pub tokens: Vec<u32>,
    /// Where each comes from, as many.
    pub sources: Vec<TokenSource>,
}

/// Where a token comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TokenSource {
    /// The file, as [`ShardSet::names`] counts them.
    pub shard: u32,
    /// The row in it: a document, or a window of token ids.
    pub row: u64,
    /// The bytes of the document that it stands for, from and to; the end-of-text token stands at its end. Of a window of token
    /// ids, nothing.
    pub bytes: [u32; 2],
}

/// A token on its way into a window.
#[derive(Debug, Clone, Copy)]
struct Token<A> {
    id: u32,
    source: TokenSource,
    note: A,
}

/// Passes on the windows of a data set in the order of its files, the same as a [`crate::TokenStream`] in order, until `f` returns
/// `false`. Of the options, those of order and batches are not looked at. Text needs a tokeniser.
///
/// ```
/// use sae_data::{ShardSet, StreamOptions, for_each_sample, prepare::WindowWriter};
/// # let folder = std::env::temp_dir().join(format!("sae-data-samples-{}", std::process::id()));
/// let mut writer = WindowWriter::create(&folder, 2, 1000)?;
/// writer.push(&[3, 5])?;
/// writer.push(&[8, 9])?;
/// writer.finish()?;
///
/// let shards = ShardSet::open(&folder, "input_ids")?;
/// let mut seen = Vec::new();
/// for_each_sample(&shards, None, &StreamOptions::in_order(2, 10), |sample| {
///     seen.push((sample.sources[0].row, sample.tokens));
///     true
/// })?;
/// assert_eq!(seen, [(0, vec![3, 5]), (1, vec![8, 9])]);
/// # std::fs::remove_dir_all(&folder).ok();
/// # Ok::<(), sae_data::DataError>(())
/// ```
pub fn for_each_sample(
    shards: &ShardSet,
    tokenizer: Option<&TextTokenizer>,
    options: &StreamOptions,
    mut f: impl FnMut(Sample) -> bool,
) -> Result<(), DataError> {
    let nothing = |_: &str, tokens: &[[u32; 2]]| Ok(vec![(); tokens.len()]);
    for_each_annotated_sample(shards, tokenizer, options, nothing, |sample, _| f(sample))
}

/// The same with what `annotate` says of every token of a document, given its text and the bytes that each of its tokens stands for:
/// once for every document, though windows hold parts of it. What stands between documents, and windows of token ids, have
/// the default.
pub fn for_each_annotated_sample<A: Copy + Default>(
    shards: &ShardSet,
    tokenizer: Option<&TextTokenizer>,
    options: &StreamOptions,
    mut annotate: impl FnMut(&str, &[[u32; 2]]) -> Result<Vec<A>, DataError>,
    mut f: impl FnMut(Sample, Vec<A>) -> bool,
) -> Result<(), DataError> {
    options.check()?;
    if let Some(tokenizer) = tokenizer {
        tokenizer.check_vocabulary(options.vocabulary)?;
    }
    let mut packer = tokenizer.map(|tokenizer| {
        let plain = |id| Token { id, source: TokenSource::default(), note: A::default() };
        let begin = options.bos.then(|| plain(tokenizer.begin_of_text()));
        Packer::new(options.context_length, plain(tokenizer.end_of_text()), begin)
    });
    let has_begin = packer.is_some() && options.bos;
    let (mut read, mut wanted) = (0, true);
    let mut pass = |window: &[Token<A>]| {
        read += 1;
        if wanted && read > options.skip {
            let mut sources: Vec<TokenSource> = window.iter().map(|token| token.source).collect();
            // What is put in front of a window is of the document that follows.
            if let (true, [first, second, ..]) = (has_begin, sources.as_mut_slice()) {
                *first = TokenSource { bytes: [second.bytes[0]; 2], ..*second };
            }
            let tokens = window.iter().map(|token| token.id).collect();
            let notes = window.iter().map(|token| token.note).collect();
            wanted = f(Sample { tokens, sources }, notes);
        }
        wanted
    };
    shards.for_each_rows(Position::default(), false, |batch| {
        let RowBatch { path, position, rows } = batch;
        let source = |row: usize, bytes| TokenSource {
            shard: position.shard as u32,
            row: position.row + row as u64,
            bytes,
        };
        let mut wanted = true;
        match (rows, tokenizer, &mut packer) {
            (Rows::Text(texts), Some(tokenizer), Some(packer)) => {
                for (chunk, documents) in texts.chunks(DOCUMENTS).enumerate() {
                    let located = tokenizer.locate_all(documents)?;
                    for (place, tokens) in located.into_iter().enumerate() {
                        if tokens.is_empty() {
                            continue;
                        }
                        let row = chunk * DOCUMENTS + place;
                        let length = documents[place].len().min(u32::MAX as usize) as u32;
                        let bytes: Vec<[u32; 2]> = tokens.iter().map(|token| token.bytes).collect();
                        let notes = annotate(&documents[place], &bytes)?;
                        let tokens: Vec<Token<A>> = tokens
                            .into_iter()
                            .zip(notes)
                            .map(|(token, note)| Token {
                                id: token.id,
                                source: source(row, token.bytes),
                                note,
                            })
                            .collect();
                        let end = Token {
                            id: tokenizer.end_of_text(),
                            source: source(row, [length; 2]),
                            note: A::default(),
                        };
                        packer.push_with_end(&tokens, end, |window| wanted = pass(window));
                    }
                    if !wanted {
                        break;
                    }
                }
            }
            (Rows::Text(_), ..) => {
                return Err(DataError::NeedsTokenizer { path: shards.source().to_owned() });
            }
            (Rows::Windows { ids, lengths }, ..) => {
                check_windows(path, position.row, &ids, &lengths, options)?;
                for (row, window) in ids.chunks_exact(options.context_length).enumerate() {
                    let token = |id: &i64| Token {
                        id: *id as u32,
                        source: source(row, [0; 2]),
                        note: A::default(),
                    };
                    wanted = pass(&window.iter().map(token).collect::<Vec<_>>());
                }
            }
        }
        Ok(wanted)
    })
}
