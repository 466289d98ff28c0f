//! What of a dictionary is there again with another seed: its latents one by one, and the subspaces that some of them span.
//!
//! Single latents split and merge from seed to seed; what they span together may stay.

use super::crosscoder::{Crosscoder, values};
use anyhow::Result;
use tch::{Kind, Tensor};

/// For every latent of one dictionary the largest cosine with a latent of another, all checkpoints taken together: `[latent]`. A latent
/// without length has none.
///
/// # Errors
/// The dictionaries are of other checkpoints.
pub fn best_cosines(one: &Crosscoder, other: &Crosscoder) -> Result<Vec<f32>> {
    let unit = |c: &Crosscoder| -> Result<Tensor> {
        let length = c.decoder.f_square()?.f_sum_dim_intlist(1i64, true, Kind::Float)?.f_sqrt()?;
        Ok(c.decoder.f_div(&length.f_clamp_min(f64::from(f32::MIN_POSITIVE))?)?)
    };
    values(&unit(one)?.f_matmul(&unit(other)?.f_tr()?)?.f_amax([1i64].as_slice(), false)?)
}

/// How much of the smaller of two subspaces is in the other, from 0 to 1: the mean squared cosine of their principal angles. Rows of `one`
/// and `other`, `[n, d]`, span them. By chance it is the larger number of rows over d. `None` where one has no rows.
///
/// # Errors
/// Widths differ.
pub fn shared(one: &Tensor, other: &Tensor) -> Result<Option<f64>> {
    let (a, b) = (one.size()[0], other.size()[0]);
    if a == 0 || b == 0 {
        return Ok(None);
    }
    let basis = |rows: &Tensor| -> Result<Tensor> { Ok(Tensor::f_linalg_qr(&rows.f_to_kind(Kind::Double)?.f_tr()?, "reduced")?.0) };
    let [one, other] = [basis(one)?, basis(other)?];
    let rank = one.size()[1].min(other.size()[1]);
    let product = one.f_tr()?.f_matmul(&other)?;
    Ok(Some(product.f_square()?.f_sum(Kind::Double)?.f_double_value(&[])? / rank as f64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dictionary::Shape;
    use tch::Device;

    #[test]
    fn latents_in_another_order_are_the_same() {
        let shape = Shape { checkpoints: 2, d_model: 6, latents: 9 };
        let one = Crosscoder::random(shape, 1, Device::Cpu).unwrap();
        let mut other = Crosscoder::random(shape, 1, Device::Cpu).unwrap();
        other.decoder = other.decoder.flip([0]) * 3.0;
        assert!(best_cosines(&one, &other).unwrap().iter().all(|cosine| (cosine - 1.0).abs() < 1e-5));
        let strange = Crosscoder::random(shape, 2, Device::Cpu).unwrap();
        assert!(best_cosines(&one, &strange).unwrap().iter().all(|cosine| *cosine < 0.99));
    }

    #[test]
    fn what_latents_span_may_be_the_same_where_they_are_not() {
        let plane = Tensor::from_slice(&[1f32, 0.0, 0.0, 0.0, 1.0, 0.0]).view([2, 3]);
        let turned = Tensor::from_slice(&[1f32, 1.0, 0.0, -1.0, 2.0, 0.0]).view([2, 3]);
        let near = |found: Option<f64>, expected: f64| (found.unwrap() - expected).abs() < 1e-9;
        assert!(near(shared(&plane, &turned).unwrap(), 1.0));
        let line = Tensor::from_slice(&[0f32, 1.0, 1.0]).view([1, 3]);
        assert!(near(shared(&plane, &line).unwrap(), 0.5));
        assert_eq!(shared(&plane, &plane.narrow(0, 0, 0)).unwrap(), None);
    }
}
