//! The spliced model against PyTorch's values, a full pass with hooks, and itself: passes, losses, gradients.

#![allow(clippy::unwrap_used, clippy::expect_used)] // In a test, a panic is the report.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use sae_config::loss::LossConfig;
use sae_config::run::Processing;
use sae_config::{Architecture, Site};
use sae_model::{ModelError, Transformer, load};
use sae_nn::{Dictionary, Penalty, Sizes};
use sae_splice::{Change, DictionaryPlan, FeatureEdit, Member, PlacedDictionary, SplicedModel};
use tch::{Device, Kind, Tensor, no_grad};

fn fixture() -> HashMap<String, Tensor> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/spliced.safetensors");
    Tensor::read_safetensors(path).unwrap().into_iter().collect()
}

fn language_model() -> Transformer {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sae-model/tests/fixtures/gpt2");
    load::load(&folder, Processing::None, Device::Cpu, Kind::Double).unwrap()
}

fn site(name: &str) -> Site {
    name.parse().unwrap()
}

fn loss(json: &str) -> LossConfig {
    serde_json::from_str(json).unwrap()
}

const PARAMETERS: [&str; 4] = ["w_enc", "b_enc", "w_dec", "b_dec"];

fn sae(fixture: &HashMap<String, Tensor>, prefix: &str) -> Dictionary {
    relu(PARAMETERS.map(|name| fixture[&format!("{prefix}{name}")].copy()))
}

/// The paper's autoencoder with these parameters.
fn relu(tensors: [Tensor; 4]) -> Dictionary {
    Dictionary::from_tensors(&Architecture::default(), tensors.into()).unwrap()
}

/// The fixture's loss: downstream at the two sites that its script names.
const TOTAL: &str = r#"{
    "sparsity": {"coeff": 0.3}, "kl": {"coeff": 0.5}, "local": {"coeff": 0.2}, "output": {"coeff": 0.1},
    "downstream": {"total_coeff": 2.5, "sites": ["blocks.2.hook_resid_pre", "blocks.2.hook_resid_post"]}
}"#;

const FIRST: &str = "blocks.1.hook_resid_pre";
const SECOND: &str = "blocks.2.hook_resid_pre";

#[track_caller]
fn close(a: &Tensor, b: &Tensor, bound: f64) {
    let difference = (a.detach() - b.detach()).abs().max().double_value(&[]);
    assert!(difference <= bound, "differs by {difference}");
}

#[track_caller]
fn near(a: f64, b: f64, bound: f64) {
    assert!((a - b).abs() <= bound, "{a} {b}");
}

#[test]
fn passes_agree_with_pytorch() {
    let fixture = fixture();
    let model = SplicedModel::new(language_model());
    let member = Member::new(
        &model,
        vec![PlacedDictionary::sae(site(FIRST), sae(&fixture, ""))],
        &loss(TOTAL),
    )
    .unwrap();
    let downstream = [site(SECOND), site("blocks.2.hook_resid_post")];
    let sites: BTreeSet<Site> = downstream.into_iter().chain([site(FIRST)]).collect();
    let clean = model.clean_pass(&fixture["tokens"], &sites, true).unwrap();
    let pass = model.spliced_pass(&member, &clean, &downstream, None).unwrap();
    for (at, spliced) in &pass.recorded {
        close(clean.activation(*at).unwrap(), &fixture[&format!("clean.{at}")], 1e-10);
        close(spliced, &fixture[&format!("spliced.{at}")], 1e-10);
    }
    assert_eq!(pass.recorded.len(), 2);
    close(
        &pass.dictionaries[0].output.features,
        &fixture["c"].view_as(&pass.dictionaries[0].output.features),
        1e-10,
    );
    for (hidden, name) in [(clean.hidden, "clean"), (pass.hidden, "spliced")] {
        let logits = model.model().logits(&hidden.unwrap()).unwrap();
        let expected = &fixture[&format!("logits_{name}")];
        close(&logits.view_as(expected), expected, 1e-9);
    }
}

