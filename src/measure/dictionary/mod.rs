//! Latents of the crosscoders of a run along its checkpoints: how strong each is, when it comes, and which of them tell questions about
//! oneself from questions about others.
//!
//! Nothing here is a concept, so nothing is added to `onset`, and no count means anything by itself: beside how many latents come stands how
//! many come when the same checkpoints are taken in another order.

mod own;

use super::{Measure, Measured};
use crate::console::check_interrupt;
use crate::dictionary::sheet::{self, Sheet};
use crate::dictionary::stability::best_cosines;
use crate::onset::family::{self, Dated};
use crate::onset::shape::Shape;
use crate::series::{Point, Series, Timeline};
use crate::stats::draws::{Draws, another_order, generator};
use crate::stats::estimate::Reported;
use crate::table::{self, Key, Table, finite};
use crate::words::Status;
use anyhow::Result;
use serde::{Deserialize, Serialize};

pub const NAME: &str = "dictionary";
const DICTIONARY: Table = Table::keyed::<DictionaryRow>("dictionary");
const LATENTS: Table = Table::keyed::<LatentRow>("latents");
const ONSET: Table = Table::new::<LatentOnset>("latent_onset");
pub const MEASURE: Measure = Measure { name: NAME, tables: &[DICTIONARY, LATENTS, ONSET, own::TABLE], run };

/// Orders of the checkpoints that are no courses.
const ORDERS: usize = 10;
/// Cosine from which on a latent is there again with another seed.
const TWIN: f64 = 0.7;

/// One row of `dictionary.parquet` behind the keys: a crosscoder at one of its checkpoints. Numbers are of texts that it was not fitted on.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct DictionaryRow {
    layer: i32,
    /// Number of the fit.
    seed: i32,
    status: Status,
    /// Share of the variance of the checkpoint's activations that is explained.
    explained: Option<f64>,
    /// Latents of the dictionary.
    latents: i32,
    /// Latents that are on at some token.
    live: i32,
    /// Latents that are on at a token, on average.
    per_token: f64,
    /// Latents that are not there at the reference and are in the end (`latent_onset`).
    emerging: i32,
    /// How many that are when the checkpoints are taken in other orders: what chance and drift give.
    emerging_shuffled: Option<f64>,
    /// Share of the live latents with a cosine of .7 or more with a latent of another seed, all checkpoints taken together; mean over the
    /// other seeds, null without any.
    replicated: Option<f64>,
    /// Tokens.
    n: i32,
    n_groups: i32,
}

/// One row of `latents.parquet` behind the keys: a latent that is on at all, at one checkpoint. Activations have mean 0, and a mean square of 1 per
/// coordinate, at every checkpoint, so strengths do not grow with norms.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct LatentRow {
    layer: i32,
    /// Number of the fit.
    seed: i32,
    /// Number of the latent, from 0.
    latent: i32,
    /// Factor of its activation along its direction in what other latents leave: 0 where it is not there. The interval is over groups of
    /// texts.
    strength: Reported,
    /// Length of its decoder. It was fitted, so it is not 0 where nothing is.
    length: f64,
    /// What is left of it in the error, along its longest direction and over the same number where it is longest.
    error_ratio: Option<f64>,
    /// The same of the reconstruction.
    reconstruction_ratio: Option<f64>,
    /// Share of the tokens at which it is on; the same at all checkpoints.
    share_on: f64,
    /// Its mean activation where it is on.
    mean_on: Option<f64>,
}

/// One row of `latent_onset.parquet`: a latent that is on at all, and whether and when it comes.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct LatentOnset {
    run: String,
    layer: i32,
    /// Number of the fit.
    seed: i32,
    /// Number of the latent, from 0.
    latent: i32,
    status: Status,
    /// As in `onset`, of the strengths.
    shape: Shape,
    /// Mean strength of the late checkpoints minus that of the reference.
    delta: Reported,
    /// `delta` over its bootstrap standard deviation.
    z: Option<f64>,
    /// One-sided p of `z`, adjusted over all latents of the dictionary (Benjamini & Yekutieli 2001).
    q: Option<f64>,
    /// Midpoint of the rise, in units of the axis; null beyond the first or last checkpoint, where an end of the interval is a bound.
    t50: Reported,
    /// The same in steps.
    t50_step: Reported,
    /// Largest cosine with a latent of another seed, all checkpoints taken together; the smallest over the other seeds.
    twin: Option<f64>,
    axis: String,
    /// Checkpoints of the dictionary.
    n_checkpoints: i32,
}

