//! A language model behind an OpenAI-compatible endpoint, `chat/completions`: questions with temperature 0, answers in JSON.
//!
//! What endpoints differ in is found out: answers by a JSON schema where the endpoint takes one, without bounds of lengths where it does not
//! know these, as any JSON object where it does
//! not, in free text where it knows neither. What passes (408, 409, 425, 429, 5xx, a broken connection) is tried again, later and later, or
//! when `Retry-After` says. Answers are kept on disk by a hash of what was asked, so that an interrupted run costs nothing twice.

mod cache;
mod reply;

use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde::Serialize;
use serde_json::{Value, json};

use self::cache::Cache;
pub use self::reply::{Answer, AnswerToken, TopToken, Usage, object_in};
use crate::http::{Body, Client, ClientOptions, HttpError, Method, Request, Secret, is_passing};

/// A language model, and how it is reached.
#[derive(Clone)]
pub struct EndpointOptions {
    /// The address before `/chat/completions`, as `http://127.0.0.1:8000/v1`.
    pub base_url: String,
    /// The model's name there.
    pub model: String,
    /// The key, which no message or file names.
    pub key: Option<String>,
    /// The seed that is asked for.
    pub seed: u64,
    /// Where answers are kept; none: nowhere.
    pub cache: Option<PathBuf>,
    /// How requests are made; the key is not among them.
    pub requests: ClientOptions,
}

impl EndpointOptions {
    /// A model at an address, without key or cache.
    pub fn new(base_url: impl Into<String>, model: impl Into<String>) -> Self {
        Self {
            base_url: base_url.into(),
            model: model.into(),
            key: None,
            seed: 0,
            cache: None,
            requests: ClientOptions::default(),
        }
    }
}

/// A question.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Question {
    /// What the model is, and how it is to answer.
    pub system: String,
    /// What is asked.
    pub text: String,
    /// The JSON schema of an answer.
    pub schema: Value,
    /// Tokens of an answer, at most.
    pub max_tokens: u32,
    /// Tokens whose probabilities come with each of the answer's; 0 for none.
    pub top_logprobs: u32,
}

/// A question that has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// There is no answer, or a refusal.
    #[error(transparent)]
    Http(HttpError),
    /// The answer is not what the protocol has.
    #[error("{url} gives no chat completion: {message}")]
    Protocol {
        /// The address.
        url: String,
        /// What is wrong with it.
        message: String,
    },
    /// The model refuses to answer.
    #[error("the model refuses: {0}")]
    Refused(String),
    /// The answer is empty, or cut off.
    #[error("the answer is empty or cut off (finish_reason {finish}){}", if *has_reasoned {
        ": its tokens went into reasoning; give more with --max-tokens"
    } else {
        ""
    })]
    Empty {
        /// Why it ended.
        finish: String,
        /// Whether there was reasoning.
        has_reasoned: bool,
    },
    /// The answer is not of the form that was asked for.
    #[error("the answer has not the form that was asked for: {0}")]
    Form(String),
    /// A kept answer cannot be written.
    #[error("cannot keep an answer in {path}: {message}", path = path.display())]
    Cache {
        /// The file.
        path: PathBuf,
        /// What the system said.
        message: String,
    },
    /// A signal asked for the end.
    #[error("interrupted; answers up to there are kept: the same command goes on from them")]
    Interrupted,
}

impl AskError {
    /// Whether other questions will fare no better: the endpoint, not the question, is what is wrong.
    pub fn is_of_endpoint(&self) -> bool {
        match self {
            Self::Http(HttpError::Status { status, .. }) => {
                matches!(status, 401..=404 | 408 | 429 | 500..)
            }
            Self::Http(_) | Self::Protocol { .. } | Self::Cache { .. } | Self::Interrupted => true,
            Self::Refused(_) | Self::Empty { .. } | Self::Form(_) => false,
        }
    }
}

impl From<HttpError> for AskError {
    fn from(error: HttpError) -> Self {
        match error {
            HttpError::Interrupted => Self::Interrupted,
            error => Self::Http(error),
        }
    }
}

/// How an answer's form is asked for; what an endpoint does not take, it does not take the next time either.
const FORMS: [Form; 4] = [Form::Schema, Form::PlainSchema, Form::Object, Form::Free];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Schema,
    /// Without bounds of lengths, which some services do not know.
    PlainSchema,
    Object,
    Free,
}

