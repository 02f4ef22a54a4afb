//! What splicing does to the model's predictions. Next-token metrics are over the `B · (T − 1)` positions that have a next
//! token in their window.

use sae_record::metric::{Better, Metric, Scope, name};
use sae_record::summary::Evaluation;
use sae_splice::SpliceError;

use super::{Outputs, Probe, Totals, number};

pub(super) const METRICS: &[Metric] = &[
    run(
        name::CE_ORIGINAL,
        "nats",
        Better::Neither,
        "next-token cross-entropy of the original model",
    ),
    run(
        name::CE_SPLICED,
        "nats",
        Better::Less,
        "next-token cross-entropy with the SAEs spliced in",
    ),
    // The reference logs its negative, `difference_ce_loss`.
    run(name::CE_INCREASE, "nats", Better::Less, "ce_spliced − ce_original"),
    run(
        "ce_zero_ablation",
        "nats",
        Better::Neither,
        "next-token cross-entropy with zeros in place of the activations at the SAEs' sites",
    ),
    run(
        "ce_mean_ablation",
        "nats",
        Better::Neither,
        "next-token cross-entropy with each site's mean activation in place of the activations",
    ),
    run(
        name::CE_RECOVERED_ZERO,
        "",
        Better::More,
        "(ce_zero_ablation − ce_spliced) / (ce_zero_ablation − ce_original): 1 is perfect, 0 as bad as zeros",
    ),
    run(
        "ce_recovered_mean",
        "",
        Better::More,
        "(ce_mean_ablation − ce_spliced) / (ce_mean_ablation − ce_original)",
    ),
    run(name::KL, "nats", Better::Less, "mean over all tokens of KL(original ‖ spliced)"),
    // The reference compares position t's prediction with token t, unshifted; here with token t + 1.
    run(
        "top1_accuracy_original",
        "",
        Better::Neither,
        "share of next tokens that the original model ranks first",
    ),
    run(
        "top1_accuracy_spliced",
        "",
        Better::More,
        "share of next tokens that the spliced model ranks first",
    ),
    run(
        name::TOP1_AGREEMENT,
        "",
        Better::More,
        "share of tokens at which both models rank the same token first",
    ),
    run(
        "statistical_distance",
        "",
        Better::Less,
        "mean over all tokens of ½ Σ_v |p_original − p_spliced|",
    ),
];

const fn run(
    name: &'static str,
    unit: &'static str,
    better: Better,
    reduction: &'static str,
) -> Metric {
    Metric::new(name, Scope::Run, unit, better, reduction)
}

#[derive(Default)]
pub(super) struct Prediction {
    ce: f64,
    correct: f64,
    agree: f64,
    kl: f64,
    distance: f64,
}

impl Probe for Prediction {
    fn see_outputs(&mut self, outputs: &Outputs<'_>) -> Result<(), SpliceError> {
        let Outputs { log_p, p, top, log_q, targets } = outputs;
        let top_q = log_q.f_argmax(-1, false)?;
        self.ce += targets.cross_entropy(log_q)?;
        self.correct += targets.correct(&top_q)?;
        self.agree += number(&top_q.f_eq_tensor(top)?)?;
        self.kl += number(&log_p.f_sub(log_q)?.f_mul_(p)?)?;
        self.distance += 0.5 * number(&log_q.f_exp()?.f_sub_(p)?.f_abs()?)?;
        Ok(())
    }

    fn finish(&self, totals: &Totals, found: &mut Evaluation) {
        let (tokens, predictions) = (totals.tokens as f64, totals.predictions);
        let (original, spliced) = (totals.ce / predictions, self.ce / predictions);
        let [zero, mean] = totals.ablated.map(|sum| sum / predictions);
        let recovered = |ablated: f64| (ablated - spliced) / (ablated - original);
        for (name, value) in [
            (name::CE_ORIGINAL, original),
            (name::CE_SPLICED, spliced),
            (name::CE_INCREASE, spliced - original),
            ("ce_zero_ablation", zero),
            ("ce_mean_ablation", mean),
            (name::CE_RECOVERED_ZERO, recovered(zero)),
            ("ce_recovered_mean", recovered(mean)),
            (name::KL, self.kl / tokens),
            ("top1_accuracy_original", totals.correct / predictions),
            ("top1_accuracy_spliced", self.correct / predictions),
            (name::TOP1_AGREEMENT, self.agree / tokens),
            ("statistical_distance", self.distance / tokens),
        ] {
            found.values.set(name, value);
        }
    }
}
