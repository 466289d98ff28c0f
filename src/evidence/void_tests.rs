//! Verdicts on the void from single numbers.

use super::*;

fn asked(specification: Option<Specification>) -> Asked<'static> {
    Asked { concept: "taste", null_bank: false, specification, gate: Some(Status::GateFail) }
}

fn found(interval: Option<[f64; 3]>, status: Status) -> Finding {
    let estimate = interval.map(|[value, lower, upper]| Estimate { value, lower, upper });
    Finding { concept: "taste".to_owned(), status, estimate, ..Finding::default() }
}

#[test]
fn only_late_agreement_on_what_specifications_leave_open_is_evidence() {
    let silent = Some(Specification::Silent);
    for (interval, expected) in
        [([0.95, 0.9, 1.0], "supports"), ([0.5, 0.3, 0.7], "opposes"), ([0.8, 0.7, 0.9], "inconclusive"), ([1.0, 0.8, 1.0], "supports")]
    {
        let number = found(Some(interval), Status::Ok);
        let row = agreed(&asked(silent), Some(&number), true, 0.8);
        assert_eq!((row.verdict.as_str(), row.status, row.threshold), (expected, Status::Ok, Some(0.8)), "{interval:?}");
        assert!((row.margin.unwrap() - (interval[0] - 0.8)).abs() < 1e-12 && row.gate == Status::GateFail);
        for (specification, late, status) in [
            (silent, false, Status::NotLate),
            (Some(Specification::Explicit), true, Status::SpecExplicit),
            (None, true, Status::Unclassified),
        ] {
            let row = agreed(&asked(specification), Some(&number), late, 0.8);
            assert_eq!((row.verdict.as_str(), row.status, row.value.value), ("inconclusive", status, Some(interval[0])));
        }
    }
    let anybody = Finding { excess: Some(Estimate { value: 0.1, lower: -0.1, upper: 0.3 }), ..found(Some([0.95, 0.9, 1.0]), Status::Ok) };
    let row = agreed(&asked(silent), Some(&anybody), true, 0.8);
    assert_eq!((row.verdict.as_str(), row.status), ("inconclusive", Status::Chance));
    let few = agreed(&asked(silent), Some(&found(None, Status::TooFewGroups)), true, 0.8);
    assert_eq!((few.verdict.as_str(), few.status, few.value.value), ("inconclusive", Status::TooFewGroups, None));
    assert_eq!(agreed(&asked(silent), None, true, 0.8).status, Status::NotRun);
}

#[test]
fn a_lag_counts_where_its_whole_interval_is_on_one_side() {
    let lag = |value: f64, half: f64| SilentLag {
        concept: "taste".to_owned(),
        status: Status::Ok,
        lag: Some(Estimate { value, lower: value - half, upper: value + half }),
    };
    let silent = asked(Some(Specification::Silent));
    for (lag, expected) in [(lag(3.0, 1.0), "supports"), (lag(-3.0, 1.0), "opposes"), (lag(0.5, 1.0), "inconclusive")] {
        let row = lagging(&silent, Some(&lag));
        assert_eq!((row.verdict.as_str(), row.status, row.value.value), (expected, Status::Ok, lag.lag.map(|lag| lag.value)));
        let row = lagging(&asked(Some(Specification::Explicit)), Some(&lag));
        assert_eq!((row.verdict.as_str(), row.status, row.value.value), ("inconclusive", Status::SpecExplicit, None));
    }
    let undated = SilentLag { concept: "taste".to_owned(), status: Status::GateFail, lag: None };
    assert_eq!(lagging(&silent, Some(&undated)).status, Status::GateFail);
    assert_eq!(lagging(&silent, None).status, Status::NotRun);
}
