//! Questions that score explanations: excerpts of documents that who explains has not seen, of which a language model that reads the
//! explanation says yes or no.
//!
//! After Paulo et al. 2024 (arXiv 2410.13928). *Detection*: ten excerpts, half of which the feature is active in, by how strongly one of
//! each fifth; of the others most are such that a feature near to it is active in. *Fuzzing*: ten excerpts that it is active in, with the
//! tokens marked on which it is, or with as many others marked.

mod draw;

use std::fmt::Write;

use sae_record::scores::{Answers, Item};
use serde_json::{Value, json};

pub use self::draw::{Drawn, Pool, ShownExcerpt, derangement};
use crate::endpoint::{Answer, AnswerToken, AskError, Question, object_in};
use crate::explain::line;

/// Raised when what is asked changes.
pub const QUESTIONS: u32 = 1;
/// Tokens of an excerpt, at most.
pub const EXCERPT: usize = 32;
/// Tokens whose probabilities are asked for: yes and no are among them.
const TOP: u32 = 5;

const DETECTION: &str = "A feature of a neural network that reads text has an activation on every token, 0 on most. You are given an \
explanation of when one feature is active, and numbered excerpts of text. Say of each excerpt whether the feature is active on any of its \
tokens, as far as the explanation tells: 1 if it is, 0 if it is not.\n\
Answer with JSON alone, a number for each excerpt, in their order: {\"answers\": [1, 0, …]}";

const FUZZING: &str = "A feature of a neural network that reads text has an activation on every token, 0 on most. You are given an \
explanation of when one feature is active, and numbered excerpts of text in which tokens are marked, between « and ». Say of each excerpt \
whether the marked tokens are those that the feature is active on, as far as the explanation tells: 1 if they are, 0 if they are not.\n\
Answer with JSON alone, a number for each excerpt, in their order: {\"answers\": [1, 0, …]}";

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// Is the feature active in the excerpt?
    Detection,
    /// Are the marked tokens those that it is active on?
    Fuzzing,
}

/// A question about excerpts. `text` is that of a token id.
pub fn question<'a>(
    task: Task,
    explanation: &str,
    shown: &[ShownExcerpt<'_>],
    text: impl Fn(u32) -> &'a str,
    max_tokens: u32,
) -> Question {
    let mut asked = format!("Explanation: {explanation}\n\nExcerpts:\n");
    for (place, shown) in shown.iter().enumerate() {
        let texts: Vec<&str> = shown.tokens.iter().map(|&token| text(token)).collect();
        let _ = writeln!(asked, "{}. {}", place + 1, line(&texts, &shown.marks));
    }
    let schema = json!({
        "type": "object",
        "properties": { "answers": {
            "type": "array",
            "items": { "type": "integer", "enum": [0, 1] },
            "minItems": shown.len(),
            "maxItems": shown.len(),
        } },
        "required": ["answers"],
        "additionalProperties": false,
    });
    let system = match task {
        Task::Detection => DETECTION,
        Task::Fuzzing => FUZZING,
    };
    Question { system: system.to_owned(), text: asked, schema, max_tokens, top_logprobs: TOP }
}

/// The items of a trial, as they were shown.
pub fn items(shown: &[ShownExcerpt<'_>]) -> Vec<Item> {
    shown.iter().map(|shown| shown.item).collect()
}

/// What a language model has answered about `n` excerpts.
pub fn answers(answer: Result<Answer, AskError>, n: usize) -> Answers {
    match answer.and_then(|answer| Ok((said(&answer, n)?, answer))) {
        Ok((said, answer)) => {
            let probabilities = probabilities(&answer.tokens, &said);
            Answers { said: Some(said), probabilities, error: None }
        }
        Err(error) => Answers { error: Some(error.to_string()), ..Answers::default() },
    }
}

fn said(answer: &Answer, n: usize) -> Result<Vec<bool>, AskError> {
    let form = |message: String| AskError::Form(message);
    let beginning = || answer.text.chars().take(200).collect::<String>();
    let object = object_in(&answer.text, "answers")
        .ok_or_else(|| form(format!("no answers in {:?}", beginning())))?;
    let all = object["answers"].as_array().map_or(&[][..], Vec::as_slice);
    let said: Option<Vec<bool>> = all.iter().map(yes).collect();
    said.filter(|said| said.len() == n)
        .ok_or_else(|| form(format!("expected {n} numbers 0 or 1, found {:?}", beginning())))
}

fn yes(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(yes) => Some(*yes),
        Value::Number(number) if number.as_f64() == Some(1.0) => Some(true),
        Value::Number(number) if number.as_f64() == Some(0.0) => Some(false),
        Value::String(text) => digit(text),
        _ => None,
    }
}

