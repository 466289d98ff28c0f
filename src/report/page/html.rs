//! Pieces of a page: escaped words, numbers that say which cell of which table they are, drawings with a title and a description.

use crate::report::words::{count, number};
use crate::stats::estimate::Reported;
use std::fmt::{Display, Write};

/// Text in which nothing is markup, in content and in attributes between double quotes.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            // Nothing else that is no text may stand in a page either.
            character if character.is_control() && !matches!(character, '\n' | '\t') => out.push('\u{fffd}'),
            character => out.push(character),
        }
    }
    out
}

/// A row of a table, whose numbers are written with where they are from.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    pub table: &'a str,
    pub row: usize,
}

impl Source<'_> {
    /// A number of a column; an ellipsis where there is none, which is how an open end is written.
    pub fn number(&self, column: &str, value: Option<f64>) -> String {
        match value {
            Some(value) => format!("<span data-at=\"{}/{}/{column}\">{}</span>", self.table, self.row, number(value)),
            None => "\u{2026}".to_owned(),
        }
    }

    /// A p value of a column; nobody needs to know how small a small one is.
    pub fn probability(&self, column: &str, value: Option<f64>) -> String {
        match value {
            Some(value) if value < 0.0001 => format!("<span data-at=\"{}/{}/{column}\">&lt; 0.0001</span>", self.table, self.row),
            value => self.number(column, value),
        }
    }

    /// A whole number of a column with its thousands apart.
    pub fn whole(&self, column: &str, value: Option<i64>) -> String {
        let text = value.map_or_else(|| "\u{2026}".to_owned(), |value| count(value.unsigned_abs()));
        format!("<span data-at=\"{}/{}/{column}\">{text}</span>", self.table, self.row)
    }

    /// A share of a column, in percent.
    pub fn percent(&self, column: &str, value: Option<f64>) -> String {
        match value {
            Some(value) => {
                format!("<span data-at=\"{}/{}/{column}\">{}%</span>", self.table, self.row, number((1000.0 * value).round() / 10.0))
            }
            None => "\u{2026}".to_owned(),
        }
    }

    /// `value [lower, upper]` of a column and its ends, or nothing.
    pub fn triple(&self, column: &str, Reported { value, lower, upper }: Reported) -> String {
        if value.is_none() {
            return String::new();
        }
        let mut out = self.number(column, value);
        if lower.is_some() || upper.is_some() {
            let [from, to] = ends(column);
            let _ = write!(out, " <small>[{}, {}]</small>", self.number(&from, lower), self.number(&to, upper));
        }
        out
    }
}

/// Columns of the ends of the interval that belongs to a column.
pub fn ends(column: &str) -> [String; 2] {
    ["lower", "upper"].map(|end| if column == "value" { end.to_owned() } else { format!("{column}_{end}") })
}

/// Counts drawings, so that each has ids of its own.
#[derive(Default)]
pub struct Drawings {
    count: usize,
}

impl Drawings {
    /// A drawing in units of its view box, with a title and a description for those who do not see it.
    pub fn svg(&mut self, class: &str, size: (f64, f64), title: &str, description: &str, body: &str) -> String {
        self.drawing(class, "", size, title, description, body)
    }

    /// A drawing without words that fills its box, whatever its shape.
    pub fn map(&mut self, size: (f64, f64), title: &str, description: &str, body: &str) -> String {
        self.drawing("map", " preserveAspectRatio=\"none\"", size, title, description, body)
    }

    fn drawing(&mut self, class: &str, more: &str, (width, height): (f64, f64), title: &str, description: &str, body: &str) -> String {
        self.count += 1;
        let id = self.count;
        format!(
            "<svg class=\"{class}\"{more} viewBox=\"0 0 {} {}\" role=\"img\" aria-labelledby=\"t{id} d{id}\"><title id=\"t{id}\">{}</title>\
             <desc id=\"d{id}\">{}</desc>{body}</svg>",
            short(width),
            short(height),
            escape(title),
            escape(description)
        )
    }
}

/// A figure with how to read it, what it cannot say, and where its numbers are.
pub struct Figure<'a> {
    pub body: String,
    pub read: &'a str,
    pub cannot: &'a str,
    /// Tables without the extension.
    pub tables: &'a [&'a str],
}

impl Figure<'_> {
    pub fn html(&self) -> String {
        let Self { body, read, cannot, tables } = self;
        let links = list(tables.iter().map(|table| format!("<a href=\"{table}.parquet\">{table}.parquet</a>")));
        format!(
            "<figure>{body}<figcaption><p><b>How to read it.</b> {read}</p><p><b>What it cannot say.</b> {cannot}</p>\
             <p>Numbers: {links}</p></figcaption></figure>\n"
        )
    }
}

/// A layer behind what is shown there; nothing where there is none.
pub fn at_layer(layer: Option<i32>) -> String {
    layer.map_or_else(String::new, |layer| format!(" <small>layer {layer}</small>"))
}

/// Class of a measure's colour in the style, by the measure's name.
pub fn class(measure: &str) -> String {
    format!("m-{}", escape(&measure.replace('_', "-")))
}

/// An upright guide at a place of a plot, such as a zero or a threshold.
pub fn guide(place: f64) -> String {
    format!("<line class=\"zero\" x1=\"{0}\" x2=\"{0}\" y1=\"0\" y2=\"100%\"/>", percent(place))
}

/// A section with a heading that can be linked to.
pub fn section(id: &str, title: &str, body: &str) -> String {
    format!("<section id=\"{id}\"><h2>{title}</h2>\n{body}</section>\n")
}

/// What stands in place of a figure that there is nothing to draw for.
pub fn absent(why: &str) -> String {
    format!("<p class=\"absent\">{why}</p>\n")
}

/// A coordinate with as many digits as an eye can see.
pub fn short(x: f64) -> String {
    let text = format!("{x:.1}");
    text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
}

/// A share of a length, as drawings without a view box take it.
pub fn percent(share: f64) -> String {
    format!("{}%", short(100.0 * share))
}

/// A list of words with commas.
pub fn list<T: Display>(items: impl IntoIterator<Item = T>) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_in_names_is_text() {
        assert_eq!(escape("<b onclick=\"x\">a & 'b'</b>\u{1}"), "&lt;b onclick=&quot;x&quot;&gt;a &amp; &#39;b&#39;&lt;/b&gt;\u{fffd}");
    }

    #[test]
    fn numbers_say_where_they_are_from() {
        let source = Source { table: "onset", row: 3 };
        let text = source.triple("t50", Reported { value: Some(6.25), lower: None, upper: Some(7.0) });
        assert_eq!(
            text,
            "<span data-at=\"onset/3/t50\">6.25</span> <small>[\u{2026}, <span data-at=\"onset/3/t50_upper\">7</span>]</small>"
        );
        assert_eq!(short(3.0) + &percent(0.5), "350%");
    }
}