/// What the sheets of a series are made from; nothing without sheets.
pub fn digest(series: &Series) -> String {
    let keys = sheet::all(&series.folder).into_iter().map(|path| format!(" {} {}", path.display(), sheet::key(&path).unwrap_or_default()));
    keys.collect()
}

/// A sheet with its places in the series.
pub(super) struct Placed {
    sheet: Sheet,
    /// Numbers of its checkpoints among the points of the series.
    points: Vec<usize>,
}

impl Placed {
    fn of(series: &Series, sheet: Sheet) -> Option<Self> {
        let place = |id: &String| series.points.iter().position(|point| point.id == *id);
        let points: Option<Vec<usize>> = sheet.checkpoints.iter().map(place).collect();
        if points.is_none() {
            tracing::warn!(
                "{}: the dictionary of layer {} is of checkpoints that the series is without; run again",
                series.run,
                sheet.layer
            );
        }
        Some(Self { points: points?, sheet })
    }

    /// Latents that are on at all.
    fn live(&self) -> Vec<usize> {
        (0..self.sheet.crosscoder.shape.latents).filter(|&latent| self.sheet.strength.share_on(latent) > 0.0).collect()
    }
}

fn run(series: &Series) -> Result<Measured> {
    let sheets = sheet::all(&series.folder).iter().map(|path| Sheet::load(path)).collect::<Result<Vec<_>>>()?;
    let sheets: Vec<Placed> = sheets.into_iter().filter_map(|sheet| Placed::of(series, sheet)).collect();
    let (mut dictionary, mut latents, mut onsets, mut own) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for placed in &sheets {
        check_interrupt()?;
        let found = Found::new(series, placed, &sheets)?;
        dictionary.extend(found.quality(series)?);
        latents.extend(found.latents(series));
        onsets.extend(found.onsets(series));
        own.extend(own::rows(series, placed)?);
    }
    let tables = vec![
        DICTIONARY.filled(vec![table::keyed(&dictionary)?])?,
        LATENTS.filled(vec![table::keyed(&latents)?])?,
        ONSET.filled(vec![table::plain(&onsets)?])?,
        own::TABLE.filled(vec![table::plain(&own)?])?,
    ];
    Ok(Measured { tables, ..Measured::default() })
}

/// What one dictionary says.
struct Found<'a> {
    placed: &'a Placed,
    points: Vec<Point>,
    draws: Draws,
    live: Vec<usize>,
    /// By latent.
    dated: Vec<Dated>,
    curves: Vec<Option<crate::onset::curve::Curve>>,
    /// By latent, a row per other seed.
    twins: Vec<Vec<f32>>,
}

impl<'a> Found<'a> {
    fn new(series: &Series, placed: &'a Placed, all: &[Placed]) -> Result<Self> {
        let points: Vec<Point> = placed.points.iter().map(|&t| series.points[t].clone()).collect();
        let strength = &placed.sheet.strength;
        let draws = Draws::with_counts(strength.groups.max(2), 9, series.bootstraps, series.seed, NAME)?;
        let order: Vec<usize> = (0..points.len()).collect();
        let curves = family::curves(strength, &order, &draws)?;
        let dated = family::dates(&Timeline { points: &points, axis: series.axis }, &curves)?;
        let same = |other: &&Placed| other.sheet.layer == placed.sheet.layer && other.sheet.seed != placed.sheet.seed;
        let others = all.iter().filter(same).filter(|other| other.points == placed.points);
        let twins = others.map(|other| best_cosines(&placed.sheet.crosscoder, &other.sheet.crosscoder)).collect::<Result<Vec<_>>>()?;
        Ok(Self { live: placed.live(), placed, points, draws, dated, curves, twins })
    }

    fn key(&self) -> (i32, i32) {
        (self.placed.sheet.layer as i32, self.placed.sheet.seed as i32)
    }

