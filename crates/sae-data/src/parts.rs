//! Where a long document is cut, so that the tokens of its parts are the tokens of the whole.
//!
//! A tokeniser keeps some 240 bytes of alignment for a byte of text, so a document is given to it in parts. A cut has
//! to fall where no token would lie across it. Which places these are depends on the tokeniser; they are found by
//! trying: the text around a place is encoded whole and in two, and the place is taken where both agree. This supposes
//! that text more than 512 bytes away does not change where a token ends, as in every usual pre-tokeniser and model.

/// A document of up to so many bytes of UTF-8 is one part; a longer one has parts of about that length.
pub(crate) const PART: usize = 64 << 10;
/// Bytes before the wished end of a part in which a cut is looked for first.
const LOOK_BACK: usize = 4 << 10;
/// Bytes after it in which a cut is looked for then.
const LOOK_AHEAD: usize = 1 << 20;
/// Bytes on each side of a place that are encoded to try it; up to twice as many, to begin and end at a space.
const CONTEXT: usize = 512;
/// Places tried in each direction, and bytes for which one more is tried.
const TRIALS: usize = 32;
const BYTES_A_TRIAL: usize = 4 << 10;

/// A part of a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part<'a> {
    pub text: &'a str,
    /// Tokens of this text that the document does not have, at the start: the tokeniser's prefix for every text.
    pub prefix: usize,
}

/// A document in parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Parts<'a> {
    /// In order. Of the text, they leave out at most a space at each cut.
    pub parts: Vec<Part<'a>>,
    /// Cuts at which the tokens may differ from the document's: no place within reach could be confirmed.
    pub unconfirmed: usize,
}

/// Where a part ends and the next begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cut {
    end: usize,
    next: usize,
    prefix: usize,
}

/// Cuts a document into parts of about [`PART`] bytes.
///
/// A cut is looked for from the wished length backwards, first before single spaces between words, then where the
/// class of character changes (letter, digit, white space, other); then forwards, where the class changes. It is taken
/// where `encode` of the text around it equals `encode` of its two sides, one after the other: as they are, or without
/// the space at the cut (for tokenisers that put one in front of every text), or without the first token of the right
/// side (for those whose prefix remains a token). Within 1 MiB without such a place, as in a word of a million letters,
/// the cut is made there all the same.
pub(crate) fn split<T: PartialEq, E>(
    document: &str,
    encode: impl Fn(&str) -> Result<Vec<T>, E>,
) -> Result<Parts<'_>, E> {
    let (mut parts, mut unconfirmed) = (Vec::new(), 0);
    let (mut start, mut prefix) = (0, 0);
    while document.len() - start > PART {
        let wished = document.floor_char_boundary(start + PART);
        let cut = match confirmed(document, wished, &encode)? {
            Some(cut) => cut,
            None if document.len() <= wished + LOOK_AHEAD => break,
            None => {
                unconfirmed += 1;
                let end = document.floor_char_boundary(wished + LOOK_AHEAD);
                Cut { end, next: end, prefix: 0 }
            }
        };
        parts.push(Part { text: &document[start..cut.end], prefix });
        (start, prefix) = (cut.next, cut.prefix);
    }
    parts.push(Part { text: &document[start..], prefix });
    Ok(Parts { parts, unconfirmed })
}

/// The first cut near the wished place that does not change the tokens.
fn confirmed<T: PartialEq, E>(
    text: &str,
    wished: usize,
    encode: &impl Fn(&str) -> Result<Vec<T>, E>,
) -> Result<Option<Cut>, E> {
    let first = |places: &mut dyn Iterator<Item = usize>| {
        let mut tried = 0;
        for at in places {
            if tried < TRIALS + at.abs_diff(wished) / BYTES_A_TRIAL {
                tried += 1;
                if let Some(cut) = try_cut(text, at, encode)? {
                    return Ok(Some(cut));
                }
            }
        }
        Ok(None)
    };
    let back = || (wished - LOOK_BACK..=wished).rev();
    if let Some(cut) = first(&mut back().filter(|&at| is_before_single_space(text, at)))? {
        return Ok(Some(cut));
    }
    if let Some(cut) = first(&mut back().filter(|&at| class_changes(text, at)))? {
        return Ok(Some(cut));
    }
    let ahead = wished + 1..text.len().min(wished + LOOK_AHEAD);
    first(&mut ahead.filter(|&at| class_changes(text, at)))
}

/// The cut at a place, if the tokens around it stay the same.
fn try_cut<T: PartialEq, E>(
    text: &str,
    at: usize,
    encode: &impl Fn(&str) -> Result<Vec<T>, E>,
) -> Result<Option<Cut>, E> {
    let (start, end) = (context_start(text, at), context_end(text, at));
    let (whole, left) = (encode(&text[start..end])?, encode(&text[start..at])?);
    let Some(rest) = whole.strip_prefix(left.as_slice()) else { return Ok(None) };
    // A side without tokens would confirm anything.
    if left.is_empty() || rest.is_empty() {
        return Ok(None);
    }
    let dropped = usize::from(text[at..].starts_with(' '));
    for next in at..=at + dropped {
        let right = encode(&text[next..end])?;
        match right.strip_suffix(rest) {
            Some(prefix) if prefix.len() <= 1 => {
                return Ok(Some(Cut { end: at, next, prefix: prefix.len() }));
            }
            _ => {}
        }
    }
    Ok(None)
}

fn context_start(text: &str, at: usize) -> usize {
    let near = text.floor_char_boundary(at.saturating_sub(CONTEXT));
    let far = text.floor_char_boundary(near.saturating_sub(CONTEXT));
    text[far..near].rfind(' ').map_or(near, |space| far + space)
}

