//! What a matrix of log-probabilities says about where something was put.

/// `[row, column]` with row and column means taken out: what one injection does to all answers, and what all of them do to one answer.
pub fn centred(matrix: &[f64], n: usize) -> Vec<f64> {
    let mean = |values: &mut dyn Iterator<Item = f64>| values.sum::<f64>() / n as f64;
    let rows: Vec<f64> = (0..n).map(|row| mean(&mut (0..n).map(|column| matrix[row * n + column]))).collect();
    let columns: Vec<f64> = (0..n).map(|column| mean(&mut (0..n).map(|row| matrix[row * n + column]))).collect();
    let all = mean(&mut rows.iter().copied());
    (0..n * n).map(|at| matrix[at] - rows[at / n] - columns[at % n] + all).collect()
}

/// Of each row of a centred matrix, its answer minus the mean of the others.
pub fn diagonal(centred: &[f64], n: usize) -> impl Iterator<Item = f64> {
    (0..n).map(move |at| centred[at * n + at] * n as f64 / (n as f64 - 1.0))
}

/// Mean over the rows of a matrix of the right answer minus the mean of the others, in nats, and the share of rows where it is the largest.
pub fn located(matrix: &[f32], n: usize) -> (f64, f64) {
    let centred = centred(&matrix.iter().map(|x| f64::from(*x)).collect::<Vec<_>>(), n);
    let is_largest = |row: &usize| (0..n).all(|column| column == *row || centred[row * n + column] < centred[row * n + row]);
    let hits = (0..n).filter(is_largest).count();
    (diagonal(&centred, n).sum::<f64>() / n as f64, hits as f64 / n as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shift_of_all_answers_and_a_favourite_label_say_nothing() {
        // Row 2 is answered with more of everything, column 1 is liked by all.
        let shifts = |row: usize, column: usize| 5.0 * (row == 2) as i32 as f32 + 3.0 * (column == 1) as i32 as f32;
        let matrix =
            |extra: f32| -> Vec<f32> { (0..16).map(|at| shifts(at / 4, at % 4) + if at / 4 == at % 4 { extra } else { 0.0 }).collect() };
        let (score, _) = located(&matrix(0.0), 4);
        assert!(score.abs() < 1e-6, "{score}");
        let (score, hits) = located(&matrix(0.5), 4);
        assert!((score - 0.5).abs() < 1e-6 && hits == 1.0, "{score} {hits}");
    }

    /// numpy: m - m.mean(0) - m.mean(1)[:, None] + m.mean()
    #[test]
    fn centring_is_that_of_numpy() {
        let m = [1.0, 2.0, 4.0, 0.0, -1.0, 3.0, 2.0, 2.0, 5.0];
        let expected = [-1.0, 2.0, -1.0, 1.0, -2.0, 1.0, 0.0, 0.0, 0.0].map(|x| x / 3.0);
        expected.iter().zip(centred(&m, 3)).for_each(|(a, b)| assert!((a - b).abs() < 1e-12, "{a} {b}"));
    }
}
