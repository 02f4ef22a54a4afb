//! What the runs of a bank have in common, opened and checked before anything starts.

use std::path::Path;

use sae_config::RunConfig;
use sae_data::{ColumnKind, DataError, ShardSet, StreamOptions, TextTokenizer, TokenStream};
use sae_model::{ModelError, load};
use sae_splice::SplicedModel;
use tch::{Device, Kind, Tensor};

use crate::{TrainError, batch_tensor};

/// The model and the evaluation set.
pub(crate) struct Setup {
    pub model: SplicedModel,
    /// Batches of the evaluation set, `[B, T]` each.
    pub evaluation: Vec<Tensor>,
    evaluation_shards: ShardSet,
    tokenizer: Option<TextTokenizer>,
    device: Device,
}

impl Setup {
    /// Opens the model and the evaluation data of runs, and checks that they belong together.
    pub fn open(configs: &[&RunConfig], device: Device) -> Result<Self, TrainError> {
        let config = configs[0];
        let path = &config.model.path;
        let in_model = |source: ModelError| TrainError::InModel { path: path.clone(), source };
        let model = load::load(path, device, Kind::Float)?;
        model.config().check_context(config.data.context_length.get()).map_err(in_model)?;
        for site in configs.iter().flat_map(|config| &config.sae.sites) {
            model.config().check_site(*site).map_err(in_model)?;
        }
        let evaluation_shards = ShardSet::open(&config.eval.data, &config.data.column)?;
        let tokenizer = tokenizer(config, &evaluation_shards, model.config().vocabulary)?;
        let mut setup = Self {
            model: SplicedModel::new(model),
            evaluation: Vec::new(),
            evaluation_shards,
            tokenizer,
            device,
        };
        setup.evaluation = setup.evaluation_set(config)?;
        Ok(setup)
    }

    /// Opens the training data, and checks that it is long enough and holds none of the evaluation data.
    pub fn training(&self, config: &RunConfig) -> Result<Training<'_>, TrainError> {
        let shards = ShardSet::open(&config.data.train, &config.data.column)?;
        self.evaluation_shards.check_disjoint(&shards)?;
        let needed = config.train.n_samples;
        if shards.kind() == ColumnKind::Windows && shards.rows() < needed {
            return Err(too_short(config, &shards, shards.rows(), needed, " to train on").into());
        }
        let tokenizer = tokenizer(config, &shards, self.model.model().config().vocabulary)?;
        Ok(Training { setup: self, shards, tokenizer })
    }

    /// Refuses evaluation data that is training data, where the training data is at hand.
    pub fn check_disjoint(&self, config: &RunConfig) -> Result<(), TrainError> {
        match ShardSet::open(&config.data.train, &config.data.column) {
            Ok(training) => Ok(self.evaluation_shards.check_disjoint(&training)?),
            Err(DataError::Missing { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn options(&self, config: &RunConfig, batch_size: usize) -> StreamOptions {
        StreamOptions {
            context_length: config.data.context_length.get(),
            batch_size,
            vocabulary: self.model.model().config().vocabulary,
            shuffle_buffer: 1,
            seed: 0,
            epochs: Some(1),
            skip: 0,
        }
    }

    fn evaluation_set(&self, config: &RunConfig) -> Result<Vec<Tensor>, TrainError> {
        let needed = config.eval.n_samples;
        let (shards, tokenizer) = (self.evaluation_shards.clone(), self.tokenizer.clone());
        let windows = TokenStream::start(shards, tokenizer, self.options(config, 1))?
            .take(needed as usize)
            .map(|batch| batch_tensor(&batch?, self.device))
            .collect::<Result<Vec<_>, _>>()?;
        let found = windows.len() as u64;
        if found < needed {
            let shards = &self.evaluation_shards;
            return Err(too_short(config, shards, found, needed, " to evaluate on").into());
        }
        windows
            .chunks(config.eval_batch_size())
            .map(|windows| Ok(Tensor::f_cat(windows, 0)?))
            .collect()
    }
}

/// The training data.
pub(crate) struct Training<'a> {
    setup: &'a Setup,
    shards: ShardSet,
    tokenizer: Option<TextTokenizer>,
}

impl Training<'_> {
    /// Batches in the order of the run's seed, from window `skip` on, forever.
    pub fn batches(
        &self,
        config: &RunConfig,
        batch_size: usize,
        skip: u64,
    ) -> Result<Batches<'_>, TrainError> {
        let options = StreamOptions {
            shuffle_buffer: config.data.shuffle_buffer.get(),
            seed: config.data.seed,
            epochs: None,
            skip,
            ..self.setup.options(config, batch_size)
        };
        let stream = TokenStream::start(self.shards.clone(), self.tokenizer.clone(), options)?;
        Ok(Batches { training: self, stream })
    }
}

/// Batches of the training data, on the device.
pub(crate) struct Batches<'a> {
    training: &'a Training<'a>,
    stream: TokenStream,
}

impl Batches<'_> {
    /// The next batch, `[B, T]`.
    pub fn next(&mut self) -> Result<Tensor, TrainError> {
        match self.stream.next() {
            Some(batch) => batch_tensor(&batch?, self.training.setup.device),
            None => Err(TrainError::File {
                action: "go on reading",
                path: self.training.shards.source().to_owned(),
                message: "the data thread ended".to_owned(),
            }),
        }
    }
}

/// The tokeniser of text; windows need none.
fn tokenizer(
    config: &RunConfig,
    shards: &ShardSet,
    vocabulary: usize,
) -> Result<Option<TextTokenizer>, TrainError> {
    if shards.kind() == ColumnKind::Windows {
        return Ok(None);
    }
    let path: &Path = config.data.tokenizer.as_deref().unwrap_or(&config.model.path);
    let tokenizer = TextTokenizer::load(path)?;
    tokenizer.check_vocabulary(vocabulary)?;
    Ok(Some(tokenizer))
}

fn too_short(
    config: &RunConfig,
    shards: &ShardSet,
    found: u64,
    needed: u64,
    purpose: &'static str,
) -> DataError {
    let context_length = config.data.context_length.get();
    DataError::TooShort { path: shards.source().to_owned(), found, context_length, needed, purpose }
}
