//! What an adapter does to one tensor of its base: replaces it, replaces rows of it, adds products of low-rank factors.

use super::tensors::{Rows, Tensors, norm};
use anyhow::{Context, Result};
use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use tch::{Device, Kind, Tensor};

/// The changes of one tensor, in the order in which they are made. Keys are the adapter's.
#[derive(Debug, Clone, Default)]
pub struct Site {
    /// It is replaced by this one.
    pub whole: Option<String>,
    /// These rows are replaced by those of this tensor.
    pub rows: Option<(String, Vec<i64>)>,
    /// Added to it.
    pub products: Vec<Product>,
    /// A vector that is added to a bias, and its factor.
    pub bias: Option<(String, f64)>,
}

/// `scale * B A` for `a: [r, d_in]` and `b: [d_out, r]`.
#[derive(Debug, Clone)]
pub struct Product {
    pub a: String,
    pub b: String,
    pub rank: i64,
    pub scale: f64,
    /// The tensor is stored as `[d_in, d_out]`.
    pub transposed: bool,
    /// The factors are those of several experts, `a: [expert r, d_in]` and `b: [d_out, r expert]`: which one, of how many.
    pub expert: Option<(i64, i64)>,
    /// First and number of the product's rows that are meant; all of them unless given.
    pub rows: Option<(i64, i64)>,
    /// In a stack of matrices: which one, and its first row that is added to.
    pub into: Option<(i64, i64)>,
}

/// Factors of several experts that were read last: an expert's tensors are read one by one, and all need the same factors.
#[derive(Default)]
pub struct Cache(Mutex<VecDeque<(String, Tensor)>>);

impl Cache {
    /// A, B of two parameters.
    const SIZE: usize = 4;

    fn get(&self, tensors: &Tensors, key: &str, kind: Kind) -> Result<Tensor> {
        let mut cached = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, found)) = cached.iter().find(|(other, found)| other == key && found.kind() == kind) {
            return Ok(found.shallow_clone());
        }
        let factor = read(tensors, key, kind)?;
        cached.truncate(Self::SIZE - 1);
        cached.push_front((key.to_owned(), factor.shallow_clone()));
        Ok(factor)
    }
}

impl Site {
    /// Whether the tensor is replaced and nothing else.
    pub fn is_replacement(&self) -> Option<&str> {
        self.whole.as_deref().filter(|_| self.rows.is_none() && self.products.is_empty() && self.bias.is_none())
    }

    /// Changes `sum`, which holds the tensor that is changed and is f32 or f64.
    ///
    /// # Errors
    /// A tensor of the adapter cannot be read or has another shape, or the device is out of memory.
    pub fn apply(&self, tensors: &Tensors, cache: &Cache, sum: &mut Tensor) -> Result<()> {
        let (kind, device) = (sum.kind(), sum.device());
        if let Some(key) = &self.whole {
            tensors.read(key, &sum.size(), sum)?;
        }
        if let Some((key, rows)) = &self.rows {
            let new = read(tensors, key, kind)?.f_to_device(device)?;
            let _ = sum.f_index_copy_(0, &Tensor::f_from_slice(rows)?.f_to_device(device)?, &new)?;
        }
        for product in &self.products {
            let [left, right] = product.factors(tensors, cache, kind)?;
            let (left, right) = (left.f_to_device(device)?, right.f_to_device(device)?);
            let mut part = match product.into {
                None => sum.shallow_clone(),
                Some((expert, row)) => sum.f_get(expert)?.f_narrow(0, row, left.size()[0])?,
            };
            let _ = part.f_addmm_(&left, &right)?;
        }
        if let Some((key, scale)) = &self.bias {
            let _ = sum.f_add_(&read(tensors, key, kind)?.f_mul_scalar(*scale)?.f_to_device(device)?)?;
        }
        Ok(())
    }

