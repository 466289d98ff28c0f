use super::*;
use crate::onset::sigmoid::gap_around;
use crate::series::axis::{Axis, Mark};
use crate::stats::draws::{generator, normal};

fn on_steps(axis: Axis, steps: &[u64]) -> Positions {
    let mark = |&step: &u64| Mark { id: "c", stage: "sft", step: Some(step), tokens: None };
    Positions::new(axis, &steps.iter().map(mark).collect::<Vec<_>>()).unwrap()
}

fn index(checkpoints: u64) -> Positions {
    on_steps(Axis::Index, &(0..checkpoints).map(|i| 100 * i).collect::<Vec<_>>())
}

fn fit(positions: &Positions, value: Vec<f64>) -> Option<Onset> {
    fit_above(None, positions, value)
}

fn fit_above(floor: Option<f64>, positions: &Positions, value: Vec<f64>) -> Option<Onset> {
    let curve = Curve::new(value.clone(), value).unwrap();
    OnsetGrid::new(positions).unwrap().fit(&curve, floor).unwrap()
}

#[test]
fn a_clean_sigmoid_is_recovered_on_even_and_uneven_axes() {
    let log = on_steps(Axis::StepLog, &[0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000]);
    for (positions, t50s, widths) in [(index(20), [4.3, 9.5, 15.0], [0.6, 1.0, 2.5]), (log, [1.5, 3.3, 6.0], [0.4, 0.5, 0.7])] {
        for (t50, width) in t50s.into_iter().zip(widths) {
            let truth = Sigmoid { lo: 0.3, hi: 2.3, t50, width };
            let onset = fit(&positions, positions.x().iter().map(|&x| truth.at(x)).collect()).unwrap();
            let gap = gap_around(positions.x(), t50);
            assert!((onset.fit.t50 - t50).abs() < 0.02 * gap, "{:?} for {truth:?}", onset.fit);
            assert!((onset.fit.width / width - 1.0).abs() < 0.03, "{:?} for {truth:?}", onset.fit);
            assert!(onset.r_squared > 0.9995 && !onset.at_edge);
        }
    }
}

#[test]
fn a_step_is_dated_in_the_middle_of_its_gap() {
    let onset = fit(&index(12), (0..12).map(|i| f64::from(i >= 7)).collect()).unwrap();
    assert!((onset.fit.t50 - 6.5).abs() < 0.02, "{:?}", onset.fit);
    assert!((onset.t50_step.unwrap().value - 650.0).abs() < 2.0);
    assert!((onset.fit.hi - 1.0).abs() < 0.01 && onset.fit.lo.abs() < 0.01);
    let spread = onset.t90.unwrap().value - onset.t10.unwrap().value;
    assert!((spread - 2.0 * 9f64.ln() * onset.fit.width).abs() < 1e-9);
}

#[test]
fn the_fit_is_equivariant_to_scale_and_level_of_the_curve() {
    let mut generator = generator(0, "equivariance");
    let curve: Vec<f64> = (0..15).map(|i| f64::from(i >= 6) + 0.2 * normal(&mut generator)).collect();
    let moved = curve.iter().map(|e| 40.0 * e + 7.0).collect();
    let (plain, moved) = (fit(&index(15), curve).unwrap().fit, fit(&index(15), moved).unwrap().fit);
    assert!((plain.t50 - moved.t50).abs() < 1e-3, "{plain:?} {moved:?}");
    assert!((40.0 * plain.hi + 7.0 - moved.hi).abs() < 0.1, "{plain:?} {moved:?}");
}

