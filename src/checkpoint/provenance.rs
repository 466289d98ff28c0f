//! Keys of configurations that say where a model or an adapter comes from, and nothing about what it computes.

/// What hubs, trainers and people write about a model, beside versions and what begins with an underscore.
const PROVENANCE: &[&str] = &[
    "adapter_name",
    "author",
    "axolotl_config",
    "base_model",
    "base_model_name_or_path",
    "base_model_revision",
    "created_at",
    "created_by",
    "custom_pipelines",
    "dataset",
    "datasets",
    "date",
    "finetuning_task",
    "framework",
    "language",
    "library_name",
    "license",
    "mergekit_config",
    "model_card",
    "model_name",
    "name_or_path",
    "pipeline_tag",
    "run_name",
    "tags",
    "timestamp",
    "trainer",
    "training_args",
    "unsloth_fixed",
    "wandb_run_id",
];

/// Whether a key is a note of where something comes from: a version of what wrote it, a library's note to itself, or one of a list.
pub fn is_provenance(key: &str) -> bool {
    key.starts_with('_') || key.ends_with("_version") || PROVENANCE.contains(&key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_told_from_options() {
        for note in ["unsloth_version", "_commit_hash", "datasets", "created_by"] {
            assert!(is_provenance(note), "{note}");
        }
        for option in ["use_dora", "scale_by_depth", "sparsity", "versions", "date_embedding"] {
            assert!(!is_provenance(option), "{option}");
        }
    }
}
