//! What is done otherwise than in the reference is named, where it applies and nowhere else.

use super::import;

/// Edits that leave nothing to warn of: the run is the same there and here.
const SAME: &[(&str, &str)] = &[
    ("wandb_project: gpt2-e2e", "wandb_project: null"),
    ("eval_every_n_samples: 40_000", "eval_every_n_samples: 0"),
    ("eval_n_samples: 500", "eval_n_samples: null"),
    ("collect_act_frequency_every_n_samples: 40_000\n", ""),
    ("split: train\n  n_ctx: 1024\nsaes", "split: validation\n  n_ctx: 1024\nsaes"),
];
const WANDB: (&str, &str) = ("wandb_project: null", "wandb_project: x");

#[test]
fn what_differs_is_named_where_it_applies() {
    assert_eq!(import(SAME).unwrap().warnings, [""; 0]);
    let samples = |n: &'static str| ("n_samples: 400_000", n);
    let every = |n: &'static str| ("eval_every_n_samples: 0", n);
    let cases: &[(&[(&str, &str)], &str)] = &[
        // 30 batches, 15 steps of two; with 29 whole ones, 14.
        (
            &[samples("n_samples: 236"), ("warmup_samples: 20_000", "warmup_samples: 0")],
            "n_samples: 236 samples at batch_size 8 are 15 steps there and 14 here, where a last, incomplete batch does not \
             count; 240 samples are 15 steps here too",
        ),
        // 29 batches or 28 whole ones are 14 steps.
        (&[samples("n_samples: 228"), ("warmup_samples: 20_000", "warmup_samples: 0")], ""),
        (
            &[samples("n_samples: null"), ("lr_schedule: cosine", "lr_schedule: linear")],
            "n_samples: null: the reference trains on the last, incomplete batch of the data too, which is left out here",
        ),
        (
            &[("streaming: true", "streaming: false")],
            "train_data.streaming: false: the reference shuffles the data as a whole; here it passes through a shuffle \
             buffer of 16384 windows",
        ),
        // Where the reference never evaluates, it does not do so on other windows either.
        (&[("eval_n_samples: null", "eval_n_samples: 20")], ""),
        (
            &[every("eval_every_n_samples: null")],
            "eval_every_n_samples: null: the reference never evaluates; this software does so once, at the end",
        ),
        (
            &[every("eval_every_n_samples: 80")],
            "wandb_project: null: the reference never evaluates; this software does so after 80, 160, … samples and at \
             the end",
        ),
        (
            &[("is_tokenized: true", "is_tokenized: false")],
            "text is tokenised document by document; the reference joins the documents and tokenises them in 20 chunks, \
             so that most windows begin elsewhere",
        ),
        (
            &[("    - blocks.6.hook_resid_pre\n  dict", "    - blocks.6\n  dict")],
            "saes.sae_positions: `blocks.6` stands for every hook that contains it there (blocks.6.attn.hook_q, …), here \
             for those that an SAE can be put at: blocks.6.hook_resid_pre, blocks.6.hook_mlp_out, blocks.6.hook_resid_post",
        ),
        // Every hook that these contain is a site.
        (&[("    - blocks.6.hook_resid_pre\n  dict", "    - blocks.6.hook_resid\n  dict")], ""),
        (
            &[("hook_positions:\n      - blocks.7", "hook_positions:\n      - blocks.5")],
            "1 of 2 positions of loss.in_to_orig lie at or before the first SAE, where nothing differs: left out, with \
             their share of the coefficient",
        ),
    ];
    for (edits, expected) in cases {
        let warnings = import(&[SAME, edits].concat()).unwrap().warnings;
        let expected: Vec<&str> = [*expected].into_iter().filter(|text| !text.is_empty()).collect();
        assert_eq!(warnings, expected, "{edits:?}");
    }
}

#[test]
fn the_windows_and_times_of_evaluations_are_told() {
    let base = [
        SAME,
        &[
            WANDB,
            ("warmup_samples: 20_000", "warmup_samples: 0"),
            ("eval_n_samples: null", "eval_n_samples: 20"),
        ],
    ]
    .concat();
    let cases: &[(&[(&str, &str)], &str)] = &[
        // Batches of 8, steps of 16.
        (
            &[("eval_every_n_samples: 0", "eval_every_n_samples: 80")],
            "after 8, 88, 168, … samples and at the end, this software after 80, 160, … samples and at the end",
        ),
        (
            &[("eval_every_n_samples: 0", "eval_every_n_samples: 20")],
            "after 8, 32, 56, … samples and at the end, this software after 32, 48, … samples and at the end",
        ),
        (
            &[("eval_every_n_samples: 0", "eval_every_n_samples: 3")],
            "after 8, 16, 24, … samples and at the end, this software after 16, 32, … samples and at the end",
        ),
        // A run that ends before: 20 steps.
        (
            &[
                ("eval_every_n_samples: 0", "eval_every_n_samples: 320"),
                ("n_samples: 400_000", "n_samples: 320"),
            ],
            "after 8 samples and at the end, this software once, at the end",
        ),
        // A stream has no last batch that the reference knows of.
        (
            &[
                ("eval_every_n_samples: 0", "eval_every_n_samples: 80"),
                ("n_samples: 400_000", "n_samples: null"),
                ("lr_schedule: cosine", "lr_schedule: linear"),
            ],
            "after 8, 88, 168, … samples, this software after 80, 160, … samples and at the end",
        ),
    ];
    for (edits, expected) in cases {
        let warnings = import(&[&base, *edits].concat()).unwrap().warnings;
        let expected = format!("eval_every_n_samples: the reference evaluates {expected}");
        assert_eq!(warnings.last(), Some(&expected), "{edits:?}");
        let windows = "the evaluation is on the first 20 windows in the order of the files; the reference takes 24 \
                       windows of the shuffled data";
        assert_eq!(warnings[warnings.len() - 2], windows);
    }
}
