//! `dashboard/<site>/explanations.json`: what a language model says that features are.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::RecordError;
use crate::error::{read_json, write_text};

/// The longest file, in bytes.
const LONGEST: u64 = 1 << 30;

/// The explanations of a dictionary's features.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Explanations {
    /// What the dashboard was made of that was shown, by name: of another dashboard they say nothing.
    pub of: BTreeMap<String, String>,
    /// The language model.
    pub judge: String,
    /// The version of the questions.
    pub questions: u32,
    /// By feature.
    pub features: BTreeMap<u32, Explained>,
}

/// What a language model says that a feature is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Explained {
    /// The explanation; none where there is no answer.
    pub text: Option<String>,
    /// Why there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The documents that were shown, by file and row: an explanation is scored on others.
    pub documents: Vec<(u32, u64)>,
}

impl Explanations {
    fn path(dashboard: &Path) -> PathBuf {
        dashboard.join("explanations.json")
    }

    /// Those beside a dashboard, where they are of it; none otherwise.
    pub fn load(
        dashboard: &Path,
        of: &BTreeMap<String, String>,
    ) -> Result<Option<Self>, RecordError> {
        let path = Self::path(dashboard);
        if !path.exists() {
            return Ok(None);
        }
        let found: Self = read_json(&path, LONGEST)?;
        Ok(Some(found).filter(|found| found.of == *of))
    }

    /// Writes them beside their dashboard, whole or not at all.
    pub fn save(&self, dashboard: &Path) -> Result<(), RecordError> {
        let path = Self::path(dashboard);
        let text = serde_json::to_string_pretty(self).map_err(RecordError::file("write", &path))?;
        write_text(&path, &text)
    }
}
