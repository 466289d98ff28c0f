//! What probes are held against: labelled items, how they are held out, and what is reached on them without
//! anything learned, by words, by their mean input embedding, and by random weights.

use crate::measure::contrast::labelled;
use crate::measure::held_out_third;
use crate::series::{Family, Series};
use crate::stats::draws::{Draws, generator, shuffle};
use crate::stats::estimate::Sampled;
use crate::stats::evaluate::{Ranking, Scale, evaluate};
use crate::stats::folds::{INNER, OUTER, grouped};
use crate::stats::kernel::Design;
use crate::stats::{control, lexical, logistic};
use crate::words::Status;
use anyhow::Result;
use rayon::prelude::*;

/// Labelled items of one family, and how they are held out.
pub struct Set<'a> {
    pub family: &'a Family,
    pub items: Vec<usize>,
    pub labels: Vec<bool>,
    /// Group of each item.
    pub groups: Vec<usize>,
    /// `None` with fewer than two groups.
    pub draws: Option<Draws>,
    pub n_groups: usize,
    /// Fold of each item, per entry of [`super::SPLITS`]; `None` where there are fewer than two to hold out.
    pub folds: [Option<Vec<usize>>; 3],
    pub control: Option<Vec<bool>>,
    /// Groups in the order in which they are sent.
    pub order: Vec<usize>,
    /// What the items' words reach.
    pub words: Words,
}

impl<'a> Set<'a> {
    pub fn new(series: &Series, family: &'a Family) -> Result<Self> {
        let (ids, sides, items) = labelled(series, family);
        let labels: Vec<bool> = items.iter().map(|&item| series.items[item].y == Some(1)).collect();
        let mut groups = vec![0; items.len()];
        for (g, side) in sides.iter().enumerate() {
            side.ones.iter().chain(&side.zeros).for_each(|&item| groups[item] = g);
        }
        let key = format!("{}/{}", family.concept, family.label_family);
        let draws = if ids.len() < 2 { None } else { Some(Draws::with_counts(ids.len(), 1, series.bootstraps, series.seed, &key)?) };
        let column = |of: fn(&crate::prompt::item::Item) -> &str| -> Vec<&str> { items.iter().map(|&i| of(&series.items[i])).collect() };
        let (templates, lexicons, cells) = (column(|i| &i.template_id), column(|i| &i.lexicon_id), column(|i| &i.cell));
        let types: Vec<(&str, &str)> = lexicons.iter().copied().zip(cells).collect();
        let mut order: Vec<usize> = (0..ids.len()).collect();
        shuffle(&mut order, &mut generator(series.seed, &format!("online/{key}")));
        let mut set = Self {
            folds: [grouped(&groups, OUTER).ok(), grouped(&templates, OUTER).ok(), grouped(&lexicons, OUTER).ok()],
            control: control::labels(&types, &labels, series.seed, &key),
            n_groups: ids.len(),
            family,
            items,
            labels,
            groups,
            draws,
            order,
            words: Words::default(),
        };
        set.words = Words::new(series, &set)?;
        Ok(set)
    }

    /// Number of groups.
    pub fn n_groups(&self) -> usize {
        self.n_groups
    }

    /// Why there is no probe with entry `index` of [`super::SPLITS`] held out.
    pub fn absent(&self, index: usize) -> Status {
        let varied = self.labels.iter().any(|&label| Some(&label) != self.labels.first());
        if varied && self.folds[index].is_none() { Status::TooFewGroups } else { Status::DegenerateLabel }
    }

    /// AUROC on every third group, which chooses the primary layer.
    pub fn choice(&self, scores: &[f64]) -> Result<f64> {
        let third: Vec<usize> = held_out_third(self.n_groups).collect();
        let weights: Vec<f64> = self.groups.iter().map(|g| f64::from(u8::from(third.contains(g)))).collect();
        Ok(Ranking::new(scores, &self.labels)?.auroc(&weights).unwrap_or(f64::NEG_INFINITY))
    }
}

/// What the words of labelled items reach, as AUROC of a probe over groups.
#[derive(Debug, Clone, Default)]
pub struct Words {
    /// The better one of counts and lengths; `None` where there are no texts.
    lexical: Option<f64>,
    /// Ridge regression on mean input embeddings, by checkpoint; `None` where the store has none.
    embedding: Vec<Option<Sampled>>,
}

impl Words {
    /// Of the items of a set.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn new(series: &Series, set: &Set) -> Result<Self> {
        let at = |t: usize| -> Result<Option<Sampled>> {
            let (Some((rows, d)), Some(folds)) = (series.embeddings(t, &set.items)?, &set.folds[0]) else { return Ok(None) };
            of_scores(lexical::embedding_scores(&rows, d, &set.labels, folds)?, set)
        };
        let embedding = (0..series.points.len()).into_par_iter().map(at).collect::<Result<_>>()?;
        Ok(Self { lexical: series.audit(set.family)?.iter().filter_map(|row| row.auroc.value).reduce(f64::max), embedding })
    }

    /// AUROC on mean input embeddings at a checkpoint.
    pub fn embedding(&self, t: usize) -> Option<f64> {
        self.embedding[t].as_ref().map(|baseline| baseline.value)
    }

    /// The highest baseline of a checkpoint, what `random` weights reach included.
    pub fn best(&self, t: usize, random: Option<&Sampled>) -> Option<Sampled> {
        let lexical = self.lexical.map(|value| Sampled { value, replicates: Vec::new() });
        Sampled::highest([lexical.as_ref(), self.embedding[t].as_ref(), random]).cloned()
    }
}

/// AUROC of the logistic probe over groups on a layer of the network with random weights; `None` where it was not walked.
///
/// # Errors
/// The store cannot be read.
pub fn of_random_weights(series: &Series, set: &Set, readout: usize, layer: usize) -> Result<Option<Sampled>> {
    let (Some(random), Some(folds)) = (series.baseline_of(readout, &set.items), &set.folds[0]) else { return Ok(None) };
    let (rows, d) = random.rows(0, readout, layer, &set.items)?;
    let splits = Design::new(&rows, d)?.whole().folds(folds)?;
    match logistic::held_out_by(&splits, &set.labels, &set.groups, INNER) {
        Ok(held) => of_scores(held.map(|held| held.scores), set),
        Err(error) => {
            let (concept, layer) = (&set.family.concept, series.layers[layer]);
            tracing::warn!("{concept}, layer {layer}, random weights: {error:#}");
            Ok(None)
        }
    }
}

/// AUROC of held-out scores.
fn of_scores(scores: Option<Vec<f64>>, set: &Set) -> Result<Option<Sampled>> {
    let (Some(scores), Some(draws)) = (scores, &set.draws) else { return Ok(None) };
    let evaluation = evaluate(&scores, &set.labels, &set.groups, Scale::Margin, draws)?;
    Ok(evaluation.auroc.map(|auroc| Sampled { value: auroc.value, replicates: evaluation.auroc_replicates }))
}
