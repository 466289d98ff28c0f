//! Verdicts of single numbers.

use super::*;

fn place() -> OnsetRow {
    serde_json::from_value(serde_json::json!({
        "run": "", "concept": "self", "label_family": "crossed", "null_bank": false, "measure": "contrast", "layer": 8,
        "readout": "last_prompt", "primary": true, "status": Status::Ok, "shape": "emerges", "axis": "index", "n_checkpoints": 9, "n_null": 0,
        "delta": {}, "excess": {}, "t50": {}, "t50_step": {},
    }))
    .unwrap()
}

/// A number that was found, with its interval and, where there is one, its band.
fn found([value, lower, upper]: [f64; 3], null: Option<[f64; 2]>, contexts: usize) -> Finding {
    Finding { status: Status::Ok, estimate: Some(Estimate { value, lower, upper }), null, contexts, ..Finding::default() }
}

#[test]
fn a_contrast_that_does_not_rise_supports_nothing() {
    let flat = OnsetRow { status: Status::GateFail, ..place() };
    let found = found([0.9, 0.8, 1.0], Some([0.1, 0.2]), 20);
    let rows = |place: &OnsetRow| Bench { limits: &Evidence::default(), place, risen: true }.rows(&|_| found.clone());
    assert!(rows(&place()).iter().any(|row| row.verdict == "supports"));
    assert!(rows(&flat).iter().all(|row| row.verdict != "supports"));
    assert!(rows(&flat).iter().any(|row| row.verdict == "opposes" && row.status == Status::Ok));
}

#[test]
fn before_the_rise_nothing_is_supported_and_after_it_everything_may_be() {
    let found = found([0.9, 0.8, 1.0], Some([0.1, 0.2]), 20);
    let rows = |risen: bool| Bench { limits: &Evidence::default(), place: &place(), risen }.rows(&|_| found.clone());
    let count = |risen: bool, verdict: &str| rows(risen).iter().filter(|row| row.verdict == verdict).count();
    assert!(count(false, "supports") == 0 && count(true, "supports") > 0 && count(false, "opposes") == count(true, "opposes"));
    assert!(rows(false).iter().any(|row| row.measure == "representation" && row.status == Status::BeforeOnset));
}

#[test]
fn words_that_give_the_label_away_are_no_evidence() {
    let leaking = OnsetRow { status: Status::LexicalLeak, ..place() };
    let found = found([0.9, 0.8, 1.0], Some([0.1, 0.2]), 20);
    let rows = Bench { limits: &Evidence::default(), place: &leaking, risen: true }.rows(&|_| found.clone());
    assert!(rows.iter().all(|row| row.verdict == "inconclusive" && row.status != Status::Ok && row.gate == Status::LexicalLeak));
}

fn verdicts(numbers: &[(&str, [f64; 3], [f64; 2])], contexts: usize) -> BTreeMap<(String, String), Verdict> {
    let find = |part: &str| {
        let number = numbers.iter().find(|(name, ..)| *name == part);
        number.map_or_else(Finding::default, |(_, interval, null)| found(*interval, Some(*null), contexts))
    };
    let (limits, place) = (Evidence::default(), place());
    let rows = Bench { limits: &limits, place: &place, risen: true }.rows(&find);
    rows.into_iter().map(|row| ((row.hypothesis.to_string(), row.measure), row.verdict)).collect()
}

#[test]
fn only_a_whole_interval_on_one_side_is_a_verdict() {
    let band = [0.6, 0.9];
    for (interval, functional, personas) in [
        ([0.9, 0.8, 1.0], "supports", "opposes"),
        ([0.1, 0.0, 0.2], "opposes", "supports"),
        ([0.7, 0.2, 0.9], "inconclusive", "inconclusive"),
    ] {
        let found = verdicts(&[("persistence", interval, band)], 20);
        assert_eq!(found[&("functional_self".to_owned(), "persistence".to_owned())], functional);
        assert_eq!(found[&("personas_all_the_way_down".to_owned(), "persistence".to_owned())], personas);
        assert!(verdicts(&[("persistence", interval, band)], 3).values().filter(|verdict| **verdict != Verdict::Inconclusive).count() == 1);
    }
}

#[test]
fn a_cluster_is_held_against_its_band() {
    for (interval, expected) in [([0.6, 0.5, 0.7], "supports"), ([0.3, 0.25, 0.45], "inconclusive"), ([0.1, 0.05, 0.15], "opposes")] {
        let found = verdicts(&[("cluster", interval, [0.2, 0.4])], 20);
        assert_eq!(found[&("functional_self".to_owned(), "cluster".to_owned())], expected);
    }
}

#[test]
fn a_residual_is_held_against_its_band_and_against_nothing() {
    for (interval, band, functional, assistant) in [
        ([0.95, 0.92, 0.98], [0.5, 0.9], "supports", "opposes"),
        ([0.99, 0.96, 1.01], [0.98, 1.0], "supports", "opposes"),
        ([0.05, 0.0, 0.1], [0.6, 0.9], "opposes", "supports"),
        ([0.7, 0.6, 0.8], [0.5, 0.9], "inconclusive", "opposes"),
    ] {
        let found = verdicts(&[("residual_3", interval, band)], 20);
        assert_eq!(found[&("functional_self".to_owned(), "residual_3".to_owned())], functional, "{interval:?}");
        assert_eq!(found[&("self_is_assistant".to_owned(), "residual_3".to_owned())], assistant, "{interval:?}");
    }
}

#[test]
fn effects_are_held_against_random_directions_and_the_axis() {
    let find = |interval: [f64; 3]| {
        move |part: &str| match part {
            "behavioural_effect" | "steering_along_axis" | "effect_on_report" | "effect_on_behaviour" => {
                Finding { layer: Some(3), ..found(interval, None, usize::MAX) }
            }
            _ => Finding::default(),
        }
    };
    let limits = Evidence::default();
    for (interval, behaviour, axis, report) in [
        ([9.0, 6.0, 12.0], "supports", "supports", "opposes"),
        ([0.1, -0.4, 0.5], "opposes", "opposes", "supports"),
        ([2.9, 0.5, 6.0], "inconclusive", "inconclusive", "inconclusive"),
    ] {
        let rows = Bench { limits: &limits, place: &place(), risen: true }.rows(&find(interval));
        let verdict = |measure: &str| {
            let row = rows.iter().find(|row| row.measure == measure).unwrap();
            assert_eq!(row.layer, Some(3));
            row.verdict.as_str()
        };
        assert_eq!(verdict("behavioural_effect"), behaviour);
        assert_eq!(verdict("steering_along_axis"), axis);
        assert_eq!((verdict("effect_on_report"), verdict("effect_on_behaviour")), (report, report));
    }
}
