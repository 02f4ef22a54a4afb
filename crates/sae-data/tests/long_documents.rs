//! Documents longer than a part: the same ids as in one piece, in little memory and time.

#![allow(clippy::unwrap_used, clippy::expect_used)] // In a test, a panic is the report.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use sae_data::{ShardSet, TextTokenizer, prepare, train_tokenizer};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::metaspace::Metaspace;
use tokenizers::{AddedToken, Tokenizer};

const PROSE: &str = "The committee met on 3 May 1904; it wasn't long before they'd agreed (more or less) \
    that the bridge, which had cost £12,500.75, would not be built.  \"Why not?\" asked Mr. O'Neill. Naïve façade — \
    e\u{301}te\u{301}, Ωμέγα, Привет мир, עולם, हिन्दी में, ﬁne.\n\n";
const CHINESE: &str =
    "圣达菲是一座历史悠久的城市，位于美国新墨西哥州。它的名字在西班牙语中意为“神圣的信仰”。";
const EMOJI: &str = "👩‍👩‍👧‍👦🇬🇧🇫🇷👍🏽🎉";
const CODE: &str = r#"
impl<'a> Packer<'a> {
    /// Adds a document and passes on every window that it completes.
    pub fn push(&mut self, document: &[u32], mut window: impl FnMut(&[u32])) -> Result<(), Error> {
        let own = self.context_length - usize::from(self.begin.is_some());
        for (row, part) in document.chunks_exact(own).enumerate() {
            if self.rows[row] == 0xFF || part.len() != 1_024 {
                return Err(Error::Window { row, name: format!("{}-{row:05}.parquet", self.name) });
            }
		window(part); // 3.14159e-10
        }
        Ok(())
    }
}
"#;

/// Text of about so many bytes: pieces of many kinds, mostly short, in a random order.
fn varied(bytes: usize, seed: u64) -> String {
    let mut random = StdRng::seed_from_u64(seed);
    let mut text = String::with_capacity(bytes + (1 << 17));
    while text.len() < bytes {
        let most = if random.random_ratio(1, 40) { 60_000 } else { 900 };
        let length = random.random_range(1..most);
        let end = text.len() + length;
        match random.random_range(0..9) {
            0 | 1 => {
                let from = random.random_range(0..CODE.len());
                text.extend(CODE.chars().cycle().skip(from).take(length));
            }
            2 => text.extend(PROSE.chars().cycle().take(length)),
            3 => text.extend(CHINESE.chars().cycle().take(length / 3)),
            4 => text.extend(EMOJI.chars().cycle().take(length / 4)),
            5 => text.extend((0..length).map(|_| char::from(random.random_range(b'0'..=b'9')))),
            6 => text.extend((0..length).map(|_| char::from(random.random_range(b'a'..=b'e')))),
            7 => {
                text.extend(
                    (0..length).map(|_| [' ', '\n', '\t', '\r'][random.random_range(0..4)]),
                );
            }
            _ => {
                while text.len() < end {
                    let width = random.random_range(1..9);
                    write!(text, "{:>width$}|", random.random_range(0..10_000)).unwrap();
                }
            }
        }
        if random.random_ratio(1, 4) {
            text.push_str(
                [" ", "  ", "\n    ", "<|endoftext|>", "</s>", "'s ", "\r\n"]
                    [random.random_range(0..7)],
            );
        }
    }
    text
}

/// The tokeniser of the language model in the repository: byte-level BPE, as GPT-2's.
fn byte_level() -> TextTokenizer {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/rust-lm");
    TextTokenizer::load(&folder).unwrap()
}

/// A BPE tokeniser as SentencePiece makes them: "▁" for a space and in front of every text, bytes for what it does not
/// know. The normaliser and pre-tokeniser say who puts the "▁" there.
fn sentencepiece(folder: &TempDir, normalizer: Value, pre_tokenizer: Value) -> TextTokenizer {
    let special = ["<unk>", "<s>", "</s>"].map(|token| AddedToken::from(token, true));
    let mut trainer: TrainerWrapper = BpeTrainer::builder()
        .vocab_size(1000)
        .limit_alphabet(120)
        .show_progress(false)
        .special_tokens(special.to_vec())
        .build()
        .into();
    let mut tokenizer = Tokenizer::new(BPE::default());
    tokenizer.with_pre_tokenizer(Some(Metaspace::default()));
    tokenizer.train(&mut trainer, [PROSE, CODE].into_iter()).unwrap();
    let mut json: Value = serde_json::from_str(&tokenizer.to_string(false).unwrap()).unwrap();
    let model = &mut json["model"];
    let mut next = model["vocab"].as_object().unwrap().len();
    let mut add = |token: String| {
        let vocabulary = model["vocab"].as_object_mut().unwrap();
        if !vocabulary.contains_key(&token) {
            vocabulary.insert(token, next.into());
            next += 1;
        }
    };
    for byte in 0..=255 {
        add(format!("<0x{byte:02X}>"));
    }
    let runs = [1, 2, 4, 8].map(|length| "▁".repeat(length));
    for run in &runs {
        add(run.repeat(2));
    }
    let merges = model["merges"].as_array_mut().unwrap();
    merges.extend(runs.iter().map(|run| json!([run, run])));
    model["byte_fallback"] = true.into();
    model["fuse_unk"] = true.into();
    model["unk_token"] = "<unk>".into();
    json["normalizer"] = normalizer;
    json["pre_tokenizer"] = pre_tokenizer;
    json["decoder"] = json!({ "type": "Sequence", "decoders": [
        { "type": "Replace", "pattern": { "String": "▁" }, "content": " " },
        { "type": "ByteFallback" },
        { "type": "Fuse" },
        { "type": "Strip", "content": " ", "start": 1, "stop": 0 },
    ]});
    let path = folder.path().join("tokenizer.json");
    std::fs::write(&path, json.to_string()).unwrap();
    TextTokenizer::load(&path).unwrap()
}

