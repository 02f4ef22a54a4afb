//! What comes back from an endpoint: the answer's text, its probabilities, what it cost.

use std::ops::AddAssign;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::AskError;

/// An answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// Its text.
    pub text: String,
    /// Its tokens, reasoning included; none where the endpoint does not tell them.
    #[serde(default)]
    pub tokens: Vec<AnswerToken>,
    /// What it cost.
    pub usage: Usage,
}

/// A token of an answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AnswerToken {
    /// Its text.
    pub token: String,
    /// The likeliest tokens in its place.
    pub top: Vec<TopToken>,
}

/// A token that might stand in an answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TopToken {
    /// Its text.
    pub token: String,
    /// The logarithm of its probability.
    pub logprob: f64,
}

/// Tokens of questions and answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Of questions.
    pub prompt_tokens: u64,
    /// Of answers, reasoning included.
    pub completion_tokens: u64,
}

impl AddAssign for Usage {
    fn add_assign(&mut self, other: Self) {
        self.prompt_tokens += other.prompt_tokens;
        self.completion_tokens += other.completion_tokens;
    }
}

/// The answer of a chat completion.
pub(super) fn answer(value: &Value, url: &str) -> Result<Answer, AskError> {
    let choice = &value["choices"][0];
    let message = &choice["message"];
    if !message.is_object() {
        let message = "it has no choices[0].message".to_owned();
        return Err(AskError::Protocol { url: url.to_owned(), message });
    }
    let finish = choice["finish_reason"].as_str().unwrap_or("none");
    if let Some(refusal) = message["refusal"].as_str().filter(|text| !text.is_empty()) {
        return Err(AskError::Refused(refusal.to_owned()));
    }
    if finish == "content_filter" {
        return Err(AskError::Refused("its filter of contents".to_owned()));
    }
    let text = content(&message["content"]);
    // What a model has thought aloud is not its answer; and an answer that is cut off is none.
    let text = text.rsplit_once("</think>").map_or(text.as_str(), |(_, after)| after).to_owned();
    if text.trim().is_empty() || finish == "length" {
        let has_reasoned = ["reasoning_content", "reasoning"]
            .iter()
            .any(|key| message[*key].as_str().is_some_and(|text| !text.is_empty()))
            // Some think in the answer itself, and some where nobody sees it.
            || content(&message["content"]).contains("<think>")
            || (text.trim().is_empty() && finish == "length");
        return Err(AskError::Empty { finish: finish.to_owned(), has_reasoned });
    }
    let tokens = choice["logprobs"]["content"].as_array().into_iter().flatten();
    let tokens = tokens.filter_map(|token| {
        let all = token["top_logprobs"].as_array().into_iter().flatten();
        let one = |top: &Value| {
            let token = top["token"].as_str()?.to_owned();
            Some(TopToken { token, logprob: top["logprob"].as_f64()? })
        };
        let top = all.filter_map(one).collect();
        Some(AnswerToken { token: token["token"].as_str()?.to_owned(), top })
    });
    let count = |name: &str| value["usage"][name].as_u64().unwrap_or(0);
    Ok(Answer {
        text,
        tokens: tokens.collect(),
        usage: Usage {
            prompt_tokens: count("prompt_tokens"),
            completion_tokens: count("completion_tokens"),
        },
    })
}

/// Content is a text, or a list of parts with texts.
fn content(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(parts) => {
            parts.iter().filter_map(|part| part["text"].as_str()).collect::<Vec<_>>().concat()
        }
        _ => String::new(),
    }
}

/// The JSON object of a text that has a field: the text itself, or what stands in it between other words or in a block of code. Of
/// several, the last: what comes before is thought aloud.
pub fn object_in(text: &str, field: &str) -> Option<Map<String, Value>> {
    let parse = |text: &str| match serde_json::from_str(text) {
        Ok(Value::Object(object)) if object.contains_key(field) => Some(object),
        _ => None,
    };
    if let Some(object) = parse(text.trim()) {
        return Some(object);
    }
    let starts: Vec<usize> = text.match_indices('{').map(|(place, _)| place).collect();
    let mut found = None;
    let mut next = 0;
    for start in starts {
        if start < next {
            continue;
        }
        // The first value that begins there, whatever follows.
        let mut values = serde_json::Deserializer::from_str(&text[start..]).into_iter::<Value>();
        if let Some(Ok(Value::Object(object))) = values.next()
            && object.contains_key(field)
        {
            next = start + values.byte_offset();
            found = Some(object);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_object_is_found_among_other_words() {
        let expected = json!({ "a": { "b": [1, "}"] } });
        for text in [
            r#"{"a": {"b": [1, "}"]}}"#,
            "Sure!\n```json\n{\"a\": {\"b\": [1, \"}\"]}}\n```\nAnything else?",
            r#"I think {x} of {"first": 1}; no: {"a": {"b": [1, "}"]}} as in if a {}"#,
        ] {
            assert_eq!(object_in(text, "a").map(Value::Object), Some(expected.clone()), "{text}");
        }
        for text in ["", "no", "[1]", "{\"a\": ", "{{{{"] {
            assert!(object_in(text, "a").is_none(), "{text}");
        }
    }

    #[test]
    fn what_is_no_answer_says_why() {
        let of = |choice: Value| answer(&json!({ "choices": [choice] }), "http://here");
        let found = of(
            json!({ "message": { "content": [{ "type": "text", "text": "a" }, { "text": "b" }] } }),
        );
        assert_eq!(found.unwrap().text, "ab");
        let refused = of(json!({ "message": { "content": null, "refusal": "I cannot." } }));
        assert_eq!(refused, Err(AskError::Refused("I cannot.".to_owned())));
        let filtered =
            of(json!({ "message": { "content": "" }, "finish_reason": "content_filter" }));
        assert!(matches!(filtered, Err(AskError::Refused(_))));
        let thought = of(json!({ "message": { "content": "<think>Hm.</think>\nyes" } })).unwrap();
        assert_eq!(thought.text.trim(), "yes");
        let cut = json!({ "message": { "content": "{\"a\": \"b" }, "finish_reason": "length" });
        assert!(matches!(of(cut), Err(AskError::Empty { .. })));
        let reasoned = json!({ "content": "", "reasoning_content": "Hm." });
        let empty = of(json!({ "message": reasoned, "finish_reason": "length" })).unwrap_err();
        assert!(empty.to_string().contains("--max-tokens") && !empty.is_of_endpoint());
        let none = answer(&json!({ "error": "x" }), "http://here").unwrap_err();
        assert!(none.to_string().contains("no choices[0].message") && none.is_of_endpoint());
        let top = json!([{ "token": "yes", "logprob": -0.5 }, {}]);
        let told = json!({ "content": [{ "token": "yes", "top_logprobs": top }, {}] });
        let found = of(json!({ "message": { "content": "yes" }, "logprobs": told })).unwrap();
        let [token] = found.tokens.as_slice() else { panic!("{:?}", found.tokens) };
        assert_eq!(token.top, [TopToken { token: "yes".to_owned(), logprob: -0.5 }]);
    }
}
