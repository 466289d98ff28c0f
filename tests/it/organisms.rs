//! Organisms by weight surgery: real checkpoints with a known truth about self, assistant and personas, through the whole tool.

use selftrace::lab::naming::{Naming, name};
use selftrace::lab::organism::surgery::Organism;

fn named(organism: Organism) {
    let folder = tempfile::tempdir().unwrap();
    let Naming { faults, rows, .. } = name(folder.path(), organism, 0).unwrap();
    assert!(faults.is_empty(), "{}:\n{}", organism.name(), faults.join("\n"));
    assert!(!rows.is_empty());
}

#[test]
fn a_functional_self_is_named() {
    named(Organism::FunctionalSelf);
}

#[test]
fn a_self_that_is_the_assistant_is_named() {
    named(Organism::SelfIsAssistant);
}

#[test]
fn personas_all_the_way_down_are_named() {
    named(Organism::PersonaGated);
}

#[test]
fn a_self_model_without_effect_is_named() {
    named(Organism::Epiphenomenal);
}

#[test]
fn random_weights_are_nobody() {
    named(Organism::Reinitialised);
}
