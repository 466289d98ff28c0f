//! What course does a concept take? A name for the curve, from tests on it and its bootstrap.
//!
//! With R the mean over the reference checkpoints, L over the late ones, and M over the best window of
//! the same size in between, asked in this order:
//!
//! | shape | when |
//! |---|---|
//! | undetermined | fewer than [`FEWEST`] checkpoints |
//! | transient | M significantly above both R and L (each a max-T over windows), and L below the middle of R and M |
//! | reoriented | R and L both present, and their directions' cosine significantly below [`SAME_DIRECTION`] |
//! | strengthens | the gate passes, R present and at least [`SUBSTANTIAL`] of L |
//! | emerges | the gate passes |
//! | vanishes | R present, L significantly below it and less than half of it |
//! | already_present | R and L present |
//! | undetermined | R present, L not, and the fall is not significant |
//! | absent | none of these: *not shown*; the gate's minimum detectable effect says how much could hide |
//!
//! "Present" is a 95% bootstrap interval above 0, "significantly below" one that excludes equality; the fall of what vanishes is tested
//! one-sided, as a rise is.
//! Transient comes before the gate, which compares the ends and cannot see it. Method section 4d.

use std::ops::Range;

use crate::words::words;
use anyhow::{Result, ensure};

use super::curve::{Curve, mean};
use super::gate::LEVEL;
use crate::stats::estimate::{Estimate, amplitude, mean_sd, quantile};

/// Fewer checkpoints than this have no shape (status `too_few_checkpoints`).
pub const FEWEST: usize = 6;
/// A reference level of at least this share of the late one is a concept that was there before.
pub const SUBSTANTIAL: f64 = 0.25;
/// Directions with a cosine below this have more that differs than is shared (`cos^2 < 1/2`).
pub const SAME_DIRECTION: f64 = std::f64::consts::FRAC_1_SQRT_2;

/// Level of the test for a peak where no null bank confirms it: stricter than the gate's, since it is not corrected over concepts.
pub const PEAK_LEVEL: f64 = 0.01;

words! {
    /// The course of a concept over a series.
    pub enum Shape {
        Absent = "absent" => "not shown to appear",
        AlreadyPresent = "already_present" => "there from the start, and no stronger in the end",
        Emerges = "emerges" => "rises from nothing",
        Strengthens = "strengthens" => "there from the start, and rises",
        Transient = "transient" => "comes and goes",
        Vanishes = "vanishes" => "there from the start, and goes",
        Reoriented = "reoriented" => "there at both ends, in another direction",
        Undetermined = "undetermined" => "no shape",
    }
}

/// Names the shape of `curve`.
///
/// `gate_passed` is the verdict of the whole gate. `cosine` is that between the directions of reference
/// and late checkpoints, corrected for noise, where it is known; without it nothing is `Reoriented`.
/// Measures that are 0 at the reference by construction (learned change) are never present there, so
/// they emerge, are transient or absent. `peak` is the level of the test for a peak; without it nothing is `Transient`.
///
/// # Errors
/// When `reference` and `late` are not two sets of the curve in this order, or there are fewer than two
/// replicates.
pub fn shape(
    curve: &Curve,
    reference: &Range<usize>,
    late: &Range<usize>,
    gate_passed: bool,
    cosine: Option<Estimate>,
    peak: Option<f64>,
) -> Result<Shape> {
    named(curve, |level| level, [reference, late], gate_passed, cosine, peak)
}

/// [`shape`] of an amplitude: tests are on its squares ([`Curve::squares`]), shares of a level on their roots.
///
/// # Errors
/// As [`shape`].
pub fn shape_of_amplitudes(
    curve: &Curve,
    reference: &Range<usize>,
    late: &Range<usize>,
    gate_passed: bool,
    cosine: Option<Estimate>,
    peak: Option<f64>,
) -> Result<Shape> {
    // Noise below 0 is no level to take shares of.
    named(&curve.squares(), |square| amplitude(square).max(0.0), [reference, late], gate_passed, cosine, peak)
}

