//! The configuration of a run that takes a second.

use crate::support::model;

/// A small run that trains on `train` and is evaluated on `validation`: its term beside the sparsity, its seed, and more of `[data]`.
pub fn small_run(term: &str, seed: u64, data: &str) -> String {
    format!(
        r#"
        model = {{ path = {:?} }}
        data = {{ train = "train", {data}context_length = 16 }}
        sae = {{ sites = ["blocks.1.hook_resid_pre"], expansion = 2, seed = {seed} }}
        loss = {{ sparsity = {{ coeff = 0.5 }}, {term} = {{ coeff = 1.0 }} }}
        train = {{ n_samples = 80, batch_size = 8, lr = 1e-3 }}
        eval = {{ data = "validation", n_samples = 16, alive_tokens = 500 }}
        "#,
        model()
    )
}

/// What makes `[data]` of [`small_run`] that of windows of token ids.
pub const OF_WINDOWS: &str = "column = \"input_ids\", ";
