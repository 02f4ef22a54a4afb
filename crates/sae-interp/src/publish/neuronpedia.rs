//! Features on Neuronpedia: a model, a source set, and features in batches, by its upload interface.
//!
//! | request | what it is |
//! | --- | --- |
//! | `POST /model/new` | `id`, `layers`, `displayName` |
//! | `POST /source-set/new` | `name`, `modelId`, `description`: makes a source `<layer>-<name>` a layer |
//! | `POST /feature/upload-batch` | `modelId`, `source`, and up to 128 features: index, density, up to 20 top and bottom logits, explanations of at most 512 letters, activations with tokens (1 to 1 024), values, and the interval that they were drawn from |
//!
//! (`apps/webapp/app/api/…/route.ts` of Neuronpedia; the header is `X-Api-Key`.) A model or a set that is there already is used. A batch
//! that has arrived is noted beside the dashboard, and one that may have arrived is not sent again unasked: a second one would add its
//! activations twice.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use sae_record::dashboard::{Dashboard, FeatureCard, LensToken};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::PublishError;
use super::saedashboard::{self, Shown, bounds, rounded, share, text, tokens, values};
use crate::http::{Body, Client, ClientOptions, HttpError, Method, Request, Secret};

/// Features in a batch, at most.
pub const BATCH: usize = 64;
/// Logits of a feature in either direction, at most.
const LOGITS: usize = 20;
/// Tokens of an activation, at most.
const TOKENS: usize = 1024;
/// Letters of an explanation, at most.
const LETTERS: usize = 512;

/// Where batches go; all other requests may be sent twice.
const BATCHES: &str = "/feature/upload-batch";
/// The address of Neuronpedia's interface.
pub const ADDRESS: &str = "https://www.neuronpedia.org/api";

/// How Neuronpedia knows a dictionary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceName {
    /// The model's id there.
    pub model: String,
    /// Layers of the model.
    pub layers: u64,
    /// The name of the set.
    pub set: String,
    /// The layer of this dictionary.
    pub layer: u64,
}

impl SourceName {
    /// Checked by the rules of Neuronpedia.
    pub fn new(model: &str, layers: u64, set: &str, layer: u64) -> Result<Self, PublishError> {
        let lower = |c: char| c.is_ascii_lowercase();
        let is_model = (2..=32).contains(&model.len())
            && model.starts_with(lower)
            && model.ends_with(|c: char| lower(c) || c.is_ascii_digit())
            && model.chars().all(|c| lower(c) || c.is_ascii_digit() || ".-".contains(c))
            && !model.contains("--")
            && !model.contains("..");
        if !is_model {
            return Err(PublishError::Input(format!(
                "{model:?} is no id of a model there: expected 2 to 32 small letters, digits, - and ., a letter first (--model-id)"
            )));
        }
        let is_set = set.starts_with(lower)
            && set.ends_with(|c: char| lower(c) || c.is_ascii_digit())
            && set.chars().all(|c| lower(c) || c.is_ascii_digit() || c == '-')
            && !set.contains("--")
            && set != "neurons";
        if !is_set {
            return Err(PublishError::Input(format!(
                "{set:?} is no name of a source set there: expected small letters, digits and single -, a letter first (--set-name)"
            )));
        }
        if !(1..=127).contains(&layers) || layer >= layers {
            return Err(PublishError::Input(format!(
                "expected a layer below the model's number of layers, which is 127 at most, found layer {layer} of {layers}"
            )));
        }
        Ok(Self { model: model.to_owned(), layers, set: set.to_owned(), layer })
    }

    /// The source's id.
    pub fn source(&self) -> String {
        format!("{}-{}", self.layer, self.set)
    }
}

/// What makes the model.
pub fn model(source: &SourceName) -> Value {
    json!({ "id": source.model, "layers": source.layers, "displayName": source.model })
}

/// What makes the set.
pub fn set(source: &SourceName, description: &str) -> Value {
    let description: String = description.chars().take(128).collect();
    json!({ "name": source.set, "modelId": source.model, "description": description })
}

