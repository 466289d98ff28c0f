//! The dense products that the statistics need, in safe clothes.
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

/// Copies what is below the diagonal of the first `n` rows, `[n, n]`, to above it.
pub fn mirror<T: Copy>(n: usize, rows: &mut [T]) {
    for row in 1..n {
        for column in 0..row {
            rows[column * n + row] = rows[row * n + column];
        }
    }
}

/// Rows that are multiplied at a time, for products of `width` columns: few enough for the product to stay in the cache, many enough
/// for the right-hand side not to be packed over and over.
fn rows_at_a_time(width: usize) -> usize {
    65_536usize.div_ceil(width).clamp(128, 1024)
}

/// Calls `each(v, v'Mv)` for the rows v of `rows`, `[count, n]`, in order; `m` is `[n, n]` and need not be symmetric.
///
/// # Panics
/// When `m` is not `[n, n]` or `rows` are not whole.
pub fn quadratic_forms(n: usize, rows: &[f32], m: &[f32], mut each: impl FnMut(&[f32], f64)) {
    forms_beside(n, rows, m, 0, |v, form, _| each(v, form));
}

/// As [`quadratic_forms`] with `beside` more columns in `m`, `[n, n + beside]`: the products of v with these are handed over too.
///
/// # Panics
/// When `m` is not `[n, n + beside]` or `rows` are not whole.
pub fn forms_beside(n: usize, rows: &[f32], m: &[f32], beside: usize, mut each: impl FnMut(&[f32], f64, &[f32])) {
    assert!(n > 0 && rows.len().is_multiple_of(n), "{} values are not rows of {n}", rows.len());
    let width = n + beside;
    let at_a_time = rows_at_a_time(width);
    let mut product = vec![0.0; at_a_time.min(rows.len() / n) * width];
    for chunk in rows.chunks(at_a_time * n) {
        let count = chunk.len() / n;
        let product = &mut product[..count * width];
        multiply([count, n, width], chunk, m, Right::AsIs, product);
        for (v, mv) in chunk.chunks_exact(n).zip(product.chunks_exact(width)) {
            each(v, f64::from(dot(v, &mv[..n])), &mv[n..]);
        }
    }
}

/// [`quadratic_forms`] of several matrices `[n, n]` in one product; calls `each(index of the matrix, v'Mv)`, rows in order.
///
/// # Panics
/// When a matrix is not `[n, n]` or `rows` are not whole.
pub fn forms_of(n: usize, rows: &[f32], ms: &[&[f32]], mut each: impl FnMut(usize, f64)) {
    assert!(ms.iter().all(|m| m.len() == n * n), "a matrix is not [{n}, {n}]");
    // Side by side, `[n, ms.len() n]`.
    let side_by_side: Vec<f32> = (0..n).flat_map(|row| ms.iter().flat_map(move |m| &m[row * n..(row + 1) * n])).copied().collect();
    let width = ms.len() * n;
    let at_a_time = rows_at_a_time(width);
    let mut product = vec![0.0; at_a_time.min(rows.len() / n) * width];
    for chunk in rows.chunks(at_a_time * n) {
        let count = chunk.len() / n;
        let product = &mut product[..count * width];
        multiply([count, n, width], chunk, &side_by_side, Right::AsIs, product);
        for (v, mv) in chunk.chunks_exact(n).zip(product.chunks_exact(width)) {
            mv.chunks_exact(n).enumerate().for_each(|(index, mv)| each(index, f64::from(dot(v, mv))));
        }
    }
}

// Sums in lanes, so that they vectorise in a fixed order. Twice as fast where there is AVX2, and the same bits: only the width of the
// registers differs.

macro_rules! inner_product {
    ($(#[$doc:meta])* $name:ident, $t:ty, $lanes:literal, $quarter:literal) => {
        $(#[$doc])*
        pub fn $name(a: &[$t], b: &[$t]) -> $t {
            /// The lanes' sums.
            #[inline(always)]
            fn long(a: &[[$t; $lanes]], b: &[[$t; $lanes]]) -> [$t; $lanes] {
                let mut lanes = [0.0; $lanes];
                for (x, y) in a.iter().zip(b) {
                    for lane in 0..$lanes {
                        lanes[lane] += x[lane] * y[lane];
                    }
                }
                lanes
            }
            /// Quarters of the lanes onto each other, then what is left of the rows: they are short, and one by one this would cost as
            /// much as all the rest.
            #[inline(always)]
            fn short(lanes: &[$t; $lanes], a: &[$t], b: &[$t]) -> $t {
                let at = |lane: usize| (lanes[lane] + lanes[lane + $quarter]) + (lanes[lane + 2 * $quarter] + lanes[lane + 3 * $quarter]);
                let mut sums: [$t; $quarter] = std::array::from_fn(at);
                let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<$quarter>(), b.as_chunks::<$quarter>());
                for (x, y) in a.iter().zip(b) {
                    for lane in 0..$quarter {
                        sums[lane] += x[lane] * y[lane];
                    }
                }
                sums.iter().sum::<$t>() + a_rest.iter().zip(b_rest).map(|(x, y)| x * y).sum::<$t>()
            }
            let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<$lanes>(), b.as_chunks::<$lanes>());
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2")]
                fn wide(a: &[[$t; $lanes]], b: &[[$t; $lanes]], a_rest: &[$t], b_rest: &[$t]) -> $t {
                    wide_short(&long(a, b), a_rest, b_rest)
                }
                // Not inlined: the compiler would arrange the long loop for the shuffles of the short one.
                #[inline(never)]
                #[target_feature(enable = "avx2")]
                fn wide_short(lanes: &[$t; $lanes], a: &[$t], b: &[$t]) -> $t {
                    short(lanes, a, b)
                }
                if is_x86_feature_detected!("avx2") {
                    // SAFETY: the CPU has the feature.
                    return unsafe { wide(a, b, a_rest, b_rest) };
                }
            }
            short(&long(a, b), a_rest, b_rest)
        }
    };
}

