//! Names of an adapter's tensors, taken apart: which module of the model, and what of it.

/// What a tensor of an adapter is.
#[derive(Debug, PartialEq)]
pub enum Key {
    Factor {
        module: String,
        factor: Factor,
        embedding: bool,
        /// How many wrappers are around the one that it belongs to, where several parameters of one module have factors.
        depth: usize,
    },
    /// Of the model, by this name.
    Whole(String),
    /// New rows of this module's weight.
    Rows(String),
    /// What a module that was saved whole had been before; without effect.
    Original,
}

/// Which factor: `A: [r, d_in]`, `B: [d_out, r]`, or the bias of B, `[d_out]`.
#[derive(Debug, PartialEq)]
pub enum Factor {
    A,
    B,
    Bias,
}

/// Takes a tensor's name, without what wrappers put before it, apart. PEFT leaves out the adapter's own name when it saves
/// (`lora_A.weight`); other tools keep it (`lora_A.default.weight`). `None` for what other methods store.
pub fn parse(name: &str) -> Option<Key> {
    let segments: Vec<&str> = name.split('.').collect();
    if let Some(at) = segments.iter().position(|segment| segment.starts_with("lora_")) {
        let tail = &segments[at + 1..];
        let (factor, embedding) = match (segments[at], tail) {
            ("lora_A", ["weight"] | [_, "weight"]) => (Factor::A, false),
            ("lora_B", ["weight"] | [_, "weight"]) => (Factor::B, false),
            ("lora_B", ["bias"] | [_, "bias"]) => (Factor::Bias, false),
            ("lora_embedding_A", [] | [_]) => (Factor::A, true),
            ("lora_embedding_B", [] | [_]) => (Factor::B, true),
            _ => return None,
        };
        let own = segments[..at].iter().rposition(|segment| *segment != BASE).map_or(0, |last| last + 1);
        return Some(Key::Factor { module: segments[..own].join("."), factor, embedding, depth: at - own });
    }
    let mut rest = segments;
    if let Some(at) = rest.iter().position(|segment| *segment == "token_adapter") {
        let module = rest[..at].join(".");
        return match rest[at + 1..] {
            ["trainable_tokens_delta"] | ["trainable_tokens_delta", _] => Some(Key::Rows(module)),
            [BASE, parameter] => Some(Key::Whole(format!("{module}.{parameter}"))),
            _ => None,
        };
    }
    // What a module was before it was trained.
    if rest.contains(&"original_module") {
        return Some(Key::Original);
    }
    if let Some(at) = rest.iter().position(|segment| *segment == "modules_to_save") {
        // The next segment is the adapter's name if a parameter's name follows it.
        rest.drain(at..(at + 2).min(rest.len() - 1));
    }
    rest.retain(|segment| *segment != BASE);
    Some(Key::Whole(rest.join(".")))
}

/// The module inside a wrapper.
const BASE: &str = "base_layer";

#[cfg(test)]
mod tests {
    use super::*;

    fn factor(module: &str, factor: Factor, embedding: bool) -> Option<Key> {
        Some(Key::Factor { module: module.to_owned(), factor, embedding, depth: 0 })
    }

    #[test]
    fn names_are_read_with_and_without_an_adapters_name() {
        let q = "model.layers.3.self_attn.q_proj";
        let whole = |name: &str| Some(Key::Whole(name.to_owned()));
        for adapter in ["", ".default"] {
            assert_eq!(parse(&format!("{q}.lora_A{adapter}.weight")), factor(q, Factor::A, false));
            assert_eq!(parse(&format!("{q}.lora_B{adapter}.bias")), factor(q, Factor::Bias, false));
            assert_eq!(parse(&format!("wte.lora_embedding_B{adapter}")), factor("wte", Factor::B, true));
            assert_eq!(parse(&format!("lm_head.modules_to_save{adapter}.weight")), whole("lm_head.weight"));
            assert_eq!(
                parse(&format!("embed_tokens.token_adapter.trainable_tokens_delta{adapter}")),
                Some(Key::Rows("embed_tokens".to_owned()))
            );
        }
        assert_eq!(parse(&format!("{q}.base_layer.bias")), whole(&format!("{q}.bias")));
        assert_eq!(parse("lm_head.token_adapter.base_layer.weight"), whole("lm_head.weight"));
        assert_eq!(parse("lm_head.original_module.weight"), Some(Key::Original));
        let inner = Key::Factor { module: "mlp.experts".to_owned(), factor: Factor::A, embedding: false, depth: 1 };
        assert_eq!(parse("mlp.experts.base_layer.lora_A.weight"), Some(inner));
    }

    #[test]
    fn tensors_of_other_methods_are_not_understood() {
        for name in [
            "q.lora_magnitude_vector",
            "q.lora_magnitude_vector.default.weight",
            "q.lora_diag",
            "embed_tokens.token_adapter.trainable_tokens_original",
        ] {
            assert_eq!(parse(name), None, "{name}");
        }
    }
}
