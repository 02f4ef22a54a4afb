//! Text → token ids, with a tokeniser in Hugging Face's `tokenizer.json` format; and the training of one.

use std::path::{Path, PathBuf};

use rayon::prelude::*;
use sae_config::file::{LONGEST_TEXT, read_text};
use tokenizers::decoders::byte_level::ByteLevel as ByteLevelDecoder;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{
    AddedToken, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer, Tokenizer,
    TokenizerBuilder,
};

use crate::parts::{self, Part, Parts};
use crate::shard::{Position, Rows};
use crate::{DataError, ShardSet};

/// The end-of-text token of GPT-2's family, which a tokeniser trained here has too.
pub const END_OF_TEXT: &str = "<|endoftext|>";

/// The longest `tokenizer.json`, in bytes.
const LONGEST_TOKENIZER: u64 = 1 << 30;

/// A token of a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Located {
    pub id: u32,
    /// The bytes of the document that it stands for, from and to.
    pub bytes: [u32; 2],
}

/// A tokeniser and the token that joins documents.
#[derive(Debug, Clone)]
pub struct TextTokenizer {
    tokenizer: Tokenizer,
    path: PathBuf,
    end_of_text: u32,
    begin_of_text: u32,
}

impl TextTokenizer {
    /// Loads `tokenizer.json`, given by its path or its folder's. The end-of-text token is the `eos_token` of
    /// `tokenizer_config.json` beside it, else the first of the usual names that the vocabulary has.
    pub fn load(path: &Path) -> Result<Self, DataError> {
        let path = if path.is_dir() { path.join("tokenizer.json") } else { path.to_owned() };
        let failed =
            |message: String| DataError::Tokenizer { action: "load", path: path.clone(), message };
        let text =
            read_text(&path, LONGEST_TOKENIZER).map_err(|error| failed(error.to_string()))?;
        let mut tokenizer: Tokenizer =
            text.parse().map_err(|error: tokenizers::Error| failed(error.to_string()))?;
        // Settings for batches of sentences, which would cut and fill documents in silence.
        tokenizer.with_truncation(None).map_err(|error| failed(error.to_string()))?;
        tokenizer.with_padding(None);
        let config = path
            .parent()
            .and_then(|folder| read_text(&folder.join("tokenizer_config.json"), LONGEST_TEXT).ok())
            .and_then(|text| serde_json::from_str::<serde_json::Value>(&text).ok())
            .unwrap_or_default();
        let configured = |key: &str| {
            let token = &config[key];
            let name = token.as_str().or_else(|| token["content"].as_str())?;
            tokenizer.token_to_id(name)
        };
        let usual = [END_OF_TEXT, "</s>", "<eos>", "<|end_of_text|>"];
        let end_of_text = configured("eos_token")
            .or_else(|| usual.into_iter().find_map(|token| tokenizer.token_to_id(token)))
            .ok_or_else(|| {
                failed(
                    "it has no end-of-text token; name it as eos_token in tokenizer_config.json"
                        .into(),
                )
            })?;
        // GPT-2's family has one token for both.
        let begin_of_text = configured("bos_token").unwrap_or(end_of_text);
        Ok(Self { tokenizer, path, end_of_text, begin_of_text })
    }

    /// The file that it was loaded from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The token that joins documents.
    pub fn end_of_text(&self) -> u32 {
        self.end_of_text
    }

    /// The token that windows may begin with: `bos_token` of `tokenizer_config.json`, else the end-of-text token.
    pub fn begin_of_text(&self) -> u32 {
        self.begin_of_text
    }

    /// What joins documents, and what windows begin with where they begin with `begin_of_text`, in words.
    pub fn describe(&self, bos: bool) -> String {
        let show = |id: u32| match self.tokenizer.id_to_token(id) {
            Some(token) => format!("`{token}` (id {id})"),
            None => format!("id {id}"),
        };
        let begin = if bos {
            format!("every window begins with {}", show(self.begin_of_text))
        } else {
            "no token is put at the beginning of windows".to_owned()
        };
        format!("documents are joined by {}; {begin}", show(self.end_of_text))
    }

    /// One more than the largest id, added tokens included.
    pub fn vocabulary(&self) -> usize {
        let largest = self.tokenizer.get_vocab(true).into_values().max();
        largest.map_or(0, |id| id as usize + 1)
    }