/// What Llama 2's has.
fn prepend() -> Value {
    json!({ "type": "Sequence", "normalizers": [
        { "type": "Prepend", "prepend": "▁" },
        { "type": "Replace", "pattern": { "String": " " }, "content": "▁" },
    ]})
}

fn metaspace(scheme: &str, split: bool) -> Value {
    json!({ "type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": split })
}

/// Compares documents in parts with the same documents in one piece.
#[track_caller]
fn check_equal(tokenizer: &TextTokenizer, bytes: usize, seeds: std::ops::Range<u64>) {
    let whole = Tokenizer::from_file(tokenizer.path()).unwrap();
    let documents: Vec<String> = seeds.map(|seed| varied(bytes, seed)).collect();
    let encoded = tokenizer.encode_all(&documents).unwrap();
    for (document, ids) in documents.iter().zip(&encoded) {
        let expected = whole.encode_fast(document.as_str(), false).unwrap();
        let expected = expected.get_ids();
        let same = ids.iter().zip(expected).take_while(|(own, other)| own == other).count();
        assert!(
            ids == expected,
            "they differ after {same} ids of {}: {:?} instead of {:?}",
            expected.len(),
            whole.decode(&ids[same..ids.len().min(same + 9)], false),
            whole.decode(&expected[same..expected.len().min(same + 9)], false),
        );
    }
}

#[test]
fn a_byte_level_tokeniser_has_the_same_ids_in_parts() {
    check_equal(&byte_level(), 300 << 10, 0..8);
}

#[test]
fn a_sentencepiece_tokeniser_has_the_same_ids_in_parts() {
    let folder = TempDir::new().unwrap();
    for (normalizer, pre_tokenizer) in [
        (prepend(), Value::Null),
        (Value::Null, metaspace("first", false)),
        (Value::Null, metaspace("always", true)),
    ] {
        check_equal(&sentencepiece(&folder, normalizer, pre_tokenizer), 300 << 10, 0..3);
    }
}

#[test]
fn a_run_of_one_letter_is_cut_and_decodes_to_itself() {
    let tokenizer = byte_level();
    let document = "a".repeat(2 << 20);
    let ids = tokenizer.encode(&document).unwrap();
    assert!(tokenizer.decode(&ids).unwrap() == document);
}

#[test]
fn training_counts_the_same_words_in_a_long_document() {
    let folder = TempDir::new().unwrap();
    // Every piece ends a line, as the cuts of the document in one piece need not.
    let pieces: Vec<String> = (0..5).map(|_| format!("{PROSE}{CODE}").repeat(45)).collect();
    let train = |name: &str, documents: &[String]| {
        let folder = folder.path().join(name);
        std::fs::create_dir(&folder).unwrap();
        let write = |(row, document): (usize, &String)| {
            let path = folder.join(format!("{row}.txt"));
            std::fs::write(&path, document).unwrap();
            path
        };
        let files: Vec<PathBuf> = documents.iter().enumerate().map(write).collect();
        prepare::text_shards(&files, "text", &folder.join("text")).unwrap();
        let shards = ShardSet::open(&folder.join("text"), "text").unwrap();
        let trained = train_tokenizer(&shards, 500, &folder).unwrap();
        std::fs::read_to_string(trained.path()).unwrap()
    };
    let (short, long) = (train("short", &pieces), train("long", &[pieces.concat()]));
    assert!(pieces[0].len() < 64 << 10 && pieces.concat().len() > 128 << 10);
    assert!(short == long);
}

const CHILD: &str = "SAE_TEST_LONG_DOCUMENT";

/// Peak memory is of a process, so the test runs itself again, alone.
#[test]
fn twenty_megabytes_take_little_memory_and_time() {
    if std::env::var_os(CHILD).is_some() {
        return tokenise_twenty_megabytes();
    }
    let name = "twenty_megabytes_take_little_memory_and_time";
    let child = Command::new(std::env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture"])
        .env(CHILD, "1")
        // What threads have in hand counts: the bound is for so many.
        .env("RAYON_NUM_THREADS", "2")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stderr);
    assert!(child.status.success() && said.contains(" MiB"), "{said}");
}

/// In one piece this takes 2 GB.
fn tokenise_twenty_megabytes() {
    let tokenizer = byte_level();
    let documents = [varied(1 << 20, 9).repeat(20)];
    let (peak, start) = (peak_kib(), Instant::now());
    let ids = tokenizer.encode_all(&documents).unwrap();
    let (seconds, more) = (start.elapsed().as_secs(), (peak_kib() - peak) >> 10);
    eprintln!("{} ids in {seconds} s and {more} MiB", ids[0].len());
    assert!(ids[0].len() > 1 << 20);
    assert!(more < 400, "{more} MiB");
    assert!(seconds < 60, "{seconds} s");
}

/// The most memory that this process has had; 0 where the system does not tell.
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok()).unwrap_or(0)
}
