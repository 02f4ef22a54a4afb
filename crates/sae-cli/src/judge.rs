//! A language model that explains features or scores explanations: how it is reached, what it costs, how it is asked.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use sae_config::message::counted;
use sae_interp::endpoint::{Answer, AskError, Endpoint, EndpointOptions, Question, Usage, ask_all};
use sae_interp::http::ClientOptions;
use sae_record::{Event, Phase};
use sae_train::progress::Observer;
use serde::Deserialize;

use crate::sweep::Interrupted;
use crate::telemetry::Telemetry;

/// Letters of text that make a token, where nothing is known of a tokeniser: for estimates.
const LETTERS: usize = 4;
/// Tokens of an explanation, for estimates.
const ANSWER: u64 = 40;
/// A language model, and how it is asked.
#[derive(Debug, Args)]
pub(crate) struct Judge {
    /// The address of an OpenAI-compatible endpoint, before /chat/completions
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8000/v1")]
    base_url: String,
    /// The model's name there
    #[arg(long, value_name = "NAME")]
    model: String,
    /// The environment variable that holds the key [default: for api.openai.com OPENAI_API_KEY, elsewhere none is sent]
    #[arg(long, value_name = "VARIABLE")]
    key_from: Option<String>,
    /// Questions at a time
    #[arg(long, value_name = "N", default_value = "4")]
    concurrency: std::num::NonZeroUsize,
    /// Tokens of an answer, at most, reasoning included
    #[arg(long, value_name = "N", default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) max_tokens: u32,
    /// Attempts after the first, where the endpoint is busy or the connection breaks
    #[arg(long, value_name = "N", default_value_t = 6)]
    retries: u32,
    /// Seconds that an answer may take
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    timeout: u64,
    /// Where answers are kept, so that none is paid for twice [default: FOLDER/answers]
    #[arg(long, value_name = "FOLDER")]
    answers: Option<PathBuf>,
    /// Say what would be asked, how many tokens that is and, with --prices, what it costs, and stop
    #[arg(long)]
    dry_run: bool,
    /// A table of prices: of each model, by name, US dollars for a million tokens, `prompt` and `completion`
    #[arg(long, value_name = "TOML", requires = "dry_run")]
    prices: Option<PathBuf>,
}

impl Judge {
    pub(crate) fn endpoint(&self, folder: &Path) -> Endpoint {
        // A key that is for one place is not shown to another.
        let is_openai = self.base_url.starts_with("https://api.openai.com/");
        let own = is_openai.then_some("OPENAI_API_KEY");
        let key = self.key_from.as_deref().or(own).and_then(|name| std::env::var(name).ok());
        let key = key.filter(|key| !key.is_empty());
        let answers = self.answers.clone().unwrap_or_else(|| folder.join("answers"));
        Endpoint::new(EndpointOptions {
            key,
            cache: Some(answers),
            requests: ClientOptions {
                timeout: Duration::from_secs(self.timeout.max(1)),
                retries: self.retries,
                ..ClientOptions::default()
            },
            ..EndpointOptions::new(&self.base_url, &self.model)
        })
    }

    /// The answers to questions, in their order, with a line of what is asked before and of what it has cost after; none where `--dry-run`
    /// has said that alone.
    pub(crate) fn ask(
        &self,
        endpoint: &Endpoint,
        questions: &[Question],
        phase: Phase,
        telemetry: &mut Telemetry,
    ) -> anyhow::Result<Option<Vec<Result<Answer, AskError>>>> {
        let estimate = self.estimate(endpoint, questions)?;
        if self.dry_run {
            crate::print(&estimate)?;
            return Ok(None);
        }
        tracing::info!("{estimate}");
        telemetry.notice(Event::began(phase, questions.len() as u64, 0));
        let flag = telemetry.interruption();
        let is_interrupted = move || flag.load(Ordering::SeqCst);
        let concurrency = self.concurrency.get();
        let answers = ask_all(endpoint, questions, concurrency, &is_interrupted, &mut |done| {
            telemetry.notice(Event::advanced(done as u64));
        });
        let answers = match answers {
            Err(AskError::Interrupted) => return Err(Interrupted.into()),
            answers => answers?,
        };
        telemetry.notice(Event::Ended);
        let usage = endpoint.usage();
        let Usage { prompt_tokens, completion_tokens } = usage;
        tracing::info!("{prompt_tokens} tokens asked, {completion_tokens} answered");
        Ok(Some(answers))
    }

    /// What is left to ask, in a line, with its price where that is known.
    fn estimate(&self, endpoint: &Endpoint, questions: &[Question]) -> anyhow::Result<String> {
        let open: Vec<&Question> = questions.iter().filter(|own| !endpoint.knows(own)).collect();
        let letters = |question: &&Question| question.system.len() + question.text.len();
        let prompt = (open.iter().map(letters).sum::<usize>() / LETTERS) as u64;
        let usage = Usage { prompt_tokens: prompt, completion_tokens: ANSWER * open.len() as u64 };
        let mut text = format!(
            "{}, {} answered before; about {:.1} k tokens asked and {:.1} k answered, {LETTERS} letters a token",
            counted(questions.len(), "question"),
            questions.len() - open.len(),
            usage.prompt_tokens as f64 / 1e3,
            usage.completion_tokens as f64 / 1e3
        );
        if let Some(path) = &self.prices {
            let _ = write!(text, "; {:.2} US dollars", price(path, &self.model, usage)?);
        }
        Ok(text)
    }
}

/// US dollars for a million tokens.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Price {
    prompt: f64,
    completion: f64,
}

fn price(path: &Path, model: &str, usage: Usage) -> anyhow::Result<f64> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read the prices {}", path.display()))?;
    let prices: BTreeMap<String, Price> = toml::from_str(&text)
        .with_context(|| format!("cannot use the prices {}", path.display()))?;
    let Some(price) = prices.get(model) else {
        let known: Vec<&str> = prices.keys().map(String::as_str).collect();
        bail!("{} has no price of {model}; it has {}", path.display(), known.join(", "));
    };
    let dollars = price.prompt * usage.prompt_tokens as f64
        + price.completion * usage.completion_tokens as f64;
    Ok(dollars / 1e6)
}
