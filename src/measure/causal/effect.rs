//! The effect of one direction on one outcome: slope of the margin in the strength, what ablation does, and how both compare with random
//! directions.

use crate::manifest::Evidence;
use crate::stats::draws::Draws;
use crate::stats::estimate::{Sampled, mean_sd, quantile};
use crate::walk::interventions::sheet::{Along, Sheet};

/// Random directions that must be left for a comparison.
const FEWEST_RANDOM: usize = 8;

/// An outcome at one layer of one sheet.
pub struct Question<'a> {
    pub sheet: &'a Sheet,
    /// Layer, by position in the sheet.
    pub layer: usize,
    /// Items of each group, as positions in the sheet.
    pub groups: &'a [Vec<usize>],
    /// Items that are facts, likewise.
    pub facts: &'a [usize],
    pub limits: &'a Evidence,
}

/// What happens along one direction.
#[derive(Debug, Clone)]
pub struct Line {
    /// Slope of the margin per unit of strength, per group; `None` where fewer than two strengths stay within the guards.
    pub slopes: Option<Vec<f64>>,
    /// Margin under ablation minus margin without, per group.
    pub ablation: Vec<f64>,
    /// Whether ablation stays within the guards.
    pub ablation_within: bool,
    /// Strengths beyond the guards.
    pub flagged: usize,
    /// Largest divergence on neutral text over the strengths, and largest loss of the margin of facts, in nats.
    pub kl: f64,
    pub facts_lost: f64,
}

/// Random directions at the same question.
pub struct Null {
    /// Slopes per direction and group.
    slopes: Vec<Vec<f64>>,
    /// Mean ablation effects.
    ablations: Vec<f64>,
}

/// A slope beside those of random directions.
pub struct Compared {
    pub slope: Sampled,
    /// Slope over the root mean square of the random ones, with the slope's sign.
    pub z: Option<Sampled>,
    /// Share of random directions, this one among them, whose slope is as large.
    pub p: Option<f64>,
}

impl Question<'_> {
    /// Mean margin over the facts; 0 without facts.
    fn facts(&self, margins: &dyn Fn(usize) -> f64) -> f64 {
        self.facts.iter().map(|&fact| margins(fact)).sum::<f64>() / self.facts.len().max(1) as f64
    }

    /// What happens along a direction.
    pub fn line(&self, along: Along) -> Line {
        let (sheet, layer) = (self.sheet, self.layer);
        let asked = sheet.asked(along);
        let mut place = vec![None; sheet.items.len()];
        asked.iter().enumerate().for_each(|(index, &position)| place[position] = Some(index));
        let clean = |position: usize| f64::from(sheet.clean[position]);
        let margin = |setting: usize| {
            let margins = sheet.margins(along, layer, setting);
            let place = &place;
            move |position: usize| place[position].map_or(f64::NAN, |index| f64::from(margins[index]))
        };
        let strengths = &sheet.header.strengths;
        let facts = self.facts(&clean);
        let side_effects = |setting: usize| (sheet.kl(along, layer, setting), facts - self.facts(&margin(setting)));
        let within = |setting: usize| {
            let (kl, lost) = side_effects(setting);
            kl <= self.limits.guard_kl && lost <= self.limits.guard_facts
        };
        let kept: Vec<usize> = (0..strengths.len()).filter(|&setting| within(setting)).collect();
        // The model as it is counts as strength 0.
        let n = kept.len() as f64 + 1.0;
        let mean = kept.iter().map(|&setting| strengths[setting]).sum::<f64>() / n;
        let spread = mean.powi(2) + kept.iter().map(|&setting| (strengths[setting] - mean).powi(2)).sum::<f64>();
        let over = |items: &[usize], of: &dyn Fn(usize) -> f64| items.iter().map(|&item| of(item)).sum::<f64>() / items.len() as f64;
        let slope = |items: &Vec<usize>| {
            let steered = kept.iter().map(|&setting| (strengths[setting] - mean) * over(items, &margin(setting)));
            (steered.sum::<f64>() - mean * over(items, &clean)) / spread
        };
        let ablated = margin(strengths.len());
        Line {
            slopes: (kept.len() >= 2).then(|| self.groups.iter().map(slope).collect()),
            ablation: self.groups.iter().map(|items| over(items, &ablated) - over(items, &clean)).collect(),
            ablation_within: within(strengths.len()),
            flagged: strengths.len() - kept.len(),
            kl: (0..strengths.len()).map(|setting| side_effects(setting).0).fold(0.0, f64::max),
            facts_lost: (0..strengths.len()).map(|setting| side_effects(setting).1).fold(f64::NEG_INFINITY, f64::max),
        }
    }

    /// Margin without intervention, with its bootstrap.
    pub fn clean(&self, draws: &Draws) -> Sampled {
        let of = |items: &Vec<usize>| items.iter().map(|&item| f64::from(self.sheet.clean[item])).sum::<f64>() / items.len() as f64;
        over_groups(&self.groups.iter().map(of).collect::<Vec<_>>(), draws)
    }

    /// What happens along the random directions.
    pub fn null(&self) -> Null {
        let lines: Vec<Line> = (0..self.sheet.header.directions).map(|number| self.line(Along::Random(number))).collect();
        let within = lines.iter().filter(|line| line.ablation_within);
        Null {
            ablations: within.map(|line| line.ablation.iter().sum::<f64>() / line.ablation.len() as f64).collect(),
            slopes: lines.into_iter().filter_map(|line| line.slopes).collect(),
        }
    }
}

