//! A model that is kept open to try prompts on, with the dictionaries of finished runs in it.

use sae_config::RunConfig;
use sae_data::TextTokenizer;
use sae_eval::prompt::try_prompt;
use sae_splice::{FeatureEdit, Member};
use tch::{Device, Tensor};

use crate::setup::Setup;
use crate::{RunSpec, TrainError, evaluate};

pub use sae_eval::prompt::{ActiveFeatures, Changed, Likely, NextToken, PromptFindings};

/// A model with its tokeniser, and the run that was tried in it last.
pub struct Playground {
    setup: Setup,
    tokenizer: TextTokenizer,
    device: Device,
    /// The run that was tried last, with its dictionaries.
    member: Option<(String, Member)>,
}

/// A prompt, and what the model makes of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Tried {
    /// The ids of its tokens; with the beginning-of-text token, where that was asked for.
    pub tokens: Vec<u32>,
    /// What was found after each.
    pub findings: PromptFindings,
    /// Whether the prompt was longer than the context, and lost its beginning.
    pub was_cut: bool,
}

impl Playground {
    /// Opens the model of a run's configuration.
    pub fn open(config: &RunConfig, device: Device) -> Result<Self, TrainError> {
        let setup = Setup::model_only(config, device)?;
        let tokenizer = setup.text_tokenizer()?;
        Ok(Self { setup, tokenizer, device, member: None })
    }

    /// The model's tokeniser.
    pub fn tokenizer(&self) -> &TextTokenizer {
        &self.tokenizer
    }

    /// Tries a prompt with the dictionaries of a run, all of its sites at once; `most` tokens of every distribution.
    pub fn try_prompt(
        &mut self,
        run: &RunSpec,
        text: &str,
        bos: bool,
        edits: &[FeatureEdit],
        most: usize,
    ) -> Result<Tried, TrainError> {
        let before = self.member.take().filter(|(id, _)| *id == run.id);
        let member = if let Some((_, member)) = before {
            member
        } else {
            let path = run.folder.path();
            evaluate::warn_of_other_model(path, &self.setup);
            evaluate::member(&run.config, path, &self.setup, self.device)?
        };
        let (_, member) = self.member.insert((run.id.clone(), member));
        let mut tokens = self.tokenizer.encode(text)?;
        let most_tokens = run.config.data.context_length.get() - usize::from(bos);
        let was_cut = tokens.len() > most_tokens;
        tokens.drain(..tokens.len().saturating_sub(most_tokens));
        if bos || tokens.is_empty() {
            tokens.insert(0, self.tokenizer.begin_of_text());
        }
        let ids: Vec<i64> = tokens.iter().map(|&id| i64::from(id)).collect();
        let ids = Tensor::f_from_slice(&ids)?.f_view([1, -1])?.f_to_device(self.device)?;
        let findings = try_prompt(&self.setup.model, member, edits, &ids, most)?;
        Ok(Tried { tokens, findings, was_cut })
    }
}
