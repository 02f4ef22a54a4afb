//! Made-up runs with dashboards: tokens that no page expects, and a small model with random dictionaries.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use sae_config::{Architecture, RunConfig, Site};
use sae_nn::weights::{self, Provenance};
use sae_nn::{Dictionary, Sizes};
use sae_record::RunFolder;
use sae_record::dashboard::{
    Dashboard, ExampleRecord, FeatureCard, Gathered, LensToken, Near, PartnerRecord,
};
use sae_train::RunSpec;
use tch::{Device, Kind};

pub const SITE: &str = "blocks.1.hook_resid_pre";
const FEATURES: u32 = 64;

/// Tokens: markup, text from right to left, signs on top of each other, a very long one, plain ones.
pub fn vocabulary() -> Vec<String> {
    let mut tokens = vec![
        "<script>window.hacked = 1</script>".to_owned(),
        "<img src=x onerror=window.hacked=1>".to_owned(),
        "שלום".to_owned(),
        "e\u{301}\u{302}\u{303}".to_owned(),
        "x".repeat(10_000),
        "\n".to_owned(),
        "\u{202e}turned".to_owned(),
    ];
    tokens.extend((0..57).map(|place| format!(" word{place}")));
    tokens
}

fn model() -> PathBuf {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sae-model/tests/fixtures/gpt2");
    fixtures.canonicalize().unwrap()
}

/// A finished run with weights and a dashboard of so many features.
pub fn run(place: &Path, id: &str, other: &str, n_features: u32) -> RunSpec {
    let config = format!(
        r#"
        model = {{ path = {:?} }}
        data = {{ train = "train", context_length = 16 }}
        sae = {{ sites = ["{SITE}"], expansion = 2 }}
        loss = {{ sparsity = {{ coeff = 0.5 }}, kl = {{ coeff = 1.0 }} }}
        train = {{ n_samples = 80, batch_size = 8, lr = 1e-3 }}
        eval = {{ data = "validation" }}
        "#,
        model()
    );
    let config = RunConfig::parse(&config, "run.toml").unwrap();
    let folder = RunFolder::new(place.join(id));
    let site: Site = SITE.parse().unwrap();
    let sizes = Sizes::sae(32, FEATURES as usize);
    let relu = Architecture::default();
    let random = Dictionary::random(&relu, sizes, 0, 0, Device::Cpu, Kind::Float).unwrap();
    let provenance = Provenance {
        model: "gpt2",
        hook_name: SITE,
        hook_name_out: None,
        context_length: 16,
        processed: false,
    };
    std::fs::create_dir_all(place.join(id).join("sae")).unwrap();
    weights::save(&random, provenance, &folder.sae(site)).unwrap();
    let gathered = Gathered {
        of: BTreeMap::new(),
        compared_with: String::new(),
        tokens: 100_000,
        context_length: 16,
        n_features: u64::from(n_features),
        data: "validation".to_owned(),
        files: vec!["shard-00000.parquet".to_owned()],
        are_windows: false,
    };
    let vocabulary = vocabulary();
    let cards: Vec<FeatureCard> =
        (0..n_features).map(|feature| card(feature, other, vocabulary.len() as u32)).collect();
    let examples = (0..n_features).map(|feature| examples(feature, vocabulary.len() as u32));
    Dashboard::write(&folder.dashboard(site), &gathered, &cards, examples, &vocabulary).unwrap();
    RunSpec { id: id.to_owned(), folder, config }
}

fn card(feature: u32, other: &str, vocabulary: u32) -> FeatureCard {
    let token = |place: u32| (feature + place) % vocabulary;
    let lens = |sign: f32| {
        (0..10)
            .map(|place| LensToken {
                token: token(place),
                logit: sign * (2.0 - 0.1 * place as f32),
            })
            .collect()
    };
    FeatureCard {
        feature,
        active: u64::from(10 + feature),
        density: f64::from(10 + feature % 5000) / 100_000.0,
        mean: 0.5,
        max: 2.0,
        decoder_norm: Some(1.0),
        encoder_bias: -0.1,
        histogram_width: 0.125,
        histogram: (0..32).map(|bin| if bin < 16 { 40 - 2 * bin } else { 0 }).collect(),
        peak_tokens: vec![token(0), token(1)],
        highest: lens(1.0),
        lowest: lens(-1.0),
        near: vec![
            Near { run: None, feature: (feature + 1) % 60, cosine: 0.5 },
            Near { run: Some(other.to_owned()), feature, cosine: 0.9 - 0.001 * feature as f32 },
        ],
        partners: vec![PartnerRecord { feature: (feature + 2) % 60, share: 0.5, lift: 12.0 }],
        examples: 0..0,
    }
}

fn examples(feature: u32, vocabulary: u32) -> Vec<ExampleRecord> {
    (0..3_u32)
        .map(|place| ExampleRecord {
            feature,
            interval: (place == 2).then_some(1),
            peak: 2.0 / (place + 1) as f32,
            position: 4,
            own: [0, 12],
            tokens: (0..12).map(|token| (feature + token) % vocabulary).collect(),
            activations: (0..12).map(|token| if token == 4 { 2.0 } else { 0.0 }).collect(),
            first: 0,
            file: 0,
            row: u64::from(feature),
            bytes: [3, 9],
        })
        .collect()
}