inner_product!(
    /// Inner product of equal-length rows, with the same bits whatever the CPU.
    dot, f32, 32, 8
);
inner_product!(
    /// [`dot`] in f64.
    dot_f64, f64, 16, 4
);

/// Rows times a vector, four rows at a time: the vector is loaded once for all of them, and their sums do not wait for each other.
macro_rules! rows_times_vector {
    ($(#[$doc:meta])* $name:ident, $dot:ident, $t:ty, $lanes:literal) => {
        $(#[$doc])*
        pub fn $name(rows: &[$t], x: &[$t], out: &mut [$t]) {
            /// The lanes' sums of four rows.
            #[inline(always)]
            fn long([a, b, c, d]: [&[[$t; $lanes]]; 4], x: &[[$t; $lanes]]) -> [[$t; $lanes]; 4] {
                let mut sums = [[0.0; $lanes]; 4];
                for ((((x, a), b), c), d) in x.iter().zip(a).zip(b).zip(c).zip(d) {
                    for (sums, row) in sums.iter_mut().zip([a, b, c, d]) {
                        for lane in 0..$lanes {
                            sums[lane] += row[lane] * x[lane];
                        }
                    }
                }
                sums
            }
            /// The lanes onto each other, and what is left of the rows.
            #[inline(always)]
            fn short(sums: &[[$t; $lanes]; 4], rows: [&[$t]; 4], x: &[$t], out: &mut [$t; 4]) {
                let mut ends = [0.0; 4];
                for (at, x) in x.iter().enumerate() {
                    ends.iter_mut().zip(&rows).for_each(|(end, row)| *end += row[at] * x);
                }
                out.iter_mut().zip(sums.iter().zip(ends)).for_each(|(out, (sums, end))| *out = sums.iter().sum::<$t>() + end);
            }
            #[inline(always)]
            fn all(rows: &[$t], x: &[$t], out: &mut [$t], short: impl Fn(&[[$t; $lanes]; 4], [&[$t]; 4], &[$t], &mut [$t; 4])) {
                let (x_long, x_short) = x.as_chunks::<$lanes>();
                let (fours, last) = out.as_chunks_mut::<4>();
                let mut blocks = rows.chunks_exact(4 * x.len());
                for (block, out) in (&mut blocks).zip(fours) {
                    let row = |at: usize| block[at * x.len()..(at + 1) * x.len()].as_chunks::<$lanes>();
                    let [a, b, c, d] = [row(0), row(1), row(2), row(3)];
                    short(&long([a.0, b.0, c.0, d.0], x_long), [a.1, b.1, c.1, d.1], x_short, out);
                }
                for (row, out) in blocks.remainder().chunks_exact(x.len()).zip(last) {
                    *out = $dot(row, x);
                }
            }
            assert!(!x.is_empty() && rows.len() == out.len() * x.len(), "matrix is not [{}, {}]", out.len(), x.len());
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2")]
                fn wide(rows: &[$t], x: &[$t], out: &mut [$t]) {
                    all(rows, x, out, |sums, rows, x, out| wide_short(sums, rows, x, out));
                }
                // Not inlined, as in the inner product.
                #[inline(never)]
                #[target_feature(enable = "avx2")]
                fn wide_short(sums: &[[$t; $lanes]; 4], rows: [&[$t]; 4], x: &[$t], out: &mut [$t; 4]) {
                    short(sums, rows, x, out);
                }
                if is_x86_feature_detected!("avx2") {
                    // SAFETY: the CPU has the feature.
                    return unsafe { wide(rows, x, out) };
                }
            }
            all(rows, x, out, short);
        }
    };
}

rows_times_vector!(
    /// `out[rows] = rows[rows, n] x[n]`.
    ///
    /// # Panics
    /// When a slice does not have the stated shape, or n is 0.
    times, dot, f32, 8
);
rows_times_vector!(
    /// [`times`] in f64.
    ///
    /// # Panics
    /// As [`times`].
    times_f64, dot_f64, f64, 4
);

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

    /// Every length of a row and number of rows around the blocks; sums of small integers are exact.
    #[test]
    fn rows_times_a_vector_take_the_tails_along() {
        for n in 1..=19 {
            for rows in 0..=9 {
                let m: Vec<f32> = (0..rows * n).map(|i| (i * 7 % 11) as f32 - 4.0).collect();
                let x: Vec<f32> = (0..n).map(|i| (i * 5 % 7) as f32 - 2.0).collect();
                let expected: Vec<f32> = m.chunks_exact(n).map(|row| row.iter().zip(&x).map(|(m, x)| m * x).sum()).collect();
                let mut out = vec![0.0; rows];
                times(&m, &x, &mut out);
                assert_eq!(out, expected, "[{rows}, {n}]");
                let [m, x] = [&m, &x].map(|values| values.iter().map(|&value| f64::from(value)).collect::<Vec<f64>>());
                let mut out = vec![0.0; rows];
                times_f64(&m, &x, &mut out);
                assert!(out.iter().zip(&expected).all(|(out, expected)| *out == f64::from(*expected)), "[{rows}, {n}]");
            }
        }
    }

    #[test]
    fn dot_takes_the_tail_along() {
        let a: Vec<f32> = (0..19).map(|i| i as f32).collect();
        assert_eq!(dot(&a, &a), 2109.0);
    }
}
