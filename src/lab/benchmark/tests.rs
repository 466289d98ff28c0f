//! A small benchmark with fixed seeds. Bounds allow for its standard errors; `selftrace benchmark` has the figures.

use super::*;
use cells::{STRONG, WEAK};

fn ours(cell: &Cell, n: usize) -> BenchmarkRow {
    score(cell, n).unwrap().rows.swap_remove(0)
}

#[test]
fn nothing_appears_out_of_a_leak_that_grows_with_the_norms() {
    let cell = Cell { leak: 1.0, norm_growth: 4.0, ..Cell::plain(Kind::Absent, WEAK) };
    let rows = score(&cell, 40).unwrap().rows;
    assert!(rows[0].found <= 0.05, "{:?}", rows[0]);
    assert!(rows[3].found == 1.0, "the largest jump is always somewhere");
}

#[test]
fn the_table_does_not_depend_on_threads() {
    let cell = Cell { groups: 16, checkpoints: 6, ..Cell::plain(Kind::Step, STRONG) };
    let with = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| score(&cell, 6)).unwrap().rows
    };
    assert_eq!(with(1), with(3));
}

#[test]
fn uneven_steps_are_dated_in_gaps() {
    let cell = Cell { uneven: true, ..Cell::plain(Kind::Step, STRONG) };
    let row = ours(&cell, 16);
    assert!(row.dated >= 15 && row.t50_mae.unwrap() < 0.5, "{row:?}");
    let jump = ours(&Cell { jump: true, ..Cell::plain(Kind::Absent, STRONG) }, 20);
    assert!(jump.found <= 0.05, "{jump:?}");
}

#[test]
fn runs_that_differ_by_two_checkpoints_are_told_apart_and_equal_ones_are_not() {
    let rejected = |strengths, difference| compare_runs(&Pair { strengths, difference, common: 0.0 }, 24).unwrap().swap_remove(0);
    // A threshold sees a difference of dates where there is one of strengths.
    let none = rejected([WEAK, STRONG], 0.0);
    assert!(none.rejected <= 0.09, "{none:?}");
    let two = rejected([STRONG, STRONG], 2.0);
    assert!(two.rejected >= 0.6 && two.bias.unwrap().abs() < 0.5, "{two:?}");
}
