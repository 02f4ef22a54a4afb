//! The reference of all keys says what the types do, and the files that are made from them are up to date.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::{Path, PathBuf};

use sae_config::keys::{FileKind, Key, markdown};
use sae_config::{PretrainConfig, RunConfig, SweepConfig, reference};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

#[test]
fn the_page_and_the_schemas_are_those_of_the_types() {
    let schemas = FileKind::ALL.map(|kind| {
        let file = format!("configs/schema/{}.json", kind.name());
        (file, serde_json::to_string_pretty(&kind.schema()).unwrap() + "\n")
    });
    let page = ("docs/configuration.md".to_owned(), markdown());
    let mut stale = Vec::new();
    for (file, made) in schemas.into_iter().chain([page]) {
        let path = root().join(&file);
        if std::fs::read_to_string(&path).is_ok_and(|found| found == made) {
            continue;
        }
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, made).unwrap();
        stale.push(file);
    }
    assert!(stale.is_empty(), "not of these types, and written anew: {}", stale.join(", "));
}

#[test]
fn the_least_that_a_run_has_is_a_run() {
    let page = markdown();
    let toml = page.split("```").nth(1).and_then(|block| block.strip_prefix("toml\n")).unwrap();
    let run = RunConfig::parse(toml, "docs/configuration.md").unwrap();
    assert_eq!(run.variant(), sae_config::Variant::E2e);
}

/// A run with a table for every section that has keys, and a key for each that has no default.
const RUN: &str = r#"
model.path = "m"
data = { train = "d", context_length = 8 }
sae = { sites = ["blocks.1.hook_resid_pre"], expansion = 4, architecture = { matryoshka = { k = 4 } } }
loss = { sparsity = { coeff = 1 }, local = { coeff = 1 }, downstream = { total_coeff = 0 } }
train = { n_samples = 64, batch_size = 8, lr = 1e-3 }
eval = { data = "e" }
"#;

const SWEEP: &str = r#"
name = "s"
base = "b"
variants = [{ name = "v" }]
"#;

const PRETRAIN: &str = r#"
model = { n_layers = 1, d_model = 8, n_heads = 1, context_length = 8 }
data = { train = "d", validation = "e", tokenizer = "t" }
train.n_steps = 10
"#;

fn sample(kind: FileKind) -> toml::Table {
    toml::from_str(match kind {
        FileKind::Run => RUN,
        FileKind::Sweep => SWEEP,
        FileKind::Pretrain => PRETRAIN,
    })
    .unwrap()
}

/// What a file is read as, for comparison.
fn read(kind: FileKind, table: &toml::Table) -> Result<String, String> {
    let text = toml::to_string(table).unwrap();
    let read = match kind {
        FileKind::Run => RunConfig::parse(&text, "x").map(|config| format!("{config:?}")),
        FileKind::Sweep => SweepConfig::parse(&text, "x").map(|config| format!("{config:?}")),
        FileKind::Pretrain => PretrainConfig::parse(&text, "x").map(|config| format!("{config:?}")),
    };
    read.map_err(|error| error.to_string())
}

/// The table that holds a key, made where it is missing.
fn holder<'a>(table: &'a mut toml::Table, path: &str) -> &'a mut toml::Table {
    let mut at = table;
    let mut sections: Vec<&str> = path.split('.').collect();
    sections.pop();
    for section in sections {
        let next = at.entry(section).or_insert_with(|| toml::Table::new().into());
        at = match next {
            toml::Value::Array(entries) => entries[0].as_table_mut().unwrap(),
            next => next.as_table_mut().unwrap(),
        };
    }
    at
}

fn keys() -> impl Iterator<Item = (FileKind, Key)> {
    FileKind::ALL.into_iter().flat_map(|kind| {
        let keys = kind.sections().into_iter().flat_map(|section| section.keys);
        keys.map(move |key| (kind, key))
    })
}

fn last(path: &str) -> &str {
    path.rsplit('.').next().unwrap()
}

#[test]
fn a_default_is_what_a_key_is_where_it_is_left_out() {
    let mut compared = 0;
    for (kind, key) in keys() {
        let Some(default) = &key.default else { continue };
        let mut without = sample(kind);
        let name = last(&key.path);
        holder(&mut without, &key.path).remove(name);
        let mut with = without.clone();
        let value: toml::Table = toml::from_str(&format!("value = {default}")).unwrap();
        holder(&mut with, &key.path).insert(name.to_owned(), value["value"].clone());
        assert_eq!(read(kind, &with).unwrap(), read(kind, &without).unwrap(), "{}", key.path);
        compared += 1;
    }
    assert!(compared > 25, "{compared}");
}

#[test]
fn required_keys_are_required_and_others_are_not() {
    for (kind, key) in keys() {
        let mut table = sample(kind);
        let name = last(&key.path);
        // Of several architectures and terms a file has some; what a table that is not there requires shows nothing.
        let Some(found) = holder(&mut table, &key.path).remove(name) else { continue };
        let error = read(kind, &table).err();
        if key.is_required {
            let missing = format!("missing field `{name}`");
            assert!(error.is_some_and(|error| error.contains(&missing)), "{} {found}", key.path);
        } else {
            assert_eq!(error, None, "{}", key.path);
        }
    }
}