/// `read` turns a mean of the curve into the level that shares are taken of.
fn named(
    curve: &Curve,
    read: fn(f64) -> f64,
    [reference, late]: [&Range<usize>; 2],
    gate_passed: bool,
    cosine: Option<Estimate>,
    peak: Option<f64>,
) -> Result<Shape> {
    let (t, b) = (curve.checkpoints(), curve.replicate_rows().len());
    if t < FEWEST {
        return Ok(Shape::Undetermined);
    }
    ensure!(
        !reference.is_empty() && reference.end <= late.start && !late.is_empty() && late.end <= t,
        "reference {reference:?} and late {late:?} are not two sets among {t} checkpoints"
    );
    ensure!(b >= 2, "a shape needs replicates, found {b}");
    if peak.is_some_and(|peak| transient(curve, read, reference, late, peak)) {
        return Ok(Shape::Transient);
    }
    let level = |set: &Range<usize>| curve.mean_over(set);
    let (Some(before), Some(after)) = (level(reference), level(late)) else {
        anyhow::bail!("levels of a finite curve have intervals");
    };
    let mut falls: Vec<f64> = curve.replicate_rows().map(|row| mean(&row[reference.clone()]) - mean(&row[late.clone()])).collect();
    falls.sort_unstable_by(f64::total_cmp);
    let (present_before, present_after) = (before.lower > 0.0, after.lower > 0.0);
    let falls = quantile(&falls, LEVEL) > 0.0;
    let turned = cosine.is_some_and(|cosine| cosine.upper < SAME_DIRECTION);

    Ok(if present_before && present_after && turned {
        Shape::Reoriented
    } else if gate_passed && present_before && read(before.value) >= SUBSTANTIAL * read(after.value) {
        Shape::Strengthens
    } else if gate_passed {
        Shape::Emerges
    } else if present_before && falls && read(after.value) < 0.5 * read(before.value) {
        Shape::Vanishes
    } else if present_before && present_after {
        Shape::AlreadyPresent
    } else if present_before {
        Shape::Undetermined
    } else {
        Shape::Absent
    })
}

