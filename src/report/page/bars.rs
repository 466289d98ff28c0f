//! Numbers of several things below each other, each as a dot with its interval on one scale.

use super::html::{Source, escape, guide, percent};
use super::onsets::mark;
use crate::report::words::{meaning, number};
use crate::stats::estimate::Reported;
use crate::words::Status;
use std::fmt::Write;

/// One row of a plot.
pub struct Bar<'a> {
    pub name: String,
    /// Stands beside the name; markup.
    pub size: String,
    pub source: Source<'a>,
    pub column: &'a str,
    pub value: Reported,
    pub status: Status,
    /// Stands behind the number; markup.
    pub beside: String,
}

/// What a plot is called, what its columns are, and where its scale ends.
pub struct Plot<'a> {
    /// Markup.
    pub title: String,
    /// Read out to who does not see the plot.
    pub caption: &'a str,
    /// Heads of the columns: name, size, value, and what is beside it; markup.
    pub heads: [&'a str; 4],
    pub unit: &'a str,
    /// Shares are between 0 and 1, everything else as far to either side of 0.
    pub is_share: bool,
}

impl Plot<'_> {
    /// The plot; nothing without rows.
    pub fn html(&self, bars: &[Bar]) -> String {
        if bars.is_empty() {
            return String::new();
        }
        // As far to either side, so that arms of opposite signs can be seen to be.
        let most = bars.iter().flat_map(|bar| bar.value.parts()).flatten().fold(0.1f64, |most, x| most.max(x.abs()));
        let most = if self.is_share { 1.0 } else { most };
        let place = |x: f64| {
            let x = if self.is_share { 0.03 + 0.94 * x } else { 0.5 + 0.47 * x / most };
            x.clamp(0.0, 1.0)
        };
        let [name, size, value, beside] = self.heads;
        let mut body = format!(
            "<h3>{}</h3><table class=\"forest\"><caption class=\"hidden\">{}</caption><thead><tr><th scope=\"col\">{name}</th>\
             <th scope=\"col\">{size}</th><th scope=\"col\" class=\"plot\"><svg class=\"axis\" aria-hidden=\"true\">\
             <text x=\"{}\" y=\"27\" text-anchor=\"middle\">0</text><text x=\"97%\" y=\"27\" text-anchor=\"end\">{} {}</text></svg></th>\
             <th scope=\"col\">{value}</th><th scope=\"col\">{beside}</th></tr></thead><tbody>",
            self.title,
            self.caption,
            percent(place(0.0)),
            number(most),
            self.unit
        );
        for bar in bars {
            let is_told = bar.value.value.is_some();
            let plot = if is_told {
                let places = bar.value.parts().map(|x| x.map(place));
                format!("<svg class=\"mark\" aria-hidden=\"true\">{}{}</svg>", guide(place(0.0)), mark("m-behaviour", places))
            } else {
                format!("<span class=\"why\">{}</span>", escape(&meaning(bar.status.as_str())))
            };
            let dash = || "\u{2013}".to_owned();
            let _ = writeln!(
                body,
                "<tr><th scope=\"row\">{}</th><td class=\"m\">{}</td><td class=\"plot\">{plot}</td><td class=\"date\">{}</td><td \
                 class=\"sure\">{}</td></tr>",
                escape(&bar.name),
                bar.size,
                if is_told { bar.source.triple(bar.column, bar.value) } else { dash() },
                if is_told { bar.beside.clone() } else { dash() },
            );
        }
        body + "</tbody></table>"
    }
}
