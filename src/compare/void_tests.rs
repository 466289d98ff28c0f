//! Variances and ratios against SciPy, and what rows say where there is nothing to say.

use super::*;

fn margin(concept: &str, specification: Option<Specification>, value: f64) -> Margin {
    Margin { concept: concept.to_owned(), null_bank: concept.starts_with("null"), specification, status: Status::Ok, value: Some(value) }
}

fn close(found: Option<f64>, expected: f64) {
    assert!(found.is_some_and(|found| (found / expected - 1.0).abs() < 1e-6), "found {found:?}, expected {expected}");
}

/// `a.var(ddof=1)`, and `ss / scipy.stats.chi2.ppf([.975, .025], df)`, for [1, 2.5, 4] and pooled with [10, 11.5].
#[test]
fn variances_are_those_of_scipy() {
    let (a, b) = ([1.0, 2.5, 4.0], [10.0, 11.5]);
    let one = between_run_variance(&[&a]).unwrap();
    let pooled = between_run_variance(&[&a, &b]).unwrap();
    for (found, [value, lower, upper]) in
        [(one, [2.25, 0.609_941_319_034_087_9, 88.870_252_961_716_22]), (pooled, [1.875, 0.601_707_012_018_034_3, 26.066_371_477_654_673])]
    {
        close(Some(found.value), value);
        close(Some(found.lower), lower);
        close(Some(found.upper), upper);
    }
    // Neither the order of the runs nor what an arm has in common matters.
    let moved = between_run_variance(&[&[14.0, 11.0, 12.5], &[1.5, 0.0]]).unwrap();
    assert!((moved.value - pooled.value).abs() < 1e-12);
    assert_eq!(between_run_variance(&[&[3.0, 3.0]]), None);
}

/// Rows of concepts with given variances, as the ratio sees them.
fn concepts(variances: &[(Specification, bool, f64)]) -> Vec<VoidRow> {
    let row = |(specification, null_bank, value): &(Specification, bool, f64)| VoidRow {
        specification: Some(*specification),
        null_bank: *null_bank,
        value: Reported { value: Some(*value), ..Reported::default() },
        ..empty()
    };
    variances.iter().map(row).collect()
}

fn empty() -> VoidRow {
    serde_json::from_value(serde_json::json!({
        "run_a": "", "run_b": "", "arm": "a", "quantity": VARIANCE, "null_bank": false, "status": Status::Ok, "n_runs": 2, "n_concepts": 1,
        "value": {},
    }))
    .unwrap()
}

/// `exp` of the difference of mean logarithms, with `scipy.stats.t.ppf(.975, 3)` standard errors of Welch.
#[test]
fn a_ratio_is_that_of_scipy_and_the_null_bank_has_its_own() {
    use Specification::{Explicit, Silent};
    let rows = concepts(&[
        (Silent, false, 4.0),
        (Silent, false, 9.0),
        (Silent, false, 2.0),
        (Explicit, false, 0.5),
        (Explicit, false, 1.0),
        (Explicit, false, 0.25),
        (Explicit, false, 0.8),
        (Silent, true, 0.5),
        (Silent, true, 0.6),
    ]);
    let found = ratio_row(&empty(), &rows, false, true, 1.2);
    close(found.value.value, 7.397_940_467_376_495);
    close(found.value.lower, 1.361_852_723_917_802_7);
    close(found.value.upper, 40.187_549_062_867_724);
    assert_eq!((found.status, found.verdict, found.n_concepts), (Status::Ok, Some(Verdict::Supports), 7));
    for (threshold, expected) in [(2.0, Verdict::Inconclusive), (50.0, Verdict::Opposes)] {
        assert_eq!(ratio_row(&empty(), &rows, false, true, threshold).verdict, Some(expected));
    }
    let bank = ratio_row(&empty(), &rows, true, true, 1.2);
    assert!(bank.value.value.unwrap() < 1.5 && bank.verdict.is_none() && bank.threshold.is_none() && bank.null_bank);
    let few = ratio_row(&empty(), &rows[2..7], false, true, 1.2);
    assert_eq!((few.status, few.value.value, few.verdict), (Status::TooFewConcepts, None, Some(Verdict::Inconclusive)));
    assert_eq!(ratio_row(&empty(), &[], false, false, 1.2).status, Status::NeedsSeeds);
}

#[test]
fn runs_that_contradict_one_another_or_lack_a_concept_say_so() {
    let (silent, explicit) = (Some(Specification::Silent), Some(Specification::Explicit));
    let run = |x: f64| vec![margin("taste", silent, x), margin("name", explicit, 2.0 * x), margin("mixed", silent, x)];
    let mut other = run(3.0);
    other[2].specification = explicit;
    other.remove(0);
    let (a, b) = ([run(1.0), run(2.0)], [run(4.0), other]);
    let found = asked([&a, &b]);
    let row = |at: usize, members: &[usize]| variance_row(&empty(), &found[at], members, true);
    assert_eq!(row(0, &[0]).value.value, Some(0.5));
    assert_eq!((row(0, &[1]).status, row(0, &[0, 1]).status), (Status::NotRun, Status::NotRun));
    assert_eq!((row(1, &[0]).value.value, row(1, &[0]).margin), (Some(2.0), Some(3.0)));
    assert_eq!((row(2, &[0]).specification, row(1, &[0]).specification), (None, explicit));
    let alone = variance_row(&empty(), &found[0], &[0], false);
    assert_eq!((alone.status, alone.value.value, alone.margin), (Status::NeedsSeeds, None, None));
    let same = [run(1.0), run(1.0)];
    let found = asked([&same, &b]);
    assert_eq!(variance_row(&empty(), &found[0], &[0], true).status, Status::EqualRuns);
}