    /// Refuses a tokeniser with ids that a model of this vocabulary does not have.
    pub fn check_vocabulary(&self, vocabulary: usize) -> Result<(), DataError> {
        let found = self.vocabulary();
        if found > vocabulary {
            return Err(DataError::Vocabulary { path: self.path.clone(), found, vocabulary });
        }
        Ok(())
    }

    /// The ids of each document, tokenised on all cores; no special tokens are added.
    pub fn encode_all(&self, documents: &[String]) -> Result<Vec<Vec<u32>>, DataError> {
        documents.par_iter().map(|document| self.encode(document)).collect()
    }

    /// The ids of a document.
    ///
    /// A document of more than 64 KiB is tokenised in parts of about that length, on all cores: time grows with the
    /// length, memory with the ids and by some 16 MB a thread. The document is cut where the tokens of the text around
    /// the cut, 512 bytes or more on each side, stay the same. The ids may differ from those of the document in one
    /// piece where 1 MiB has no such place, as in a word of a million letters (a warning tells of that), and where a Unigram
    /// model finds two equally likely splits, among which rounding decides.
    pub fn encode(&self, document: &str) -> Result<Vec<u32>, DataError> {
        if document.len() <= parts::PART {
            return self.encode_part(document);
        }
        let Parts { parts, unconfirmed } = parts::split(document, |text| self.encode_part(text))?;
        if unconfirmed > 0 {
            tracing::warn!(
                "a document of {} bytes was cut at {unconfirmed} places where its tokens may differ: 1 MiB without a \
                 place to cut it",
                document.len()
            );
        }
        let encoded = parts
            .par_iter()
            .map(|part| self.encode_part(part.text))
            .collect::<Result<Vec<_>, _>>()?;
        let mut ids = Vec::with_capacity(encoded.iter().map(Vec::len).sum());
        for (part, own) in parts.iter().zip(encoded) {
            ids.extend(own.into_iter().skip(part.prefix));
        }
        Ok(ids)
    }

    /// The ids of each document with the bytes of it that each stands for, tokenised on all cores.
    pub(crate) fn locate_all(&self, documents: &[String]) -> Result<Vec<Vec<Located>>, DataError> {
        documents.par_iter().map(|document| self.locate(document)).collect()
    }

    /// The ids of a document, as [`TextTokenizer::encode`] has them, each with the bytes of the document that it stands for. Several
    /// tokens of one character have its bytes, all of them.
    fn locate(&self, document: &str) -> Result<Vec<Located>, DataError> {
        let parts = if document.len() <= parts::PART {
            vec![Part { text: document, prefix: 0 }]
        } else {
            parts::split(document, |text| self.encode_part(text))?.parts
        };
        let located = parts
            .par_iter()
            .map(|part| {
                let encoding = self
                    .tokenizer
                    .encode(part.text, false)
                    .map_err(|error| self.cannot_encode(&error))?;
                // Parts are pieces of the document, some with a space between them.
                let at = part.text.as_ptr().addr() - document.as_ptr().addr();
                let pairs = encoding.get_ids().iter().zip(encoding.get_offsets());
                let located = pairs.map(|(&id, &(from, to))| Located {
                    id,
                    bytes: [from + at, to + at].map(|byte| byte.min(u32::MAX as usize) as u32),
                });
                Ok(located.skip(part.prefix).collect::<Vec<_>>())
            })
            .collect::<Result<Vec<_>, DataError>>()?;
        Ok(located.into_iter().flatten().collect())
    }

    fn cannot_encode(&self, error: &tokenizers::Error) -> DataError {
        DataError::Tokenizer {
            action: "encode a document with",
            path: self.path.clone(),
            message: error.to_string(),
        }
    }

    fn encode_part(&self, text: &str) -> Result<Vec<u32>, DataError> {
        match self.tokenizer.encode_fast(text, false) {
            Ok(encoding) => Ok(encoding.get_ids().to_vec()),
            Err(error) => Err(self.cannot_encode(&error)),
        }
    }

