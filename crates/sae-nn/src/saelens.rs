//! `cfg.json` of a folder in SAELens's format: what it says of the SAE beside its weights. Whatever changes what the SAE
//! computes is folded into the weights, exactly, or refused by name; nothing of the kind is ignored.

use std::path::{Path, PathBuf};

use sae_config::Architecture;
use sae_config::file::{LONGEST_TEXT, read_text};
use sae_tensors::TensorFiles;
use serde_json::Value;
use tch::{Device, Kind, Tensor};

use crate::dictionary::MIN_NORM;
use crate::{Dictionary, SaeError, architecture};

/// Keys that say where an SAE comes from, and not what it computes (SAELens 3 to 6).
const KEYS_WITHOUT_EFFECT: [&str; 20] = [
    "device",
    "metadata",
    "model_name",
    "model_class_name",
    "model_from_pretrained_kwargs",
    "hook_name",
    "hook_point",
    "hook_name_out",
    "hook_layer",
    "hook_point_layer",
    "context_size",
    "prepend_bos",
    "dataset_path",
    "dataset_trust_remote_code",
    "neuronpedia_id",
    "sae_lens_version",
    "sae_lens_training_version",
    "seqpos_slice",
    "finetuning_scaling_factor",
    "activation_fn_kwargs",
];
const TENSORS: [&str; 4] = ["W_enc", "b_enc", "W_dec", "b_dec"];
/// The key of the metadata that this software writes the options of an architecture to.
pub(crate) const OPTIONS: &str = "dictionary";

/// SAELens's name of an architecture, for a transcoder too. It has none of some transcoders, and refuses the names that these
/// get.
pub(crate) fn architecture_name(of_sae: &str, is_transcoder: bool, skip: bool) -> String {
    match (of_sae, is_transcoder, skip) {
        (name, false, false) => name.to_owned(),
        ("standard", true, false) => "transcoder".to_owned(),
        ("standard", _, true) => "skip_transcoder".to_owned(),
        (name, _, false) => format!("{name}_transcoder"),
        (name, _, true) => format!("{name}_skip_transcoder"),
    }
}

/// What `cfg.json` says of how a code is made.
struct Encoding {
    options: Architecture,
    /// Whether the features are chosen by activations in units of unit-norm dictionary elements, so that rows of any length
    /// can be folded into the encoder.
    chooses_by_unit_rows: bool,
    /// Whether there is a tensor `threshold`.
    has_threshold: bool,
}
/// Decoder rows whose length differs from 1 by less are of unit length but for rounding, in single precision.
const UNIT: f64 = 1e-5;

/// A folder's `cfg.json`.
pub(crate) struct Config {
    path: PathBuf,
    json: Value,
}

impl Config {
    /// Reads `cfg.json` in a folder.
    pub fn read(folder: &Path) -> Result<Self, SaeError> {
        let path = folder.join("cfg.json");
        let text = read_text(&path, LONGEST_TEXT).map_err(|source| SaeError::Io {
            action: "read",
            path: path.clone(),
            source,
        })?;
        match serde_json::from_str(&text) {
            Ok(json @ Value::Object(_)) => Ok(Self { path, json }),
            Ok(_) => Err(SaeError::Format { path, message: "expected a JSON object".to_owned() }),
            Err(error) => Err(SaeError::Format { path, message: error.to_string() }),
        }
    }

    fn failed(&self, message: String) -> SaeError {
        SaeError::Format { path: self.path.clone(), message }
    }

    /// The site that the SAE is for: named in the metadata, or, in older files, beside the sizes.
    pub fn hook_name(&self) -> Result<String, SaeError> {
        let json = &self.json;
        let names = [&json["metadata"]["hook_name"], &json["hook_name"], &json["hook_point"]];
        let name = names.into_iter().find_map(Value::as_str);
        name.map(ToOwned::to_owned).ok_or_else(|| {
            self.failed(
                "it does not say which site the SAE is for: metadata.hook_name is missing"
                    .to_owned(),
            )
        })
    }

    /// The site that a transcoder writes; none of an SAE.
    pub fn hook_name_out(&self) -> Result<Option<String>, SaeError> {
        let names = [&self.json["metadata"]["hook_name_out"], &self.json["hook_name_out"]];
        let name = names.into_iter().find_map(Value::as_str).map(ToOwned::to_owned);
        if !self.name().contains("transcoder") {
            return Ok(None);
        }
        if name.is_none() {
            return Err(self.failed(
                "it does not say which site the transcoder writes: metadata.hook_name_out is missing"
                    .to_owned(),
            ));
        }
        Ok(name)
    }

