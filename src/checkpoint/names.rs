//! Names of tensors: what wrappers of training loops put into them, and where in a file a model's parts are.
//!
//! A family's code asks for the names that transformers gives its language model. In files the same parts stand deeper (the
//! text half of a multimodal model), higher (a bare backbone), or under what a wrapper added; a [`Layout`] says how to tell.

use std::borrow::Cow;

/// Segments that `torch.compile`, (Fully Sharded) Data Parallel, activation checkpointing, DeepSpeed, Lightning and TRL's value
/// heads put before or between the names of a model.
const WRAPPERS: &[&str] =
    &["_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module", "module", "pretrained_model"];
/// What PEFT puts before the names of a model.
const PEFT: &str = "base_model.model.";

/// A name without what wrappers added.
pub fn unwrapped(name: &str) -> Cow<'_, str> {
    let mut found = Cow::Borrowed(name);
    if name.split('.').any(|segment| WRAPPERS.contains(&segment)) {
        let kept: Vec<&str> = name.split('.').filter(|segment| !WRAPPERS.contains(segment)).collect();
        found = Cow::Owned(kept.join("."));
    }
    while let Some(rest) = found.strip_prefix(PEFT) {
        found = Cow::Owned(rest.to_owned());
    }
    found
}

/// How a family names the parts of its language model.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Layout {
    /// What stands before everything but the head: `model`.
    pub backbone: &'static str,
    /// The embedding, a part of the backbone: `embed_tokens`.
    pub embed: &'static str,
    /// The list of blocks: `layers`.
    pub blocks: &'static str,
    /// Other parts of the backbone.
    pub others: &'static [&'static str],
    /// The unembedding, where it is not the embedding: `lm_head`.
    pub head: &'static str,
    /// What parts of a block are called in files, and what the family's code calls them; both with their dots.
    pub renamed: &'static [(&'static str, &'static str)],
}

/// Where backbones stand in the models and adapters that people save, beside their own place: the text half of multimodal models,
/// before and since transformers 4.52, classifiers of Qwen and question answering, and a model inside a model.
const PLACES: &[&str] = &["language_model.model", "model.language_model", "model.model", "transformer", ""];
/// Parts of multimodal models that texts do not pass, and heads that say something else than the next token.
const TOWERS: &[&str] = &[
    "vision_tower",
    "vision_model",
    "visual",
    "multi_modal_projector",
    "audio_tower",
    "score",
    "classifier",
    "v_head",
    "value_head",
    "qa_outputs",
];

impl Layout {
    /// Name of the embedding's tensor.
    pub fn embedding(&self) -> String {
        format!("{}.{}.weight", self.backbone, self.embed)
    }

    /// Name of the unembedding's tensor in a model that is not tied.
    pub fn unembedding(&self) -> String {
        format!("{}.weight", self.head)
    }

    /// What all names of a block begin with.
    pub fn block(&self, index: usize) -> String {
        format!("{}.{}.{index}.", self.backbone, self.blocks)
    }

    /// The number of the block that a name is in.
    pub fn block_of(&self, name: &str) -> Option<usize> {
        let rest = name.strip_prefix(self.backbone)?.strip_prefix('.')?.strip_prefix(self.blocks)?.strip_prefix('.')?;
        rest.split('.').next()?.parse().ok()
    }

