//! Lines of files of prompts: JSON tables with `text`, `messages` or `token_ids`.

use crate::guard::brief;
use anyhow::{Context, Result, anyhow, bail};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::path::Path;

/// Columns that change what a template writes, and are not handed to it.
const OF_TEMPLATES: [&str; 3] = ["tools", "documents", "chat_template_kwargs"];

/// A line. Other columns are passed over: files of prompts have labels and sources in them.
#[derive(Deserialize)]
pub(super) struct Line {
    pub id: Option<Value>,
    pub text: Option<String>,
    pub messages: Option<Vec<Map<String, Value>>>,
    pub token_ids: Option<Vec<i64>>,
}

/// Hands over the lines of the file's `text` that are not empty, one by one, each with its place.
///
/// # Errors
/// With the place: a line is no such table, or whatever `visit` returns.
pub(super) fn each(path: &Path, text: &str, mut visit: impl FnMut(Line, &str) -> Result<()>) -> Result<()> {
    for (number, line) in text.trim_start_matches('\u{feff}').lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let place = format!("{}:{}", path.display(), number + 1);
        visit(read(line).with_context(|| place.clone())?, &place)?;
    }
    Ok(())
}

fn read(text: &str) -> Result<Line> {
    let table: Map<String, Value> = serde_json::from_str(text).map_err(|error| anyhow!("{}", brief(&error.to_string())))?;
    if table.get("messages").is_some_and(|messages| !messages.is_null()) {
        let is_empty = |value: &Value| match value {
            Value::Array(list) => list.is_empty(),
            Value::Object(table) => table.is_empty(),
            other => other.is_null(),
        };
        if let Some(key) = OF_TEMPLATES.into_iter().find(|key| table.get(*key).is_some_and(|value| !is_empty(value))) {
            bail!(
                "`{key}` changes what the chat template writes, and templates are not given it here; render the prompt and give `text` or \
                 `token_ids`"
            );
        }
    }
    serde_json::from_value(table.into()).map_err(|error| anyhow!("{}", brief(&error.to_string())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_table_of_what_is_read() {
        let refused = |line: &str| format!("{:#}", read(line).err().expect(line));
        for key in OF_TEMPLATES {
            let messages = r#""messages": [{"role": "user", "content": "Hi"}]"#;
            assert!(refused(&format!("{{{messages}, \"{key}\": [1]}}")).contains(key));
            assert!(read(&format!("{{{messages}, \"{key}\": []}}")).is_ok() && read(&format!("{{{messages}, \"{key}\": null}}")).is_ok());
        }
        assert!(refused(r#"["x", "hello", null, null]"#).contains("sequence"));
    }
}
