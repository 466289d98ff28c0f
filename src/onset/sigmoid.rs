//! The sigmoid that dates a rise, and its least-squares fit from a starting point.

use super::curve::mean;

/// Narrowest sigmoid, in gaps. A true step leaves t50 free within its gap; at this width the fit is
/// as good as a step's and prefers the middle of the gap.
const NARROWEST: f64 = 0.1;
/// Widest sigmoid, as a share of the axis: beyond it the curve is a straight line, without a middle.
const WIDEST: f64 = 0.5;
/// First step of the search in t50, in gaps: half the spacing of the grid that it starts from.
const FIRST_STEP: f64 = 1.0 / 16.0;
/// Signs of the steps in (t50, ln w); diagonals, because a later midpoint with a larger width is often
/// almost as good, a valley.
const DIRECTIONS: [(f64, f64); 8] = [(1.0, 0.0), (-1.0, 0.0), (0.0, 1.0), (0.0, -1.0), (1.0, 1.0), (-1.0, -1.0), (1.0, -1.0), (-1.0, 1.0)];
/// `w * ln 9` separates t50 from t10 and t90, where the rise is 10% and 90% done.
const LN_9: f64 = 2.197_224_577_336_219_6;

/// `lo + (hi - lo) sigmoid((x - t50) / width)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sigmoid {
    /// Level before; in units of the curve.
    pub lo: f64,
    /// Level after, above `lo`; beyond the data where the rise is not over at the last checkpoint.
    pub hi: f64,
    /// Midpoint, in units of the axis.
    pub t50: f64,
    /// Scale w, in units of the axis; `t90 - t10 = 4.39 w`.
    pub width: f64,
}

impl Sigmoid {
    /// The curve's value at `x`.
    pub fn at(&self, x: f64) -> f64 {
        self.lo + (self.hi - self.lo) * logistic((x - self.t50) / self.width)
    }

    /// Where a tenth of the rise is done.
    pub fn t10(&self) -> f64 {
        self.t50 - LN_9 * self.width
    }

    /// Where nine tenths of the rise are done.
    pub fn t90(&self) -> f64 {
        self.t50 + LN_9 * self.width
    }
}

/// One curve `[T]` over the axis `x`, to be fitted by a sigmoid whose `lo` is not below `floor`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Problem<'a> {
    pub x: &'a [f64],
    pub curve: &'a [f64],
    pub floor: Option<f64>,
}

/// The levels of the best fit with a given sigmoid.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Levels {
    pub lo: f64,
    pub rise: f64,
    /// Sum of squares taken off that around the curve's mean; below 0 where it does not rise.
    pub gain: f64,
}

impl Problem<'_> {
    /// Linear regression on the sigmoid at `t50` with `width`, with the intercept held at the floor
    /// where it would fall below. `sigmoid` is scratch, `[T]`.
    pub(crate) fn levels(&self, t50: f64, width: f64, sigmoid: &mut [f64]) -> Levels {
        fill(self.x, t50, width, sigmoid);
        let (level, before) = (mean(self.curve), mean(sigmoid));
        let (mut both, mut spread) = (0.0, 0.0);
        for (e, s) in self.curve.iter().zip(&*sigmoid) {
            both += (s - before) * (e - level);
            spread += (s - before) * (s - before);
        }
        let rise = both / spread;
        let lo = level - rise * before;
        let Some(floor) = self.floor.filter(|&floor| lo < floor) else {
            return Levels { lo, rise, gain: rise * both.abs() };
        };
        let (mut both, mut length) = (0.0, 0.0);
        for (e, s) in self.curve.iter().zip(&*sigmoid) {
            both += s * (e - floor);
            length += s * s;
        }
        let rise = both / length;
        let mean_alone = self.curve.len() as f64 * (level - floor).powi(2);
        Levels { lo: floor, rise, gain: rise * both.abs() - mean_alone }
    }

    /// Compass search (Kolda, Lewis & Torczon 2003) in (t50, ln w) from `start = (t50, w)`; steps grow
    /// in a round that finds something better and halve in others. `None` where the best sigmoid does
    /// not rise. `sigmoid` is scratch, `[T]`.
    pub(crate) fn refine(&self, start: (f64, f64), rounds: usize, sigmoid: &mut [f64]) -> Option<Sigmoid> {
        let [first, last] = ends(self.x);
        let (mut t50, mut log_width) = (start.0, start.1.ln());
        let mut best = self.levels(t50, start.1, sigmoid);
        let (mut step, mut log_step) = (FIRST_STEP * gap_around(self.x, t50), 0.2);
        for _ in 0..rounds {
            let mut improved = false;
            for (along, scale) in DIRECTIONS {
                let to = (t50 + along * step).clamp(first, last);
                let (narrowest, widest) = width_limits(self.x, to);
                let width = (log_width + scale * log_step).exp().clamp(narrowest, widest);
                let found = self.levels(to, width, sigmoid);
                if found.gain > best.gain {
                    (t50, log_width, best, improved) = (to, width.ln(), found, true);
                }
            }
            let factor = if improved { 1.5 } else { 0.5 };
            (step, log_step) = (factor * step, factor * log_step);
        }
        let Levels { lo, rise, .. } = best;
        (rise > 0.0).then(|| Sigmoid { lo, hi: lo + rise, t50, width: log_width.exp() })
    }
}

/// Ends of the grid of t50: half a gap beyond the first and last checkpoint.
pub(crate) fn ends(x: &[f64]) -> [f64; 2] {
    let n = x.len();
    [x[0] - 0.5 * (x[1] - x[0]), x[n - 1] + 0.5 * (x[n - 1] - x[n - 2])]
}

/// Length of the gap that contains `t50`; beyond the ends, of the outermost one.
pub(crate) fn gap_around(x: &[f64], t50: f64) -> f64 {
    let right = x.partition_point(|&position| position <= t50).clamp(1, x.len() - 1);
    x[right] - x[right - 1]
}

/// Smallest and largest width for a midpoint at `t50`.
pub(crate) fn width_limits(x: &[f64], t50: f64) -> (f64, f64) {
    (NARROWEST * gap_around(x, t50), WIDEST * (x[x.len() - 1] - x[0]))
}

/// Sigmoid at each checkpoint, `[T]`.
pub(crate) fn fill(x: &[f64], t50: f64, width: f64, out: &mut [f64]) {
    for (out, x) in out.iter_mut().zip(x) {
        *out = logistic((x - t50) / width);
    }
}

fn logistic(z: f64) -> f64 {
    1.0 / (1.0 + (-z).exp())
}