#[test]
fn every_key_says_what_it_is_and_takes_nothing_else() {
    for (kind, key) in keys() {
        let is_sentence = key.meaning.ends_with(['.', ')']);
        assert!(is_sentence, "{}: {:?}", key.path, key.meaning);
        assert_ne!(key.kind, "any value", "{}", key.path);
        assert!(key.words.iter().all(|word| !word.meaning.is_empty()), "{}", key.path);
        let mut table = sample(kind);
        if key.path.starts_with("sae.architecture.") {
            continue;
        }
        holder(&mut table, &key.path).insert(last(&key.path).to_owned(), (-1.5).into());
        assert!(read(kind, &table).is_err(), "{} takes -1.5, and is {}", key.path, key.kind);
    }
}

#[test]
fn keys_are_explained() {
    let text = FileKind::Run.find("sae.expansion").unwrap().explain();
    for part in
        ["number above 0", "none, it must be given", "saes.dict_size_to_input_ratio", "F / D"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
    let text = FileKind::Run.find("train.precision").unwrap().explain();
    assert!(
        text.contains("\"f32\" or \"f64\" or \"bf16\"") && text.contains("bf16: For GPUs"),
        "{text}"
    );
    let k = FileKind::Run.find("sae.architecture.topk.k").unwrap();
    assert_eq!(
        (k.kind.as_str(), k.unit.as_deref()),
        ("whole number of 1 or more", Some("features"))
    );
}

#[test]
fn shipped_files_name_their_schema_and_have_no_other_keys() {
    for (folder, kind) in
        [("runs", FileKind::Run), ("sweeps", FileKind::Sweep), ("pretrain", FileKind::Pretrain)]
    {
        let schema = kind.schema();
        for file in std::fs::read_dir(root().join("configs").join(folder)).unwrap() {
            let path = file.unwrap().path();
            let text = std::fs::read_to_string(&path).unwrap();
            let first = format!("#:schema ../schema/{}.json\n", kind.name());
            assert!(text.starts_with(&first), "{}", path.display());
            let table: toml::Table = toml::from_str(&text).unwrap();
            follow(&schema, &toml::Value::Table(table), &path);
        }
    }
}

/// Whether the schema has a place for everything in a value.
fn follow(schema: &serde_json::Value, value: &toml::Value, path: &Path) {
    match value {
        toml::Value::Table(table) => {
            for (name, value) in table {
                let choices = schema["oneOf"].as_array().into_iter().flatten();
                let place = std::iter::once(schema)
                    .chain(choices)
                    .find_map(|schema| schema["properties"].get(name))
                    .unwrap_or_else(|| panic!("{}: no place for {name}", path.display()));
                follow(place, value, path);
            }
        }
        toml::Value::Array(values) => {
            for value in values {
                follow(&schema["items"], value, path);
            }
        }
        toml::Value::String(_) => {
            let words = schema["oneOf"].as_array().map_or(0, Vec::len);
            assert!(schema["type"] == "string" || words > 0, "{}: {schema}", path.display());
        }
        toml::Value::Integer(_) => {
            assert!(schema["type"] == "integer" || schema["type"] == "number", "{schema}");
        }
        toml::Value::Float(_) => assert_eq!(schema["type"], "number", "{}", path.display()),
        toml::Value::Boolean(_) => assert_eq!(schema["type"], "boolean", "{}", path.display()),
        toml::Value::Datetime(_) => panic!("{}: a date", path.display()),
    }
}

/// A run and a language model of the reference, and for each of their keys another value.
const REFERENCE: [(&str, &[(&str, &str)]); 2] = [
    (
        r#"{"tlens_model_name": "gpt2-small", "seed": 1, "n_samples": 4000, "save_every_n_samples": 400,
            "eval_every_n_samples": 400, "eval_n_samples": 40, "batch_size": 8, "effective_batch_size": 16, "lr": 1e-3,
            "lr_schedule": "linear", "min_lr_factor": 0.1, "warmup_samples": 160, "cooldown_samples": 0, "max_grad_norm": 1.0,
            "log_every_n_grad_steps": 20, "act_frequency_n_tokens": 10000,
            "loss": {"sparsity": {"coeff": 1.0, "p_norm": 1.0}, "out_to_in": {"coeff": 1.0}, "out_to_orig": {"coeff": 1.0},
                     "logits_kl": {"coeff": 1.0},
                     "in_to_orig": {"total_coeff": 1.0, "hook_positions": ["blocks.4.hook_resid_pre"]}},
            "train_data": {"dataset_name": "a/train", "is_tokenized": false, "tokenizer_name": "gpt2", "split": "train",
                           "n_ctx": 64, "column_name": "body", "seed": 2},
            "eval_data": {"dataset_name": "a/eval", "is_tokenized": false, "tokenizer_name": "gpt2", "split": "test",
                          "n_ctx": 64, "column_name": "other"},
            "saes": {"dict_size_to_input_ratio": 8.0, "retrain_saes": false, "pretrained_sae_paths": "a.pt",
                     "sae_positions": ["blocks.2.hook_resid_pre"]}}"#,
        &[
            ("tlens_model_name", "\"distilgpt2\""),
            ("seed", "7"),
            ("n_samples", "8000"),
            ("save_every_n_samples", "800"),
            ("eval_every_n_samples", "800"),
            ("eval_n_samples", "80"),
            ("batch_size", "4"),
            ("effective_batch_size", "32"),
            ("lr", "0.5"),
            ("lr_schedule", "\"cosine\""),
            ("min_lr_factor", "0.2"),
            ("warmup_samples", "320"),
            ("cooldown_samples", "16"),
            ("max_grad_norm", "2.0"),
            ("log_every_n_grad_steps", "5"),
            ("act_frequency_n_tokens", "5000"),
            ("loss.sparsity.coeff", "2.0"),
            ("loss.sparsity.p_norm", "0.5"),
            ("loss.out_to_in.coeff", "2.0"),
            ("loss.out_to_orig.coeff", "2.0"),
            ("loss.logits_kl.coeff", "2.0"),
            ("loss.in_to_orig.total_coeff", "2.0"),
            ("loss.in_to_orig.hook_positions", "[\"blocks.5.hook_resid_pre\"]"),
            ("train_data.dataset_name", "\"b/train\""),
            ("train_data.tokenizer_name", "\"distilgpt2\""),
            ("train_data.split", "\"all\""),
            ("train_data.column_name", "\"third\""),
            ("train_data.seed", "9"),
            ("eval_data.dataset_name", "\"b/eval\""),
            ("eval_data.split", "\"all\""),
            ("eval_data.column_name", "\"third\""),
            ("saes.dict_size_to_input_ratio", "4.0"),
            ("saes.retrain_saes", "true"),
            ("saes.pretrained_sae_paths", "\"b.pt\""),
            ("saes.sae_positions", "[\"blocks.3.hook_resid_pre\"]"),
        ],
    ),
    (
        r#"{"seed": 1, "name": "tiny",
            "tlens_config": {"d_model": 64, "n_layers": 2, "n_ctx": 32, "d_head": 16, "d_vocab": 100, "act_fn": "gelu_new",
                             "tokenizer_name": "gpt2"},
            "train": {"n_epochs": 2, "batch_size": 8, "effective_batch_size": 16, "lr": 1e-3, "warmup_samples": 160}}"#,
        &[
            ("seed", "7"),
            ("tlens_config.d_model", "128"),
            ("tlens_config.n_layers", "3"),
            ("tlens_config.n_ctx", "16"),
            ("tlens_config.d_head", "32"),
            ("tlens_config.tokenizer_name", "\"distilgpt2\""),
            ("train.n_epochs", "3"),
            ("train.effective_batch_size", "32"),
            ("train.lr", "0.5"),
            ("train.warmup_samples", "320"),
        ],
    ),
];

