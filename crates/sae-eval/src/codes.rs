//! What every dictionary makes of a batch, each reading what it read in training.

use std::collections::BTreeSet;

use sae_config::Site;
use sae_splice::{Member, SpliceError, SplicedModel};
use tch::{Tensor, no_grad};

/// Shows the feature activations of a batch, `[B, T, F]`, of every dictionary of every member, with the numbers of both. One
/// clean pass serves all. A single dictionary reads the clean activation; with several and a spliced loss, a later one reads the
/// spliced activation, as in training.
///
/// # Shapes
/// `tokens: [B, T]`.
pub fn for_each_code(
    model: &SplicedModel,
    members: &[&Member],
    tokens: &Tensor,
    mut f: impl FnMut(usize, usize, &Tensor) -> Result<(), SpliceError>,
) -> Result<(), SpliceError> {
    let mut sites: BTreeSet<Site> = BTreeSet::new();
    for member in members {
        sites.extend(member.sites());
        sites.insert(Site::resid_pre(member.start()));
    }
    let clean = model.clean_pass(tokens, &sites, false)?;
    no_grad(|| {
        for (index, member) in members.iter().enumerate() {
            if let [placed] = member.dictionaries() {
                let read = clean.activation(placed.reads)?;
                f(index, 0, &placed.dictionary.encode(read)?)?;
                continue;
            }
            let pass = if member.is_spliced() {
                let last = member.dictionaries().last().map(|placed| placed.writes);
                model.spliced_pass(member, &clean, &[], last)?
            } else {
                model.local_pass(member, &clean)?
            };
            for (dictionary, seen) in pass.dictionaries.iter().enumerate() {
                f(index, dictionary, &seen.output.features)?;
            }
        }
        Ok(())
    })
}
