//! Personas: the axis against NumPy, and stores in which the truth about self, assistant and personas was planted.

use safetensors::{Dtype, tensor::TensorView};
use selftrace::analysis::analyze;
use selftrace::evidence::{Row, last, read};
use selftrace::series::Series;
use selftrace::stats::draws::{Draws, generator, normal};
use selftrace::stats::role_space::RoleSpace;
use selftrace::table;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

#[derive(Deserialize)]
struct Reference {
    rows: Vec<f32>,
    axis: Vec<f64>,
    shares: Vec<f64>,
    components: Vec<Vec<f64>>,
    cos_axis: Vec<f64>,
    length: f64,
    projections: Vec<f64>,
}

#[derive(Deserialize)]
struct Fixture {
    d: usize,
    replies: usize,
    default: Vec<usize>,
    roles: Vec<usize>,
    first: Reference,
    second: Reference,
    cosine: f64,
}

fn close(found: f64, expected: f64) {
    assert!((found - expected).abs() < 1e-4 * (1.0 + expected.abs()), "found {found}, expected {expected}");
}

#[test]
fn the_axis_and_the_role_components_are_those_of_numpy() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/personas/axis.json");
    let Fixture { d, replies, default, roles, first, second, cosine } =
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let draws = Draws::with_counts(replies, 99, 99, 0, "fixture").unwrap();
    let mut spaces = Vec::new();
    for expected in [&first, &second] {
        let space = RoleSpace::new(&expected.rows, d, replies, &default, &roles).unwrap();
        space.axis.iter().zip(&expected.axis).for_each(|(found, expected)| close(*found, *expected));
        assert_eq!(space.components.len(), roles.len() - 1);
        for (k, share) in expected.shares.iter().enumerate() {
            close(space.shares[k], *share);
            close(space.cosine_with_component(k), expected.cos_axis[k]);
        }
        for (found, expected) in space.components.iter().zip(&expected.components) {
            close(found.iter().zip(expected).map(|(x, y)| x * y).sum::<f64>().abs(), 1.0);
        }
        close(space.length(&draws).unwrap().value, expected.length);
        for (rows, expected) in expected.rows.chunks(replies * d).zip(&expected.projections) {
            close(space.project(rows, &draws).unwrap().unwrap().value, *expected);
        }
        spaces.push(space);
    }
    close(spaces[0].cosine_with(&spaces[1], &draws).unwrap().unwrap().value, cosine);
}

const D: usize = 48;
const GROUPS: usize = 48;
const ASKED: usize = 16;
const PERSONAS: usize = 17;
const ROLES: usize = 24;
const REPLIES: usize = 12;
pub const FORMATS: [&str; 3] = ["chat", "story", "choice"];
const CONCEPTS: [&str; 5] = ["functional", "assistant", "gated", "masks", "random"];

#[derive(Serialize, Deserialize, Clone)]
pub struct Item {
    item_id: String,
    pub concept: String,
    pub label_family: String,
    null_bank: bool,
    neutral: bool,
    group_id: String,
    cell: String,
    y: Option<i8>,
    pub persona_id: String,
    persona_kind: String,
    pub format_id: String,
}

fn item(concept: &str, family: &str, group: usize, cell: &str, y: Option<i8>) -> Item {
    Item {
        item_id: String::new(),
        concept: concept.to_owned(),
        label_family: family.to_owned(),
        null_bank: false,
        neutral: family == "neutral",
        group_id: format!("{group:03}"),
        cell: cell.to_owned(),
        y,
        persona_id: "default".to_owned(),
        persona_kind: String::new(),
        format_id: "chat".to_owned(),
    }
}

