//! What the runs of a bank have in common, opened and checked before anything starts.

use std::path::Path;

use sae_config::run::Precision;
use sae_config::{RunConfig, Source};
use sae_data::{
    ColumnKind, Compared, Cursor, DataError, ShardSet, StreamOptions, TextTokenizer, TokenStream,
};
use sae_model::{ModelConfig, ModelError, load};
use sae_record::summary::Inputs;
use sae_splice::SplicedModel;
use tch::{Device, Kind, Tensor};

use crate::{Sources, TrainError, batch_tensor};

/// The model and the evaluation set.
pub(crate) struct Setup {
    pub model: SplicedModel,
    /// Batches of the evaluation set, `[B, T]` each.
    pub evaluation: Vec<Tensor>,
    pub sources: Sources,
    evaluation_shards: Option<ShardSet>,
    /// The model as it is stored.
    model_fingerprint: String,
    /// Of text; windows need none.
    tokenizer: Source,
    device: Device,
}

/// The precision of a run's parameters.
pub(crate) fn kind(config: &RunConfig) -> Kind {
    match config.train.precision {
        Precision::F32 | Precision::Bf16 => Kind::Float,
        Precision::F64 => Kind::Double,
    }
}

impl Setup {
    /// Opens the model and the evaluation data of runs, and checks that they belong together.
    pub fn open(
        configs: &[&RunConfig],
        sources: Sources,
        device: Device,
    ) -> Result<Self, TrainError> {
        let config = configs[0];
        let path = sources.model(&config.model.path)?;
        // Cheap mistakes first: the weights may take minutes.
        let sizes = load::config(&path)?;
        for config in configs {
            check_sizes(config, &sizes, &path)?;
        }
        let eval = &config.eval;
        let evaluation_shards =
            sources.shards(&eval.data, config.eval_column(), eval.split.as_deref())?;
        let mut setup = Self::with_model(config, &path, sources, device)?;
        setup.evaluation = setup.evaluation_set(config, &evaluation_shards)?;
        setup.evaluation_shards = Some(evaluation_shards);
        Ok(setup)
    }

    /// Opens the model alone.
    pub fn model_only(config: &RunConfig, device: Device) -> Result<Self, TrainError> {
        let sources = Sources::default();
        let path = sources.model(&config.model.path)?;
        check_sizes(config, &load::config(&path)?, &path)?;
        Self::with_model(config, &path, sources, device)
    }

    fn with_model(
        config: &RunConfig,
        path: &Path,
        sources: Sources,
        device: Device,
    ) -> Result<Self, TrainError> {
        let mut model = load::load(path, config.model.processing, device, kind(config))?;
        if config.train.precision == Precision::Bf16 {
            model = model.into_bfloat16()?;
        }
        Ok(Self {
            model: SplicedModel::new(model).with_activation_checkpointing(config.train.recompute),
            evaluation: Vec::new(),
            sources,
            evaluation_shards: None,
            model_fingerprint: load::fingerprint(path)?,
            tokenizer: config.data.tokenizer.clone().unwrap_or(config.model.path.clone()),
            device,
        })
    }

