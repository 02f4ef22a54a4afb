//! In what two configurations differ, key by key.

use serde::Serialize;

/// Keys that are named; more are counted.
const NAMED: usize = 6;

/// The keys in which two configurations differ, with the values of both; empty where they are equal.
pub fn differences<T: Serialize>(
    theirs: &T,
    ours: &T,
) -> Result<Vec<Difference>, toml::ser::Error> {
    let (theirs, ours) = (toml::Value::try_from(theirs)?, toml::Value::try_from(ours)?);
    let mut found = Vec::new();
    compare("", Some(&theirs), Some(&ours), &mut found);
    Ok(found)
}

/// A key that two configurations have different values of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The key, with its section.
    pub key: String,
    /// The one's value as TOML writes it; none where it has no such key.
    pub theirs: Option<String>,
    /// The other's.
    pub ours: Option<String>,
}

/// Differences as a sentence's end: `` `train.lr` (0.001 there, 0.002 here) and `sae.seed` (…) ``.
pub fn in_words(differences: &[Difference]) -> String {
    let value = |value: &Option<String>| value.clone().unwrap_or_else(|| "not set".to_owned());
    let one = |difference: &Difference| {
        let (theirs, ours) = (value(&difference.theirs), value(&difference.ours));
        format!("`{}` ({theirs} there, {ours} here)", difference.key)
    };
    let mut named: Vec<String> = differences.iter().take(NAMED).map(one).collect();
    let more = differences.len().saturating_sub(NAMED);
    if more > 0 {
        named.push(format!("{more} more"));
    }
    match named.split_last() {
        Some((last, rest @ [_, ..])) => format!("{} and {last}", rest.join(", ")),
        _ => named.concat(),
    }
}

fn compare(
    key: &str,
    theirs: Option<&toml::Value>,
    ours: Option<&toml::Value>,
    found: &mut Vec<Difference>,
) {
    if theirs == ours {
        return;
    }
    let (a, b) = (theirs.and_then(toml::Value::as_table), ours.and_then(toml::Value::as_table));
    // A section that one of them has not is told key by key, too.
    if a.is_some() == theirs.is_some() && b.is_some() == ours.is_some() {
        let mut names: Vec<&String> = a.into_iter().chain(b).flat_map(toml::Table::keys).collect();
        names.sort_unstable();
        names.dedup();
        for name in names {
            let key = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
            let [theirs, ours] = [a, b].map(|table| table.and_then(|table| table.get(name)));
            compare(&key, theirs, ours, found);
        }
        return;
    }
    let shown = |value: Option<&toml::Value>| value.map(ToString::to_string);
    found.push(Difference { key: key.to_owned(), theirs: shown(theirs), ours: shown(ours) });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_named_with_their_sections_and_both_values() {
        let table = |text: &str| toml::from_str::<toml::Table>(text).unwrap();
        let theirs =
            table("[train]\nlr = 0.001\nbatch = 4\n[loss.kl]\ncoeff = 1.0\n[sae]\nkind = 'relu'");
        let ours = table("[train]\nlr = 0.002\nbatch = 4\n[sae]\nkind = { topk = { k = 3 } }");
        assert!(differences(&ours, &ours).unwrap().is_empty());
        let found = differences(&theirs, &ours).unwrap();
        assert_eq!(
            in_words(&found),
            "`loss.kl.coeff` (1.0 there, not set here), `sae.kind` (\"relu\" there, { topk = { k = 3 } } here) and `train.lr` \
             (0.001 there, 0.002 here)"
        );
        assert_eq!(in_words(&found[2..]), "`train.lr` (0.001 there, 0.002 here)");
        let many: Vec<Difference> = std::iter::repeat_n(found[0].clone(), 9).collect();
        assert!(in_words(&many).ends_with(" and 3 more"));
    }
}