    /// What stands before the parts of the backbone in a file with these names: where its embedding is, or else its blocks.
    pub fn place<'n>(&self, names: impl Iterator<Item = &'n str> + Clone) -> String {
        let embedding = format!("{}.weight", self.embed);
        let before = |name: &'n str| -> Option<&'n str> {
            let rest = name.strip_suffix(embedding.as_str())?;
            if rest.is_empty() { Some("") } else { rest.strip_suffix('.') }
        };
        let mut found: Vec<&str> = names.clone().filter_map(before).collect();
        if found.is_empty() {
            let first = format!("{}.0.", self.blocks);
            let has = |place: &str| names.clone().any(|name| within(place, name).is_some_and(|rest| rest.starts_with(&first)));
            found = [self.backbone].into_iter().chain(PLACES.iter().copied()).filter(|place| has(place)).collect();
        }
        // A policy beside its reference: its own place, where there is one.
        let own = found.contains(&self.backbone).then_some(self.backbone);
        own.or(found.first().copied()).unwrap_or(self.backbone).to_owned()
    }

    /// The family's name for `name` of a file or an adapter whose backbone stands at `place`; `None` for parts of something else.
    pub fn canonical(&self, place: &str, name: &str) -> Option<String> {
        let is_part = |rest: &str| {
            let part = rest.split('.').next().unwrap_or_default();
            part == self.embed || part == self.blocks || self.others.contains(&part)
        };
        if let Some(rest) = within(place, name).filter(|rest| is_part(rest)) {
            let mut named = format!("{}.{rest}", self.backbone);
            for (old, new) in self.renamed {
                named = named.replacen(old, new, 1);
            }
            return Some(named);
        }
        let around = place.rsplit_once('.').map_or("", |(around, _)| around);
        [around, place, ""].into_iter().find_map(|place| {
            let rest = within(place, name)?;
            (rest.split('.').next() == Some(self.head)).then(|| rest.to_owned())
        })
    }

    /// As [`Layout::canonical`] where it is not known at which place the backbone stands; also returns the place.
    pub fn anywhere<'p>(&self, own: &'p str, name: &str) -> Option<(&'p str, String)> {
        let places = [own, self.backbone].into_iter().chain(PLACES.iter().copied());
        places.into_iter().find_map(|place| Some((place, self.canonical(place, name)?)))
    }
}

/// Whether a name belongs to a part of a multimodal model that texts do not pass, or to another head.
pub fn is_beside_text(name: &str) -> bool {
    name.split('.').any(|segment| TOWERS.contains(&segment))
}

/// What follows a place in a name.
fn within<'n>(place: &str, name: &'n str) -> Option<&'n str> {
    if place.is_empty() { Some(name) } else { name.strip_prefix(place)?.strip_prefix('.') }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LLAMA: Layout =
        Layout { backbone: "model", embed: "embed_tokens", blocks: "layers", others: &["norm"], head: "lm_head", renamed: &[] };

    #[test]
    fn wrappers_are_taken_off_wherever_they_stand() {
        let name = "model.layers.0.mlp.up_proj.weight";
        for wrapped in [
            "_orig_mod.model.layers.0.mlp.up_proj.weight",
            "module._orig_mod.model.layers.0.mlp.up_proj.weight",
            "base_model.model.model.layers.0.mlp.up_proj.weight",
            "base_model.model.base_model.model.model.layers.0.mlp.up_proj.weight",
            "_orig_mod.base_model.model.model.layers.0._checkpoint_wrapped_module.mlp.up_proj.weight",
            "_fsdp_wrapped_module.model.layers.0._fsdp_wrapped_module.mlp._fsdp_wrapped_module.up_proj.weight",
        ] {
            assert_eq!(unwrapped(wrapped), name, "{wrapped}");
        }
        assert!(matches!(unwrapped(name), Cow::Borrowed(_)));
    }

    #[test]
    fn a_backbone_is_found_where_its_embedding_is() {
        let norm = ["model.norm.weight", "lm_head.weight"];
        for (place, head) in [
            ("model", "lm_head"),
            ("", "lm_head"),
            ("language_model.model", "language_model.lm_head"),
            ("model.language_model", "lm_head"),
            ("model.model", "model.lm_head"),
            ("transformer", "lm_head"),
            ("policy.model", "policy.lm_head"),
        ] {
            let at = |part: &str| if place.is_empty() { part.to_owned() } else { format!("{place}.{part}") };
            let names = [at("embed_tokens.weight"), at("norm.weight"), format!("{head}.weight"), "v_head.summary.weight".to_owned()];
            assert_eq!(LLAMA.place(names.iter().map(String::as_str)), place);
            assert_eq!(LLAMA.canonical(place, &names[1]).as_deref(), Some(norm[0]), "{place}");
            assert_eq!(LLAMA.canonical(place, &names[2]).as_deref(), Some(norm[1]), "{place}");
            assert_eq!(LLAMA.canonical(place, &names[3]), None);
        }
        let vision = "model.vision_tower.encoder.layers.0.self_attn.q_proj";
        assert_eq!(LLAMA.anywhere("model", vision), None);
        assert!(is_beside_text(vision));
        assert_eq!(LLAMA.block_of("model.layers.12.mlp.up_proj.weight"), Some(12));
        assert_eq!(LLAMA.block_of("model.norm.weight"), None);
    }
}