    /// The text of every id by itself, `[vocabulary]`: what it adds to a text. Bytes that are no whole character become `\u{FFFD}`;
    /// an id that no token has is an empty text.
    pub fn texts(&self) -> Vec<String> {
        let decode = |ids: &[u32]| self.tokenizer.decode(ids, false).unwrap_or_default();
        let ids = 0..self.vocabulary() as u32;
        // Some decoders take the space from the first token of a text: every token is decoded after one that is a letter.
        let first = ids.clone().map(|id| (id, decode(&[id])));
        let letter = |text: &str| text.len() == 1 && text.chars().all(char::is_alphabetic);
        let first = first.into_iter().find(|(_, text)| letter(text));
        ids.map(|id| match &first {
            None => decode(&[id]),
            Some((letter, text)) => {
                let both = decode(&[*letter, id]);
                both.strip_prefix(text).map_or_else(|| decode(&[id]), ToOwned::to_owned)
            }
        })
        .collect()
    }

    /// The text of ids.
    pub fn decode(&self, ids: &[u32]) -> Result<String, DataError> {
        self.tokenizer.decode(ids, false).map_err(|error| DataError::Tokenizer {
            action: "decode with",
            path: self.path.clone(),
            message: error.to_string(),
        })
    }
}

/// Trains a byte-level BPE tokeniser of `vocabulary` ids on all text of `shards` and writes it to
/// `folder/tokenizer.json`. The end-of-text token is its id 0. Long documents are cut as in [`TextTokenizer::encode`],
/// between words.
pub fn train_tokenizer(
    shards: &ShardSet,
    vocabulary: usize,
    folder: &Path,
) -> Result<TextTokenizer, DataError> {
    let path = folder.join("tokenizer.json");
    let failed =
        |message: String| DataError::Tokenizer { action: "train", path: path.clone(), message };
    let fewest = ByteLevel::alphabet().len() + 1;
    if vocabulary < fewest {
        return Err(failed(format!(
            "expected {fewest} ids or more, one a byte and one for the end of a text, found {vocabulary}"
        )));
    }
    let mut documents = Vec::new();
    shards.for_each_rows(Position::default(), false, |batch| match batch.rows {
        Rows::Text(texts) => {
            documents.extend(texts);
            Ok(true)
        }
        Rows::Windows { .. } => Err(DataError::ColumnType {
            path: batch.path.to_owned(),
            column: shards.column().to_owned(),
            found: "token ids".to_owned(),
            expected: "text to train a tokeniser on",
        }),
    })?;
    let mut trainer = BpeTrainer::builder()
        .vocab_size(vocabulary)
        .show_progress(false)
        .special_tokens(vec![AddedToken::from(END_OF_TEXT, true)])
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .build();
    let mut tokenizer = TokenizerBuilder::<
        BPE,
        tokenizers::NormalizerWrapper,
        ByteLevel,
        tokenizers::PostProcessorWrapper,
        ByteLevelDecoder,
    >::new()
    .with_model(BPE::default())
    .with_pre_tokenizer(Some(byte_level()))
    .with_decoder(Some(ByteLevelDecoder::default()))
    .build()
    .map_err(|error| failed(error.to_string()))?;
    let mut texts = Vec::with_capacity(documents.len());
    for document in &documents {
        let Parts { parts, .. } =
            parts::split(document, words).map_err(|error| failed(error.to_string()))?;
        texts.extend(parts.into_iter().map(|part| part.text));
    }
    tokenizer.train(&mut trainer, texts.into_iter()).map_err(|error| failed(error.to_string()))?;
    std::fs::create_dir_all(folder).map_err(|source| DataError::Io {
        action: "create",
        path: folder.to_owned(),
        source,
    })?;
    tokenizer.save(&path, false).map_err(|error| failed(error.to_string()))?;
    TextTokenizer::load(&path)
}

/// The pre-tokeniser of GPT-2, without a space in front of a text.
fn byte_level() -> ByteLevel {
    ByteLevel::new(false, true, true)
}

/// The words that a byte-level tokeniser is trained on.
fn words(text: &str) -> Result<Vec<String>, tokenizers::Error> {
    let mut words = PreTokenizedString::from(text);
    byte_level().pre_tokenize(&mut words)?;
    let words = words.get_splits(OffsetReferential::Original, OffsetType::None);
    Ok(words.into_iter().map(|(word, ..)| word.to_owned()).collect())
}
