//! A fitted dictionary with its strengths, as a file of a run: what tables are made from.

use super::active::Active;
use super::crosscoder::{Crosscoder, Shape, save, tensor, values};
use super::scale::Scale;
use super::strength::Strength;
use crate::checkpoint::file::metadata;
use anyhow::{Context, Result, ensure};
use safetensors::SafeTensors;
use std::path::{Path, PathBuf};
use tch::{Device, Kind, Tensor};

/// Folder of the sheets in that of a run.
pub const FOLDER: &str = "dictionary";

/// One crosscoder of a run, on the CPU.
pub struct Sheet {
    pub layer: usize,
    pub seed: usize,
    /// Ids of its checkpoints, in order.
    pub checkpoints: Vec<String>,
    /// What it was made from.
    pub key: String,
    pub crosscoder: Crosscoder,
    pub scale: Scale,
    pub strength: Strength,
}

/// Where the sheet of a layer and seed is.
pub fn path(run: &Path, layer: usize, seed: usize) -> PathBuf {
    run.join(FOLDER).join(format!("layer-{layer}-seed-{seed}.safetensors"))
}

/// All sheets of a run, by path.
pub fn all(run: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(run.join(FOLDER)).into_iter().flatten().flatten().map(|entry| entry.path());
    let is_sheet = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("layer-"));
    let mut found: Vec<PathBuf> =
        entries.filter(is_sheet).filter(|path| path.extension().is_some_and(|end| end == "safetensors")).collect();
    found.sort();
    found
}

/// What a sheet was made from; nothing where it is none.
pub fn key(path: &Path) -> Option<String> {
    let (header, _) = metadata(&std::fs::File::open(path).ok()?).ok()?;
    header.metadata().as_ref()?.get("key").cloned()
}

impl Sheet {
    /// Writes it; the file appears whole or not at all.
    ///
    /// # Errors
    /// The folder is not writable.
    pub fn save(&self, path: &Path) -> Result<()> {
        let s = &self.strength;
        let numbers = |values: &[f64]| Tensor::f_from_slice(values);
        let on: Vec<f64> = s.on.iter().map(|&n| n as f64).collect();
        let sums = [
            ("along", numbers(&s.along)?),
            ("squares", numbers(&s.squares)?),
            ("error", numbers(&s.error)?),
            ("reconstruction", numbers(&s.reconstruction)?),
            ("lengths", numbers(&s.lengths)?),
            ("on", numbers(&on)?),
            ("sum", numbers(&s.sum)?),
            ("left", numbers(&s.left)?),
            ("whole", numbers(&s.whole)?),
            ("total", numbers(&s.total)?),
            ("factor", numbers(&self.scale.factor)?),
        ];
        let weights = self.crosscoder.tensors();
        let tensors: Vec<(&str, &Tensor)> =
            weights.into_iter().chain([("centre", &self.scale.centre)]).chain(sums.iter().map(|(name, sum)| (*name, sum))).collect();
        let facts = [
            ("key", self.key.clone()),
            ("layer", self.layer.to_string()),
            ("seed", self.seed.to_string()),
            ("checkpoints", serde_json::to_string(&self.checkpoints)?),
            ("d_model", self.crosscoder.shape.d_model.to_string()),
            ("threshold", self.crosscoder.threshold.to_string()),
            ("groups", s.groups.to_string()),
            ("tokens", s.tokens.to_string()),
        ];
        save(path, &tensors, facts.map(|(name, fact)| (name.to_owned(), fact)).into())
    }

