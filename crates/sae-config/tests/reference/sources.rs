//! What the reference's names of models, tokenisers and data stand for.

use sae_config::ConfigError;
use sae_config::reference::hub_name;

use super::import;

#[test]
fn short_names_are_those_of_the_hub() {
    for (short, hub) in [
        ("gpt2-small", Some("openai-community/gpt2")),
        ("gpt2-xl", Some("openai-community/gpt2-xl")),
        ("pythia-14m", Some("EleutherAI/pythia-14m")),
        ("pythia-160m-deduped", Some("EleutherAI/pythia-160m-deduped")),
        ("gpt-neo-small", Some("EleutherAI/gpt-neo-125m")),
        ("tiny-stories-1M", Some("roneneldan/TinyStories-1M")),
        ("tiny-stories-instruct-33M", Some("roneneldan/TinyStories-Instruct-33M")),
        ("tiny-stories-2L-33M", Some("roneneldan/TinyStories-2Layers-33M")),
        ("roneneldan/TinyStories-1M", Some("roneneldan/TinyStories-1M")),
        ("bert-base", None),
    ] {
        assert_eq!(hub_name(short).as_deref(), hub, "{short}");
    }
    let error = import(&[("gpt2-small", "bert-base")]).unwrap_err().to_string();
    assert!(error.contains("`bert-base`") && error.contains("pythia-14m"), "{error}");
}

#[test]
fn what_lies_here_goes_before_the_hub() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    for (file, text) in
        [("saved/tokenizer.json", "{}"), ("model/config.json", "{}"), ("slow/vocab.json", "{}")]
    {
        let path = folder.path().join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let tokenizer = |name: &str| {
        let to = format!("tokenizer_name: {name}\n");
        Ok::<_, ConfigError>(import(&[("tokenizer_name: gpt2\n", &to)])?.run.data.tokenizer)
    };
    // As `save_pretrained` writes it, that file itself, a model's folder, and names of the hub.
    for (name, expected) in [
        (at("saved"), at("saved")),
        (at("saved/tokenizer.json"), at("saved/tokenizer.json")),
        (at("model"), at("model")),
        ("distilgpt2".to_owned(), "hf://distilbert/distilgpt2".to_owned()),
        ("bert-base-uncased".to_owned(), "hf://bert-base-uncased".to_owned()),
        ("hf://a/b@v1".to_owned(), "hf://a/b@v1".to_owned()),
    ] {
        assert_eq!(tokenizer(&name).unwrap().unwrap().to_string(), expected, "{name}");
    }
    let says = |error: ConfigError, parts: &[&str]| {
        let error = error.to_string();
        for part in parts {
            assert!(error.contains(part), "`{part}` is missing from: {error}");
        }
    };
    says(
        tokenizer(&at("slow")).unwrap_err(),
        &["train_data.tokenizer_name is", "slow`", "has no tokenizer.json", "save_pretrained"],
    );
    says(
        tokenizer(&at("none")).unwrap_err(),
        &["train_data.tokenizer_name is", "none`, but", "a folder with tokenizer.json"],
    );
    let model = |name: &str| {
        import(&[("tlens_model_name: gpt2-small", &format!("tlens_model_name: {name}"))])
    };
    assert_eq!(model(&at("model")).unwrap().run.model.path.to_string(), at("model"));
    says(model(&at("slow")).unwrap_err(), &["slow`, which has no config.json", "owner/name"]);
    let data = |name: &str| {
        let hub = "apollo-research/Skylion007-openwebtext-tokenizer-gpt2";
        import(&[(hub, name)])
    };
    says(data(&at("slow")).unwrap_err(), &["train_data.dataset_name", "has no parquet file"]);
}
