//! What is planted: the strata of the benchmark.

use super::generate::Simulated;
use crate::onset::planted::{Course, amplitude_for};
use crate::onset::shape::Shape;
use crate::stats::draws::{generator, uniform};

/// Coordinates.
pub const D: usize = 64;

/// A final strength by the held-out AUROC of a mass-mean probe that is trained on the groups themselves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Strength {
    pub auroc: f64,
    /// `sqrt(2) probit(auroc)`.
    margin: f64,
}

/// The two strengths of method section 7.
pub const WEAK: Strength = Strength { auroc: 0.67, margin: 0.622_13 };
pub const STRONG: Strength = Strength { auroc: 0.82, margin: 1.294_53 };

/// A course by name; its date is drawn per series.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    Absent,
    FromStart,
    Step,
    /// With this width in checkpoints.
    Sigmoid(f64),
    Transient,
    Vanishes,
    Reoriented,
}

impl Kind {
    /// As in the tables.
    pub fn name(self) -> String {
        match self {
            Self::Absent => "absent".to_owned(),
            Self::FromStart => "from_start".to_owned(),
            Self::Step => "step".to_owned(),
            Self::Sigmoid(width) => format!("sigmoid_{width}"),
            Self::Transient => "transient".to_owned(),
            Self::Vanishes => "vanishes".to_owned(),
            Self::Reoriented => "reoriented".to_owned(),
        }
    }

    /// The shape that it has.
    pub fn shape(self) -> Shape {
        match self {
            Self::Absent => Shape::Absent,
            Self::FromStart => Shape::AlreadyPresent,
            Self::Step | Self::Sigmoid(_) => Shape::Emerges,
            Self::Transient => Shape::Transient,
            Self::Vanishes => Shape::Vanishes,
            Self::Reoriented => Shape::Reoriented,
        }
    }

    /// Whether something appears that was not there.
    pub fn appears(self) -> bool {
        matches!(self, Self::Step | Self::Sigmoid(_))
    }

    fn course(self, at: f64, checkpoints: usize) -> Course {
        match self {
            Self::Absent => Course::Absent,
            Self::FromStart => Course::FromStart,
            Self::Step => Course::Step { at },
            Self::Sigmoid(width) => Course::Sigmoid { at, width },
            // A third of the series, around the date.
            Self::Transient => Course::Transient { from: at - checkpoints as f64 / 6.0, to: at + checkpoints as f64 / 6.0 },
            Self::Vanishes => Course::Vanishes { at, width: 0.8 },
            Self::Reoriented => Course::Reoriented { at },
        }
    }
}

/// One stratum.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cell {
    pub kind: Kind,
    pub strength: Strength,
    pub leak: f64,
    pub norm_growth: f64,
    pub common: f64,
    pub groups: usize,
    pub checkpoints: usize,
    pub uneven: bool,
    pub jump: bool,
}

impl Cell {
    /// The reference stratum: T = 20, G = 48, nothing else in the way.
    pub fn plain(kind: Kind, strength: Strength) -> Self {
        Self { kind, strength, leak: 0.0, norm_growth: 1.0, common: 0.0, groups: 48, checkpoints: 20, uneven: false, jump: false }
    }

    /// Series number `index`, whose date lies in the middle third.
    pub fn series(&self, index: u64) -> Simulated {
        let span = (self.checkpoints - 1) as f64;
        let at = span * (1.0 + uniform(&mut generator(index, "dates"))) / 3.0;
        self.series_at(at)
    }

    /// The series with a given date.
    pub fn series_at(&self, at: f64) -> Simulated {
        Simulated {
            course: self.kind.course(at, self.checkpoints),
            amplitude: amplitude_for(self.strength.margin, self.groups, D),
            leak: self.leak,
            norm_growth: self.norm_growth,
            common: self.common,
            groups: self.groups,
            checkpoints: self.checkpoints,
            d: D,
            uneven: self.uneven,
            jump: self.jump,
        }
    }
}

/// Pairs of runs with dates that differ.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pair {
    pub strengths: [Strength; 2],
    /// Of the dates, in checkpoints.
    pub difference: f64,
    /// Share of the noise that both runs have in common.
    pub common: f64,
}

/// The comparisons of a benchmark. No difference is planted at unequal strengths, where a threshold sees one.
pub fn pairs(quick: bool) -> Vec<Pair> {
    let unequal = |difference, common| Pair { strengths: [WEAK, STRONG], difference, common };
    let equal = |strength, difference| Pair { strengths: [strength; 2], difference, common: 0.0 };
    let mut pairs = vec![unequal(0.0, 0.0), unequal(2.0, 0.0), equal(STRONG, 2.0)];
    if !quick {
        pairs.extend([unequal(0.0, 0.5), unequal(1.0, 0.0), unequal(2.0, 0.5), unequal(4.0, 0.0)]);
        pairs.extend([equal(STRONG, 0.0), equal(STRONG, 1.0), equal(WEAK, 2.0), equal(WEAK, 4.0)]);
    }
    pairs
}

/// The strata of a benchmark; the quick one is a part of the other.
pub fn all(quick: bool) -> Vec<Cell> {
    use Kind::*;
    let mut cells = Vec::new();
    let nuisance = |kind, strength, leak, norm_growth| Cell { leak, norm_growth, ..Cell::plain(kind, strength) };
    let kinds = [FromStart, Step, Sigmoid(0.2), Sigmoid(0.8), Sigmoid(2.5), Transient, Vanishes, Reoriented];
    if quick {
        cells.extend([(0.0, 1.0), (1.0, 4.0)].map(|(leak, growth)| nuisance(Absent, WEAK, leak, growth)));
        for strength in [WEAK, STRONG] {
            cells.extend([FromStart, Step, Sigmoid(0.8), Transient, Vanishes].map(|kind| Cell::plain(kind, strength)));
        }
        return cells;
    }
    let levels = [(0.0, 1.0), (0.0, 4.0), (0.35, 1.0), (0.35, 4.0), (1.0, 1.0), (1.0, 4.0)];
    cells.extend(levels.map(|(leak, growth)| nuisance(Absent, WEAK, leak, growth)));
    cells.extend(levels.map(|(leak, growth)| nuisance(FromStart, STRONG, leak, growth)));
    for strength in [WEAK, STRONG] {
        cells.extend(kinds.iter().filter(|&&kind| kind != FromStart || strength == WEAK).map(|&kind| Cell::plain(kind, strength)));
        cells.extend([Step, Sigmoid(0.8)].map(|kind| nuisance(kind, strength, 1.0, 4.0)));
    }
    for groups in [16, 48, 96] {
        for checkpoints in [6, 12, 20] {
            if (groups, checkpoints) != (48, 20) {
                cells.extend([Absent, Step, Sigmoid(0.8)].map(|kind| Cell { groups, checkpoints, ..Cell::plain(kind, WEAK) }));
            }
        }
    }
    for kind in [Absent, Sigmoid(0.8)] {
        cells.push(Cell { uneven: true, ..Cell::plain(kind, WEAK) });
        cells.push(Cell { jump: true, ..Cell::plain(kind, WEAK) });
    }
    cells
}