    /// Reads what [`Sheet::save`] wrote.
    ///
    /// # Errors
    /// Names the file: it cannot be read, or is no sheet.
    pub fn load(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).with_context(|| format!("{}: cannot be read", path.display()))?;
        Self::of_bytes(&bytes).with_context(|| format!("{}: no sheet of a dictionary; delete it and run again", path.display()))
    }

    fn of_bytes(bytes: &[u8]) -> Result<Self> {
        let (_, header) = SafeTensors::read_metadata(bytes)?;
        let facts = header.metadata().clone().unwrap_or_default();
        let fact = |name: &str| facts.get(name).map(String::as_str).with_context(|| format!("{name} is missing"));
        let number = |name: &str| -> Result<usize> { Ok(fact(name)?.parse()?) };
        let checkpoints: Vec<String> = serde_json::from_str(fact("checkpoints")?)?;
        let file = SafeTensors::deserialize(bytes)?;
        let latents = file.tensor("encoder_bias")?.shape().iter().product();
        let shape = Shape { checkpoints: checkpoints.len(), d_model: number("d_model")?, latents };
        let take = |name: &str, shape: &[usize]| tensor(&file, name, &shape.iter().map(|&n| n as i64).collect::<Vec<_>>(), Device::Cpu);
        let (n, groups, width) = (shape.checkpoints, number("groups")?, shape.width());
        let sums = |name: &str, len: usize| -> Result<Vec<f64>> { Ok(values(&take(name, &[len])?)?.into_iter().map(f64::from).collect()) };
        let strength = Strength {
            along: sums("along", latents * n * groups)?,
            squares: sums("squares", latents * groups)?,
            error: sums("error", latents * n)?,
            reconstruction: sums("reconstruction", latents * n)?,
            lengths: sums("lengths", latents * n)?,
            on: sums("on", latents)?.into_iter().map(|n| n as u64).collect(),
            sum: sums("sum", latents)?,
            left: sums("left", n)?,
            whole: sums("whole", n)?,
            total: sums("total", width)?,
            tokens: number("tokens")? as u64,
            shape,
            groups,
        };
        let crosscoder = Crosscoder {
            encoder: take("encoder", &[latents, width])?,
            encoder_bias: take("encoder_bias", &[latents])?,
            decoder: take("decoder", &[latents, width])?,
            decoder_bias: take("decoder_bias", &[width])?,
            threshold: fact("threshold")?.parse()?,
            shape,
        };
        let scale = Scale { centre: take("centre", &[width])?, factor: sums("factor", n)? };
        Ok(Self { layer: number("layer")?, seed: number("seed")?, key: fact("key")?.to_owned(), checkpoints, crosscoder, scale, strength })
    }

    /// What is on at tokens whose activations are given for every checkpoint, `[checkpoint][token, d_model]`.
    ///
    /// # Errors
    /// They are of other checkpoints or another width.
    pub fn encode(&self, rows: &[Vec<f32>]) -> Result<Active> {
        let Shape { checkpoints, d_model, .. } = self.crosscoder.shape;
        let tokens = rows.first().map_or(0, Vec::len) / d_model.max(1);
        ensure!(rows.len() == checkpoints && rows.iter().all(|rows| rows.len() == tokens * d_model), "activations of another width");
        let parts = rows.iter().map(|rows| Tensor::f_from_slice(rows)?.f_view([tokens as i64, d_model as i64]));
        let x = Tensor::f_cat(&parts.collect::<std::result::Result<Vec<_>, _>>()?, 1)?.f_to_kind(Kind::Float)?;
        self.crosscoder.encode(&self.scale.apply(&x)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sheet_reads_back() {
        let shape = Shape { checkpoints: 2, d_model: 3, latents: 20 };
        let crosscoder = Crosscoder::random(shape, 1, Device::Cpu).unwrap();
        let rows = [(0..30).map(|n| (n as f32).sin()).collect::<Vec<f32>>(), (0..30).map(|n| (n as f32).cos()).collect()];
        let x = Tensor::cat(&[Tensor::from_slice(&rows[0]).view([10, 3]), Tensor::from_slice(&rows[1]).view([10, 3])], 1);
        let scale = Scale::of(&x, 2).unwrap();
        let mut strength = Strength::new(shape, 5);
        strength.add(&crosscoder, &scale.apply(&x).unwrap(), &[0, 0, 1, 1, 2, 2, 3, 3, 4, 4]).unwrap();
        let checkpoints = vec!["a".to_owned(), "b".to_owned()];
        let sheet = Sheet { layer: 4, seed: 1, checkpoints, key: "k".to_owned(), crosscoder, scale, strength };
        let folder = tempfile::tempdir().unwrap();
        let place = path(folder.path(), 4, 1);
        std::fs::create_dir_all(place.parent().unwrap()).unwrap();
        sheet.save(&place).unwrap();
        assert_eq!((all(folder.path()), key(&place)), (vec![place.clone()], Some("k".to_owned())));
        let read = Sheet::load(&place).unwrap();
        assert_eq!((read.layer, read.seed, &read.checkpoints), (4, 1, &sheet.checkpoints));
        assert_eq!(read.encode(&rows).unwrap(), sheet.encode(&rows).unwrap());
        let close = |a: Option<f64>, b: Option<f64>| a.zip(b).is_none_or(|(a, b)| (a - b).abs() < 1e-5 * (1.0 + b.abs()));
        assert!((0..20).all(|j| close(read.strength.strength(j, 1), sheet.strength.strength(j, 1))));
        assert!(read.encode(&rows[..1]).is_err());
    }
}
