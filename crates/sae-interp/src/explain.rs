//! Questions about features: what a language model is shown of one, and what it says that the feature is.
//!
//! After Bills et al. 2023 (*Language models can explain neurons in language models*) and Paulo et al. 2024 (arXiv 2410.13928): windows
//! in which the feature is active, its highest and some of each interval of its activation, with the tokens marked on which it is;
//! and the tokens that its dictionary element makes likelier.

use std::fmt::Write;

use sae_record::dashboard::{Dashboard, ExampleRecord, FeatureCard};
use serde_json::json;

use crate::endpoint::{Answer, AskError, Question, object_in};

/// Raised when what is asked changes.
pub const QUESTIONS: u32 = 1;
/// Examples of the highest activations that are shown, and of each interval.
const SHOWN: (usize, usize) = (10, 2);
/// A token is marked on which the feature is active with this share of its greatest activation.
const MARKED: f32 = 0.3;
/// Tokens of the logit lens that are shown.
const LENS: usize = 10;
/// Letters of an explanation, at most.
const LONGEST: usize = 512;

const SYSTEM: &str = "You explain what single features of a neural network that reads text are for. A feature has an activation on \
every token, 0 on most. You are shown windows of text in which one feature is active. The tokens on which it is strongly active stand \
between « and »; below each window stand these tokens with the strength from 1 to 10. You may be shown tokens that the feature makes \
likelier to come next, too: of some features these tell more than the text.\n\
Say what the marked tokens have in common, or what the feature says of the text around them or of what comes next: in one sentence, as \
short and as specific as the examples allow. If there is no one thing, name the most frequent. Do not mention features, marks, windows \
or examples.\n\
Answer with JSON alone: {\"explanation\": \"…\"}";

/// Who may be shown a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// Who explains.
    Explainer,
    /// Who scores explanations.
    Scorer,
    /// Nobody: it may be a part of what another has been shown.
    Nobody,
}

/// Windows of token ids that are dealt together.
const BLOCK: u64 = 64;
/// Of these, at either end, those that nobody is shown.
const MARGIN: u64 = 4;

/// Who may be shown a row of the data, by a hash of its place, so that it is the same for all features. A row is a document; where rows are
/// windows of token ids (`are_windows`), a document goes on from one to the next: there blocks of 64 windows are dealt, and four at either
/// end of a block are shown to nobody, so that no document of up to eight windows is shown to both.
pub fn audience(file: u32, row: u64, are_windows: bool) -> Audience {
    let place = row % BLOCK;
    if are_windows && !(MARGIN..BLOCK - MARGIN).contains(&place) {
        return Audience::Nobody;
    }
    let dealt = if are_windows { row / BLOCK } else { row };
    if hash(file, dealt) & 1 == 0 { Audience::Explainer } else { Audience::Scorer }
}

