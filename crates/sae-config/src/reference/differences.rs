//! What a run does otherwise here than in the reference, a sentence each, and only where it applies to the run.

use std::collections::BTreeSet;

use super::import::WHOLE_BUFFER;
use super::schema::{Config, Count, Dataset};
use crate::{RunConfig, Site};

/// Of a configuration and the run that it became.
pub(super) fn of_run(config: &Config, run: &RunConfig) -> Vec<String> {
    [
        without_meaning(config),
        downstream(config, run),
        positions(config, run),
        steps(config, run),
        last_batch(config),
        shuffling(config),
        text(config).then(tokenisation),
        held_out(config, run),
        evaluation_windows(config, run),
        evaluation_times(config, run),
        tokenizer(config),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// One sentence for all fields of a configuration that are set and mean nothing here.
pub(super) fn left_out(set: &[(&str, bool)], why: &str) -> Option<String> {
    let names: Vec<&str> = set.iter().filter(|(_, set)| *set).map(|(name, _)| *name).collect();
    let names = names.join(", ");
    (!names.is_empty()).then(|| format!("without a meaning here, left out: {names} ({why})"))
}

/// `tokenize_and_concatenate` of TransformerLens cuts in the middle of words, then in windows: of 1 663 windows of a data
/// set, 85 were equal.
pub(super) fn tokenisation() -> String {
    "text is tokenised document by document; the reference joins the documents and tokenises them in 20 chunks, so that \
     most windows begin elsewhere"
        .to_owned()
}

fn without_meaning(config: &Config) -> Option<String> {
    let sparsifier = config.saes.type_of_sparsifier.as_deref();
    let prefix = config.wandb_run_name_prefix.as_deref();
    let set = [
        ("wandb_project", config.wandb_project.is_some()),
        ("wandb_run_name", config.wandb_run_name.is_some()),
        ("wandb_run_name_prefix", prefix.is_some_and(|prefix| !prefix.is_empty())),
        ("save_dir", config.save_dir.is_some()),
        (
            "collect_act_frequency_every_n_samples",
            config.collect_act_frequency_every_n_samples.is_some(),
        ),
        (
            "collect_output_metrics_every_n_samples",
            config.collect_output_metrics_every_n_samples.is_some(),
        ),
        ("adam_beta1", config.adam_beta1.is_some()),
        (
            "collect_discrete_metrics_every_n_samples",
            config.collect_discrete_metrics_every_n_samples.is_some(),
        ),
        ("discrete_metrics_n_tokens", config.discrete_metrics_n_tokens.is_some()),
        ("eval_data.seed", config.eval_data.as_ref().is_some_and(|eval| eval.seed.is_some())),
        // The reference does not look at these two either: its SAEs are plain ones.
        ("saes.type_of_sparsifier", sparsifier.is_some_and(|kind| kind != "sae")),
        ("saes.k", config.saes.k.is_some()),
    ];
    left_out(
        &set,
        "metrics and checkpoints are written to the run's folder, --out; activation frequencies are counted once, at the \
         end",
    )
}

fn downstream(config: &Config, run: &RunConfig) -> Option<String> {
    let given = &config.loss.in_to_orig.as_ref()?.hook_positions.0;
    let given: BTreeSet<Site> = given.iter().filter_map(|name| name.parse().ok()).collect();
    let kept = run.loss.downstream.as_ref().map_or(0, |term| term.sites.len());
    (kept < given.len()).then(|| {
        format!(
            "{} of {} positions of loss.in_to_orig lie at or before the first SAE, where nothing differs: left out, with \
             their share of the coefficient",
            given.len() - kept,
            given.len()
        )
    })
}

/// Hooks of a block in TransformerLens that are no sites.
const OTHER_HOOKS: [&str; 18] = [
    "attn.hook_q",
    "attn.hook_k",
    "attn.hook_v",
    "attn.hook_z",
    "attn.hook_attn_scores",
    "attn.hook_pattern",
    "attn.hook_result",
    "mlp.hook_pre",
    "mlp.hook_post",
    "ln1.hook_scale",
    "ln1.hook_normalized",
    "ln2.hook_scale",
    "ln2.hook_normalized",
    "hook_attn_in",
    "hook_q_input",
    "hook_k_input",
    "hook_v_input",
    "hook_mlp_in",
];

/// Sites that a sentence names; the configuration has all.
const SHOWN: usize = 6;

/// An entry stands for all hooks that contain it there, for all sites that contain it here.
fn positions(config: &Config, run: &RunConfig) -> Option<String> {
    let sites = &run.sae.sites;
    let blocks: BTreeSet<usize> = sites.iter().map(|site| site.block).collect();
    let hooks: Vec<String> = blocks
        .iter()
        .flat_map(|block| OTHER_HOOKS.map(|hook| format!("blocks.{block}.{hook}")))
        .collect();
    let more = |entry: &String| hooks.iter().find(|hook| hook.contains(entry.as_str()));
    let entries = &config.saes.sae_positions.0;
    let (entry, hook) = entries.iter().find_map(|entry| Some((entry, more(entry)?)))?;
    let sites: Vec<String> =
        sites.iter().map(Site::to_string).filter(|site| site.contains(entry.as_str())).collect();
    let shown = sites.get(..SHOWN).unwrap_or(&sites).join(", ");
    let rest =
        if sites.len() > SHOWN { format!(", … ({} in all)", sites.len()) } else { String::new() };
    Some(format!(
        "saes.sae_positions: `{entry}` stands for every hook that contains it there ({hook}, …), here for those that an SAE \
         can be put at: {shown}{rest}"
    ))
}

/// The reference takes a last batch whole where this software takes no more samples than asked for. To round up here
/// would not make it the same: the end of the reference's cosine is rounded down, and the data may have no more windows.
fn steps(config: &Config, run: &RunConfig) -> Option<String> {
    let Count(n) = config.n_samples?;
    let batch = run.train.batch_size.get() as u64;
    let batches = n.div_ceil(batch);
    let (there, here) = (batches / run.accumulation(), run.n_steps());
    (there != here).then(|| {
        format!(
            "n_samples: {n} samples at batch_size {batch} are {there} steps there and {here} here, where a last, incomplete \
             batch does not count; {} samples are {there} steps here too",
            batches * batch
        )
    })
}

fn last_batch(config: &Config) -> Option<String> {
    config.n_samples.is_none().then(|| {
        "n_samples: null: the reference trains on the last, incomplete batch of the data too, which is left out here"
            .to_owned()
    })
}

fn shuffling(config: &Config) -> Option<String> {
    (!config.train_data.streaming).then(|| {
        format!(
            "train_data.streaming: false: the reference shuffles the data as a whole; here it passes through a shuffle \
             buffer of {WHOLE_BUFFER} windows"
        )
    })
}

fn text(config: &Config) -> bool {
    let is_text = |data: &Dataset| !data.is_tokenized;
    is_text(&config.train_data) || config.eval_data.as_ref().is_some_and(is_text)
}

fn held_out(config: &Config, run: &RunConfig) -> Option<String> {
    let skip = run.data.skip;
    (skip > 0).then(|| match config.eval_data {
        None => format!(
            "eval_data: null: the first {skip} windows of the training data are held out for the evaluation"
        ),
        Some(_) => format!(
            "evaluation and training are on the same data, which the reference does not keep apart: the first {skip} \
             windows are held out for the evaluation"
        ),
    })
}

/// The key for whose sake the reference never evaluates: it does so for Weights & Biases alone.
fn never_evaluates(config: &Config) -> Option<&'static str> {
    match (config.eval_every_n_samples, &config.wandb_project) {
        (None, _) => Some("eval_every_n_samples"),
        (Some(_), None) => Some("wandb_project"),
        (Some(_), Some(_)) => None,
    }
}

/// Without a number of samples, the evaluation is on all of its data, in whatever order.
fn evaluation_windows(config: &Config, run: &RunConfig) -> Option<String> {
    let (Count(n), Some(_), None) =
        (config.eval_n_samples?, &config.eval_data, never_evaluates(config))
    else {
        return None;
    };
    let there = n.next_multiple_of(run.train.batch_size.get() as u64);
    Some(format!(
        "the evaluation is on the first {n} windows in the order of the files; the reference takes {there} windows of the \
         shuffled data"
    ))
}

/// The reference evaluates after its first batch and then so many samples after the last time, this software after every
/// multiple; 0 leaves the end alone in both.
fn evaluation_times(config: &Config, run: &RunConfig) -> Option<String> {
    if config.eval_every_n_samples == Some(Count(0)) {
        return None;
    }
    let every = config.eval_every_n_samples.map_or(0, |Count(n)| n);
    let (batch, effective) = (run.train.batch_size.get() as u64, run.effective_batch_size());
    let end = run.train.n_samples.map_or(u64::MAX, |_| run.n_steps() * effective);
    // The first multiple of a batch at or after each multiple of `every`.
    let interval = every.next_multiple_of(effective);
    let second = (2 * every).next_multiple_of(effective).max(interval + effective);
    let here = match listed(&[interval, second], end) {
        Some(times) if every > 0 => format!("after {times} samples and at the end"),
        _ => "once, at the end".to_owned(),
    };
    if let Some(key) = never_evaluates(config) {
        return Some(format!(
            "{key}: null: the reference never evaluates; this software does so {here}"
        ));
    }
    // From the first batch on, so many samples later each time.
    let interval = every.next_multiple_of(batch);
    let end = config.n_samples.map_or(u64::MAX, |Count(n)| n.next_multiple_of(batch));
    let there = listed(&[batch, batch + interval, batch + 2 * interval], end)?;
    // How long a stream is, the reference does not know before it ends.
    let knows_end = config.n_samples.is_some() || !config.train_data.streaming;
    let last = if knows_end { " and at the end" } else { "" };
    Some(format!(
        "eval_every_n_samples: the reference evaluates after {there} samples{last}, this software {here}"
    ))
}

/// The times that lie before the end of a run, as text.
fn listed(times: &[u64], end: u64) -> Option<String> {
    let shown: Vec<String> =
        times.iter().take_while(|time| **time < end).map(ToString::to_string).collect();
    let more = if shown.len() == times.len() { ", …" } else { "" };
    (!shown.is_empty()).then(|| shown.join(", ") + more)
}

fn tokenizer(config: &Config) -> Option<String> {
    let differs = |eval: &Dataset| eval.tokenizer_name != config.train_data.tokenizer_name;
    config.eval_data.as_ref().is_some_and(differs).then(|| {
        "eval_data.tokenizer_name is without a meaning here: both kinds of data have train_data's tokeniser".to_owned()
    })
}