/// The probability of yes of each answer: of the digits among the likeliest tokens in its place. None where the tokens do not show
/// what was answered.
fn probabilities(tokens: &[AnswerToken], said: &[bool]) -> Option<Vec<f64>> {
    let digits: Vec<(&AnswerToken, bool)> =
        tokens.iter().filter_map(|token| Some((token, digit(&token.token)?))).collect();
    // What a model has thought aloud before may have digits, too.
    let own = &digits[digits.len().checked_sub(said.len())?..];
    if !own.iter().map(|(_, digit)| digit).eq(said) {
        return None;
    }
    let probability = |token: &AnswerToken| {
        let sum = |wanted: bool| -> f64 {
            let own = token.top.iter().filter(|top| digit(&top.token) == Some(wanted));
            own.map(|top| top.logprob.exp()).sum()
        };
        let (yes, no) = (sum(true), sum(false));
        (yes + no > 0.0).then(|| yes / (yes + no))
    };
    own.iter().map(|(token, _)| probability(token)).collect()
}

/// The digit of a token that has one, among brackets, commas, quotes and spaces.
fn digit(token: &str) -> Option<bool> {
    match token.trim_matches(|letter: char| letter.is_whitespace() || "[],\"".contains(letter)) {
        "1" => Some(true),
        "0" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::{TopToken, Usage};

    fn answer(text: &str, tokens: Vec<AnswerToken>) -> Answer {
        Answer { text: text.to_owned(), tokens, usage: Usage::default() }
    }

    fn token(token: &str, top: &[(&str, f64)]) -> AnswerToken {
        let top = top.iter().map(|(token, probability)| TopToken {
            token: (*token).to_owned(),
            logprob: probability.ln(),
        });
        AnswerToken { token: token.to_owned(), top: top.collect() }
    }

    #[test]
    fn answers_are_read_however_they_are_written() {
        for text in [
            r#"{"answers": [1, 0, 1]}"#,
            "Well: {\"answers\": [true, false, true]} as I said",
            r#"{"answers": ["1", "0", "1"]}"#,
        ] {
            let found = answers(Ok(answer(text, Vec::new())), 3);
            assert_eq!(found.said, Some(vec![true, false, true]), "{text}");
            assert_eq!(found.probabilities, None);
        }
        for text in ["", "1, 0, 1", r#"{"answers": [1, 0]}"#, r#"{"answers": [1, 0, 2]}"#] {
            let found = answers(Ok(answer(text, Vec::new())), 3);
            assert!(found.said.is_none() && found.error.is_some(), "{text}");
        }
        let refused = answers(Err(AskError::Refused("no".to_owned())), 3);
        assert_eq!(refused.error.as_deref(), Some("the model refuses: no"));
    }

    #[test]
    fn probabilities_are_those_of_the_digits() {
        let tokens = vec![
            // A thought.
            token("1", &[("1", 1.0)]),
            token("{\"answers\": [", &[]),
            token("1", &[("1", 0.6), (" 0", 0.2), ("x", 0.2)]),
            token(",", &[(",", 1.0)]),
            token(" 0", &[(" 0", 0.9), (" 1", 0.1)]),
            token("]}", &[]),
        ];
        let found = answers(Ok(answer(r#"{"answers": [1, 0]}"#, tokens.clone())), 2);
        let probabilities = found.probabilities.unwrap();
        assert!((probabilities[0] - 0.75).abs() < 1e-12 && (probabilities[1] - 0.1).abs() < 1e-12);
        // Tokens that say something else than the answer.
        let found = answers(Ok(answer(r#"{"answers": [0, 1]}"#, tokens)), 2);
        assert!(found.said.is_some() && found.probabilities.is_none());
    }
}
