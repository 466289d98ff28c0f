//! Whether an adapter was trained over the base that it is put over: by the name that its trainer left in it.
//!
//! A name is not a proof, so this is never more than a warning. Where the name is a folder that is still there, its weights are
//! looked at instead.

use super::read_json;
use super::tensors::Tensors;
use std::path::Path;

/// Whether `named`, what an adapter says that it was trained over, is another model than `base`.
pub fn is_another(named: &str, base: &Tensors) -> bool {
    let (there, here) = (Path::new(named), base.folder());
    if let (Ok(there), Ok(here)) = (there.canonicalize(), here.canonicalize()) {
        if there == here {
            return false;
        }
        if let Some(differ) = weights_differ(&there, base) {
            return differ;
        }
    }
    let config = read_json(&here.join("config.json")).unwrap_or_default();
    let origin = config.get("_name_or_path").and_then(serde_json::Value::as_str);
    !origin.into_iter().chain([here.to_string_lossy().as_ref()]).any(|own| are_alike(named, own))
}

/// `None` where there are no weights in the folder.
fn weights_differ(folder: &Path, base: &Tensors) -> Option<bool> {
    let (layout, _) = base.layout()?;
    let mut other = Tensors::open(folder).ok()?;
    other.arrange(*layout, false).ok()?;
    base.differ_at_a_glance(&other).ok()
}

/// Whether two names can be those of one model: the same owner and name on the hub, or the same last folder.
fn are_alike(a: &str, b: &str) -> bool {
    let (a, b) = (name(a), name(b));
    if a.contains('/') && b.contains('/') {
        return a == b;
    }
    let last = |name: &str| name.rsplit('/').next().unwrap_or_default().to_owned();
    last(&a) == last(&b)
}

/// `owner/name` of a model of the hub, also from its place in the cache, or the last folder of a path; in lower case.
fn name(text: &str) -> String {
    let text = text.trim_end_matches('/').to_lowercase();
    if let Some(cached) = text.split('/').find_map(|part| part.strip_prefix("models--")) {
        return cached.replacen("--", "/", 1);
    }
    let is_hub = text.matches('/').count() == 1 && !text.starts_with(['/', '.', '~']);
    if is_hub { text } else { text.rsplit('/').next().unwrap_or_default().to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_model_has_several_names() {
        let cached = "/home/u/.cache/huggingface/hub/models--Qwen--Qwen2.5-7B/snapshots/0123abc";
        for (a, b) in [
            ("Qwen/Qwen2.5-7B", cached),
            (cached, "/data/Qwen2.5-7B/"),
            ("qwen/qwen2.5-7b", "Qwen/Qwen2.5-7B"),
            ("runs/sft/base", "/elsewhere/base"),
        ] {
            assert!(are_alike(a, b), "{a} {b}");
        }
        for (a, b) in [("Qwen/Qwen2.5-7B", "unsloth/Qwen2.5-7B"), ("Qwen/Qwen2.5-7B", "/data/Qwen2.5-7B-Instruct"), ("/a/sft", "/a/dpo")] {
            assert!(!are_alike(a, b), "{a} {b}");
        }
    }
}