    /// Loads the weights beside it as a dictionary that computes the same.
    pub fn load(&self, device: Device, kind: Kind) -> Result<Dictionary, SaeError> {
        let encoding = self.encoding()?;
        self.check_keys()?;
        let has_skip = self.name().contains("skip");
        let path = self.path.with_file_name("sae_weights.safetensors");
        let files = TensorFiles::open(&path)?;
        let damaged = |message: String| SaeError::Format { path: path.clone(), message };
        self.check_tensors(&files, encoding.has_threshold)?;
        // Folded in double precision, so that nothing is lost on the way.
        let take = |name: &str| -> Result<Tensor, SaeError> {
            let tensor = files.read(name)?;
            self.check_dtype(name, tensor.kind())?;
            Ok(tensor.f_to_kind(Kind::Double)?)
        };
        let w_enc = take("W_enc")?;
        let &[d, f] = w_enc.size().as_slice() else {
            return Err(damaged(format!("W_enc has shape {:?}, expected [D, F]", w_enc.size())));
        };
        let [b_enc, w_dec, b_dec] = [take("b_enc")?, take("W_dec")?, take("b_dec")?];
        let e = b_dec.size().first().copied().unwrap_or(0);
        let fits = self.name().contains("transcoder") || e == d;
        if !fits || w_dec.size() != [f, e] || b_enc.size() != [f] || b_dec.size() != [e] {
            return Err(damaged(format!(
                "W_enc {:?}, b_enc {:?}, W_dec {:?} and b_dec {:?} do not belong to one SAE",
                w_enc.size(),
                b_enc.size(),
                w_dec.size(),
                b_dec.size()
            )));
        }
        self.check_size("d_in", d)?;
        self.check_size("d_sae", f)?;
        if self.json.get("d_out").is_some() {
            self.check_size("d_out", e)?;
        }
        encoding.options.check(usize::try_from(f).ok()).map_err(|error| {
            let sae_config::architecture::OptionError { key, found, expected } = error;
            let name = encoding.options.name();
            self.failed(format!("{name}.{key} is {found}: {expected}"))
        })?;
        let mut w_enc = w_enc.f_tr()?.f_contiguous()?;
        let mut b_enc = b_enc;
        if self.subtracts_decoder_bias()? {
            if self.name().contains("transcoder") {
                return Err(self.failed(
                    "apply_b_dec_to_input is true of a transcoder, whose decoder's bias is of another activation"
                        .to_owned(),
                ));
            }
            // (x − b_dec) · W + b = x · W + (b − b_dec · W).
            b_enc = b_enc.f_sub(&w_enc.f_mv(&b_dec)?)?;
        }
        // c · w = (‖w‖ c) · (w / ‖w‖), and a ReLU lets a positive factor through.
        let norms = w_dec.f_norm_scalaropt_dim(2.0, [1], false)?;
        let is_unit = norms.f_sub_scalar(1.0)?.f_abs()?.f_lt(UNIT)?;
        let is_zero = norms.f_eq(0.0)?;
        let ones = norms.f_ones_like()?;
        let scale =
            ones.f_where_self(&is_unit.f_logical_or(&is_zero)?, &norms.f_clamp_min(MIN_NORM)?)?;
        if !encoding.chooses_by_unit_rows && scale.f_ne(1.0)?.f_any()?.f_int64_value(&[])? != 0 {
            return Err(self.failed(format!(
                "W_dec has rows that are not of unit length, and rescale_acts_by_decoder_norm is not true: which features a \
                 {} SAE keeps would change if their lengths were folded into the encoder",
                self.name()
            )));
        }
        w_enc = w_enc.f_mul(&scale.f_unsqueeze(1)?)?;
        b_enc = b_enc.f_mul(&scale)?;
        let place = |tensor: Tensor| tensor.f_to_kind(kind)?.f_to_device(device);
        let mut tensors = vec![place(w_enc)?, place(b_enc)?, place(w_dec)?, place(b_dec)?];
        if has_skip {
            tensors.push(place(take("W_skip")?)?);
        }
        let own = architecture::of(&encoding.options).parameters();
        if !own.is_empty() && !encoding.has_threshold {
            let names: Vec<&str> = own.iter().map(|(name, _)| *name).collect();
            return Err(damaged(format!("it holds nothing of {}", names.join(", "))));
        }
        for (_, value) in own {
            tensors.push(place(Tensor::f_full([f], value, (Kind::Double, Device::Cpu))?)?);
        }
        let dictionary = Dictionary::from_tensors(&encoding.options, tensors)?;
        if encoding.has_threshold {
            let threshold = take("threshold")?;
            if threshold.size() != [f] {
                let size = threshold.size();
                return Err(damaged(format!("threshold has shape {size:?}, expected [{f}]")));
            }
            dictionary.import(&threshold.f_mul(&scale)?, &path)?;
        }
        let computed = dictionary.exported()?.architecture;
        if self.of_sae() != computed {
            return Err(self.failed(format!(
                "architecture is {}, and metadata.{OPTIONS} is of what SAELens names {computed:?}",
                self.json["architecture"]
            )));
        }
        dictionary.check_finite(&path)?;
        Ok(dictionary)
    }