fn context_end(text: &str, at: usize) -> usize {
    let near = text.ceil_char_boundary(at + CONTEXT);
    let far = text.ceil_char_boundary(near + CONTEXT);
    text[near..far].find(' ').map_or(near, |space| near + space)
}

/// The characters on the two sides of a place; `None` inside a character and at the ends of the text.
fn neighbours(text: &str, at: usize) -> Option<(char, char)> {
    let (left, right) = text.split_at_checked(at)?;
    Some((left.chars().next_back()?, right.chars().next()?))
}

fn is_before_single_space(text: &str, at: usize) -> bool {
    text.as_bytes()[at..].starts_with(b" ")
        && neighbours(text, at).is_some_and(|(before, _)| !before.is_whitespace())
        && neighbours(text, at + 1).is_some_and(|(_, after)| !after.is_whitespace())
}

fn class_changes(text: &str, at: usize) -> bool {
    neighbours(text, at).is_some_and(|(before, after)| Class::of(before) != Class::of(after))
}

/// What pre-tokenisers tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Letter,
    Digit,
    Space,
    Other,
}

impl Class {
    fn of(character: char) -> Self {
        match character {
            letter if letter.is_alphabetic() => Self::Letter,
            digit if digit.is_numeric() => Self::Digit,
            space if space.is_whitespace() => Self::Space,
            _ => Self::Other,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // In a test, a panic is the report.
mod tests {
    use std::cell::Cell;
    use std::convert::Infallible;
    use std::mem;

    use super::{LOOK_AHEAD, PART, Part, Parts, split};

    type Tokens = Vec<String>;

    /// Words with the space before them, as GPT-2's.
    fn words(text: &str) -> Tokens {
        let starts = text.match_indices(' ').map(|(at, _)| at).filter(|&at| at > 0);
        let ends: Vec<usize> = starts.chain([text.len()]).collect();
        let mut start = 0;
        ends.into_iter().map(|end| text[mem::replace(&mut start, end)..end].into()).collect()
    }

    /// The same with a space in front of the text, and runs of spaces in one token, as Llama's.
    fn prefixed(text: &str) -> Tokens {
        let mut tokens: Tokens = Vec::new();
        for word in words(&format!(" {text}")) {
            match tokens.last_mut() {
                Some(last) if last.trim().is_empty() => last.push_str(&word),
                _ => tokens.push(word),
            }
        }
        tokens
    }

    /// A token in front of the text, then characters.
    fn characters(text: &str) -> Tokens {
        ["▁".to_owned()].into_iter().chain(text.chars().map(String::from)).collect()
    }

    fn cut(document: &str, encode: impl Fn(&str) -> Tokens) -> Parts<'_> {
        split(document, |text| Ok::<_, Infallible>(encode(text))).unwrap()
    }

    /// The parts, after a check that their tokens are the document's.
    #[track_caller]
    fn checked(document: &str, encode: impl Fn(&str) -> Tokens) -> Parts<'_> {
        let cut = cut(document, &encode);
        let own = |part: &Part<'_>| encode(part.text).into_iter().skip(part.prefix);
        assert!(cut.parts.iter().flat_map(own).eq(encode(document)));
        cut
    }

    #[test]
    fn documents_up_to_a_part_are_not_cut() {
        let document = "four ".repeat(PART / 5 + 1);
        assert_eq!(checked(&document[..PART], words).parts.len(), 1);
        let two = checked(&document[..=PART], words);
        assert_eq!((two.parts.len(), two.unconfirmed), (2, 0));
    }

    #[test]
    fn a_cut_falls_before_a_word_with_its_space_or_without() {
        let document = "some five words of prose ".repeat(10_000);
        for (encode, start) in [(words as fn(&str) -> Tokens, " "), (prefixed, "")] {
            let cut = checked(document.trim(), encode);
            assert_eq!((cut.parts.len(), cut.unconfirmed), (4, 0));
            for part in &cut.parts[1..] {
                let space = if part.text.starts_with(' ') { " " } else { "" };
                assert_eq!((space, part.prefix), (start, 0));
            }
            assert!(cut.parts[..3].iter().all(|part| (PART - 8..=PART).contains(&part.text.len())));
        }
    }

    #[test]
    fn text_without_spaces_is_cut_where_the_class_of_character_changes() {
        let document = "圣达菲是一座，".repeat(10_000);
        let cut = checked(&document, characters);
        assert_eq!((cut.parts.len(), cut.unconfirmed), (4, 0));
        for part in &cut.parts[1..] {
            assert!(
                part.prefix == 1 && (part.text.starts_with('，') || part.text.starts_with('圣'))
            );
        }
    }

    #[test]
    fn a_run_of_one_class_is_cut_only_where_a_mebibyte_has_nothing_else() {
        let run = format!("x{}", "é".repeat(LOOK_AHEAD / 4));
        assert_eq!(checked(&run, words).parts.len(), 1);
        let ends = format!("{run} {run}");
        assert_eq!(checked(&ends, words).parts[0].text, run);
        let endless = "é".repeat(LOOK_AHEAD);
        let cut = cut(&endless, words);
        assert_eq!((cut.parts.len(), cut.unconfirmed), (2, 1));
        let text: String = cut.parts.iter().map(|part| part.text).collect();
        assert!(text == endless);
    }

    #[test]
    fn trials_do_not_take_longer_than_the_text() {
        let document = "few words agree ".repeat(3 * LOOK_AHEAD / 16);
        let tried = Cell::new(0);
        let never = |text: &str| {
            tried.set(tried.get() + text.len());
            vec![text.to_owned()]
        };
        let cut = cut(&document, never);
        assert_eq!((cut.parts.len(), cut.unconfirmed), (3, 2));
        assert!(tried.get() < 2 * document.len(), "{} bytes", tried.get());
    }
}
