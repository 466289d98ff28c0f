//! The normalisation pool, by whose spread activations are scaled.

use super::concept::{NEUTRAL, Question, built_in_folders};
use crate::manifest::Pack;
use anyhow::{Context, Result, ensure};
use include_dir::Dir;
use serde::Deserialize;

/// The normalisation pool: questions and beginnings of answers about nothing in particular. It is the `neutral.toml` of the
/// last pack that has one, and the built-in one otherwise.
///
/// # Errors
/// A file that cannot be read or understood.
pub fn pool(packs: &[Pack]) -> Result<Vec<Question>> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Pool {
        question: Vec<Question>,
    }
    let (mut place, mut text) = (String::new(), String::new());
    for pack in std::iter::once(&Pack::Builtin).chain(packs) {
        if let Pack::Folder(folder) = pack {
            let path = folder.join(NEUTRAL);
            if path.is_file() {
                text = std::fs::read_to_string(&path).with_context(|| format!("{}: cannot be read", path.display()))?;
                place = path.display().to_string();
            }
        }
        for file in built_in_folders(pack).into_iter().flat_map(Dir::files).filter(|file| file.path().ends_with(NEUTRAL)) {
            text = file.contents_utf8().unwrap_or_default().to_owned();
            place = format!("concepts/{}", file.path().display());
        }
    }
    let pool: Pool = toml::from_str(&text).map_err(|error| anyhow::anyhow!("{place}: {}", error.message()))?;
    ensure!(pool.question.len() >= 8, "{place}: found {} questions, expected at least 8 to normalise by", pool.question.len());
    Ok(pool.question)
}