/// A language model that answers.
pub struct Endpoint {
    options: EndpointOptions,
    url: String,
    client: Client,
    cache: Option<Cache>,
    /// The place in [`FORMS`] of what is known to be taken.
    form: AtomicUsize,
    dialect: Dialect,
    usage: Mutex<Usage>,
}

impl std::fmt::Debug for Endpoint {
    /// Without the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint").field("url", &self.url).finish_non_exhaustive()
    }
}

/// What an endpoint has said that it wants otherwise, as those of models that reason.
#[derive(Default)]
struct Dialect {
    /// `max_completion_tokens`, not `max_tokens`.
    completion_tokens: AtomicBool,
    /// No temperature but its own.
    own_temperature: AtomicBool,
}

impl Dialect {
    /// Learns from what an endpoint says of a request; whether there was something new.
    fn learn(&self, said: &str) -> bool {
        let learn =
            |flag: &AtomicBool, word| said.contains(word) && !flag.swap(true, Ordering::SeqCst);
        learn(&self.completion_tokens, "max_completion_tokens")
            || learn(&self.own_temperature, "temperature")
    }
}

impl Endpoint {
    /// Reached when it is first asked.
    pub fn new(options: EndpointOptions) -> Self {
        let url = format!("{}/chat/completions", options.base_url.trim_end_matches('/'));
        let secret = options.key.clone().map(|key| Secret {
            header: "authorization",
            before: "Bearer ",
            key,
        });
        let client = Client::new(ClientOptions { secret, ..options.requests.clone() });
        let cache = options.cache.clone().map(Cache::new);
        let (form, dialect) = (AtomicUsize::new(0), Dialect::default());
        Self { options, url, client, cache, form, dialect, usage: Mutex::default() }
    }

    /// The model's name.
    pub fn model(&self) -> &str {
        &self.options.model
    }

    /// Tokens of all answers that were not kept from before.
    pub fn usage(&self) -> Usage {
        self.usage.lock().map_or_else(|broken| *broken.into_inner(), |usage| *usage)
    }

    /// Whether the answer is kept from before.
    pub fn knows(&self, question: &Question) -> bool {
        self.cache.as_ref().is_some_and(|cache| cache.read(&self.key_of(question)).is_some())
    }

    /// The answer to a question. `is_interrupted` is asked before every attempt and while it is waited for the next.
    pub fn ask(
        &self,
        question: &Question,
        is_interrupted: &(dyn Fn() -> bool + Sync),
    ) -> Result<Answer, AskError> {
        let key = self.key_of(question);
        if let Some(kept) = self.cache.as_ref().and_then(|cache| cache.read(&key)) {
            return Ok(kept);
        }
        let mut question = question.clone();
        let mut answer = self.answer(&question, is_interrupted);
        // A model that reasons has used up what was meant for the answer; one that has written without end would do it again.
        if let Err(AskError::Empty { finish, has_reasoned: true }) = &answer
            && finish == "length"
        {
            question.max_tokens = question.max_tokens.saturating_mul(8);
            answer = self.answer(&question, is_interrupted);
        }
        let answer = answer?;
        if let Some(cache) = &self.cache {
            cache.write(&key, &answer)?;
        }
        Ok(answer)
    }

    fn key_of(&self, question: &Question) -> String {
        // However long an answer may be, a whole one is the same.
        let question = Question { max_tokens: 0, ..question.clone() };
        let asked = json!([self.url, self.options.model, self.options.seed, question]);
        sae_config::fingerprint::Fingerprint::new().text(&asked).finish()
    }

    fn answer(
        &self,
        question: &Question,
        is_interrupted: &(dyn Fn() -> bool + Sync),
    ) -> Result<Answer, AskError> {
        let mut form = self.form.load(Ordering::SeqCst);
        loop {
            let body = self.body(question, FORMS[form]).to_string();
            let request = Request {
                method: Method::Post,
                url: &self.url,
                headers: &[("content-type", "application/json")],
                body: Body::Bytes(body.as_bytes()),
                is_signed: true,
                is_repeatable: true,
            };
            // Some servers fail at a form that they do not know (llama-cpp-python's).
            let is_about_form = |status: u16, text: &str| {
                FORMS[form] != Form::Free && status == 500 && text.contains("response_format")
            };
            let passes = |status: u16, text: &str| {
                (is_passing(status) || status == 409) && !is_about_form(status, text)
            };
            let reply = self.client.send(request, &passes, is_interrupted)?;
            if reply.is_answer() {
                self.form.fetch_max(form, Ordering::SeqCst);
                let value = serde_json::from_str(&reply.text).map_err(|error| {
                    let beginning = self.client.beginning(&reply.text);
                    AskError::Protocol {
                        url: self.url.clone(),
                        message: format!("{error} in {beginning}"),
                    }
                })?;
                let answer = reply::answer(&value, &self.url)?;
                if let Ok(mut usage) = self.usage.lock() {
                    *usage += answer.usage;
                }
                return Ok(answer);
            }
            // Endpoints say in many words, or in none, that they know no such format.
            let is_of_form =
                matches!(reply.status, 400 | 415 | 422) || is_about_form(reply.status, &reply.text);
            if reply.status == 400 && self.dialect.learn(&reply.text) {
                continue;
            }
            if !is_of_form || form + 1 == FORMS.len() {
                return Err(self.client.refused(&self.url, &reply).into());
            }
            form += 1;
        }
    }

