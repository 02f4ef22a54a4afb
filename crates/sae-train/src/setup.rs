//! What the runs of a bank have in common, opened and checked before anything starts.

use std::path::Path;

use sae_config::RunConfig;
use sae_data::{ColumnKind, DataError, ShardSet, StreamOptions, TextTokenizer, TokenStream};
use sae_model::load;
use sae_splice::SplicedModel;
use tch::{Device, Kind, Tensor};

use crate::{TrainError, batch_tensor};

/// The model, the data and the evaluation set.
pub(crate) struct Setup {
    pub model: SplicedModel,
    pub training: ShardSet,
    pub tokenizer: Option<TextTokenizer>,
    /// Batches of the evaluation set, `[B, T]` each.
    pub evaluation: Vec<Tensor>,
    pub device: Device,
}

impl Setup {
    /// Opens what a run needs, and checks that its parts belong together.
    pub fn open(config: &RunConfig, device: Device) -> Result<Self, TrainError> {
        let data = &config.data;
        let context_length = data.context_length.get();
        let model = load::load(&config.model.path, device, Kind::Float)?;
        model.config().check_context(context_length)?;
        for site in &config.sae.sites {
            model.config().check_site(*site)?;
        }
        let training = ShardSet::open(&data.train, &data.column)?;
        let evaluation = ShardSet::open(&config.eval.data, &data.column)?;
        evaluation.check_disjoint(&training)?;
        let needed = config.train.n_samples;
        if training.kind() == ColumnKind::Windows && training.rows() < needed {
            return Err(too_short(
                &training,
                context_length,
                training.rows(),
                needed,
                " to train on",
            )
            .into());
        }
        let tokenizer = match training.kind() {
            ColumnKind::Windows => None,
            ColumnKind::Text => {
                let path: &Path = data.tokenizer.as_deref().unwrap_or(&config.model.path);
                let tokenizer = TextTokenizer::load(path)?;
                tokenizer.check_vocabulary(model.config().vocabulary)?;
                Some(tokenizer)
            }
        };
        let vocabulary = model.config().vocabulary;
        let mut setup = Self {
            model: SplicedModel::new(model),
            training,
            tokenizer,
            evaluation: Vec::new(),
            device,
        };
        setup.evaluation = setup.evaluation_set(config, evaluation, vocabulary)?;
        Ok(setup)
    }

    /// Batches of the training data in the order of its seed, from window `skip` on, forever.
    pub fn training_stream(
        &self,
        config: &RunConfig,
        batch_size: usize,
        skip: u64,
    ) -> Result<TokenStream, TrainError> {
        let options = StreamOptions {
            context_length: config.data.context_length.get(),
            batch_size,
            vocabulary: self.model.model().config().vocabulary,
            shuffle_buffer: config.data.shuffle_buffer.get(),
            seed: config.data.seed,
            epochs: None,
            skip,
        };
        Ok(TokenStream::start(self.training.clone(), self.tokenizer.clone(), options)?)
    }

    /// The next batch of a stream that does not end.
    pub fn next_batch(&self, stream: &mut TokenStream) -> Result<Tensor, TrainError> {
        match stream.next() {
            Some(batch) => batch_tensor(&batch?, self.device),
            None => Err(TrainError::File {
                action: "go on reading",
                path: self.training.source().to_owned(),
                message: "the data thread ended".to_owned(),
            }),
        }
    }

    fn evaluation_set(
        &self,
        config: &RunConfig,
        shards: ShardSet,
        vocabulary: usize,
    ) -> Result<Vec<Tensor>, TrainError> {
        let needed = config.eval.n_samples;
        let context_length = config.data.context_length.get();
        let source = shards.clone();
        let options = StreamOptions {
            context_length,
            batch_size: 1,
            vocabulary,
            shuffle_buffer: 1,
            seed: 0,
            epochs: Some(1),
            skip: 0,
        };
        let windows = TokenStream::start(shards, self.tokenizer.clone(), options)?
            .take(needed as usize)
            .map(|batch| batch_tensor(&batch?, self.device))
            .collect::<Result<Vec<_>, _>>()?;
        let found = windows.len() as u64;
        if found < needed {
            return Err(too_short(&source, context_length, found, needed, " to evaluate on").into());
        }
        windows
            .chunks(config.eval_batch_size())
            .map(|windows| Ok(Tensor::f_cat(windows, 0)?))
            .collect()
    }
}

fn too_short(
    shards: &ShardSet,
    context_length: usize,
    found: u64,
    needed: u64,
    purpose: &'static str,
) -> DataError {
    DataError::TooShort { path: shards.source().to_owned(), found, context_length, needed, purpose }
}