    /// Refuses tensors that the architecture does not have.
    fn check_tensors(&self, files: &TensorFiles, has_threshold: bool) -> Result<(), SaeError> {
        let is_known = |name: &str| {
            TENSORS.contains(&name)
                || (name == "W_skip" && self.name().contains("skip"))
                || (name == "threshold" && has_threshold)
        };
        for other in files.names().filter(|name| !is_known(name)) {
            // Older versions always wrote this one; SAELens drops it where it changes nothing.
            if other == "scaling_factor"
                && files.read(other)?.f_eq(1.0)?.f_all()?.f_int64_value(&[])? == 1
            {
                continue;
            }
            return Err(SaeError::Format {
                path: self.path.with_file_name("sae_weights.safetensors"),
                message: format!(
                    "it has a tensor `{other}`, which a {} SAE does not have ({}); what it would change cannot be told",
                    self.name(),
                    TENSORS.join(", ")
                ),
            });
        }
        Ok(())
    }

    fn name(&self) -> &str {
        self.json["architecture"].as_str().unwrap_or("standard")
    }

    /// The architecture's name, of a transcoder that of the SAE which makes its code alike.
    fn of_sae(&self) -> &str {
        let name = self.name().trim_end_matches("transcoder").trim_end_matches("skip_");
        match name.trim_end_matches('_') {
            "" => "standard",
            name => name,
        }
    }

    /// How the code is made: as this software wrote it, or by SAELens's own keys.
    fn encoding(&self) -> Result<Encoding, SaeError> {
        let json = &self.json;
        let of_sae = self.of_sae();
        let own = &json["metadata"][OPTIONS];
        let options = if own.is_null() {
            None
        } else {
            let options = serde_json::from_value::<Architecture>(own.clone());
            Some(options.map_err(|error| self.failed(format!("metadata.{OPTIONS}: {error}")))?)
        };
        let unsupported = |why: &str| {
            let value = &json["architecture"];
            Err(self.failed(format!("architecture is {value}, which is not supported: {why}")))
        };
        match (of_sae, options) {
            ("standard", options) => Ok(Encoding {
                chooses_by_unit_rows: options.is_none(),
                options: options.unwrap_or_default(),
                has_threshold: false,
            }),
            ("topk", options) => {
                let chooses_by_unit_rows = json["rescale_acts_by_decoder_norm"] == true;
                let named = serde_json::json!({"topk": {"k": json["k"]}});
                let read: Architecture = serde_json::from_value(named).map_err(|error| {
                    self.failed(format!("architecture is \"topk\", but k: {error}"))
                })?;
                if options.is_some_and(|options| options != read) {
                    return Err(
                        self.failed(format!("k and metadata.{OPTIONS} contradict each other"))
                    );
                }
                Ok(Encoding { options: read, chooses_by_unit_rows, has_threshold: false })
            }
            ("jumprelu", Some(options)) => {
                // Folding the lengths of rows would make several thresholds of the one that a BatchTopK has.
                let chooses_by_unit_rows = matches!(options, Architecture::JumpRelu(_));
                Ok(Encoding { options, chooses_by_unit_rows, has_threshold: true })
            }
            ("jumprelu", None) => {
                // The options matter in training alone, and the file has none: those of its paper. Thresholds are folded as
                // the encoder's weights are.
                let paper = serde_json::json!({"jumprelu": {"initial_threshold": 0.001, "bandwidth": 0.001}});
                let options = serde_json::from_value(paper);
                let options = options.map_err(|error| self.failed(error.to_string()))?;
                Ok(Encoding { options, chooses_by_unit_rows: true, has_threshold: true })
            }
            _ => unsupported(
                "\"standard\", \"topk\" and \"jumprelu\" are, and what this software wrote",
            ),
        }
    }