/// A batch of features.
pub fn batch(dashboard: &Dashboard, source: &SourceName, features: &[Shown<'_>]) -> Value {
    let features: Vec<Value> = features
        .iter()
        .filter(|own| !own.examples.is_empty())
        .map(|own| feature(dashboard, own))
        .collect();
    json!({ "modelId": source.model, "source": source.source(), "features": features })
}

fn feature(dashboard: &Dashboard, shown: &Shown<'_>) -> Value {
    let card = shown.card;
    let logits = |tokens: &[LensToken]| -> Vec<Value> {
        let logit = |own: &LensToken| json!({ "token": text(dashboard, own.token), "value": rounded(f64::from(own.logit)) });
        tokens.iter().take(LOGITS).map(logit).collect()
    };
    let explanations: Vec<Value> = dashboard
        .explanation(card.feature)
        .map(|own| json!({ "text": own.chars().take(LETTERS).collect::<String>() }))
        .into_iter()
        .collect();
    let activations: Vec<Value> = shown
        .examples
        .iter()
        .map(|example| {
            let (mut tokens, mut values) = (tokens(dashboard, example), values(example));
            tokens.truncate(TOKENS);
            values.truncate(TOKENS);
            let mut activation = json!({ "tokens": tokens, "values": values });
            if let Some([low, high]) = bounds(card, example.interval) {
                activation["quantileMin"] = json!(rounded(low));
                activation["quantileMax"] = json!(rounded(high));
                let share = share(card, dashboard.gathered.tokens, low, high);
                activation["quantileFraction"] = json!(share);
            }
            activation
        })
        .collect();
    json!({
        "index": card.feature,
        "density": card.density,
        "topLogits": logits(&card.highest),
        "bottomLogits": logits(&card.lowest),
        "explanations": explanations,
        "activations": activations,
    })
}

/// Where features are sent.
#[derive(Clone)]
pub struct NeuronpediaTarget {
    /// The address before `/model/new`.
    pub address: String,
    /// The key.
    pub key: String,
    /// How requests are made; the key is not among them.
    pub requests: ClientOptions,
}

/// What has arrived from a dashboard, by address, model and source.
type Note = BTreeMap<String, Sent>;

/// The features that have arrived.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sent {
    /// What the dashboard was made of.
    of: BTreeMap<String, String>,
    features: BTreeSet<u32>,
    /// Those that may have arrived, or not: the connection broke.
    uncertain: BTreeSet<u32>,
}

/// What becomes of features of which nobody knows whether they have arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Uncertain {
    /// They are sent again.
    Send,
    /// They are taken as arrived.
    Skip,
}

/// Features of a dictionary that are published.
#[derive(Debug, Clone, Copy)]
pub struct Features<'a> {
    /// The dictionary's dashboard.
    pub dashboard: &'a Dashboard,
    /// How Neuronpedia knows it.
    pub source: &'a SourceName,
    /// What the source set is, in 128 letters at most.
    pub description: &'a str,
    /// Which features; all of them have cards.
    pub features: &'a [u32],
    /// Dictionary elements of unit length, `[D]`, as far as they are known.
    pub elements: &'a HashMap<u32, Vec<f32>>,
}

impl<'a> Features<'a> {
    fn shown(&self, features: &[u32]) -> Result<Vec<Shown<'a>>, PublishError> {
        let cards: Vec<_> =
            features.iter().filter_map(|feature| self.dashboard.card(*feature)).collect();
        let examples = self.dashboard.examples_of(&cards)?;
        let shown = |(card, examples): (&'a FeatureCard, _)| Shown {
            card,
            examples,
            element: self.elements.get(&card.feature).cloned().unwrap_or_default(),
        };
        Ok(cards.into_iter().zip(examples).map(shown).collect())
    }
}

