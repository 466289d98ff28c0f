//! Which table and columns the curve of a measure is in, and what people call it.

/// A measure of `onset.parquet` as it is drawn.
#[derive(Debug, PartialEq)]
pub struct Measure {
    pub name: &'static str,
    pub title: &'static str,
    /// What its numbers are.
    pub unit: &'static str,
    /// Name of its table, without the extension.
    pub table: &'static str,
    /// Column of the value, and the one for concepts that have nothing there.
    pub columns: [&'static str; 2],
    /// What the value is where there is nothing; `None` for lengths, which are not 0 by chance either.
    pub zero: Option<f64>,
}

const fn measure(
    name: &'static str,
    title: &'static str,
    unit: &'static str,
    table: &'static str,
    columns: [&'static str; 2],
    zero: Option<f64>,
) -> Measure {
    Measure { name, title, unit, table, columns, zero }
}

/// In the order in which people want to read them; each has a colour of its own in `style.css`, by its name.
pub const MEASURES: &[Measure] = &[
    measure(
        "behaviour",
        "Behaviour",
        "log-probability of the answer beyond its foils, self minus others (nats)",
        "behaviour",
        ["foil_margin", "margin"],
        Some(0.0),
    ),
    measure(
        "recognition",
        "Recognition",
        "fits as a known fact does (1), beyond foils, self minus another",
        "recognition",
        ["recognition", "-"],
        Some(0.0),
    ),
    measure(
        "stitched",
        "Stitched",
        "the first checkpoint's answer from a layer on, beyond foils, self minus others (nats)",
        "stitched",
        ["stitched", "-"],
        Some(0.0),
    ),
    measure("lens", "Lens", "towards the answer beyond its foils, self minus others", "lens", ["lens", "-"], Some(0.0)),
    measure("contrast", "Contrast", "length of the crossed contrast (spread within groups)", "trajectory", ["e", "-"], None),
    measure("probe", "Probe", "AUROC on groups held out", "probes", ["auroc", "-"], Some(0.5)),
    measure("change", "Learned change", "beyond that of null topics", "change", ["excess", "e"], Some(0.0)),
    measure("placement", "Placement", "between two poles, self minus another", "placement", ["placement", "-"], Some(0.0)),
    measure("persistence", "In personas", "d\u{2032} of the plain direction under personas", "persistence", ["value", "-"], Some(0.0)),
    measure(
        "residual",
        "Outside the assistant",
        "share left beyond three directions of the assistant",
        "residual",
        ["residual", "-"],
        None,
    ),
    measure("assistant_axis", "Assistant axis", "length (spread of activations)", "persona", ["e", "-"], None),
];

/// A measure by its name.
pub fn find(name: &str) -> Option<&'static Measure> {
    MEASURES.iter().find(|measure| measure.name == name)
}

/// Place in the order in which measures are read, unknown ones last.
pub fn order(name: &str) -> usize {
    MEASURES.iter().position(|measure| measure.name == name).unwrap_or(MEASURES.len())
}

/// What people call a measure; one that is not known here by its name.
pub fn title(name: &str) -> String {
    find(name).map_or_else(|| name.replace('_', " "), |measure| measure.title.to_owned())
}
