//! A model card: what a repository of SAEs holds, how good they are and how they are opened, for people and for the hub.

use std::fmt::Write;

use sae_config::{RunConfig, Source};
use sae_record::Summary;
use sae_record::metric::name;

/// A run of a repository.
#[derive(Debug, Clone)]
pub struct CardRun {
    /// The folder that its SAEs lie in, there; empty for the repository itself.
    pub folder: String,
    /// What it was trained by.
    pub config: RunConfig,
    /// What came of it.
    pub summary: Summary,
}

/// The README of a repository. `picture` is the path of a figure in it.
pub fn card(
    repository: &str,
    runs: &[CardRun],
    picture: Option<&str>,
    license: Option<&str>,
) -> String {
    let Some(first) = runs.first() else { return String::new() };
    let mut text = String::from(
        "---\nlibrary_name: saelens\ntags:\n- sparse-autoencoder\n- interpretability\n",
    );
    if let Some(license) = license {
        let _ = writeln!(text, "license: {license}");
    }
    if let Source::Hub(model) = &first.config.model.path {
        let _ = writeln!(text, "base_model: {}", model.repository);
    }
    let model = match &first.config.model.path {
        Source::Hub(model) => format!("`{}`", model.repository),
        // The place on somebody's machine is nobody else's business.
        Source::Local(path) => path.file_name().map_or_else(
            || "a language model".to_owned(),
            |own| format!("`{}`", own.to_string_lossy()),
        ),
    };
    let versions = &first.summary.versions;
    let _ = write!(
        text,
        "---\n\n# Sparse autoencoders of {model}\n\n\
         {} of the activations of {model}, trained by [sae](https://arxiv.org/abs/2405.12241) {} (commit {}).\n\
         `local` is trained on the reconstruction of activations, `e2e` on the KL divergence of the model's output from the original \
         model's, `e2e+ds` on that and on reconstruction at later layers.\n\n",
        if runs.len() == 1 {
            "A sparse autoencoder".to_owned()
        } else {
            format!("{} runs of sparse autoencoders", runs.len())
        },
        versions.sae,
        versions.commit,
    );
    text.push_str(
        "| SAE | type | features | alive | L0 | CE increase | KL | explained variance |\n\
         | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |\n",
    );
    for run in runs {
        let CardRun { folder, summary, .. } = run;
        for (site, values) in &summary.evaluation.sites {
            let whole = &summary.evaluation.values;
            let count = |all: &std::collections::BTreeMap<_, u64>| {
                all.get(site).map_or_else(|| "–".to_owned(), u64::to_string)
            };
            let _ = writeln!(
                text,
                "| `{}` | {} | {} | {} | {:.1} | {:.4} | {:.4} | {:.3} |",
                id(folder, &site.to_string()),
                summary.variant,
                count(&summary.n_features),
                count(&summary.alive),
                values.get(name::L0),
                whole.get(name::CE_INCREASE),
                whole.get(name::KL),
                values.get(name::EXPLAINED_VARIANCE),
            );
        }
    }
    let evaluation = &first.summary.evaluation;
    let _ = write!(
        text,
        "\nL0: active features per token. CE increase: of the next-token cross-entropy with all SAEs of the run spliced in, nats per token; \
         KL likewise. Measured on {} tokens; alive are features that were active once on {} tokens of the training data. Trained on {} tokens. \
         `summary.json` has all metrics, `config.toml` all that decides a run.\n",
        evaluation.tokens, first.summary.alive_tokens, first.summary.training_tokens,
    );
    if let Some(picture) = picture {
        let _ = write!(text, "\n![CE increase against L0 and alive features]({picture})\n");
    }
    let site = first.summary.evaluation.sites.keys().next().map(ToString::to_string);
    let one = id(&first.folder, &site.unwrap_or_default());
    let _ = write!(
        text,
        "\n## Use\n\nIn SAELens's format:\n\n```python\nfrom sae_lens import SAE\n\n\
         sae = SAE.from_pretrained(release=\"{repository}\", sae_id=\"{one}\")\n```\n\n\
         In a configuration of `sae`:\n\n```toml\n[sae]\npretrained = [\"hf://{repository}/{one}\"]\n```\n\n\
         ## Source\n\nBraun, Taylor, Goldowsky-Dill and Sharkey, *Identifying Functionally Important Features with End-to-End Sparse \
         Dictionary Learning*, [arXiv 2405.12241](https://arxiv.org/abs/2405.12241).\n",
    );
    text
}

/// The folder of an SAE in the repository.
pub fn id(folder: &str, site: &str) -> String {
    if folder.is_empty() { site.to_owned() } else { format!("{folder}/{site}") }
}
