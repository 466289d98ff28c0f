//! Dictionaries of a run: fitted over all checkpoints at once when these have been walked, a sheet per layer and seed.

use super::Job;
use crate::console::{bar, check_interrupt};
use crate::dictionary::fit::{Fit, Settings};
use crate::dictionary::scale::Scale;
use crate::dictionary::sheet::{self, Sheet};
use crate::lease::Lease;
use crate::manifest::CheckpointSpec;
use crate::walk::paired::{BUFFER, Streamed};
use crate::walk::texts::Texts;
use anyhow::{Context, Result, bail, ensure};
use std::path::PathBuf;

/// Checkpoints that one dictionary is of, at most.
const MOST: usize = 8;
/// Tokens of a step.
const BATCH: usize = 512;

/// What dictionaries take.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DictionaryCost {
    pub fits: usize,
    pub layers: usize,
    pub checkpoints: usize,
    /// Tokens that are computed at every checkpoint, for each layer.
    pub tokens: usize,
    /// Tokens that the texts have.
    pub texts: usize,
    pub held_out: usize,
    /// Floating-point operations of all fits; those of the models come on top.
    pub operations: f64,
    /// Of the weights, their moments and a buffer.
    pub memory_bytes: u64,
    pub disk_bytes: u64,
}

impl Job {
    /// The checkpoints of the dictionaries.
    fn paired_specs(&self) -> Result<Vec<&CheckpointSpec>> {
        let Some(wanted) = &self.manifest.dictionary else { return Ok(Vec::new()) };
        let known: Vec<&CheckpointSpec> = self.manifest.checkpoints.iter().collect();
        if let Some(lost) = wanted.checkpoints.iter().find(|id| !known.iter().any(|spec| spec.id == **id)) {
            let ids: Vec<&str> = known.iter().map(|spec| spec.id.as_str()).collect();
            bail!("{} checkpoints: found {lost:?}, expected some of {}", wanted.place, ids.join(", "));
        }
        let chosen: Vec<&CheckpointSpec> =
            known.into_iter().filter(|spec| wanted.checkpoints.is_empty() || wanted.checkpoints.contains(&spec.id)).collect();
        ensure!(chosen.len() > 1, "{} checkpoints: found {}, expected two or more", wanted.place, chosen.len());
        if chosen.len() > MOST {
            let id = |at: usize| chosen[at].id.as_str();
            let spread: Vec<String> = (0..MOST).map(|at| format!("{:?}", id(at * (chosen.len() - 1) / (MOST - 1)))).collect();
            bail!(
                "{} checkpoints: found {}, expected {MOST} at most at a time; name some, as in [{}], and the others between two of these \
                 in another run",
                wanted.place,
                chosen.len(),
                spread.join(", ")
            );
        }
        Ok(chosen)
    }

    fn paired_layers(&self, n_layers: usize) -> Result<Vec<usize>> {
        let Some(wanted) = &self.manifest.dictionary else { return Ok(Vec::new()) };
        let kept = self.manifest.model.layers.resolve(n_layers)?;
        wanted.layers.among(&kept, n_layers, &format!("{} layers", wanted.place))
    }

    /// What the dictionaries of this run take; `None` without `[dictionary]`.
    ///
    /// # Errors
    /// What would stop them: texts that cannot be read, checkpoints or layers that are not there.
    pub fn dictionary_cost(&self, d_model: usize, n_layers: usize) -> Result<Option<DictionaryCost>> {
        let Some(wanted) = &self.manifest.dictionary else { return Ok(None) };
        let (specs, layers) = (self.paired_specs()?, self.paired_layers(n_layers)?);
        let texts = Texts::new(wanted, &self.set, &self.ruler)?;
        let held_out: usize = texts.held_out.iter().map(|(text, _)| text.kept.len()).sum();
        let (width, fits) = (specs.len() * d_model, layers.len() * wanted.seeds);
        let parameters = (2 * wanted.latents * width) as f64;
        // The encoder's product in full, and the products with what is on: decoding and three gradients.
        let per_token = parameters + (8 * wanted.k * width) as f64;
        let weights = (4 * 2 * wanted.latents * width) as u64;
        Ok(Some(DictionaryCost {
            fits,
            layers: layers.len(),
            checkpoints: specs.len(),
            tokens: wanted.tokens + held_out,
            texts: texts.tokens(),
            held_out,
            operations: fits as f64 * wanted.tokens as f64 * per_token,
            memory_bytes: wanted.seeds as u64 * 3 * weights + (3 * 4 * BUFFER * width) as u64,
            disk_bytes: fits as u64 * weights,
        }))
    }

