//! Random numbers in the place of a checkpoint's weights: the same architecture before any training.
//!
//! A network that has learned nothing still has contrasts and an assistant axis, because random features of words are features of
//! words. What it reaches is the level that a trained one has to exceed.

use super::tensors::{Rows, Tensors};
use crate::stats::draws::{generator, normal};
use anyhow::{Result, bail, ensure};
use rayon::prelude::*;
use tch::{Kind, Tensor};

/// Numbers drawn at a time.
const PIECE: usize = 1 << 20;

/// Where the parameters of an activation begin (`XIELUActivation`): softplus of them is 0.8, and 0.8 with beta.
const ACTIVATION: &[(&str, f64)] = &[
    (".act_fn.alpha_p", 0.203_382_320_811_025),
    (".act_fn.alpha_n", -1.050_225_612_814_847),
    (".act_fn.beta", 0.5),
    (".act_fn.eps", -1e-6),
];

/// Matrices and embeddings from a normal distribution, biases 0 and norms neutral, as transformers initialises its models
/// (`PreTrainedModel._init_weights`), and parameters of activations where they begin. Another vector is an error: it must not keep
/// what training made of it.
///
/// Every row of a tensor depends on the seed, the tensor's name and its own number alone, so rows can be read in any order.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Random {
    pub seed: u64,
    /// Standard deviation of matrices and embeddings: `initializer_range` of `config.json`.
    pub sd: f64,
    /// The weight with which a norm does nothing but normalise: 1, or 0 where it is stored less one.
    pub neutral: f64,
}

impl Random {
    /// Fills `target` with what stands in the place of a tensor of `base`; arguments are those of [`Tensors::read`].
    ///
    /// # Errors
    /// The tensor is missing or has another shape, or the device is out of memory.
    pub fn read(&self, base: &Tensors, name: &str, shape: &[i64], target: &Tensor) -> Result<()> {
        base.expect(name, shape)?;
        let constant = match (shape.len(), name) {
            (2.., _) => None,
            (_, bias) if bias.ends_with("bias") => Some(0.0),
            (_, norm) if norm.contains("norm") || norm.contains("ln_") => Some(self.neutral),
            _ => match ACTIVATION.iter().find(|(part, _)| name.ends_with(part)) {
                Some((_, initial)) => Some(*initial),
                None => bail!("{}: how {name} begins is not known, so there is no random network like it", base.folder().display()),
            },
        };
        if let Some(constant) = constant {
            let _ = target.shallow_clone().f_fill_(constant)?;
            return Ok(());
        }
        let (rows, width) = (shape[0], shape[1..].iter().product::<i64>());
        let target = target.f_view([rows, width])?;
        let step = (PIECE as i64 / width.max(1)).max(1);
        for start in (0..rows).step_by(step as usize) {
            let some: Vec<i64> = (start..rows.min(start + step)).collect();
            let drawn = self.draw(name, &some, width)?;
            target.f_narrow(0, start, some.len() as i64)?.f_copy_(&drawn)?;
        }
        Ok(())
    }

    /// Some rows of what stands in the place of a matrix, `[row, shape[1]]`; arguments are those of [`Tensors::rows`].
    ///
    /// # Errors
    /// As [`Random::read`]; also a row outside the matrix.
    pub fn rows(&self, base: &Tensors, name: &str, shape: &[i64; 2], rows: Rows, kind: Kind) -> Result<Tensor> {
        base.expect(name, shape)?;
        let some: Vec<i64> = match rows {
            Rows::Range(start, len) => (start..start + len).collect(),
            Rows::Listed(rows) => rows.to_vec(),
        };
        let outside = some.iter().find(|row| !(0..shape[0]).contains(*row));
        ensure!(outside.is_none(), "row {} is outside {name}, which has {} rows", outside.unwrap_or(&0), shape[0]);
        Ok(self.draw(name, &some, shape[1])?.f_to_kind(kind)?)
    }

    /// `[row, width]`, f32.
    fn draw(&self, name: &str, rows: &[i64], width: i64) -> Result<Tensor> {
        let mut values = vec![0f32; rows.len() * width as usize];
        values.par_chunks_mut(width.max(1) as usize).zip(rows).for_each(|(values, row)| {
            let mut generator = generator(self.seed, &format!("weights/{name}/{row}"));
            values.fill_with(|| (self.sd * normal(&mut generator)) as f32);
        });
        Ok(Tensor::f_from_slice(&values)?.f_view([rows.len() as i64, width])?)
    }