    fn body(&self, question: &Question, form: Form) -> Value {
        let mut body = json!({
            "model": self.options.model,
            "messages": [
                { "role": "system", "content": question.system },
                { "role": "user", "content": question.text },
            ],
            "seed": self.options.seed,
        });
        let knows = |flag: &AtomicBool| flag.load(Ordering::SeqCst);
        if !knows(&self.dialect.own_temperature) {
            body["temperature"] = json!(0);
        }
        let completion = knows(&self.dialect.completion_tokens);
        let tokens = if completion { "max_completion_tokens" } else { "max_tokens" };
        body[tokens] = json!(question.max_tokens);
        match form {
            Form::Schema | Form::PlainSchema => {
                let mut own = question.schema.clone();
                if form == Form::PlainSchema {
                    without_bounds(&mut own);
                }
                let schema = json!({ "name": "answer", "strict": true, "schema": own });
                body["response_format"] = json!({ "type": "json_schema", "json_schema": schema });
            }
            Form::Object => body["response_format"] = json!({ "type": "json_object" }),
            Form::Free => {}
        }
        // The last form asks for nothing that an endpoint may not have.
        if question.top_logprobs > 0 && form != Form::Free {
            body["logprobs"] = json!(true);
            body["top_logprobs"] = json!(question.top_logprobs);
        }
        body
    }
}

/// Takes bounds of lengths out of a schema.
fn without_bounds(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            for key in ["minItems", "maxItems", "maxLength"] {
                fields.remove(key);
            }
            fields.values_mut().for_each(without_bounds);
        }
        Value::Array(all) => all.iter_mut().for_each(without_bounds),
        _ => {}
    }
}

/// Answers to questions, in their order, so many at a time. Where the endpoint fails, not a question, the rest is not asked. `notice` is
/// told how many are answered.
pub fn ask_all(
    endpoint: &Endpoint,
    questions: &[Question],
    at_a_time: usize,
    is_interrupted: &(dyn Fn() -> bool + Sync),
    notice: &mut dyn FnMut(usize),
) -> Result<Vec<Result<Answer, AskError>>, AskError> {
    let next = AtomicUsize::new(0);
    let has_failed = AtomicBool::new(false);
    let (told, answers) = std::sync::mpsc::channel();
    let mut found: Vec<Option<Result<Answer, AskError>>> = questions.iter().map(|_| None).collect();
    std::thread::scope(|scope| {
        for _ in 0..at_a_time.clamp(1, questions.len().max(1)) {
            let told = told.clone();
            let (next, has_failed) = (&next, &has_failed);
            scope.spawn(move || {
                loop {
                    let place = next.fetch_add(1, Ordering::SeqCst);
                    let Some(question) = questions.get(place) else { return };
                    if has_failed.load(Ordering::SeqCst) {
                        return;
                    }
                    let answer = endpoint.ask(question, is_interrupted);
                    if answer.as_ref().is_err_and(AskError::is_of_endpoint) {
                        has_failed.store(true, Ordering::SeqCst);
                    }
                    if told.send((place, answer)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(told);
        for (done, (place, answer)) in answers.iter().enumerate() {
            found[place] = Some(answer);
            notice(done + 1);
        }
    });
    let mut all = Vec::with_capacity(found.len());
    for answer in found {
        match answer {
            Some(Err(error)) if error.is_of_endpoint() => return Err(error),
            Some(answer) => all.push(answer),
            None => {}
        }
    }
    if all.len() < questions.len() {
        return Err(AskError::Interrupted);
    }
    Ok(all)
}
