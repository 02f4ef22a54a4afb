//! Text of SVG: escaped, and with coordinates no finer than what a screen shows.

/// Text from data, for elements and quoted attributes of SVG and HTML.
pub(crate) fn escape(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut out, c| {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            // No XML holds these, not even escaped.
            '\u{0}'..='\u{8}'
            | '\u{b}'
            | '\u{c}'
            | '\u{e}'..='\u{1f}'
            | '\u{fffe}'
            | '\u{ffff}' => {
                out.push('\u{fffd}');
            }
            c => out.push(c),
        }
        out
    })
}

/// A coordinate, with one decimal where it needs one.
pub(super) fn at(value: f64) -> String {
    let text = format!("{value:.1}");
    text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
}

/// An attribute, with a space before it; nothing where there is no value.
pub(super) fn attribute(name: &str, value: Option<&str>) -> String {
    value.map(|value| format!(" {name}=\"{}\"", escape(value))).unwrap_or_default()
}

/// An element with its attributes, of which those without a value are left out, and its content, which is markup.
pub(super) fn element(name: &str, attributes: &[(&str, &str)], content: &str) -> String {
    let attributes: String = attributes
        .iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| attribute(name, Some(value)))
        .collect();
    if content.is_empty() {
        format!("<{name}{attributes}/>")
    } else {
        format!("<{name}{attributes}>{content}</{name}>")
    }
}

/// Text at a place. `class` is for style sheets.
pub(super) struct Text<'a> {
    pub class: &'a str,
    pub at: (f64, f64),
    pub size: u32,
    pub anchor: &'a str,
    pub colour: &'a str,
    pub bold: bool,
}

impl Text<'_> {
    pub fn svg(&self, text: &str) -> String {
        let attributes = [
            ("class", self.class),
            ("x", &at(self.at.0)),
            ("y", &at(self.at.1)),
            ("font-size", &self.size.to_string()),
            ("font-weight", if self.bold { "bold" } else { "" }),
            ("text-anchor", self.anchor),
            ("fill", self.colour),
        ];
        element("text", &attributes, &escape(text))
    }
}

/// `M0 0L1 1`: these points joined.
pub(super) fn polyline(points: &[(f64, f64)]) -> String {
    let mut path = String::with_capacity(12 * points.len());
    for (place, (x, y)) in points.iter().enumerate() {
        path.push(if place == 0 { 'M' } else { 'L' });
        path.push_str(&at(*x));
        path.push(' ');
        path.push_str(&at(*y));
    }
    path
}

/// Lines of words, none longer than `width` characters unless it is one word.
pub(super) fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.chars().count() + word.chars().count() < width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// The text with its middle left out where it is longer than `most` characters: ids often differ at the end alone.
pub(super) fn shortened(text: &str, most: usize) -> String {
    let letters: Vec<char> = text.chars().collect();
    if letters.len() <= most {
        return text.to_owned();
    }
    let half = most.saturating_sub(1) / 2;
    let (start, end) = (&letters[..half], &letters[letters.len() - half..]);
    start.iter().chain(&['…']).chain(end).collect()
}

#[cfg(test)]
mod tests {
    use super::{at, attribute, element, escape, polyline, shortened, wrap};

    #[test]
    fn text_from_data_is_escaped() {
        assert_eq!(escape("<a href='x'>&\""), "&lt;a href=&#39;x&#39;&gt;&amp;&quot;");
        assert_eq!(escape("a\u{1}\n\u{b}"), "a\u{fffd}\n\u{fffd}");
        assert_eq!(attribute("x", Some("a\"b")), " x=\"a&quot;b\"");
        assert_eq!(attribute("x", None), "");
        let found = element("g", &[("class", "a"), ("id", ""), ("x", "<")], "b");
        assert_eq!(found, "<g class=\"a\" x=\"&lt;\">b</g>");
        assert_eq!(element("path", &[("d", "M0 0")], ""), "<path d=\"M0 0\"/>");
    }

    #[test]
    fn coordinates_are_short() {
        assert_eq!([1.0, 1.26, -0.04].map(at), ["1", "1.3", "-0"]);
        assert_eq!(polyline(&[(0.0, 1.0), (2.5, 3.0)]), "M0 1L2.5 3");
    }

    #[test]
    fn long_texts_are_wrapped_and_shortened() {
        assert_eq!(wrap("one two three", 9), ["one two", "three"]);
        assert_eq!(wrap("overlong word", 4), ["overlong", "word"]);
        assert_eq!(shortened("abcdefghij", 5), "ab…ij");
        assert_eq!(shortened("x̂abc", 10), "x̂abc");
    }
}