/// A configuration of the reference in our terms; keys that are left out have their defaults.
fn imported(kind: FileKind, given: &serde_json::Value) -> toml::Table {
    let text = given.to_string();
    let toml = if kind == FileKind::Pretrain {
        reference::parse_language_model(&text, "x").unwrap().config.to_toml()
    } else {
        reference::parse(&text, "x", &mut |_| panic!("sites are named")).unwrap().run.to_toml()
    };
    toml::from_str(&toml.unwrap()).unwrap()
}

#[test]
fn the_keys_of_the_reference_are_those_that_are_imported() {
    for (kind, (base, others)) in [FileKind::Run, FileKind::Pretrain].into_iter().zip(REFERENCE) {
        let base: serde_json::Value = serde_json::from_str(base).unwrap();
        let before = imported(kind, &base);
        let mut told = 0;
        for key in kind.sections().into_iter().flat_map(|section| section.keys) {
            for name in key.reference.iter().flat_map(|names| names.split(", ")) {
                // The other of two keys, of which the sample has one; what two data sets have in common.
                let skipped = ["tlens_model_path", "train_data.n_ctx"];
                if skipped.contains(&name) || (name, key.path.as_str()) == ("seed", "data.seed") {
                    continue;
                }
                let (_, other) = others
                    .iter()
                    .find(|(known, _)| *known == name)
                    .unwrap_or_else(|| panic!("{}: {name} is not the reference's", key.path));
                let mut changed = base.clone();
                let pointer = format!("/{}", name.replace('.', "/"));
                *changed.pointer_mut(&pointer).unwrap() = serde_json::from_str(other).unwrap();
                let after = imported(kind, &changed);
                let at = |table: &toml::Table| {
                    let table = toml::Value::Table(table.clone());
                    key.path.split('.').try_fold(table, |value, name| value.get(name).cloned())
                };
                assert_ne!(at(&before), at(&after), "{name} does not change {}", key.path);
                told += 1;
            }
        }
        assert!(told >= others.len() - 1, "{told} of {}", others.len());
    }
}