    /// Fits what is not there yet; nothing without `[dictionary]`. Checkpoints that could not be walked are left out.
    ///
    /// # Errors
    /// As [`Job::dictionary_cost`]; a checkpoint cannot be read; the folder is not writable; or an interrupt.
    pub fn fit_dictionaries(&self) -> Result<()> {
        let Some(wanted) = &self.manifest.dictionary else { return Ok(()) };
        let mut specs = self.paired_specs()?;
        ensure!(
            self.manifest.keep || !self.manifest.uses_hub(),
            "{}: needs the weights of all checkpoints at once, which [hub] keep = false deletes; set keep = true",
            wanted.place
        );
        let _lease = Lease::wait(&self.folder.join("dictionary.lease"), "fits the dictionaries")?;
        specs.retain(|spec| self.record(&spec.id).is_some_and(|record| record.status == "ok"));
        ensure!(specs.len() > 1, "{}: fewer than two of its checkpoints have been walked", wanted.place);
        let texts = Texts::new(wanted, &self.set, &self.ruler)?;
        let first = self.open(specs[0])?;
        let fingerprints: Vec<String> =
            specs.iter().filter_map(|spec| Some(format!("{} {}", spec.id, self.record(&spec.id)?.fingerprint?))).collect();
        for layer in self.paired_layers(first.config.n_layers)? {
            let key = blake3::hash(
                format!("dictionary-1 {:?} {} {layer} {} {fingerprints:?}", wanted.settings(), texts.hash(), self.manifest.run.seed)
                    .as_bytes(),
            );
            let key = key.to_hex().to_string();
            let paths: Vec<PathBuf> = (0..wanted.seeds).map(|seed| sheet::path(&self.folder, layer, seed)).collect();
            if paths.iter().all(|path| sheet::key(path).as_deref() == Some(&key)) {
                continue;
            }
            let opened = specs.iter().map(|spec| Ok((spec.id.clone(), self.open(spec)?))).collect::<Result<Vec<_>>>()?;
            let mut source = Streamed::new(opened, &texts, layer, self.manifest.model.dtype, self.device, self.manifest.run.seed)?;
            let rounds = wanted.tokens.div_ceil(texts.tokens().max(1));
            if rounds > 1 {
                tracing::info!(
                    "dictionary: the texts have {} tokens and {} were asked for; they are read {rounds} times",
                    texts.tokens(),
                    wanted.tokens
                );
            }
            let (d_model, checkpoints) = source.sizes();
            let settings = |seed: usize| Settings {
                latents: wanted.latents,
                k: wanted.k,
                batch: BATCH,
                tokens: wanted.tokens,
                rate: None,
                seed: self.manifest.run.seed.wrapping_mul(1000).wrapping_add(seed as u64),
            };
            let fits = (0..wanted.seeds).map(|seed| Fit::new(checkpoints, d_model, settings(seed), self.device));
            let mut fits = fits.collect::<Result<Vec<_>>>()?;
            let states = paths.iter().map(|path| path.with_extension("state")).collect::<Vec<_>>();
            let bar = bar(wanted.seeds * settings(0).steps(), &format!("dictionary of layer {layer}"));
            let mut tick = |_: usize, _: f64| {
                bar.inc(1);
                Ok(check_interrupt()?)
            };
            Fit::run_all(&mut fits, &mut source, &Some((states.clone(), &key)), &mut tick)
                .with_context(|| format!("dictionary of layer {layer}"))?;
            bar.finish_and_clear();
            let dictionaries: Vec<_> = fits.iter().map(|fit| &fit.weights.crosscoder).collect();
            let (strengths, scale) = source.measure(&dictionaries)?;
            for (seed, (fit, strength)) in fits.into_iter().zip(strengths).enumerate() {
                let scale = Scale { centre: scale.centre.f_detach_copy()?, factor: scale.factor.clone() };
                let checkpoints = specs.iter().map(|spec| spec.id.clone()).collect();
                let crosscoder = fit.weights.crosscoder;
                Sheet { layer, seed, checkpoints, key: key.clone(), crosscoder, scale, strength }.save(&paths[seed])?;
                let _ = std::fs::remove_file(&states[seed]);
            }
            tracing::info!("dictionary of layer {layer}: {} fits over {checkpoints} checkpoints", wanted.seeds);
        }
        Ok(())
    }
}
