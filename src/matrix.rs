//! The one dense product that the statistics need, in safe clothes.
//!
//! `matrixmultiply` is single-threaded and picks its kernel from the CPU at run time, so results do
//! not depend on the number of threads (they may differ in the last bit between CPUs).

/// Layout of the right-hand side of [`multiply`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Right {
    /// `b` is `[inner, columns]`: the product is `a b`.
    AsIs,
    /// `b` is `[columns, inner]`: the product is `a b'`.
    Transposed,
}

/// `out[rows, columns] = a[rows, inner] * b`, all row-major.
///
/// # Panics
/// When a slice does not have the stated shape.
pub fn multiply([rows, inner, columns]: [usize; 3], a: &[f32], b: &[f32], right: Right, out: &mut [f32]) {
    assert_eq!(a.len(), rows * inner, "left matrix is not [{rows}, {inner}]");
    assert_eq!(b.len(), inner * columns, "right matrix is not {inner} x {columns}");
    assert_eq!(out.len(), rows * columns, "product is not [{rows}, {columns}]");
    let (row_stride, column_stride) = match right {
        Right::AsIs => (columns as isize, 1),
        Right::Transposed => (1, inner as isize),
    };
    // SAFETY: the three assertions above are exactly the bounds that these strides span.
    unsafe {
        matrixmultiply::sgemm(
            rows,
            inner,
            columns,
            1.0,
            a.as_ptr(),
            inner as isize,
            1,
            b.as_ptr(),
            row_stride,
            column_stride,
            0.0,
            out.as_mut_ptr(),
            columns as isize,
            1,
        );
    }
}

/// Inner product of equal-length rows, in eight lanes so that it vectorises in a fixed order.
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    let (a_lanes, a_rest) = a.as_chunks::<8>();
    let (b_lanes, b_rest) = b.as_chunks::<8>();
    let mut lanes = [0f32; 8];
    for (x, y) in a_lanes.iter().zip(b_lanes) {
        for lane in 0..8 {
            lanes[lane] += x[lane] * y[lane];
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(x, y)| x * y).sum();
    lanes.iter().sum::<f32>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_layouts_multiply() {
        let a = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]; // [2, 3]
        let b = [1.0, 0.0, 0.0, 1.0, 1.0, 1.0]; // [3, 2]
        let b_transposed = [1.0, 0.0, 1.0, 0.0, 1.0, 1.0]; // [2, 3]
        let mut out = [0.0; 4];
        multiply([2, 3, 2], &a, &b, Right::AsIs, &mut out);
        assert_eq!(out, [4.0, 5.0, 10.0, 11.0]);
        multiply([2, 3, 2], &a, &b_transposed, Right::Transposed, &mut out);
        assert_eq!(out, [4.0, 5.0, 10.0, 11.0]);
    }

    #[test]
    fn dot_takes_the_tail_along() {
        let a: Vec<f32> = (0..19).map(|i| i as f32).collect();
        assert_eq!(dot(&a, &a), 2109.0);
    }
}
