//! Loops over rows, in the widest registers that there are.

/// Runs `work` with the wide registers that the CPU has; the same bits without them.
#[inline(always)]
pub(super) fn wide(work: impl FnOnce()) {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx2")]
        fn with_avx2(work: impl FnOnce()) {
            work();
        }
        if is_x86_feature_detected!("avx2") {
            // SAFETY: the CPU has the feature.
            return unsafe { with_avx2(work) };
        }
    }
    work();
}

/// `out += factor * row`.
pub(super) fn add(factor: f32, row: &[f32], out: &mut [f32]) {
    wide(
        #[inline(always)]
        || out.iter_mut().zip(row).for_each(|(out, x)| *out += factor * x),
    );
}