fn hash(file: u32, row: u64) -> u64 {
    // SplitMix64 (Steele, Lea and Flood 2014): a place's parity would go with the order of files.
    let mut x = (row ^ (u64::from(file) << 40)).wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// What is asked about a feature.
#[derive(Debug, Clone, PartialEq)]
pub struct AboutFeature {
    /// The question.
    pub question: Question,
    /// The documents that are shown, by file and row, each once.
    pub documents: Vec<(u32, u64)>,
}

/// What is asked about a feature; none where no example may be shown.
pub fn question(
    dashboard: &Dashboard,
    card: &FeatureCard,
    examples: &[ExampleRecord],
    max_tokens: u32,
) -> Option<AboutFeature> {
    let mut text = String::new();
    let mut documents = Vec::new();
    let of = |interval: Option<u8>| {
        let own = examples.iter().filter(move |example| example.interval == interval);
        own.filter(|example| {
            audience(example.file, example.row, dashboard.gathered.are_windows)
                == Audience::Explainer
        })
    };
    let mut add = |title: &str, shown: &[&ExampleRecord]| {
        if shown.is_empty() {
            return;
        }
        text.push_str(title);
        for (place, example) in shown.iter().enumerate() {
            let (window, strengths) = marked(dashboard, card, example);
            let _ = writeln!(text, "{}. {window}\n   {strengths}", place + 1);
            documents.push((example.file, example.row));
        }
        text.push('\n');
    };
    let highest: Vec<&ExampleRecord> = of(None).take(SHOWN.0).collect();
    add("Windows in which it is most active:\n", &highest);
    let intervals: Vec<&ExampleRecord> =
        (0..5).rev().flat_map(|interval| of(Some(interval)).take(SHOWN.1)).collect();
    add("Windows in which it is active, from strong to weak:\n", &intervals);
    if documents.is_empty() {
        return None;
    }
    documents.sort_unstable();
    documents.dedup();
    if !card.highest.is_empty() {
        let tokens: Vec<String> = card
            .highest
            .iter()
            .take(LENS)
            .map(|token| format!("{:?}", dashboard.text(token.token)))
            .collect();
        let _ = writeln!(text, "Tokens that it makes likelier to come next: {}", tokens.join(", "));
    }
    let schema = json!({
        "type": "object",
        "properties": { "explanation": { "type": "string", "maxLength": LONGEST } },
        "required": ["explanation"],
        "additionalProperties": false,
    });
    let question =
        Question { system: SYSTEM.to_owned(), text, schema, max_tokens, top_logprobs: 0 };
    Some(AboutFeature { question, documents })
}

/// A window with the tokens marked on which a feature is active, and how strongly it is on each.
fn marked(dashboard: &Dashboard, card: &FeatureCard, example: &ExampleRecord) -> (String, String) {
    // Of other documents in the window nothing is shown: they may be among those that are kept.
    let [from, to] = example.own.map(|place| place as usize);
    let own = example.tokens.get(from..to).unwrap_or_default();
    let texts: Vec<&str> = own.iter().map(|token| dashboard.text(*token)).collect();
    let activations = example.activations.get(from..to).unwrap_or_default();
    let marks = marks(activations, example.peak);
    let marked = texts.iter().zip(activations).zip(&marks).filter(|(_, marked)| **marked);
    let strength = |((text, own), _): ((&&str, &f32), &bool)| {
        let strength = (10.0 * own / card.max).round().clamp(1.0, 10.0);
        format!("{text:?} {strength}")
    };
    let strengths: Vec<String> = marked.map(strength).collect();
    (line(&texts, &marks), strengths.join(", "))
}

/// The tokens that are marked: on which a feature is active with 0.3 of its greatest activation in the window, or more.
pub(crate) fn marks(activations: &[f32], peak: f32) -> Vec<bool> {
    activations.iter().map(|own| *own > 0.0 && *own >= MARKED * peak).collect()
}

/// A window in one line, whatever lines it has, with the marked tokens between « and »; those that follow one another together.
pub(crate) fn line(texts: &[&str], marks: &[bool]) -> String {
    let mut line = String::new();
    let is_marked = |place: usize| marks.get(place).copied().unwrap_or(false);
    for (place, text) in texts.iter().enumerate() {
        if is_marked(place) && (place == 0 || !is_marked(place - 1)) {
            line.push('«');
        }
        line.push_str(text);
        if is_marked(place) && !is_marked(place + 1) {
            line.push('»');
        }
    }
    line.replace('\n', "⏎").replace(['\r', '\t'], " ")
}

/// The explanation in an answer: the field that was asked for; where a model writes without JSON, its last line.
pub fn explanation(answer: &Answer) -> Result<String, AskError> {
    let found = object_in(&answer.text, "explanation")
        .and_then(|object| object.get("explanation")?.as_str().map(str::to_owned))
        .or_else(|| {
            let last = answer.text.lines().rev().find(|line| !line.trim().is_empty())?;
            let is_prose = !last.contains(['{', '}']) && last.split_whitespace().count() > 1;
            is_prose.then(|| last.to_owned())
        });
    let found = found.map(|text| text.split_whitespace().collect::<Vec<_>>().join(" "));
    let found = found.filter(|text| !text.is_empty()).ok_or_else(|| {
        let beginning: String = answer.text.chars().take(200).collect();
        AskError::Form(format!("no explanation in {beginning:?}"))
    });
    Ok(found?.chars().take(LONGEST).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::Usage;

    fn answer(text: &str) -> Answer {
        Answer { text: text.to_owned(), tokens: Vec::new(), usage: Usage::default() }
    }

    #[test]
    fn an_explanation_is_read_however_it_is_written() {
        for (text, expected) in [
            (r#"{"explanation": "Names of\n  types."}"#, "Names of types."),
            ("Here:\n```json\n{\"explanation\": \"Names of types.\"}\n```", "Names of types."),
            ("Let me see.\n\nNames of types.\n", "Names of types."),
        ] {
            assert_eq!(explanation(&answer(text)).unwrap(), expected);
        }
        for text in ["{\"explanation\": \"\"}", "{\"explanation\": ", "no"] {
            assert!(matches!(explanation(&answer(text)), Err(AskError::Form(_))), "{text}");
        }
        let long = format!("{{\"explanation\": \"{}\"}}", "ä".repeat(2_000));
        assert_eq!(explanation(&answer(&long)).unwrap().chars().count(), 512);
    }

    #[test]
    fn about_half_of_the_documents_are_for_explaining() {
        let who = |place: u64| audience(place as u32 % 3, place / 3, false);
        let count = (0..4_000).filter(|&place| who(place) == Audience::Explainer).count();
        assert!((1_850..2_150).contains(&count), "{count}");
        assert!((0..4_000).all(|place| who(place) != Audience::Nobody));
    }

    #[test]
    fn windows_that_may_share_a_document_are_not_shown_to_both() {
        let who: Vec<Audience> = (0..20_000).map(|row| audience(0, row, true)).collect();
        for other in [Audience::Explainer, Audience::Scorer] {
            let share = who.iter().filter(|own| **own == other).count() as f64 / 20_000.0;
            assert!((0.38..0.5).contains(&share), "{share}");
        }
        // A document of eight windows, wherever it begins.
        for windows in who.windows(8) {
            let is_shown_to = |other| windows.contains(&other);
            assert!(!(is_shown_to(Audience::Explainer) && is_shown_to(Audience::Scorer)));
        }
    }
}