/// Mean over groups, with one replicate per resample.
pub fn over_groups(values: &[f64], draws: &Draws) -> Sampled {
    Sampled { value: values.iter().sum::<f64>() / values.len() as f64, replicates: draws.means(values) }
}

impl Null {
    /// Random directions that count.
    pub fn left(&self) -> usize {
        self.slopes.len()
    }

    /// A direction's slopes beside those of random ones. There is no `z` with fewer than eight of these, or where nothing moves.
    pub fn compare(&self, slopes: &[f64], draws: &Draws) -> Compared {
        let slope = over_groups(slopes, draws);
        if self.slopes.len() < FEWEST_RANDOM {
            return Compared { slope, z: None, p: None };
        }
        let random: Vec<Sampled> = self.slopes.iter().map(|slopes| over_groups(slopes, draws)).collect();
        let rms = |of: &dyn Fn(&Sampled) -> f64| (random.iter().map(|random| of(random).powi(2)).sum::<f64>() / random.len() as f64).sqrt();
        let scale = rms(&|random| random.value);
        let replicates = slope.replicates.iter().enumerate().map(|(b, x)| x / rms(&|random| random.replicates[b])).collect();
        let z = (scale > 0.0).then(|| Sampled { value: slope.value / scale, replicates });
        let as_large = random.iter().filter(|random| random.value.abs() >= slope.value.abs()).count();
        let p = (1 + as_large) as f64 / (1 + random.len()) as f64;
        Compared { slope, z, p: (scale > 0.0).then_some(p) }
    }

    /// Middle 95% of what ablation of a random direction does, and the place of `effect` in standard deviations of it; `None` with
    /// fewer than eight of them.
    pub fn ablation(&self, effect: f64) -> Option<([f64; 2], Option<f64>)> {
        if self.ablations.len() < FEWEST_RANDOM {
            return None;
        }
        let mut sorted = self.ablations.clone();
        sorted.sort_by(f64::total_cmp);
        let (mean, sd) = mean_sd(sorted.iter().copied());
        Some(([quantile(&sorted, 0.025), quantile(&sorted, 0.975)], (sd > 0.0).then(|| (effect - mean) / sd)))
    }
}

/// The same with the sign that makes the value positive: the size of an effect, whose replicates may be negative.
pub fn size(effect: &Sampled) -> Sampled {
    effect.times(if effect.value < 0.0 { -1.0 } else { 1.0 })
}

/// The part of a direction's effect that its component along the axis gives: cosine times slope along the axis, over the direction's own
/// slope.
/// `None` where the direction has no effect to share, that is where its interval contains 0.
pub fn share(slope: &Sampled, axis: &Sampled, cosine: f64) -> Option<Sampled> {
    let interval = slope.estimate()?;
    if interval.lower <= 0.0 && interval.upper >= 0.0 {
        return None;
    }
    let replicates = slope.replicates.iter().zip(&axis.replicates).map(|(own, axis)| cosine * axis / own).collect();
    Some(Sampled { value: cosine * axis.value / slope.value, replicates })
}
