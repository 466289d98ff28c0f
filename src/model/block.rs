//! The one block equation. Families differ in which norms are there and in whether the MLP reads `resid_pre` or `resid_mid`:
//!
//! ```text
//! attn_out   = ln1_post(attn(ln1(resid_pre)))
//! resid_mid  = resid_pre + scale attn_out
//! mlp_out    = ln2_post(mlp(ln2(parallel ? resid_pre : resid_mid)))
//! resid_post = resid_mid + scale mlp_out
//! ```
//! An absent norm is the identity, and the scale is one in all families but Granite.

use super::attention::Attention;
use super::layers::Norm;
use super::mixture::FeedForward;
use super::plan::{Chunk, KeysValues, Rotation};
use anyhow::Result;
use tch::Tensor;

/// One transformer block, with its weights on a device.
pub struct Block {
    pub ln1: Option<Norm>,
    pub attention: Attention,
    pub ln1_post: Option<Norm>,
    pub ln2: Option<Norm>,
    pub mlp: FeedForward,
    pub ln2_post: Option<Norm>,
    pub parallel: bool,
    /// Factor of what the sublayers add.
    pub residual_scale: f64,
}

impl Block {
    /// `resid_pre: [node, d_model] -> resid_post`, for the nodes of one chunk, with the keys and values of the path to the next chunk.
    ///
    /// # Errors
    /// Shapes differ, or the device is out of memory.
    pub fn forward(
        &self,
        resid_pre: &Tensor,
        past: Option<KeysValues>,
        chunk: &Chunk,
        rotations: &[Rotation],
    ) -> Result<(Tensor, Option<KeysValues>)> {
        let mut next = None;
        let resid = self.around(resid_pre, |x| {
            let (out, carried) = self.attention.forward(x, past, chunk, rotations)?;
            next = carried;
            Ok(out)
        })?;
        Ok((resid, next))
    }

    /// The block equation about any attention: `resid_pre: [node, d_model] -> resid_post`; `attend` gets the normed input and returns what
    /// attention writes.
    ///
    /// # Errors
    /// Shapes differ, the device is out of memory, or whatever `attend` returns.
    pub fn around(&self, resid_pre: &Tensor, attend: impl FnOnce(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
        let attn_out = attend(&normed(&self.ln1, resid_pre)?)?;
        let resid_mid = self.add(resid_pre, &normed(&self.ln1_post, &attn_out)?)?;
        let mlp_in = if self.parallel { resid_pre } else { &resid_mid };
        let mlp_out = self.mlp.forward(&normed(&self.ln2, mlp_in)?)?;
        self.add(&resid_mid, &normed(&self.ln2_post, &mlp_out)?)
    }

    /// Puts the weights into the order that suits a few nodes at a time ([`super::layers::Linear::pack`]).
    ///
    /// # Errors
    /// Out of memory.
    pub fn pack(&mut self) -> Result<()> {
        self.attention.qkv.pack()?;
        self.attention.out.pack()?;
        let mlps = match &mut self.mlp {
            FeedForward::Dense(mlp) => std::slice::from_mut(mlp),
            FeedForward::Mixture(mixture) => mixture.experts.as_mut_slice(),
        };
        mlps.iter_mut().try_for_each(|mlp| mlp.up.pack().and_then(|()| mlp.down.pack()))
    }

    fn add(&self, resid: &Tensor, out: &Tensor) -> Result<Tensor> {
        Ok(if self.residual_scale == 1.0 { resid.f_add(out)? } else { resid.f_add(&out.f_mul_scalar(self.residual_scale)?)? })
    }
}

fn normed(norm: &Option<Norm>, x: &Tensor) -> Result<Tensor> {
    norm.as_ref().map_or_else(|| Ok(x.shallow_clone()), |norm| norm.forward(x))
}