    /// As [`Site::apply`], for some rows of a matrix of this shape. `sum` holds them, unless the tensor is replaced.
    ///
    /// # Errors
    /// As [`Site::apply`]; also a row outside the matrix.
    pub fn apply_to_rows(&self, tensors: &Tensors, cache: &Cache, sum: &mut Tensor, shape: &[i64; 2], rows: Rows) -> Result<()> {
        let kind = sum.kind();
        if let Some(key) = &self.whole {
            *sum = tensors.rows(key, shape, rows, kind)?;
        }
        if let Some((key, replaced)) = &self.rows {
            let wanted: Vec<i64> = match rows {
                Rows::Range(start, len) => (start..start + len).collect(),
                Rows::Listed(listed) => listed.to_vec(),
            };
            let place = |row: &i64| replaced.iter().position(|other| other == row);
            let hits = wanted.iter().enumerate().filter_map(|(at, row)| Some((at as i64, place(row)? as i64)));
            let (at, from): (Vec<i64>, Vec<i64>) = hits.unzip();
            let new = read(tensors, key, kind)?.f_index_select(0, &Tensor::f_from_slice(&from)?)?;
            let _ = sum.f_index_copy_(0, &Tensor::f_from_slice(&at)?, &new)?;
        }
        for product in &self.products {
            let [left, right] = product.factors(tensors, cache, kind)?;
            let _ = sum.f_addmm_(&rows.of(&left)?, &right)?;
        }
        Ok(())
    }

    /// Whether nothing is changed in the tensor `name` of `base`; one without a name is not the base's.
    ///
    /// # Errors
    /// A tensor cannot be read.
    pub fn is_idle(&self, tensors: &Tensors, base: &Tensors, name: Option<&str>) -> Result<bool> {
        let zero = |key: &str| -> Result<bool> { Ok(norm(&read(tensors, key, Kind::Float)?)? == Some(0.0)) };
        let same = |key: &String| name.is_some_and(|name| base.digest(name) == tensors.digest(key));
        if !self.whole.as_ref().is_none_or(same) {
            return Ok(false);
        }
        if let Some((key, rows)) = &self.rows {
            let Some(&[height, width]) = name.and_then(|name| base.shape(name)) else { return Ok(false) };
            let inside = rows.iter().all(|row| *row < height);
            if !inside {
                return Ok(false);
            }
            let old = base.rows(name.unwrap_or_default(), &[height, width], Rows::Listed(rows), Kind::Float)?;
            if !old.f_equal(&read(tensors, key, Kind::Float)?)? {
                return Ok(false);
            }
        }
        for product in &self.products {
            if product.scale != 0.0 && !zero(&product.b)? && !zero(&product.a)? {
                return Ok(false);
            }
        }
        Ok(match &self.bias {
            Some((key, scale)) => *scale == 0.0 || zero(key)?,
            None => true,
        })
    }

    /// Adds all that decides the change to a hash.
    pub fn update(&self, hasher: &mut blake3::Hasher, tensors: &Tensors) {
        let mut add = |text: String, keys: &[&String]| {
            hasher.update(text.as_bytes());
            for digest in keys.iter().filter_map(|key| tensors.digest(key)) {
                hasher.update(digest.as_bytes());
            }
        };
        if let Some(key) = &self.whole {
            add("whole".to_owned(), &[key]);
        }
        if let Some((key, rows)) = &self.rows {
            add(format!("rows {rows:?}"), &[key]);
        }
        for product in &self.products {
            let Product { rank, scale, transposed, expert, rows, into, a, b } = product;
            add(format!("product {rank} {scale} {transposed} {expert:?} {rows:?} {into:?}"), &[a, b]);
        }
        if let Some((key, scale)) = &self.bias {
            add(format!("bias {scale}"), &[key]);
        }
    }
}

impl Product {
    /// Two matrices whose product is what is added.
    fn factors(&self, tensors: &Tensors, cache: &Cache, kind: Kind) -> Result<[Tensor; 2]> {
        let (a, mut b) = match self.expert {
            None => (read(tensors, &self.a, kind)?, read(tensors, &self.b, kind)?),
            Some((expert, n)) => {
                let (a, b) = (cache.get(tensors, &self.a, kind)?, cache.get(tensors, &self.b, kind)?);
                let (d_in, d_out) = (a.size()[1], b.size()[0]);
                let a = a.f_view([n, self.rank, d_in])?.f_get(expert)?;
                (a, b.f_view([d_out, self.rank, n])?.f_select(2, expert)?)
            }
        };
        if let Some((start, len)) = self.rows {
            b = b.f_narrow(0, start, len)?;
        }
        let (left, right) = if self.transposed { (a.f_tr()?, b.f_tr()?) } else { (b, a) };
        Ok([left.f_mul_scalar(self.scale)?, right])
    }
}

/// A tensor of the adapter, whatever its shape is.
fn read(tensors: &Tensors, key: &str, kind: Kind) -> Result<Tensor> {
    let shape = tensors.shape(key).with_context(|| format!("tensor {key} is missing"))?;
    let tensor = Tensor::f_empty(shape, (kind, Device::Cpu))?;
    tensors.read(key, shape, &tensor)?;
    Ok(tensor)
}