    /// Digest of what stands in the place of all tensors of `base`.
    pub fn fingerprint(&self, base: &Tensors) -> String {
        let shapes: Vec<_> = base.names().map(|name| (name, base.shape(name))).collect();
        blake3::hash(format!("{self:?} {shapes:?}").as_bytes()).to_hex().to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use safetensors::tensor::{Dtype, TensorView, serialize_to_file};

    fn base(folder: &std::path::Path) -> Tensors {
        let [matrix, vector] = [vec![7u8; 64 * 48 * 4], vec![0u8; 48 * 4]];
        let view = |shape: &[usize], data| TensorView::new(Dtype::F32, shape.to_vec(), data).unwrap();
        let tensors = [
            ("model.layers.0.mlp.up_proj.weight", view(&[64, 48], &matrix)),
            ("model.layers.0.mlp.up_proj.bias", view(&[48], &vector)),
            ("model.layers.0.input_layernorm.weight", view(&[48], &vector)),
            ("model.layers.0.mlp.act_fn.alpha_p", view(&[1], &vector[..4])),
            ("model.layers.0.mlp.gates", view(&[48], &vector)),
        ];
        serialize_to_file(tensors, None, &folder.join("model.safetensors")).unwrap();
        Tensors::open(folder).unwrap()
    }

    fn read(random: &Random, base: &Tensors, name: &str, shape: &[i64]) -> Vec<f32> {
        let target = Tensor::zeros(shape, (Kind::Float, tch::Device::Cpu));
        random.read(base, name, shape, &target).unwrap();
        Vec::try_from(target.flatten(0, -1)).unwrap()
    }

    #[test]
    fn matrices_are_drawn_biases_are_zero_and_norms_neutral() {
        let folder = tempfile::tempdir().unwrap();
        let base = base(folder.path());
        let random = Random { seed: 3, sd: 0.02, neutral: 1.0 };
        let matrix = read(&random, &base, "model.layers.0.mlp.up_proj.weight", &[64, 48]);
        let n = matrix.len() as f32;
        let mean = matrix.iter().sum::<f32>() / n;
        let sd = (matrix.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / n).sqrt();
        // Within four standard errors.
        assert!(mean.abs() < 4.0 * 0.02 / n.sqrt() && (sd - 0.02).abs() < 4.0 * 0.02 / (2.0 * n).sqrt(), "{mean} {sd}");
        assert_eq!(read(&random, &base, "model.layers.0.mlp.up_proj.bias", &[48]), vec![0.0; 48]);
        assert_eq!(read(&random, &base, "model.layers.0.input_layernorm.weight", &[48]), vec![1.0; 48]);
        let [alpha] = read(&random, &base, "model.layers.0.mlp.act_fn.alpha_p", &[1])[..] else { panic!() };
        assert!((alpha.exp().ln_1p() - 0.8).abs() < 1e-6, "{alpha}");
        // What is none of these must not keep its trained values.
        let target = Tensor::zeros([48], (Kind::Float, tch::Device::Cpu));
        assert!(random.read(&base, "model.layers.0.mlp.gates", &[48], &target).unwrap_err().to_string().contains("mlp.gates"));
    }

    #[test]
    fn rows_do_not_depend_on_how_they_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let base = base(folder.path());
        let (name, shape) = ("model.layers.0.mlp.up_proj.weight", [64, 48]);
        let random = Random { seed: 3, sd: 0.02, neutral: 1.0 };
        let whole = read(&random, &base, name, &shape);
        let rows = |random: &Random, rows| {
            Vec::<f32>::try_from(random.rows(&base, name, &shape, rows, Kind::Float).unwrap().flatten(0, -1)).unwrap()
        };
        assert_eq!(rows(&random, Rows::Listed(&[63, 5])), [&whole[63 * 48..], &whole[5 * 48..6 * 48]].concat());
        assert_eq!(rows(&random, Rows::Range(5, 2)), whole[5 * 48..7 * 48]);
        assert_ne!(rows(&Random { seed: 4, ..random }, Rows::Range(0, 64)), whole);
        assert!(random.rows(&base, name, &shape, Rows::Listed(&[64]), Kind::Float).unwrap_err().to_string().contains("row 64"));
        assert!(random.read(&base, name, &[48, 64], &Tensor::zeros([48, 64], (Kind::Float, tch::Device::Cpu))).is_err());
    }
}