    /// Refuses what SAELens acts on and this software's SAE does not compute. SAELens passes over keys that a standard SAE
    /// has no use for (those of its training, for one), and so does this, with a warning.
    fn check_keys(&self) -> Result<(), SaeError> {
        let json = &self.json;
        let is_off = |value: &Value| {
            matches!(value, Value::Null | Value::Bool(false)) || value == "none" || value == "None"
        };
        let unsupported = |key: &str, value: &Value, why: &str| {
            Err(self.failed(format!("{key} is {value}, which is not supported: {why}")))
        };
        let mut others = Vec::new();
        for (key, value) in json.as_object().into_iter().flatten() {
            match key.as_str() {
                // `encoding` and `load` look at these.
                "architecture"
                | "k"
                | "rescale_acts_by_decoder_norm"
                | "d_in"
                | "d_sae"
                | "d_out"
                | "dtype"
                | "apply_b_dec_to_input" => {}
                "activation_fn" | "activation_fn_str" if value.is_null() || value == "relu" => {}
                "activation_fn" | "activation_fn_str" => {
                    return unsupported(key, value, "\"relu\" alone is");
                }
                "normalize_activations"
                | "reshape_activations"
                | "hook_head_index"
                | "hook_head_index_out"
                | "hook_point_head_index"
                    if is_off(value) => {}
                // Heads side by side, as the site is here.
                "reshape_activations"
                    if value == "hook_z"
                        && self.hook_name().is_ok_and(|name| name.ends_with("attn.hook_z")) => {}
                "normalize_activations" => {
                    let why = "the input is scaled by what the weights do not hold; fold it into them with SAELens \
                               first (fold_activation_norm_scaling_factor)";
                    return unsupported(key, value, why);
                }
                "reshape_activations"
                | "hook_head_index"
                | "hook_head_index_out"
                | "hook_point_head_index" => {
                    return unsupported(
                        key,
                        value,
                        "an SAE here reads and writes whole activations",
                    );
                }
                known if KEYS_WITHOUT_EFFECT.contains(&known) => {}
                other => others.push(other),
            }
        }
        if !others.is_empty() {
            tracing::warn!(
                "{}: passed over, as SAELens does for a standard SAE: {}",
                self.path.display(),
                others.join(", ")
            );
        }
        for key in ["hook_head_index", "hook_head_index_out"] {
            let head = &json["metadata"][key];
            if !is_off(head) {
                return unsupported(&format!("metadata.{key}"), head, "an SAE reads all heads");
            }
        }
        Ok(())
    }

    /// SAELens's default is to subtract it.
    fn subtracts_decoder_bias(&self) -> Result<bool, SaeError> {
        match &self.json["apply_b_dec_to_input"] {
            Value::Null => Ok(true),
            Value::Bool(applies) => Ok(*applies),
            other => {
                Err(self.failed(format!("apply_b_dec_to_input is {other}, expected a boolean")))
            }
        }
    }

    fn check_size(&self, key: &str, found: i64) -> Result<(), SaeError> {
        match &self.json[key] {
            Value::Null => Ok(()),
            said if said.as_i64() == Some(found) => Ok(()),
            said => Err(self.failed(format!("{key} is {said}, but the weights have {found}"))),
        }
    }

    fn check_dtype(&self, name: &str, found: Kind) -> Result<(), SaeError> {
        let said = match &self.json["dtype"] {
            Value::Null => return Ok(()),
            said => said.as_str().unwrap_or_default().trim_start_matches("torch."),
        };
        let names: &[&str] = match found {
            Kind::Float => &["float32", "float"],
            Kind::Double => &["float64", "double"],
            Kind::Half => &["float16", "half"],
            Kind::BFloat16 => &["bfloat16"],
            _ => &[],
        };
        if names.contains(&said) {
            return Ok(());
        }
        let said = &self.json["dtype"];
        Err(self.failed(format!("dtype is {said}, but {name} is stored as {found:?}")))
    }
}
