//! Which of two checkpoints is named, and what is no fault, in series of made-up facts. Faults in real files are planted in the
//! integration tests.

use super::*;

const BLOCKS: usize = 4;

/// Weights that grow by 1% a step; every tensor of every step is different.
fn series(steps: usize) -> Vec<Subject> {
    let tensors = |step: usize| {
        let block = |block: usize| format!("model.layers.{block}.mlp.up_proj.weight");
        let names = (0..BLOCKS).map(block).chain(["model.embed_tokens.weight".to_owned()]);
        names
            .map(|name| TensorFacts { digest: format!("{name}@{step}"), norm: Some(1.01f64.powi(step as i32)), inherited: false, name })
            .collect()
    };
    let facts = |step: usize| Facts {
        tokenizer: Some("t".to_owned()),
        d_vocab: Some(100),
        computed: Some("llama".to_owned()),
        tensors: tensors(step),
        ..Facts::default()
    };
    (0..steps).map(|step| Subject { id: format!("s-{step}"), step: Some(step as u64), facts: facts(step), error: None }).collect()
}

fn found(series: &[Subject]) -> Vec<(usize, String, Option<String>, bool)> {
    audit(series, Audit::Exclude).into_iter().map(|(at, finding)| (at, finding.kind, finding.other, finding.excluded)).collect()
}

#[test]
fn a_clean_series_has_no_finding() {
    assert_eq!(found(&series(8)), []);
}

#[test]
fn repeated_weights_are_the_later_one_and_final_weights_the_earlier_one() {
    let mut planted = series(8);
    planted[4].facts = planted[2].facts.clone();
    planted[1].facts = planted[7].facts.clone();
    let other = |name: &str| Some(name.to_owned());
    assert_eq!(found(&planted), [(1, "equals_final".to_owned(), other("s-7"), true), (4, "duplicate_of".to_owned(), other("s-2"), true)]);
    assert!(audit(&planted, Audit::Warn).iter().all(|(_, finding)| !finding.excluded));
}

#[test]
fn a_swapped_shard_is_found_where_its_norms_do_not_fit() {
    for (wrong, right) in [(2, 6), (5, 1)] {
        let mut planted = series(8);
        for tensor in 0..2 {
            planted[wrong].facts.tensors[tensor] = planted[right].facts.tensors[tensor].clone();
        }
        let findings = audit(&planted, Audit::Exclude);
        let [(at, finding)] = &findings[..] else { panic!("{findings:?}") };
        assert_eq!((*at, finding.kind.as_str(), finding.other.clone()), (wrong, "partial_duplicate", Some(format!("s-{right}"))));
        assert!(finding.detail.contains("blocks 0, 1 are") && finding.excluded, "{finding:?}");
    }
}

#[test]
fn frozen_blocks_and_what_an_adapter_leaves_alone_are_no_duplicates() {
    let mut frozen = series(8);
    for step in 3..8 {
        frozen[step].facts.tensors[0] = frozen[3].facts.tensors[0].clone();
    }
    assert_eq!(found(&frozen), []);
    // Two series of adapters over one base: the first changes block 3, the second block 2.
    let mut adapted = series(8);
    for step in 1..8 {
        let changed = if step < 4 { 3 } else { 2 };
        for tensor in (0..=BLOCKS).filter(|tensor| *tensor != changed) {
            adapted[step].facts.tensors[tensor] = TensorFacts { inherited: true, ..adapted[0].facts.tensors[tensor].clone() };
        }
    }
    assert_eq!(found(&adapted), []);
}