pub fn items(default_contexts: usize, formats: &[&str]) -> Vec<Item> {
    let mut items: Vec<Item> = (0..20).map(|n| item("neutral", "neutral", n, "q", None)).collect();
    let in_persona = |item: Item, id: String, kind: &str| Item { persona_id: id, persona_kind: kind.to_owned(), ..item };
    let quartet = |concept: &str, group: usize| {
        [("00", 1), ("01", 0), ("10", 0), ("11", 1)].map(|(cell, y)| item(concept, "crossed", group, cell, Some(y)))
    };
    for concept in CONCEPTS {
        items.extend((0..GROUPS).flat_map(|group| quartet(concept, group)));
        let asked: Vec<Item> = (0..ASKED).flat_map(|group| quartet(concept, group)).collect();
        for persona in 0..PERSONAS {
            items.extend(asked.iter().cloned().map(|item| in_persona(item, format!("persona{persona}"), "conflict")));
        }
        for format in &formats[1..] {
            items.extend(asked.iter().cloned().map(|item| Item { format_id: (*format).to_owned(), ..item }));
        }
    }
    for reply in 0..REPLIES {
        let reply = || item("persona_axis", "persona_axis", reply, "reply", None);
        items.extend((0..default_contexts).map(|n| in_persona(reply(), format!("default{n}"), "default")));
        items.extend((0..ROLES).map(|n| in_persona(reply(), format!("role{n}"), "role")));
    }
    let name = |item: &Item| format!("{}/{}/{}@{}#{}", item.concept, item.group_id, item.cell, item.persona_id, item.format_id);
    items.iter_mut().for_each(|item| item.item_id = name(item));
    items
}

/// Coordinate of a concept's contrast in a context: 0 is the assistant's, 1 to 12 are those of roles, the rest is nobody's.
pub fn direction(item: &Item) -> Option<usize> {
    let persona: Option<usize> = item.persona_id.strip_prefix("persona").and_then(|n| n.parse().ok());
    let format = FORMATS.iter().position(|format| *format == item.format_id)?;
    match (item.concept.as_str(), persona) {
        ("functional", _) => Some(40),
        ("assistant", _) => Some(0),
        ("gated", None) => Some(41 + format),
        ("masks", None) => Some(44 + format),
        ("masks", Some(persona)) => Some(13 + persona),
        _ => None,
    }
}

fn write_store(folder: &Path, seed: u64, default_contexts: usize, formats: &[&str]) {
    write_planted(folder, seed, seed, &items(default_contexts, formats), &direction);
}

/// A store in which contrasts lie where `direction` has them. Items and roles are those of `seed`, noise is of its own.
pub fn write_planted(folder: &Path, seed: u64, noise_seed: u64, items: &[Item], direction: &dyn Fn(&Item) -> Option<usize>) {
    std::fs::create_dir_all(folder.join("readouts")).unwrap();
    table::write(&folder.join("items.parquet"), items, "").unwrap();
    let roles: Vec<f64> = (0..ROLES * 12).scan(generator(seed, "roles"), |g, _| Some(1.5 * normal(g))).collect();
    for t in 0..2 {
        let mut noise = generator(noise_seed, &format!("noise {t}"));
        let mut bytes = Vec::new();
        for item in items {
            // What an item says is the same in every context.
            let mut own = generator(seed, &format!("{}/{}/{}", item.concept, item.group_id, item.cell));
            for j in 0..D {
                let mut x = 0.5 * normal(&mut own) + 0.5 * normal(&mut noise);
                if direction(item) == Some(j) {
                    x += 2.0 * f64::from(item.y.unwrap_or(0)) - 1.0;
                }
                x += match (item.persona_kind.as_str(), item.persona_id.trim_start_matches(char::is_alphabetic).parse::<usize>()) {
                    ("default", _) if j == 0 => 8.0,
                    ("role", Ok(role)) if (1..=12).contains(&j) => roles[role * 12 + j - 1],
                    _ => 0.0,
                };
                bytes.extend((x as f32).to_le_bytes());
            }
        }
        let view = || TensorView::new(Dtype::F32, vec![1, items.len(), D], &bytes).unwrap();
        let tensors = HashMap::from([("last_prompt".to_owned(), view()), ("response_mean".to_owned(), view())]);
        safetensors::serialize_to_file(tensors, None, &folder.join(format!("readouts/c{t}.safetensors"))).unwrap();
    }
    let checkpoints = [0, 1].map(|t| serde_json::json!({"id": format!("c{t}"), "stage": "sft", "step": t, "order": t}));
    let run = serde_json::json!({
        "run": "planted", "seed": seed, "layers": [8], "readouts": ["last_prompt", "response_mean"], "checkpoints": checkpoints,
        "flips": 499, "bootstraps": 199,
    });
    std::fs::write(folder.join("run.json"), run.to_string()).unwrap();
}

fn evidence(folder: &Path) -> BTreeMap<(String, String, String), Row> {
    analyze(&Series::open(folder).unwrap()).unwrap();
    let (checkpoint, rows) = last(&read(folder).unwrap());
    assert_eq!(checkpoint, "c1");
    rows.into_iter().map(|row| ((row.concept.clone(), row.hypothesis.to_string(), row.measure.clone()), row)).collect()
}

