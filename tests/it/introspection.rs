//! Injected thoughts: organisms that know of them, and some that only look as if they did.

use selftrace::analysis::analyze;
use selftrace::compare::{CompareRow, compare};
use selftrace::lab::introspecting::{Found, find};
use selftrace::lab::organism::introspective::{Organism, operate};
use selftrace::manifest::Manifest;
use selftrace::measure::introspection::{Row, TABLE};
use selftrace::series::Series;
use selftrace::table::{Key, read, read_keyed};
use selftrace::walk::job::Job;
use selftrace::walk::store::Readouts;
use selftrace::words::Status;

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

#[test]
fn a_sheet_that_is_missing_is_made_again_alone_and_the_same_in_little_memory() {
    let folder = tempfile::tempdir().unwrap();
    let manifest = operate(folder.path(), Organism::Unaware, 1).unwrap();
    let text = std::fs::read_to_string(&manifest).unwrap();
    let walk = || {
        let job = Job::new(Manifest::load(&manifest).unwrap()).unwrap();
        let outcome = job.walk(&|_| true).unwrap();
        (job, outcome.walked, outcome.skipped)
    };
    let (job, walked, _) = walk();
    let path = job.sheet_path("introspection", "sft-300");
    let sheet = std::fs::read(&path).unwrap();
    assert_eq!((walked, walk().2), (8, 8), "a second walk has nothing to do");

    std::fs::remove_file(&path).unwrap();
    analyze(&Series::open(&job.folder).unwrap()).unwrap();
    let rows: Vec<(Key, Row)> = read_keyed(&TABLE.path(&job.folder)).unwrap();
    let (without, with): (Vec<_>, Vec<_>) = rows.iter().partition(|(key, _)| key.checkpoint == "sft-300");
    assert!(without.len() * 7 == with.len() && !without.is_empty());
    assert!(without.iter().all(|(_, row)| row.status == Status::NotRun && row.score.value.is_none() && row.hits.is_none()));
    assert!(with.iter().all(|(_, row)| row.score.estimate().is_some()));

    // What does not fit into memory at a time is computed in turns, from the same residuals; sums of other shapes may be rounded otherwise.
    let close = |bytes: &[u8]| {
        std::fs::write(folder.path().join("whole.safetensors"), bytes).unwrap();
        let [a, b] = [folder.path().join("whole.safetensors"), path.clone()].map(|path| Readouts::open(&path).unwrap());
        assert_eq!(a.metadata("introspection"), b.metadata("introspection"));
        for tensor in ["where", "kl", "stronger", "about"] {
            let (a, b) = (a.values(tensor).unwrap(), b.values(tensor).unwrap());
            let apart = a.iter().zip(&b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(a.len() == b.len() && apart < 1e-4, "{tensor}: {apart}");
        }
    };
    std::fs::write(&manifest, text.replace("[introspection]\n", "[introspection]\nmemory_mb = 1\n")).unwrap();
    assert_eq!(walk().1, 1, "the others have theirs");
    close(&sheet);
    let sheet = std::fs::read(&path).unwrap();

    std::fs::write(&path, &sheet[..sheet.len() / 2]).unwrap();
    let refused = format!("{:#}", analyze(&Series::open(&job.folder).unwrap()).err().unwrap());
    assert!(
        refused.contains("sft-300.safetensors: not a valid safetensors file") && refused.ends_with("; delete it and walk again"),
        "{refused}"
    );
    assert_eq!(walk().1, 1, "a file that cannot be read is made again");
    assert_eq!(std::fs::read(&path).unwrap(), sheet);

    std::fs::write(&manifest, text.replace("layers = [0, 1]", "layers = [0, 9]")).unwrap();
    let refused = format!("{:#}", Job::new(Manifest::load(&manifest).unwrap()).unwrap().sheet_costs(3, 8).unwrap_err());
    assert!(refused.contains("[introspection] layers: found 9, expected 0 to 3, as the model has 3 blocks"), "{refused}");
    std::fs::write(&manifest, text.replace("material = \"material.toml\"", "groups = 13")).unwrap();
    let refused = format!("{:#}", Job::new(Manifest::load(&manifest).unwrap()).err().unwrap());
    assert!(
        refused.contains("[introspection] groups: found 13, expected at most 12, as concepts/injected/sentences.toml has 48 sentences"),
        "{refused}"
    );
}

#[test]
fn one_strength_has_no_stronger_thought_and_runs_of_other_injections_are_not_compared() {
    let folder = tempfile::tempdir().unwrap();
    let manifest = operate(folder.path(), Organism::Reports, 2).unwrap();
    let text = std::fs::read_to_string(&manifest).unwrap();
    let walk = |name: &str, table: &str| {
        let text = text.replace("name = \"reports\"", &format!("name = \"{name}\"")).replace("[introspection]\n", table);
        std::fs::write(&manifest, text).unwrap();
        let job = Job::new(Manifest::load(&manifest).unwrap()).unwrap();
        job.walk(&|_| true).unwrap();
        analyze(&Series::open(&job.folder).unwrap()).unwrap();
        job.folder
    };
    let (three, one) = (walk("three", "[introspection]\n"), walk("one", "[introspection]\nstrengths = [0.5]\n"));
    let rows: Vec<(Key, Row)> = read_keyed(&TABLE.path(&one)).unwrap();
    assert!(rows.iter().all(|(_, row)| row.question != "stronger" && row.score.value.is_some()));
    let refused = format!("{:#}", compare(std::slice::from_ref(&three), std::slice::from_ref(&one), None).err().unwrap());
    assert!(refused.ends_with("walk both with the same [introspection]"), "{refused}");

    let none = walk("none", "[introspection]\nenabled = false\n");
    assert!(read_keyed::<Row>(&TABLE.path(&none)).unwrap().is_empty() && !none.join("introspection").exists());
    let found = compare(std::slice::from_ref(&three), &[none], None).unwrap();
    let rows: Vec<CompareRow> = read(&found.table).unwrap();
    let own: Vec<&CompareRow> = rows.iter().filter(|row| row.measure == "introspection").collect();
    assert!(!own.is_empty() && own.iter().all(|row| row.shift.value.is_none()), "{own:?}");
}
