//! Injected thoughts: organisms that know of them, and some that only look as if they did.

use selftrace::lab::introspecting::{Found, find};
use selftrace::lab::organism::introspective::Organism;

fn found(organism: Organism) {
    let folder = tempfile::tempdir().unwrap();
    let Found { faults, .. } = find(folder.path(), organism, 0).unwrap();
    assert!(faults.is_empty(), "{}:\n{}", organism.name(), faults.join("\n"));
}

#[test]
fn a_model_that_reports_what_is_put_into_it_is_found_and_dated() {
    found(Organism::Reports);
}

#[test]
fn attention_to_what_sticks_out_is_not_introspection() {
    found(Organism::DrawnTo);
}

#[test]
fn a_shift_of_all_answers_is_not_introspection() {
    found(Organism::ShiftsAll);
}

#[test]
fn a_model_that_notices_nothing_is_silent() {
    found(Organism::Unaware);
}
