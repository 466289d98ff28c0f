//! Maps of cells in nine colours: orange below where there is nothing, blue above, a path per colour.

use super::html::short;
use crate::report::words::number;
use std::collections::BTreeMap;
use std::fmt::Write;

/// Colours on each side of the middle.
const SIDE: i32 = 4;

/// What the colours of a map mean.
pub struct Shades {
    /// The middle.
    pub zero: f64,
    /// Distance from the middle from which on the strongest colour is used.
    pub most: f64,
    /// Nothing can be below the middle.
    pub one_sided: bool,
}

impl Shades {
    /// Colours for values, strongest for the few that are farthest out: one in fifty.
    pub fn new(zero: f64, one_sided: bool, values: impl Iterator<Item = f64>) -> Self {
        let mut far: Vec<f64> = values.map(|value| (value - zero).abs()).collect();
        far.sort_by(f64::total_cmp);
        let most = far.get((far.len() * 49 / 50).min(far.len().saturating_sub(1))).copied().filter(|most| *most > 0.0).unwrap_or(1.0);
        Self { zero, most, one_sided }
    }

    /// Colour of a value, from -4 to 4.
    pub fn shade(&self, value: f64) -> i32 {
        let share = (value - self.zero) / self.most;
        (share * (f64::from(SIDE) + 0.5)).round().clamp(f64::from(-SIDE), f64::from(SIDE)) as i32
    }

    /// The colours beside each other, with what they stand for at the ends.
    pub fn legend(&self) -> String {
        let from = if self.one_sided { 0 } else { -SIDE };
        let swatches: String = (from..=SIDE).map(|shade| format!("<i class=\"{}\"></i>", class(Some(shade)))).collect();
        let low = if self.one_sided { number(self.zero) } else { format!("\u{2264} {}", number(self.zero - self.most)) };
        format!(
            "<span class=\"legend\">{low} {swatches} \u{2265} {} <i class=\"q-none\"></i> no number</span>",
            number(self.zero + self.most)
        )
    }
}

/// Class of a colour; `None` is a cell without a number.
pub fn class(shade: Option<i32>) -> String {
    match shade {
        None => "q-none".to_owned(),
        Some(shade) if shade < 0 => format!("q-n{}", -shade),
        Some(shade) => format!("q-p{shade}"),
    }
}

/// Cells as paths, a unit each, row by row from the top; neighbours of one colour are one piece.
pub fn paths(rows: &[Vec<Option<f64>>], shades: &Shades) -> String {
    let mut pieces: BTreeMap<Option<i32>, String> = BTreeMap::new();
    for (y, row) in rows.iter().enumerate() {
        let mut x = 0;
        for run in row.chunk_by(|a, b| a.map(|a| shades.shade(a)) == b.map(|b| shades.shade(b))) {
            let piece = pieces.entry(run[0].map(|value| shades.shade(value))).or_default();
            let _ = write!(piece, "M{x} {y}h{}", run.len());
            x += run.len();
        }
    }
    let pieces: String = pieces.iter().map(|(shade, piece)| format!("<path class=\"{}\" d=\"{piece}\"/>", class(*shade))).collect();
    // Strokes as wide as a row, through its middle, take half as many characters as outlines.
    format!("<g class=\"cells\" transform=\"translate(0 .5)\">{pieces}</g>")
}

/// White lines between columns, and between rows too where both are checkpoints.
pub fn borders(columns: &[usize], (width, height): (usize, usize), both: bool) -> String {
    let mut out = String::from("<path class=\"border\" d=\"");
    for column in columns {
        let _ = write!(out, "M{} 0V{height}", short(*column as f64));
        if both {
            let _ = write!(out, "M0 {}H{width}", short(*column as f64));
        }
    }
    out + "\"/>"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_symmetric_and_saturate() {
        let shades = Shades { zero: 0.5, most: 0.5, one_sided: false };
        assert_eq!([0.5, 1.0, 0.0, 9.0, 0.55, 0.45].map(|value| shades.shade(value)), [0, 4, -4, 4, 0, 0]);
        assert_eq!(Shades::new(0.0, true, (0..100).map(f64::from)).most, 98.0);
        assert_eq!(Shades::new(0.0, true, std::iter::empty()).most, 1.0);
    }

    #[test]
    fn equal_neighbours_are_one_piece() {
        let shades = Shades { zero: 0.0, most: 1.0, one_sided: false };
        let text = paths(&[vec![Some(1.0), Some(1.1), None], vec![Some(-2.0), Some(0.0), None]], &shades);
        assert_eq!(
            text,
            "<g class=\"cells\" transform=\"translate(0 .5)\"><path class=\"q-none\" d=\"M2 0h1M2 1h1\"/><path class=\"q-n4\" d=\"M0 1h1\"/>\
             <path class=\"q-p0\" d=\"M1 1h1\"/><path class=\"q-p4\" d=\"M0 0h2\"/></g>"
        );
    }
}
