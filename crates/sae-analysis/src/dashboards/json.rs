//! Dictionaries and cards as the browser of features reads them; `sae view` sends the same.

use sae_config::Site;
use sae_record::dashboard::{Dashboard, ExampleRecord, FeatureCard, LensToken};
use serde::Serialize;

/// A dictionary, with a row a feature.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Listing {
    /// The run's id.
    pub run: String,
    /// Its group.
    #[serde(rename = "type")]
    pub group: String,
    /// The site that the dictionary writes.
    pub site: Site,
    /// Tokens that its features were looked for on.
    pub tokens: u64,
    /// Dictionary elements, those without a row included.
    pub of: u64,
    /// Rows.
    pub features: Vec<Row>,
    /// Cards that come with it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cards: Vec<Card>,
}

/// A feature in a list.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// Its number in the dictionary.
    pub feature: u32,
    /// The share of tokens that it was active on.
    pub density: f64,
    /// Its greatest activation.
    pub max: f32,
    /// The cosine with the nearest element of another run; none where no other was compared.
    pub near: Option<f32>,
    /// The tokens of its highest activations.
    pub tokens: Vec<String>,
    /// What a language model says that it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub explanation: Option<String>,
}

/// A feature's card.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Card {
    feature: u32,
    /// What a language model says that it is, and the model.
    #[serde(skip_serializing_if = "Option::is_none")]
    explanation: Option<[String; 2]>,
    active: u64,
    density: f64,
    mean: f64,
    max: f32,
    decoder_norm: Option<f64>,
    encoder_bias: f64,
    histogram_width: f32,
    histogram: Vec<u64>,
    /// Tokens, and what is added to their logits.
    highest: Vec<(String, f32)>,
    lowest: Vec<(String, f32)>,
    near: Vec<NearRow>,
    partners: Vec<PartnerRow>,
    examples: Vec<ExampleRow>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct NearRow {
    run: Option<String>,
    feature: u32,
    cosine: f32,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct PartnerRow {
    feature: u32,
    share: f32,
    lift: f32,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct ExampleRow {
    interval: Option<u8>,
    peak: f32,
    position: usize,
    tokens: Vec<String>,
    activations: Vec<f32>,
    /// Where the token of the greatest activation is from.
    source: String,
}

/// How much of a card is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Examples of the highest activations.
    pub highest: usize,
    /// Examples of each interval.
    pub per_interval: usize,
    /// Tokens of an example, around the greatest activation.
    pub tokens: usize,
}

impl Limits {
    /// All that a dashboard has.
    pub const NONE: Self =
        Self { highest: usize::MAX, per_interval: usize::MAX, tokens: usize::MAX };
}

impl Listing {
    /// Of a dashboard, without rows.
    pub fn of(run: &str, group: &str, site: Site, dashboard: &Dashboard) -> Self {
        Self {
            run: run.to_owned(),
            group: group.to_owned(),
            site,
            tokens: dashboard.gathered.tokens,
            of: dashboard.gathered.n_features,
            features: Vec::new(),
            cards: Vec::new(),
        }
    }
}

impl Row {
    /// Of a card.
    pub fn of(dashboard: &Dashboard, card: &FeatureCard) -> Self {
        let others = card.near.iter().filter(|near| near.run.is_some()).map(|near| near.cosine);
        let tokens = card.peak_tokens.iter().map(|token| dashboard.text(*token).to_owned());
        Self {
            feature: card.feature,
            density: card.density,
            max: card.max,
            near: others.reduce(f32::max),
            tokens: tokens.collect(),
            explanation: dashboard.explanation(card.feature).map(str::to_owned),
        }
    }
}

impl Card {
    /// Of a feature with its examples, as far as the limits go.
    pub fn of(
        dashboard: &Dashboard,
        card: &FeatureCard,
        examples: &[ExampleRecord],
        limits: Limits,
    ) -> Self {
        let lens = |tokens: &[LensToken]| -> Vec<(String, f32)> {
            tokens
                .iter()
                .map(|token| (dashboard.text(token.token).to_owned(), short(token.logit)))
                .collect()
        };
        let mut taken = std::collections::HashMap::new();
        let examples = examples.iter().filter(|example| {
            let count: &mut usize = taken.entry(example.interval).or_default();
            *count += 1;
            let most =
                if example.interval.is_none() { limits.highest } else { limits.per_interval };
            *count <= most
        });
        let judge = dashboard.explanations.as_ref().map(|found| found.judge.clone());
        let explanation = dashboard.explanation(card.feature).map(str::to_owned).zip(judge);
        Self {
            feature: card.feature,
            explanation: explanation.map(|(text, judge)| [text, judge]),
            active: card.active,
            density: card.density,
            mean: card.mean,
            max: card.max,
            decoder_norm: card.decoder_norm,
            encoder_bias: card.encoder_bias,
            histogram_width: card.histogram_width,
            histogram: card.histogram.clone(),
            highest: lens(&card.highest),
            lowest: lens(&card.lowest),
            near: card
                .near
                .iter()
                .map(|near| NearRow {
                    run: near.run.clone(),
                    feature: near.feature,
                    cosine: short(near.cosine),
                })
                .collect(),
            partners: card
                .partners
                .iter()
                .map(|partner| PartnerRow {
                    feature: partner.feature,
                    share: short(partner.share),
                    lift: short(partner.lift),
                })
                .collect(),
            examples: examples.map(|example| ExampleRow::of(dashboard, example, limits)).collect(),
        }
    }
}

impl ExampleRow {
    fn of(dashboard: &Dashboard, example: &ExampleRecord, limits: Limits) -> Self {
        let position = example.position as usize;
        let length = example.tokens.len();
        // A quarter of what is shown comes after the greatest activation.
        let end = position.saturating_add(1 + limits.tokens / 4).max(limits.tokens).min(length);
        let first = end.saturating_sub(limits.tokens);
        let file = dashboard.gathered.files.get(example.file as usize);
        let file = file.map_or("", String::as_str);
        let [from, to] = example.bytes;
        let bytes = if to > from { format!(", bytes {from} to {to}") } else { String::new() };
        let place = u64::from(example.first) + u64::from(example.position) + 1;
        let source = format!("token {place} of its window; row {} of {file}{bytes}", example.row);
        Self {
            interval: example.interval,
            peak: example.peak,
            position: position - first,
            tokens: example.tokens[first..end]
                .iter()
                .map(|token| dashboard.text(*token).to_owned())
                .collect(),
            activations: example.activations[first..end]
                .iter()
                .map(|value| short(*value))
                .collect(),
            source,
        }
    }
}

/// Three significant digits, which are shorter as text.
fn short(value: f32) -> f32 {
    format!("{value:.2e}").parse().unwrap_or(value)
}