    /// Mean number of latents that come when the checkpoints are in another order; `None` where they are too few for dates.
    fn shuffled(&self, series: &Series) -> Result<Option<f64>> {
        if self.dated.iter().all(|dated| dated.gate.is_none()) {
            return Ok(None);
        }
        let (n, mut rng) = (self.points.len(), generator(series.seed, "dictionary/orders"));
        let mut sum = 0;
        for _ in 0..ORDERS {
            let curves = family::curves(&self.placed.sheet.strength, &another_order(n, &mut rng), &self.draws)?;
            let shapes = family::shapes(&Timeline { points: &self.points, axis: series.axis }, &curves)?;
            sum += shapes.iter().filter(|dated| dated.emerges()).count();
        }
        Ok(Some(sum as f64 / ORDERS as f64))
    }

    fn quality(&self, series: &Series) -> Result<Vec<(Key, DictionaryRow)>> {
        let strength = &self.placed.sheet.strength;
        let (layer, seed) = self.key();
        let again = |cosines: &Vec<f32>| self.live.iter().filter(|&&latent| f64::from(cosines[latent]) >= TWIN).count() as f64;
        let shares: Vec<f64> = self.twins.iter().map(|cosines| again(cosines) / self.live.len().max(1) as f64).collect();
        let shuffled = self.shuffled(series)?;
        let row = |(at, &t): (usize, &usize)| {
            let explained = strength.explained(at).and_then(finite);
            let row = DictionaryRow {
                layer,
                seed,
                status: if explained.is_some() { Status::Ok } else { Status::Failed },
                explained,
                latents: strength.shape.latents as i32,
                live: self.live.len() as i32,
                per_token: strength.per_token(),
                emerging: self.dated.iter().filter(|dated| dated.emerges()).count() as i32,
                emerging_shuffled: shuffled,
                replicated: (!shares.is_empty()).then(|| shares.iter().sum::<f64>() / shares.len() as f64),
                n: strength.tokens() as i32,
                n_groups: strength.groups as i32,
            };
            (series.key(t), row)
        };
        Ok(self.placed.points.iter().enumerate().map(row).collect())
    }

    fn latents(&self, series: &Series) -> Vec<(Key, LatentRow)> {
        let strength = &self.placed.sheet.strength;
        let (layer, seed) = self.key();
        let mut rows = Vec::new();
        for &latent in &self.live {
            for (at, &t) in self.placed.points.iter().enumerate() {
                let ratios = strength.ratios(latent, at);
                let mut row = LatentRow {
                    layer,
                    seed,
                    latent: latent as i32,
                    length: strength.length(latent, at),
                    error_ratio: ratios.and_then(|[error, _]| finite(error)),
                    reconstruction_ratio: ratios.and_then(|[_, reconstruction]| finite(reconstruction)),
                    share_on: strength.share_on(latent),
                    mean_on: strength.mean_on(latent),
                    ..LatentRow::default()
                };
                row.strength = match &self.curves[latent] {
                    Some(curve) => curve.at(at).into(),
                    None => Reported { value: strength.strength(latent, at), ..Reported::default() },
                };
                rows.push((series.key(t), row));
            }
        }
        rows
    }

    fn onsets(&self, series: &Series) -> Vec<LatentOnset> {
        let (layer, seed) = self.key();
        let row = |&latent: &usize| {
            let Dated { gate, status, shape, onset } = &self.dated[latent];
            LatentOnset {
                run: series.run.clone(),
                layer,
                seed,
                latent: latent as i32,
                status: *status,
                shape: *shape,
                delta: gate.as_ref().map(|gate| gate.delta).into(),
                z: gate.as_ref().and_then(|gate| finite(gate.z)),
                q: gate.as_ref().and_then(|gate| gate.q),
                t50: onset.as_ref().map(|onset| onset.known(onset.t50)).unwrap_or_default(),
                t50_step: onset.as_ref().map(|onset| onset.known(onset.t50_step)).unwrap_or_default(),
                twin: self.twins.iter().map(|cosines| f64::from(cosines[latent])).reduce(f64::min),
                axis: series.axis.name(),
                n_checkpoints: self.points.len() as i32,
            }
        };
        self.live.iter().map(row).collect()
    }
}