/// The grid with refinement against a search of all pairs a hundred times finer.
#[test]
fn the_search_is_global() {
    let positions = index(10);
    let x = positions.x();
    for seed in 0..20 {
        let mut generator = generator(seed, "global");
        let curve: Vec<f64> = (0..10).map(|_| normal(&mut generator)).collect();
        let mut sigmoid = vec![0.0; 10];
        for floor in [None, Some(0.0)] {
            let problem = Problem { x, curve: &curve, floor };
            let mut finest = 0f64;
            for t50 in (0..1000).map(|i| -0.5 + 0.01 * f64::from(i)) {
                for width in (0..60).map(|k| 0.1 * 45f64.powf(f64::from(k) / 59.0)) {
                    let found = problem.levels(t50, width, &mut sigmoid);
                    if found.rise > 0.0 {
                        finest = finest.max(found.gain);
                    }
                }
            }
            let Some(onset) = fit_above(floor, &positions, curve.clone()) else {
                assert!(finest < 1e-6, "seed {seed} gains {finest}");
                continue;
            };
            let Sigmoid { lo, t50, width, .. } = onset.fit;
            let found = problem.levels(t50, width, &mut sigmoid).gain;
            assert!(found > 0.99 * finest, "seed {seed}: {found} of {finest}");
            assert!(floor.is_none_or(|floor| lo >= floor));
        }
    }
}

/// One early value far below 0 must not become the date of an amplitude that rises later.
#[test]
fn the_floor_keeps_a_negative_start_from_being_the_rise() {
    let curve = vec![-0.9, 0.1, -0.2, 0.2, 0.0, 0.1, 0.7, 0.8, 0.6, 0.8];
    let free = fit(&index(10), curve.clone()).unwrap().fit;
    let held = fit_above(Some(0.0), &index(10), curve).unwrap().fit;
    assert!((held.t50 - 5.5).abs() < 0.3 && held.lo == 0.0, "{held:?}");
    assert!(free.t50 < held.t50 && free.lo < 0.0, "{free:?}");
}

#[test]
fn a_curve_that_falls_or_does_not_move_has_no_date() {
    assert_eq!(fit(&index(8), (0..8).map(|i| -f64::from(i)).collect()), None);
    assert_eq!(fit(&index(8), vec![1.0; 8]), None);
}

#[test]
fn a_rise_at_the_last_checkpoint_is_flagged_as_not_bracketed() {
    let accelerating = (0..10).map(|i| (f64::from(i) / 1.5).exp()).collect();
    assert!(fit(&index(10), accelerating).unwrap().at_edge);
}

#[test]
fn shapes_that_do_not_fit_the_axis_are_refused() {
    assert!(OnsetGrid::new(&index(2)).is_err());
    let curve = Curve::new(vec![0.0; 4], vec![]).unwrap();
    assert!(OnsetGrid::new(&index(5)).unwrap().fit(&curve, None).is_err());
}

#[test]
fn a_step_is_known_no_better_than_to_its_gap_and_a_gradual_rise_is() {
    let step = fit(&index(12), (0..12).map(|i| f64::from(i >= 7)).collect()).unwrap().t50.unwrap();
    assert_eq!((step.lower, step.upper), (6.0, 7.0));
    let truth = Sigmoid { lo: 0.0, hi: 1.0, t50: 6.3, width: 1.0 };
    let gradual = fit(&index(12), (0..12).map(|i| truth.at(f64::from(i))).collect()).unwrap().t50.unwrap();
    assert!(gradual.upper - gradual.lower < 0.1, "{gradual:?}");
}

#[test]
fn a_midpoint_beyond_the_axis_is_a_bound() {
    let late = fit(&index(10), (0..10).map(|i| (f64::from(i) / 1.5).exp()).collect()).unwrap();
    let t50 = late.t50.unwrap();
    assert!(late.at_edge && t50.lower == 9.0 && t50.upper == f64::INFINITY, "{t50:?}");
    assert_eq!(late.t50_step.unwrap().lower, 900.0);
}

/// Steps in other gaps of some resamples widen the interval to both gaps.
#[test]
fn replicates_that_step_elsewhere_widen_the_interval_by_whole_gaps() {
    let step = |at: usize| (0..12).map(move |i| f64::from(u8::from(i >= at)));
    let replicates: Vec<f64> = (0..40).flat_map(|b| step(if b < 4 { 5 } else { 7 })).collect();
    let curve = Curve::new(step(7).collect(), replicates).unwrap();
    let t50 = OnsetGrid::new(&index(12)).unwrap().fit(&curve, None).unwrap().unwrap().t50.unwrap();
    assert_eq!((t50.lower, t50.upper), (4.0, 7.0));
}