/// Whether the curve has a peak in between from which it falls by more than half.
///
/// Each window M has two studentised contrasts, M - R and M - L, and both have to exceed the quantile of their own largest centred
/// contrast over windows under the bootstrap, so looking for the peak is paid for. Without a peak no M is above both R and L, that is,
/// none is above the larger of the two, and then the contrasts with that one alone keep the level: the two need no joint quantile
/// (intersection-union, Berger 1982).
fn transient(curve: &Curve, read: fn(f64) -> f64, reference: &Range<usize>, late: &Range<usize>, level: f64) -> bool {
    let size = reference.len().max(late.len());
    let starts: Vec<usize> = (reference.end..=late.start.saturating_sub(size)).collect();
    // How far each window is beyond the quantile of the stricter contrast.
    let mut beyond = vec![f64::INFINITY; starts.len()];
    for other in [reference, late] {
        let mut largest = vec![f64::NEG_INFINITY; curve.replicate_rows().len()];
        let mut studentised = Vec::with_capacity(starts.len());
        for &start in &starts {
            let contrast = |row: &[f64]| mean(&row[start..start + size]) - mean(&row[other.clone()]);
            let (_, sd) = mean_sd(curve.replicate_rows().map(contrast));
            if sd == 0.0 {
                return false; // no spread, no evidence
            }
            let observed = contrast(&curve.value);
            studentised.push(observed / sd);
            for (largest, row) in largest.iter_mut().zip(curve.replicate_rows()) {
                *largest = largest.max((contrast(row) - observed) / sd);
            }
        }
        largest.sort_unstable_by(f64::total_cmp);
        let needed = quantile(&largest, 1.0 - level);
        beyond.iter_mut().zip(studentised).for_each(|(beyond, z)| *beyond = beyond.min(z - needed));
    }
    let Some((&start, &most)) = starts.iter().zip(&beyond).max_by(|a, b| a.1.total_cmp(b.1)) else { return false };
    let height = |set: &Range<usize>| read(mean(&curve.value[set.clone()]));
    let (before, after) = (height(reference), height(late));
    most > 0.0 && after < 0.5 * (before + height(&(start..start + size)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onset::gate::reference_and_late;
    use crate::stats::draws::{generator, normal};

    /// A curve with independent bootstrap noise of standard deviation .1 around `value`.
    fn curve(value: &[f64]) -> Curve {
        let mut generator = generator(0, "shape tests");
        let row = |_: usize| value.iter().map(|v| v + 0.1 * normal(&mut generator)).collect::<Vec<_>>();
        let replicates = (0..400).flat_map(row).collect();
        Curve::new(value.to_vec(), replicates).unwrap()
    }

    fn named(value: &[f64], gate_passed: bool, cosine: Option<f64>) -> Shape {
        let (reference, late) = reference_and_late(value.len());
        let cosine = cosine.map(|value| Estimate { value, lower: value - 0.1, upper: value + 0.1 });
        shape(&curve(value), &reference, &late, gate_passed, cosine, Some(PEAK_LEVEL)).unwrap()
    }

    #[test]
    fn every_shape_has_a_curve() {
        let zero = [0.0; 10];
        let high = [2.0; 10];
        let rising = [0.0, 0.0, 0.0, 0.0, 1.0, 2.0, 2.0, 2.0, 2.0, 2.0];
        let falling: Vec<f64> = rising.iter().map(|e| 2.0 - e).collect();
        let growing: Vec<f64> = rising.iter().map(|e| 1.0 + e).collect();
        let passing = [0.0, 0.0, 0.0, 1.0, 2.0, 2.0, 1.0, 0.2, 0.0, 0.0];
        assert_eq!(named(&zero, false, None), Shape::Absent);
        assert_eq!(named(&high, false, None), Shape::AlreadyPresent);
        assert_eq!(named(&rising, true, None), Shape::Emerges);
        assert_eq!(named(&rising, false, None), Shape::Absent, "a rise that fails its gate");
        assert_eq!(named(&growing, true, None), Shape::Strengthens);
        assert_eq!(named(&passing, false, None), Shape::Transient);
        assert_eq!(named(&falling, false, None), Shape::Vanishes);
        assert_eq!(named(&high, false, Some(0.3)), Shape::Reoriented);
        assert_eq!(named(&high, false, Some(0.9)), Shape::AlreadyPresent);
        assert_eq!(named(&zero, false, Some(0.3)), Shape::Absent);
        assert_eq!(named(&high[..5], false, None), Shape::Undetermined);
    }

    #[test]
    fn an_overshoot_that_keeps_most_of_its_rise_emerges() {
        let overshoot = [0.0, 0.0, 0.0, 1.5, 3.0, 3.0, 2.5, 2.2, 2.0, 2.0];
        assert_eq!(named(&overshoot, true, None), Shape::Emerges);
    }

    #[test]
    fn a_trace_at_the_reference_does_not_make_a_rise_a_strengthening() {
        let rising: Vec<f64> = (0..10).map(|i| if i < 5 { 0.3 } else { 3.0 }).collect();
        assert_eq!(named(&rising, true, None), Shape::Emerges);
    }

    /// Of a hundred replicates, so many do not fall.
    #[test]
    fn a_fall_is_tested_one_sided() {
        let with = |exceptions: usize| {
            let course = |late: f64| [1.0, 1.0, 1.0, 1.0, 0.6, 0.3, 0.3, 0.3, late, late];
            let replicates = (0..100).flat_map(|b| course(if b < exceptions { 1.2 } else { 0.3 })).collect();
            let curve = Curve::new(course(0.3).to_vec(), replicates).unwrap();
            shape(&curve, &(0..2), &(8..10), false, None, None).unwrap()
        };
        assert_eq!(with(4), Shape::Vanishes);
        assert_eq!(with(6), Shape::AlreadyPresent);
    }

    #[test]
    fn names_are_those_of_the_tables() {
        let quoted = |shape: &Shape| serde_json::to_string(shape).unwrap();
        assert_eq!(quoted(&Shape::AlreadyPresent), "\"already_present\"");
        assert_eq!(quoted(&Shape::Undetermined), "\"undetermined\"");
    }
}