const PERSONAS_DOWN: &str = "personas_all_the_way_down";

#[test]
fn planted_selves_assistants_and_personas_are_told_apart() {
    for seed in 0..5 {
        let folder = tempfile::tempdir().unwrap();
        write_store(folder.path(), seed, 3, &FORMATS);
        let rows = evidence(folder.path());
        let expect = |concept: &str, hypothesis: &str, measure: &str, verdict: &str| {
            let row = &rows[&(concept.to_owned(), hypothesis.to_owned(), measure.to_owned())];
            assert_eq!(row.verdict, verdict, "seed {seed}: {row:?}");
        };
        for measure in ["persistence", "consistency", "residual_3"] {
            expect("functional", "functional_self", measure, "supports");
        }
        expect("functional", "self_is_assistant", "residual_3", "opposes");
        expect("assistant", "self_is_assistant", "persistence", "supports");
        expect("assistant", "self_is_assistant", "residual_3", "supports");
        expect("assistant", "functional_self", "residual_3", "opposes");
        for concept in ["functional", "assistant"] {
            for measure in ["persistence", "icc_item", "consistency"] {
                expect(concept, PERSONAS_DOWN, measure, "opposes");
            }
        }
        for concept in ["gated", "masks"] {
            expect(concept, "functional_self", "persistence", "opposes");
            for measure in ["persistence", "consistency"] {
                expect(concept, PERSONAS_DOWN, measure, "supports");
            }
            // The share of two small variances has a long interval: low, if not always shown to be.
            let icc = &rows[&(concept.to_owned(), PERSONAS_DOWN.to_owned(), "icc_item".to_owned())];
            assert!(icc.value.value.unwrap() < 0.25 && icc.verdict != "opposes", "seed {seed}: {icc:?}");
        }
        // A mask is strong while it is worn; what is gated to no persona is not.
        let strength =
            |concept: &str| rows[&(concept.to_owned(), PERSONAS_DOWN.to_owned(), "within_persona".to_owned())].value.value.unwrap();
        assert!(strength("masks") > 0.7 && strength("gated") < 0.5, "{} {}", strength("masks"), strength("gated"));
        for (_, row) in rows.iter().filter(|((concept, ..), _)| concept == "random") {
            assert!(
                row.verdict == "inconclusive"
                    && matches!(
                        row.status.as_str(),
                        "gate_fail" | "not_run" | "no_bank" | "too_few_checkpoints" | "unclassified" | "needs_seeds"
                    ),
                "{row:?}"
            );
        }
        let causal = rows.values().filter(|row| row.measure.contains("effect") || row.measure == "steering_along_axis");
        assert!(causal.clone().count() > 0 && causal.clone().all(|row| row.status == "not_run" && row.value.value.is_none()));
    }
}

#[derive(Deserialize)]
struct Persona {
    context: String,
    kind: String,
    status: String,
    projection: Option<f64>,
    cos_final: Option<f64>,
}

#[test]
fn contexts_lie_on_the_axis_where_they_were_put_and_without_a_default_there_is_none() {
    let folder = tempfile::tempdir().unwrap();
    write_store(folder.path(), 0, 3, &FORMATS[..1]);
    analyze(&Series::open(folder.path()).unwrap()).unwrap();
    let rows: Vec<Persona> = table::read(&folder.path().join("persona.parquet")).unwrap();
    for row in &rows {
        match row.kind.as_str() {
            "default" => assert!((row.projection.unwrap() - 1.0).abs() < 0.2, "{}: {:?}", row.context, row.projection),
            "role" => assert!(row.projection.unwrap().abs() < 0.8, "{}: {:?}", row.context, row.projection),
            "axis" => assert!(row.cos_final.unwrap() > 0.9),
            _ => {}
        }
    }
    assert!(rows.iter().any(|row| row.context == "component_1"));

    let folder = tempfile::tempdir().unwrap();
    write_store(folder.path(), 0, 0, &FORMATS[..1]);
    let evidence = evidence(folder.path());
    let rows: Vec<Persona> = table::read(&folder.path().join("persona.parquet")).unwrap();
    assert!(!rows.is_empty() && rows.iter().all(|row| row.status == "no_axis" && row.projection.is_none()));
    for row in evidence.values() {
        assert!(!row.measure.starts_with("residual") || (row.status == "not_run" && row.verdict == "inconclusive"), "{row:?}");
    }
}