/// Starting at the SAE's block is a full pass from the tokens with the SAE as a hook.
#[test]
fn the_spliced_pass_is_a_full_pass_with_a_hook() {
    let model = SplicedModel::new(language_model());
    for name in [
        "blocks.1.hook_resid_pre",
        "blocks.1.hook_resid_mid",
        "blocks.2.hook_mlp_out",
        "blocks.0.hook_attn_out",
    ] {
        let kl = loss(r#"{"sparsity": {"coeff": 1.0}, "kl": {"coeff": 1.0}}"#);
        let member = Member::random(&model, &[site(name)], 48, &kl, 5).unwrap();
        let tokens = &fixture()["tokens"];
        let start = Site::resid_pre(site(name).block);
        let clean = model.clean_pass(tokens, &BTreeSet::from([start]), false).unwrap();
        let spliced = model.spliced_pass(&member, &clean, &[], None).unwrap().hidden.unwrap();
        let lm = model.model();
        let mut splice = |_: Site, x: Tensor| {
            let dictionary = &member.dictionaries()[0].dictionary;
            Ok::<_, ModelError>(dictionary.forward(&x).unwrap().reconstruction)
        };
        let embedded = lm.embed(tokens).unwrap();
        let full = lm.run_to_end(0..3, embedded, &[site(name)].into(), &mut splice).unwrap();
        let full = lm.final_norm(&full).unwrap();
        close(&spliced, &full.view_as(&spliced), 0.0);
    }
}

#[test]
fn losses_and_gradients_agree_with_pytorch() {
    let fixture = fixture();
    let model = SplicedModel::new(language_model());
    let member = Member::new(
        &model,
        vec![PlacedDictionary::sae(site(FIRST), sae(&fixture, ""))],
        &loss(TOTAL),
    )
    .unwrap();
    let outcome = model.gradients(&[&member], &fixture["tokens"], 1.0, 0).unwrap().remove(0);
    for (name, value) in outcome.terms.values().unwrap() {
        if let Some(expected) = fixture.get(&format!("loss_{name}")) {
            near(value, expected.double_value(&[]), 1e-10);
        }
    }
    for (name, gradient) in PARAMETERS.iter().zip(&outcome.gradients) {
        close(gradient, &fixture[&format!("grad_{name}")], 1e-9);
    }
    near(outcome.terms.l0.double_value(&[]), fixture["metric_l0"].double_value(&[]), 1e-12);
}

/// A later SAE sees the spliced activation, and `local` does not detach what it sees.
#[test]
fn two_sites_agree_with_pytorch() {
    let fixture = fixture();
    let model = SplicedModel::new(language_model());
    let saes = vec![
        PlacedDictionary::sae(site(FIRST), sae(&fixture, "")),
        PlacedDictionary::sae(site(SECOND), sae(&fixture, "two_")),
    ];
    let member = Member::new(&model, saes, &loss(TOTAL)).unwrap();
    let outcome = model.gradients(&[&member], &fixture["tokens"], 1.0, 0).unwrap().remove(0);
    for (name, value) in outcome.terms.values().unwrap() {
        if let Some(expected) = fixture.get(&format!("two_loss_{name}")) {
            near(value, expected.double_value(&[]), 1e-10);
        }
    }
    let names = ["first", "second"]
        .into_iter()
        .flat_map(|which| PARAMETERS.map(|name| format!("two_grad_{which}_{name}")));
    for (name, gradient) in names.zip(&outcome.gradients) {
        close(gradient, &fixture[&name], 1e-9);
    }
}

/// A member of an architecture that reads and writes these sites.
fn placed(model: &SplicedModel, places: &[(&str, &str)], options: &str, json: &str) -> Member {
    let plans: Vec<DictionaryPlan> = places
        .iter()
        .map(|(reads, writes)| DictionaryPlan {
            reads: site(reads),
            writes: site(writes),
            architecture: serde_json::from_str(options).unwrap(),
            n_features: 48,
            skip: reads != writes,
        })
        .collect();
    Member::initialised(model, &plans, &loss(json), 7, Vec::new()).unwrap()
}

/// Everything that reads and writes: SAEs, transcoders, one within the other, prefixes each with a pass of its own.
const PLACED: [(&[(&str, &str)], &str); 7] = [
    (&[(FIRST, FIRST)], r#"{"relu": {}}"#),
    (&[("blocks.1.mlp.hook_in", "blocks.1.hook_mlp_out")], r#"{"relu": {}}"#),
    (&[("blocks.1.mlp.hook_in", "blocks.1.hook_mlp_out")], r#"{"topk": {"k": 9}}"#),
    (
        &[
            ("blocks.0.ln2.hook_normalized", "blocks.0.hook_mlp_out"),
            ("blocks.1.attn.hook_z", "blocks.1.attn.hook_z"),
            ("blocks.1.mlp.hook_post", "blocks.1.mlp.hook_post"),
            ("blocks.1.mlp.hook_in", "blocks.1.hook_mlp_out"),
            (SECOND, SECOND),
        ],
        r#"{"relu": {}}"#,
    ),
    (
        &[(FIRST, FIRST), ("blocks.1.mlp.hook_in", "blocks.1.hook_mlp_out")],
        r#"{"matryoshka": {"k": 11, "prefixes": [0.25, 0.5], "spliced": "all"}}"#,
    ),
    (&[(FIRST, FIRST)], r#"{"matryoshka": {"k": 11, "prefixes": [0.25, 0.5]}}"#),
    (
        &[(FIRST, FIRST), ("blocks.1.mlp.hook_in", "blocks.1.hook_mlp_out"), (SECOND, SECOND)],
        r#"{"jumprelu": {"initial_threshold": 0.1, "bandwidth": 0.3}}"#,
    ),
];

/// Central differences of the full loss, in f64; with activation checkpointing the same.
#[test]
fn gradients_agree_with_finite_differences() {
    let tokens = &fixture()["tokens"];
    let model = SplicedModel::new(language_model());
    let again = SplicedModel::new(language_model()).with_activation_checkpointing(true);
    for (places, options) in PLACED {
        // Downstream of the last of them.
        let json = TOTAL.replace("\"blocks.2.hook_resid_pre\", ", "");
        let member = placed(&model, places, options, &json);
        let total = |member: &Member| {
            let outcome = model.gradients(&[member], tokens, 1.0, 3).unwrap().remove(0);
            outcome.terms.total.double_value(&[])
        };
        let outcome = model.gradients(&[&member], tokens, 1.0, 3).unwrap().remove(0);
        let checkpointed = again.gradients(&[&member], tokens, 1.0, 3).unwrap().remove(0);
        for (kept, computed) in outcome.gradients.iter().zip(&checkpointed.gradients) {
            close(kept, computed, 1e-13);
        }
        let step = 1e-6;
        let named = member.named_parameters();
        for (index, gradient) in outcome.gradients.iter().enumerate() {
            // The gradient of a threshold is estimated.
            if named[index].0.ends_with("log_threshold") {
                continue;
            }
            let flat = gradient.reshape([-1]);
            let largest = flat.abs().argmax(0, false).int64_value(&[]);
            for element in [largest, flat.size()[0] / 2] {
                let shifted = |by: f64| {
                    let _ = no_grad(|| {
                        member.parameters()[index].view([-1]).get(element).g_add_scalar_(by)
                    });
                    total(&member)
                };
                let (up, down) = (shifted(step), shifted(-2.0 * step));
                shifted(step);
                let (difference, exact) =
                    ((up - down) / (2.0 * step), flat.double_value(&[element]));
                let bound = 1e-6 * exact.abs().max(0.1);
                assert!(
                    (difference - exact).abs() < bound,
                    "{places:?} {options} {index} {element}: {difference} {exact}"
                );
            }
        }
    }
}

/// Behind a prefix of another dictionary, activations are not those of an evaluation, and no threshold is learned from them.
#[test]
fn a_dictionary_behind_a_prefix_observes_nothing() {
    let tokens = &fixture()["tokens"];
    let places = [(FIRST, FIRST), (SECOND, SECOND)];
    let drawn = r#"{"matryoshka": {"k": 11, "prefixes": [0.25, 0.5]}}"#;
    let kl = r#"{"sparsity": {"coeff": 0.0}, "kl": {"coeff": 1.0}}"#;
    let observing = |model: &SplicedModel, options: &str, micro_batch: u64| -> Vec<usize> {
        let member = placed(model, &places, options, kl);
        let outcome = model.gradients(&[&member], tokens, 1.0, micro_batch).unwrap().remove(0);
        outcome.observed.iter().map(|(index, _)| *index).collect()
    };
    let model = SplicedModel::new(language_model());
    let checkpointing = SplicedModel::new(language_model()).with_activation_checkpointing(true);
    let drawn_ones: Vec<Vec<usize>> = (0..12).map(|n| observing(&model, drawn, n)).collect();
    let again: Vec<Vec<usize>> = (0..12).map(|n| observing(&checkpointing, drawn, n)).collect();
    assert_eq!(drawn_ones, again);
    // Of three prefixes the last is the whole.
    assert!(drawn_ones.contains(&vec![0]) && drawn_ones.contains(&vec![0, 1]), "{drawn_ones:?}");
    assert_eq!(observing(&model, r#"{"batch_topk": {"k": 11}}"#, 0), [0, 1]);
}

/// Nothing depends on a frozen dictionary behind what is trained, and its gate has no gradient.
#[test]
fn a_frozen_jumprelu_behind_all_terms_is_passed_over() {
    let tokens = &fixture()["tokens"];
    let model = SplicedModel::new(language_model());
    let jumprelu = r#"{"jumprelu": {"initial_threshold": 0.1, "bandwidth": 0.3}}"#;
    let json = r#"{"sparsity": {"coeff": 1.0, "p": 0.0}, "downstream": {"total_coeff": 1.0, "sites": ["blocks.1.hook_resid_mid"]}}"#;
    let alone = placed(&model, &[(FIRST, FIRST)], jumprelu, json);
    let architecture = &alone.dictionaries()[0].dictionary.options().clone();
    let plan = |name: &str| DictionaryPlan {
        architecture: architecture.clone(),
        ..DictionaryPlan::sae(site(name), 48)
    };
    let d = model.model().config().d_model;
    let frozen = || {
        let (cpu, kind) = (Device::Cpu, Kind::Double);
        let own = Dictionary::random(architecture, Sizes::sae(d, 48), 7, 1, cpu, kind).unwrap();
        own.freeze();
        own
    };
    let beside = vec![PlacedDictionary::sae(site(SECOND), frozen())];
    let plans = [plan(FIRST), plan(SECOND)];
    let member = Member::initialised(&model, &plans, &loss(json), 7, beside).unwrap();
    let gradients =
        |member: &Member| model.gradients(&[member], tokens, 1.0, 0).unwrap().remove(0).gradients;
    let (found, expected) = (gradients(&member), gradients(&alone));
    assert_eq!((found.len(), expected.len()), (5, 5));
    for (found, expected) in found.iter().zip(&expected) {
        close(found, expected, 0.0);
    }
    let frozen = frozen();
    let tape = frozen.pass(&Tensor::ones([3, d as i64], (Kind::Double, Device::Cpu))).unwrap();
    let penalty = Penalty { p: 0.0, weight: 1.0 };
    let found = tape.backward(&frozen, &[None], penalty, true);
    let found = found.unwrap().input.unwrap();
    close(&found, &found.zeros_like(), 0.0);
}

/// A transcoder alone: what it reconstructs is what the MLP makes of what it reads, and nothing of the model is run twice.
#[test]
fn a_transcoder_trains_locally_on_what_the_model_computes() {
    let tokens = &fixture()["tokens"];
    let model = SplicedModel::new(language_model());
    let local = r#"{"sparsity": {"coeff": 0.0}, "local": {"coeff": 1.0}}"#;
    let place = ("blocks.1.mlp.hook_in", "blocks.1.hook_mlp_out");
    let member = placed(&model, &[place], r#"{"relu": {}}"#, local);
    let outcome = model.gradients(&[&member], tokens, 1.0, 0).unwrap().remove(0);
    let sites = BTreeSet::from([site(place.0), site(place.1)]);
    let clean = model.clean_pass(tokens, &sites, false).unwrap();
    let read = clean.activation(site(place.0)).unwrap();
    let made = member.dictionaries()[0].dictionary.forward(read).unwrap().reconstruction;
    let expected = (made - clean.activation(site(place.1)).unwrap()).square().mean(Kind::Double);
    close(&outcome.terms.total, &expected, 1e-12);
    let error = Member::initialised(
        &model,
        &[DictionaryPlan { reads: site(place.1), ..DictionaryPlan::sae(site(place.0), 8) }],
        &loss(local),
        0,
        Vec::new(),
    );
    let error = error.unwrap_err().to_string();
    assert!(error.contains("cannot read blocks.1.hook_mlp_out"), "{error}");
}

/// Blocks computed a second time on the way back give the gradients of blocks that are kept, with SAEs at one site, at
/// two, and where one does not begin its block; and nothing else changes.
#[test]
fn activation_checkpointing_changes_nothing() {
    let sites_and_losses = [
        (vec![FIRST], TOTAL),
        (vec![FIRST, SECOND], TOTAL),
        (vec!["blocks.0.hook_mlp_out", "blocks.1.hook_resid_mid", "blocks.2.hook_attn_out"], TOTAL),
        (vec![FIRST], r#"{"sparsity": {"coeff": 0.3}, "downstream": {"total_coeff": 2.5}}"#),
        (vec![FIRST, SECOND], r#"{"sparsity": {"coeff": 0.3}, "local": {"coeff": 2.5}}"#),
    ];
    let tokens = &fixture()["tokens"];
    for (sites, json) in sites_and_losses {
        let sites: Vec<Site> = sites.into_iter().map(site).collect();
        let outcome = |recompute: bool| {
            let model =
                SplicedModel::new(language_model()).with_activation_checkpointing(recompute);
            let member = Member::random(&model, &sites, 48, &loss(json), 7).unwrap();
            model.gradients(&[&member], tokens, 0.5, 0).unwrap().remove(0)
        };
        let (kept, again) = (outcome(false), outcome(true));
        assert_eq!(kept.gradients.len(), 4 * sites.len());
        for (a, b) in kept.gradients.iter().zip(&again.gradients) {
            close(a, b, 1e-13);
        }
        let (kept, again) = (kept.terms.values().unwrap(), again.terms.values().unwrap());
        assert_eq!(kept.len(), again.len());
        for ((name, a), (_, b)) in kept.into_iter().zip(again) {
            assert!((a - b).abs() < 1e-12, "{name}: {a} {b}");
        }
    }
}

/// The model and the SAE's products in bfloat16 tell the same, as far as 8 bits of a number go.
#[test]
fn bfloat16_is_close() {
    let fixture = fixture();
    let single = || {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sae-model/tests/fixtures/gpt2");
        load::load(&folder, Processing::None, Device::Cpu, Kind::Float).unwrap()
    };
    let outcome = |model: Transformer| {
        let model = SplicedModel::new(model);
        let member = Member::random(&model, &[site(FIRST)], 48, &loss(TOTAL), 7).unwrap();
        model.gradients(&[&member], &fixture["tokens"], 1.0, 0).unwrap().remove(0)
    };
    let full = outcome(single());
    let low = outcome(single().into_bfloat16().unwrap());
    for (a, b) in full.gradients.iter().zip(&low.gradients) {
        assert_eq!(b.kind(), Kind::Float);
        let cosine =
            (a.flatten(0, -1).dot(&b.flatten(0, -1)) / (a.norm() * b.norm())).double_value(&[]);
        assert!(cosine > 0.99, "{cosine}");
    }
    for ((name, a), (_, b)) in
        full.terms.values().unwrap().into_iter().zip(low.terms.values().unwrap())
    {
        assert!((a - b).abs() < 0.03 * a.abs(), "{name}: {a} {b}");
    }
    let differs = |name: &str| {
        let of = |outcome: &sae_splice::Outcome| {
            outcome.terms.values().unwrap().into_iter().find(|(at, _)| *at == name).unwrap().1
        };
        (of(&full) - of(&low)).abs() > 0.0
    };
    assert!(differs("kl") && differs("local"), "nothing was lowered");
}

/// Members of a bank do not touch one another: the same bits alone and together.
#[test]
fn a_member_alone_and_in_company() {
    // With several threads MKL's small products differ in the last bit from call to call.
    tch::set_num_threads(1);
    let model = SplicedModel::new(language_model());
    let losses = [
        r#"{"sparsity": {"coeff": 1.0}, "local": {"coeff": 1.0}}"#,
        r#"{"sparsity": {"coeff": 0.5}, "kl": {"coeff": 1.0}}"#,
        TOTAL,
    ];
    let members: Vec<Member> = losses
        .iter()
        .zip(0..)
        .map(|(json, seed)| Member::random(&model, &[site(FIRST)], 48, &loss(json), seed).unwrap())
        .collect();
    let tokens = &fixture()["tokens"];
    let together = model.gradients(&members.iter().collect::<Vec<_>>(), tokens, 0.5, 0).unwrap();
    for (member, outcome) in members.iter().zip(&together) {
        let alone = model.gradients(&[member], tokens, 0.5, 0).unwrap().remove(0);
        for (a, b) in alone.gradients.iter().zip(&outcome.gradients) {
            assert!(a.equal(b));
        }
    }
}

/// A coefficient of 0 is tracked, and trains nothing.
#[test]
fn a_zero_coefficient_is_tracked() {
    let model = SplicedModel::new(language_model());
    let gradients = |json: &str| {
        let member = Member::random(&model, &[site(FIRST)], 48, &loss(json), 3).unwrap();
        model.gradients(&[&member], &fixture()["tokens"], 1.0, 0).unwrap().remove(0)
    };
    let with =
        gradients(r#"{"sparsity": {"coeff": 1.0}, "local": {"coeff": 1.0}, "kl": {"coeff": 0.0}}"#);
    let without = gradients(r#"{"sparsity": {"coeff": 1.0}, "local": {"coeff": 1.0}}"#);
    assert!(with.terms.get("kl").is_some() && without.terms.get("kl").is_none());
    for (a, b) in with.gradients.iter().zip(&without.gradients) {
        close(a, b, 1e-12);
    }
}

/// `fvu` is `local` over the variance of what is reconstructed, and so are its gradients.
#[test]
fn fvu_is_the_mse_over_the_variance() {
    let tokens = &fixture()["tokens"];
    let model = SplicedModel::new(language_model());
    let outcome = |term: &str| {
        let json = format!(r#"{{"sparsity": {{"coeff": 0.0}}, "{term}": {{"coeff": 1.0}}}}"#);
        let member = Member::random(&model, &[site(FIRST)], 48, &loss(&json), 3).unwrap();
        model.gradients(&[&member], tokens, 1.0, 0).unwrap().remove(0)
    };
    let clean = model.clean_pass(tokens, &BTreeSet::from([site(FIRST)]), false).unwrap();
    let x = clean.activation(site(FIRST)).unwrap().reshape([-1, 32]);
    let variance = (&x - x.mean_dim(0, true, Kind::Double)).square().mean(Kind::Double);
    let (local, fvu) = (outcome("local"), outcome("fvu"));
    close(&(&fvu.terms.total * &variance), &local.terms.total, 1e-12);
    close(fvu.terms.get("fvu").unwrap(), &fvu.terms.total, 0.0);
    for (fvu, local) in fvu.gradients.iter().zip(&local.gradients) {
        close(&(fvu * &variance), local, 1e-12);
    }
}

#[test]
fn of_several_pretrained_saes_at_a_site_the_last_is_taken() {
    let lm = language_model();
    let d = lm.config().d_model;
    let model = SplicedModel::new(lm);
    let sae = |seed| {
        let (relu, sizes) = (Architecture::default(), Sizes::sae(d, 24));
        Dictionary::random(&relu, sizes, seed, 0, Device::Cpu, Kind::Double).unwrap()
    };
    let sites = ["blocks.0.hook_resid_post", "blocks.1.hook_resid_mid", "blocks.1.hook_resid_post"]
        .map(site);
    // A for the first two, B for the second.
    let pretrained = [(sites[0], sae(1)), (sites[1], sae(2)), (sites[1], sae(3))]
        .map(|(site, sae)| PlacedDictionary::sae(site, sae))
        .into();
    let kl = loss(r#"{"sparsity": {"coeff": 0.3}, "kl": {"coeff": 1.0}}"#);
    let plans = sites.map(|site| DictionaryPlan::sae(site, 24));
    let member = Member::initialised(&model, &plans, &kl, 9, pretrained).unwrap();
    for (site, seed) in [(sites[0], 1), (sites[1], 3)] {
        let wanted = sae(seed);
        let found = member.dictionary(site).unwrap();
        let [found, wanted] = [found, &wanted].map(|own| own.parameter("w_enc").unwrap());
        assert!(found.equal(wanted), "{site} has another SAE than that of seed {seed}");
    }
}

#[test]
fn sites_are_checked() {
    let model = SplicedModel::new(language_model());
    let kl = loss(r#"{"sparsity": {"coeff": 1.0}, "kl": {"coeff": 1.0}}"#);
    let error = Member::random(&model, &[site("blocks.3.hook_resid_pre")], 8, &kl, 0).unwrap_err();
    assert!(error.to_string().contains("blocks.0 to blocks.2"), "{error}");
    let downstream = loss(r#"{"sparsity": {"coeff": 1.0}, "downstream": {"total_coeff": 1.0}}"#);
    let error = Member::random(&model, &[site(SECOND)], 8, &downstream, 0).unwrap_err();
    assert!(error.to_string().contains("no hook_resid_pre lies after"), "{error}");
}

#[test]
fn edits_change_what_is_decoded_and_nothing_before() {
    let model = SplicedModel::new(language_model());
    let kl = loss(r#"{"sparsity": {"coeff": 1.0}, "kl": {"coeff": 1.0}}"#);
    let member = Member::random(&model, &[site(FIRST), site(SECOND)], 24, &kl, 5).unwrap();
    let tokens = &fixture()["tokens"];
    let starts = BTreeSet::from([Site::resid_pre(1)]);
    let clean = model.clean_pass(tokens, &starts, false).unwrap();
    let pass = |edits: &[FeatureEdit]| {
        no_grad(|| model.edited_pass(&member, edits, &clean, &[], None).unwrap())
    };
    let plain = pass(&[]);
    let at = |feature, change| FeatureEdit { site: site(FIRST), feature, change };
    let edits =
        [FeatureEdit::ablation(site(FIRST), 3), at(4, Change::Scale(2.0)), at(5, Change::Set(1.5))];
    let edited = pass(&edits);
    let [before, after] =
        [&plain, &edited].map(|pass| pass.dictionaries[0].output.features.shallow_clone());
    let expected = before.copy();
    let _ = expected.narrow(-1, 3, 1).fill_(0.0);
    let _ = expected.narrow(-1, 4, 1).multiply_scalar_(2.0);
    let _ = expected.narrow(-1, 5, 1).fill_(1.5);
    close(&after, &expected, 0.0);
    let dictionary = &member.dictionaries()[0].dictionary;
    let decoded = no_grad(|| dictionary.decode(&expected).unwrap());
    close(&edited.dictionaries[0].output.reconstruction, &decoded, 0.0);
    // The second dictionary reads what the first one, edited, has written.
    let [before, after] = [&plain, &edited].map(|pass| &pass.dictionaries[1].target);
    assert!((before - after).abs().max().double_value(&[]) > 1e-3);
    let unknown =
        [FeatureEdit::ablation(site(FIRST), 24), FeatureEdit::ablation(Site::resid_pre(0), 0)];
    for edit in unknown {
        let error = model.edited_pass(&member, &[edit], &clean, &[], None).unwrap_err();
        assert!(error.to_string().contains("there is no feature"), "{error}");
    }
}
