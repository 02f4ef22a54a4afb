//! The page, its look and its script.

use sae_analysis::page::{SHARED_SCRIPT, STYLE};

/// The page.
pub(crate) const HTML: &str = include_str!("../assets/view.html");

/// The look.
pub(crate) fn style() -> String {
    [STYLE, include_str!("../assets/view.css")].concat()
}

/// The script.
pub(crate) fn script() -> String {
    let own = include_str!("../assets/view.js");
    format!("(() => {{\n\"use strict\";\n{SHARED_SCRIPT}{own}}})();\n")
}