/// Sends features; those that are noted in the dashboard's `folder` as arrived are not sent again. `notice` is told how many have
/// arrived. Returns how many were sent now.
pub fn send(
    target: &NeuronpediaTarget,
    own: Features<'_>,
    (folder, uncertain): (&Path, Option<Uncertain>),
    is_interrupted: &(dyn Fn() -> bool + Sync),
    notice: &mut dyn FnMut(u64),
) -> Result<u64, PublishError> {
    let Features { dashboard, source, description, features, .. } = own;
    let address = target.address.trim_end_matches('/');
    let secret = Some(Secret { header: "x-api-key", before: "", key: target.key.clone() });
    let client = Client::new(ClientOptions { secret, ..target.requests.clone() });
    let post = |path: &str, body: &Value, action: String| {
        let is_repeatable = path != BATCHES;
        let body = body.to_string();
        let url = format!("{address}{path}");
        let request = Request {
            method: Method::Post,
            url: &url,
            headers: &[("content-type", "application/json")],
            body: Body::Bytes(body.as_bytes()),
            is_signed: true,
            is_repeatable,
        };
        // It answers 500 to what it refuses, too: only what is busy passes.
        let passes = |status: u16, _: &str| matches!(status, 429 | 503);
        let reply = client.send(request, &passes, is_interrupted);
        let reply = reply.map_err(PublishError::http(action.clone()))?;
        if reply.is_answer() || (is_repeatable && reply.text.contains("already exists")) {
            return Ok(());
        }
        Err(PublishError::Http { action, source: client.refused(&url, &reply) })
    };
    let path = note(folder);
    let mut note = before(&path)?;
    let to = format!("{address} {} {}", source.model, source.source());
    let of = &dashboard.gathered.of;
    if let Some(other) = note.get(&to).filter(|sent| sent.of != *of && !sent.features.is_empty()) {
        return Err(PublishError::Input(format!(
            "{} features were sent to {} of {} from another dashboard, as {} notes: Neuronpedia would keep both; give another --set-name",
            other.features.len(),
            source.source(),
            source.model,
            path.display()
        )));
    }
    let mut sent = note.remove(&to).filter(|sent| sent.of == *of).unwrap_or_default();
    sent.of.clone_from(of);
    match uncertain {
        Some(Uncertain::Send) => sent.uncertain.clear(),
        Some(Uncertain::Skip) => sent.features.append(&mut sent.uncertain),
        None if sent.uncertain.is_empty() => {}
        None => {
            let first = sent.uncertain.first().copied().unwrap_or_default();
            return Err(PublishError::Input(format!(
                "of {} features nobody knows whether they have arrived, since the connection broke: look at feature {first} of {} there, then \
                 give --uncertain skip where it is there, --uncertain send where it is not",
                sent.uncertain.len(),
                source.source()
            )));
        }
    }
    let mut keep = |sent: &Sent| {
        note.insert(to.clone(), sent.clone());
        let text =
            serde_json::to_string(&note).map_err(|error| PublishError::Input(error.to_string()))?;
        sae_config::file::write_atomically(&path, text.as_bytes())
            .map_err(PublishError::file("write", &path))
    };
    let open: Vec<u32> =
        features.iter().copied().filter(|feature| !sent.features.contains(feature)).collect();
    let mut done = (features.len() - open.len()) as u64;
    notice(done);
    if open.is_empty() {
        return Ok(0);
    }
    post("/model/new", &model(source), format!("make the model {}", source.model))?;
    post(
        "/source-set/new",
        &set(source, description),
        format!("make the source set {} of {}", source.set, source.model),
    )?;
    for chunk in open.chunks(BATCH) {
        let body = batch(dashboard, source, &own.shown(chunk)?);
        let action = format!("send {} features to {}", chunk.len(), source.source());
        if let Err(error) = post(BATCHES, &body, action) {
            if may_have_arrived(&error) {
                sent.uncertain.extend(chunk);
                keep(&sent)?;
            }
            return Err(error);
        }
        sent.features.extend(chunk);
        keep(&sent)?;
        done += chunk.len() as u64;
        notice(done);
    }
    Ok(open.len() as u64)
}

/// Writes what would be sent, and SAEDashboard's files, into a folder; returns the number of batches.
pub fn write(
    to: &Path,
    own: Features<'_>,
    notice: &mut dyn FnMut(u64),
) -> Result<u64, PublishError> {
    let Features { dashboard, source, description, features, .. } = own;
    let folders = [to.join("neuronpedia"), to.join("saedashboard")];
    for folder in &folders {
        std::fs::create_dir_all(folder).map_err(PublishError::file("create", folder))?;
    }
    let [requests, files] = &folders;
    saedashboard::write(requests, "model.json", &model(source))?;
    saedashboard::write(requests, "source-set.json", &set(source, description))?;
    saedashboard::write(
        files,
        "run_settings.json",
        &saedashboard::settings(dashboard, source, BATCH),
    )?;
    saedashboard::write(files, "skipped_indexes.json", &saedashboard::skipped(dashboard, source))?;
    let mut batches = 0;
    for (number, chunk) in features.chunks(BATCH).enumerate() {
        let shown = own.shown(chunk)?;
        let name = format!("batch-{number}.json");
        saedashboard::write(requests, &name, &batch(dashboard, source, &shown))?;
        saedashboard::write(files, &name, &saedashboard::batch(dashboard, source, &shown))?;
        batches += 1;
        notice((number * BATCH + chunk.len()) as u64);
    }
    Ok(batches)
}

/// Whether what was sent may be there though there is no answer that says so.
fn may_have_arrived(error: &PublishError) -> bool {
    match error {
        PublishError::Http { source: HttpError::Unreachable { message, .. }, .. } => {
            // Nobody was there to take it.
            !message.contains("onnection refused") && !message.contains("not found")
        }
        PublishError::Http { source: HttpError::Status { status, .. }, .. } => {
            matches!(status, 408 | 502 | 504)
        }
        _ => false,
    }
}

/// The file that notes what has arrived.
fn note(folder: &Path) -> PathBuf {
    folder.join("neuronpedia.json")
}

fn before(path: &Path) -> Result<Note, PublishError> {
    if !path.exists() {
        return Ok(Note::new());
    }
    let text =
        sae_config::file::read_text(path, 1 << 26).map_err(PublishError::file("read", path))?;
    serde_json::from_str(&text).map_err(|error| {
        PublishError::Input(format!(
            "cannot use {}: {error}; without it, all features would be sent again",
            path.display()
        ))
    })
}