    /// Opens the training data, and checks that it is long enough and holds none of the evaluation data.
    pub fn training(&self, config: &RunConfig) -> Result<Training<'_>, TrainError> {
        let shards = self.training_shards(config)?;
        self.check_against(config, &shards)?;
        if let (ColumnKind::Windows, Some(rows)) = (shards.kind(), shards.rows()) {
            let found = rows.saturating_sub(config.data.skip);
            let needed = config.train.n_samples.unwrap_or(1);
            if found < needed {
                return Err(too_short(config, &shards, found, needed, " to train on").into());
            }
        }
        let tokenizer = self.tokenizer(&shards)?;
        if let Some(tokenizer) = &tokenizer {
            tracing::info!("{}", tokenizer.describe(config.data.bos));
        }
        Ok(Training { setup: self, shards, tokenizer })
    }

    /// Refuses evaluation data that is training data, where the training data is at hand.
    pub fn check_disjoint(&self, config: &RunConfig) -> Result<(), TrainError> {
        // Other data of the hub is not fetched for this.
        if config.data.train.local().is_none() && config.data.train != config.eval.data {
            return Ok(());
        }
        match self.training_shards(config) {
            Ok(training) => self.check_against(config, &training),
            Err(DataError::Missing { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The fingerprint of the model as it is stored.
    pub fn model_fingerprint(&self) -> &str {
        &self.model_fingerprint
    }

    /// The fingerprint of the evaluation data, where it is open.
    pub fn evaluation_fingerprint(&self) -> Result<String, TrainError> {
        match &self.evaluation_shards {
            None => Ok(String::new()),
            Some(shards) => Ok(shards.fingerprint(self.tokenizer(shards)?.as_ref())?),
        }
    }

    /// Windows to train on where the configuration leaves it to the data: all, once.
    pub fn all_samples(&self, config: &RunConfig) -> Result<u64, TrainError> {
        let shards = self.training_shards(config)?;
        match (shards.kind(), shards.rows()) {
            (ColumnKind::Windows, Some(rows)) => Ok(rows.saturating_sub(config.data.skip)),
            _ => Err(TrainError::SamplesUnknown { path: shards.source().to_owned() }),
        }
    }

    fn training_shards(&self, config: &RunConfig) -> Result<ShardSet, DataError> {
        let data = &config.data;
        self.sources.shards(&data.train, &data.column, data.split.as_deref())
    }

    /// Evaluation on the first windows of the training data is fine where training leaves them out.
    fn check_against(&self, config: &RunConfig, training: &ShardSet) -> Result<(), TrainError> {
        let Some(evaluation) = &self.evaluation_shards else { return Ok(()) };
        let same = evaluation.names().eq(training.names())
            && evaluation.source() == training.source()
            && config.eval_column() == config.data.column;
        if same && config.eval.n_samples.is_some_and(|n| n <= config.data.skip) {
            return Ok(());
        }
        // Only where one side is text and the other windows is a tokeniser needed, and it may be missing.
        let tokenizer = (evaluation.kind() != training.kind()).then(|| self.text_tokenizer().ok());
        let compared = Compared {
            evaluation_rows: config.eval.n_samples,
            skipped_windows: config.data.skip,
            context_length: config.data.context_length.get(),
        };
        Ok(evaluation.check_disjoint(training, tokenizer.flatten().as_ref(), compared)?)
    }

    /// The evaluation data, whether it was opened before or not.
    pub fn evaluation_data(&self, config: &RunConfig) -> Result<ShardSet, DataError> {
        let eval = &config.eval;
        self.sources.shards(&eval.data, config.eval_column(), eval.split.as_deref())
    }

    /// The tokeniser of text; windows need none.
    pub fn tokenizer(&self, shards: &ShardSet) -> Result<Option<TextTokenizer>, TrainError> {
        match shards.kind() {
            ColumnKind::Windows => Ok(None),
            ColumnKind::Text => Ok(Some(self.text_tokenizer()?)),
        }
    }

    /// The model's tokeniser, or the one that the configuration names.
    pub fn text_tokenizer(&self) -> Result<TextTokenizer, TrainError> {
        let tokenizer = TextTokenizer::load(&self.sources.tokenizer(&self.tokenizer)?)?;
        tokenizer.check_vocabulary(self.model.model().config().vocabulary)?;
        Ok(tokenizer)
    }

    /// How windows are read: in order, one by one.
    pub fn options(&self, config: &RunConfig) -> StreamOptions {
        let vocabulary = self.model.model().config().vocabulary;
        StreamOptions {
            bos: config.data.bos,
            ..StreamOptions::in_order(config.data.context_length.get(), vocabulary)
        }
    }

    fn evaluation_set(
        &self,
        config: &RunConfig,
        shards: &ShardSet,
    ) -> Result<Vec<Tensor>, TrainError> {
        let needed = config.eval.n_samples;
        let tokenizer = self.tokenizer(shards)?;
        let windows = TokenStream::start(shards.clone(), tokenizer, self.options(config))?
            .take(needed.map_or(usize::MAX, |needed| needed as usize))
            .map(|batch| batch_tensor(&batch?, self.device))
            .collect::<Result<Vec<_>, _>>()?;
        let found = windows.len() as u64;
        let needed = needed.unwrap_or(1);
        if found < needed {
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
    /// Fingerprints of all that runs are computed from.
    pub fn inputs(&self) -> Result<Inputs, TrainError> {
        Ok(Inputs {
            model: self.setup.model_fingerprint.clone(),
            training: self.shards.fingerprint(self.tokenizer.as_ref())?,
            evaluation: self.setup.evaluation_fingerprint()?,
        })
    }

    /// Batches in the order of the run's seed, forever; from the start, or from where the cursor stored at `from` stands.
    pub fn batches(
        &self,
        config: &RunConfig,
        batch_size: usize,
        from: Option<&Path>,
    ) -> Result<Batches<'_>, TrainError> {
        let options = StreamOptions {
            batch_size,
            shuffle_buffer: config.data.shuffle_buffer.get(),
            seed: config.data.seed,
            epochs: None,
            skip: config.data.skip,
            ..self.setup.options(config)
        };
        let (shards, tokenizer) = (self.shards.clone(), self.tokenizer.clone());
        let stream = match from {
            None => TokenStream::start(shards, tokenizer, options.clone())?,
            Some(path) => {
                let cursor = Cursor::load(path, &options, &shards)?;
                TokenStream::resume(shards, tokenizer, options.clone(), cursor)?
            }
        };
        Ok(Batches { training: self, stream, options })
    }
}

/// Batches of the training data, on the device.
pub(crate) struct Batches<'a> {
    training: &'a Training<'a>,
    stream: TokenStream,
    options: StreamOptions,
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

    /// Where the data stands.
    pub fn cursor(&self) -> Cursor {
        self.stream.cursor()
    }

    /// Stores where the data stood.
    pub fn save_cursor(&self, cursor: &Cursor, path: &Path) -> Result<(), TrainError> {
        Ok(cursor.save(&self.options, &self.training.shards, path)?)
    }
}

/// The fingerprint of a configuration's evaluation data, with its tokeniser where it is text.
pub(crate) fn evaluation_fingerprint(
    config: &RunConfig,
    sources: &Sources,
) -> Result<String, TrainError> {
    let split = config.eval.split.as_deref();
    fingerprint(config, &sources.shards(&config.eval.data, config.eval_column(), split)?, sources)
}

/// The same of its training data.
pub(crate) fn training_fingerprint(
    config: &RunConfig,
    sources: &Sources,
) -> Result<String, TrainError> {
    let data = &config.data;
    fingerprint(config, &sources.shards(&data.train, &data.column, data.split.as_deref())?, sources)
}

fn fingerprint(
    config: &RunConfig,
    shards: &ShardSet,
    sources: &Sources,
) -> Result<String, TrainError> {
    let tokenizer = match shards.kind() {
        ColumnKind::Windows => None,
        ColumnKind::Text => {
            let source = config.data.tokenizer.as_ref().unwrap_or(&config.model.path);
            Some(TextTokenizer::load(&sources.tokenizer(source)?)?)
        }
    };
    Ok(shards.fingerprint(tokenizer.as_ref())?)
}

/// Refuses sites that the model does not have, and windows longer than its context.
fn check_sizes(config: &RunConfig, sizes: &ModelConfig, path: &Path) -> Result<(), TrainError> {
    let in_model = |source: ModelError| TrainError::InModel { path: path.to_owned(), source };
    sizes.check_context(config.data.context_length.get()).map_err(in_model)?;
    let downstream = config.loss.downstream.iter().flat_map(|term| &term.sites);
    for site in config.sae.sites.iter().chain(&config.sae.reads).chain(downstream) {
        sizes.check_site(*site).map_err(in_model)?;
    }
    for (reads, _) in config.placements() {
        let n_features = config.n_features(sizes.width(reads.kind));
        let origin = format!("for the model {}", path.display());
        config.check_architecture(&origin, Some(n_features))?;
    }
    Ok(())
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
