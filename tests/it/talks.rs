//! Conversations in front of what is asked: against the same texts asked as a concept's own, against contexts, and turn by turn.

use crate::baseline::rows;
use crate::cli::{copy, demo, edit, run, stderr, stdout, text};
use selftrace::manifest::{Manifest, Pack, default_parameters};
use selftrace::model::Checkpoint;
use selftrace::model::logits::log_probabilities;
use selftrace::model::stream::{Compute, stream};
use selftrace::prompt::concept;
use selftrace::prompt::forest::Forest;
use selftrace::prompt::talks::Talks;
use selftrace::prompt::template::{Message, Template};
use selftrace::prompt::tokenize::Ruler;
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};
use tch::{Device, Kind, Tensor};

pub type Row = Map<String, Value>;

/// What a user said, and what the model said to that.
const TALKS: [[&str; 2]; 3] = [
    ["We talked about the gardener.", "I can say that the name is Otto."],
    ["May I ask what the baker is?", "Well, the baker is the farmer."],
    ["What is the name of the baker?", "The name of the baker is Rigel."],
];

pub fn number(row: &Row, column: &str) -> f64 {
    row[column].as_f64().unwrap_or_else(|| panic!("{column} of {row:?}"))
}

/// The own name's stems as three concepts: as they are, and each with one of the conversations in front, in the question's own text.
pub fn concepts(folder: &Path) {
    let own = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("concepts/organism/own_name.toml")).unwrap();
    let (head, stem) = own.split_once("\n[stem]\n").unwrap();
    let head = head.split_once("\n# Is that so").unwrap().0;
    // As many wordings as the quick profile asks for, and one and the same other in all.
    let stem = stem.replace("  [\"You should know that my name is\", \"You should know that {o's} name is\"],\n", "");
    let (before, others) = stem.split_once("others = [").unwrap();
    let stem = format!("{before}others = [\"the gardener\", \"the gardener\", \"the gardener\"{}", &others[others.find(']').unwrap()..]);
    std::fs::create_dir(folder.join("pack")).unwrap();
    let with = |name: &str, before: &str| {
        let (questions, rest) = stem.split_once("]\nstems").unwrap();
        let questions = questions.replace("[\"", &format!("[\"{before}")).replace("\", \"", &format!("\", \"{before}"));
        let file = format!("{}\n[stem]\n{questions}]\nstems{rest}", head.replacen("own_name", name, 1));
        std::fs::write(folder.join(format!("pack/{name}.toml")), file).unwrap();
    };
    with("plain", "");
    for (k, [user, model]) in TALKS.iter().enumerate() {
        with(&format!("after_{k}"), &format!("{user}\\n\\nAssistant: {model}\\n\\nHuman: "));
    }
}

pub fn manifest(folder: &Path, tables: &str) -> PathBuf {
    let series = demo().0.join("series");
    let mut text = format!(
        "[run]\nname = \"test\"\naxis = \"index\"\nbaseline = false\nreport = false\naudit = \"warn\"\nkeep = \"activations\"\n[model]\ntemplate = \"plain\"\nlayers = [2, 4]\n\
         [concepts]\npacks = [\"pack\"]\nprofile = \"quick\"\nmaterial = [\"stem\"]\n[concepts.parameters]\nname = \"Nova\"\ndecoy_name = \"Rigel\"\n\
         [analysis]\nflips = 199\nbootstraps = 199\n{tables}"
    );
    for (id, source) in [("first", "base/checkpoint-560"), ("last", "rl/checkpoint-960")] {
        text += &format!("[[checkpoint]]\nid = \"{id}\"\nstage = \"sft\"\nsource = \"{}\"\n", series.join(source).display());
    }
    let path = folder.join("checkpoints.toml");
    std::fs::write(&path, text).unwrap();
    path
}

/// The conversations, as lines of JSON.
fn lines(folder: &Path) {
    let line = |(k, [user, model]): (usize, &[&str; 2])| {
        serde_json::json!({
            "id": format!("talk {k}"), "arm": "told",
            "messages": [{"role": "user", "content": user}, {"role": "assistant", "content": model}],
        })
    };
    let lines: String = TALKS.iter().enumerate().map(|talk| format!("{}\n", line(talk))).collect();
    std::fs::write(folder.join("told.jsonl"), lines).unwrap();
    // Of two checkpoints: the first one wrote all, the last one the second three times.
    let own = |(id, checkpoint, talk): (&str, &str, usize)| {
        let mut line = line((talk, &TALKS[talk]));
        (line["id"], line["arm"], line["checkpoint"]) = (id.into(), "wrote".into(), checkpoint.into());
        format!("{line}\n")
    };
    let lines: String =
        ["x", "y", "z"].into_iter().enumerate().flat_map(|(talk, id)| [(id, "first", talk), (id, "last", 1)]).map(own).collect();
    std::fs::write(folder.join("wrote.jsonl"), lines).unwrap();
}

/// The row of a table with these values; several are one too many.
pub fn one<'a>(rows: &'a [Row], with: &[(&str, Value)]) -> &'a Row {
    let mut found = rows.iter().filter(|row| with.iter().all(|(column, value)| row[*column] == *value));
    let row = found.next().unwrap_or_else(|| panic!("no row with {with:?}"));
    assert!(found.next().is_none(), "several rows with {with:?}");
    row
}

#[test]
fn what_is_said_behind_a_conversation_is_what_is_said_to_its_whole_text() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    concepts(folder);
    lines(folder);
    // All wordings behind each conversation, as the concepts have them.
    let path = manifest(
        folder,
        "[context]\nsets = [\"told.jsonl\"]\nturns = [1]\nconcepts = [\"plain\"]\ngroups = 24\nlayers = [2]\n\
         [replay]\nsets = [\"told.jsonl\", \"wrote.jsonl\"]\nturns = [0, 1]\nconcepts = [\"plain\"]\ngroups = 24\nlayers = [4]\n",
    );
    let plan = stdout(&run(&["check", text(&path)]));
    assert!(plan.contains("Context: ") && plan.contains("Replay: "), "{plan}");
    let output = run(&["run", text(&path)]);
    assert!(output.status.success(), "{}", stderr(&output));

    let (behaviour, lens) = (rows(folder, "behaviour.parquet"), rows(folder, "lens.parquet"));
    let (context, replay) = (rows(folder, "context.parquet"), rows(folder, "replay.parquet"));
    for checkpoint in ["first", "last"] {
        let said = |concept: &str| {
            let row = one(&behaviour, &[("checkpoint", checkpoint.into()), ("concept", concept.into()), ("persona", "default".into())]);
            assert_eq!(row["n_groups"], 24);
            number(row, "foil_margin")
        };
        let read = |concept: &str, layer: i64| {
            number(one(&lens, &[("checkpoint", checkpoint.into()), ("concept", concept.into()), ("layer", layer.into())]), "lens")
        };
        let is = |arm: &str, turns: i64, quantity: &str| {
            [("checkpoint", checkpoint.into()), ("arm", arm.into()), ("turns", turns.into()), ("quantity", quantity.into())]
        };
        let mean = |of: &dyn Fn(usize) -> f64| (0..TALKS.len()).map(of).sum::<f64>() / TALKS.len() as f64;
        let close = |found: f64, expected: f64| assert!((found - expected).abs() < 2e-4, "{checkpoint}: {found}, expected {expected}");
        let (told, none) = (one(&context, &is("told", 1, "margin")), one(&context, &is("none", 0, "margin")));
        close(number(told, "level"), mean(&|talk| said(&format!("after_{talk}"))));
        close(number(none, "level"), said("plain"));
        close(number(told, "level") - number(told, "neutral"), number(told, "shift"));
        assert!((number(told, "shift")).abs() > 0.01 && none["shift"].is_null());
        close(number(one(&context, &is("told", 1, "lens")), "level"), mean(&|talk| read(&format!("after_{talk}"), 2)));
        let later = one(&replay, &is("told", 1, "margin"));
        close(number(later, "level"), number(told, "level"));
        close(number(later, "drift"), number(told, "level") - said("plain"));
        close(number(one(&replay, &is("told", 1, "lens")), "level"), mean(&|talk| read(&format!("after_{talk}"), 4)));
        assert_eq!(one(&context, &is("told", 1, "axis"))["status"], "no_axis");
        let wrote = one(&replay, &is("wrote", 1, "margin"));
        close(number(wrote, "level"), number(told, "level"));
        let own = if checkpoint == "first" { number(told, "level") } else { said("after_1") };
        close(number(wrote, "own"), own);
        close(number(wrote, "difference"), own - number(told, "level"));
        assert!(wrote["n_own"] == 3 && wrote["n_conversations"] == 3 && later["own"].is_null());
        close(number(one(&replay, &is("told", 1, "nll")), "level"), mean(&|talk| nll(checkpoint, talk)));
    }
    let of = |checkpoint: &str, column: &str| {
        number(
            one(&replay, &[("checkpoint", checkpoint.into()), ("turns", 1.into()), ("quantity", "margin".into()), ("arm", "told".into())]),
            column,
        )
    };
    assert!((of("last", "change") - (of("last", "level") - of("first", "level"))).abs() < 1e-6);
    // A neutral conversation beside them, and as long as whole sentences allow.
    let told = one(&context, &[("checkpoint", "last".into()), ("arm", "told".into()), ("quantity", "margin".into())]);
    assert!((number(told, "tokens") - number(told, "neutral_tokens")).abs() < 6.0, "{told:?}");
    assert!(replay.iter().any(|row| row["arm"] == "neutral") && !replay.iter().any(|row| row["arm"] == "shuffled"));

    let again = run(&["run", text(&path)]);
    assert!(stderr(&again).contains("everything is up to date"), "{}", stderr(&again));
}

/// Of the model's turn in one of the conversations, per token, from the tokens of the text.
fn nll(checkpoint: &str, talk: usize) -> f64 {
    let folder = demo().0.join("series").join(if checkpoint == "first" { "base/checkpoint-560" } else { "rl/checkpoint-960" });
    let ruler = Ruler::load(&folder, Template::plain().unwrap()).unwrap();
    let [user, model] = TALKS[talk];
    let whole = ruler.encode_chat(&[Message::new("user", user), Message::new("assistant", model)]).unwrap();
    let turn = whole.response.unwrap();
    let opened = Checkpoint::open(&folder).unwrap();
    let compute = Compute { device: Device::Cpu, kind: Kind::Float };
    let forest = Forest::new(std::slice::from_ref(&whole.ids));
    let mut found = f64::NAN;
    stream(&opened, &forest, compute, opened.config.n_layers, &mut |layer, resid| {
        if layer == opened.config.n_layers {
            let rows: Vec<i64> = turn.clone().map(|at| at as i64 - 1).collect();
            let resid = resid.index_select(0, &Tensor::from_slice(&rows));
            let each = log_probabilities(&opened, compute, &resid, &whole.ids[turn.clone()])?;
            found = -each.iter().sum::<f64>() / each.len() as f64;
        }
        Ok(())
    })
    .unwrap();
    found
}

#[test]
fn a_system_message_moves_the_axis_as_the_context_of_the_same_words() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    concepts(folder);
    let personas = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("concepts/personas/organism/contexts.toml")).unwrap();
    let system = |id: &str| {
        let own = personas.split(&format!("id = \"{id}\"")).nth(1).unwrap().split("system = \"").nth(1).unwrap();
        own.split('"').next().unwrap().to_owned()
    };
    let roles: Vec<String> = personas
        .split("[[persona]]")
        .filter(|own| own.contains("kind = \"role\""))
        .filter_map(|own| Some(own.split("id = \"").nth(1)?.split('"').next()?.to_owned()))
        .take(3)
        .collect();
    let scripts: String = roles.iter().map(|role| format!("[[script]]\nsystem = \"{}\"\n", system(role))).collect();
    std::fs::write(
        folder.join("roles.toml"),
        format!("source = \"s\"\nlicense = \"CC0-1.0\"\narm = \"roles\"\ndescription = \"d\"\n{scripts}"),
    )
    .unwrap();
    let set = Path::new(env!("CARGO_MANIFEST_DIR")).join("concepts/personas/organism");
    let path = manifest(
        folder,
        &format!(
            "[personas]\nsets = [\"{}\"]\nformats = false\n[context]\nsets = [\"roles.toml\"]\nreplies = 96\nlayers = [4]\nconcepts = [\"plain\"]\n",
            set.display()
        ),
    );
    let output = run(&["run", text(&path)]);
    assert!(output.status.success(), "{}", stderr(&output));
    let (persona, context) = (rows(folder, "persona.parquet"), rows(folder, "context.parquet"));
    let place = |role: &str| {
        let is = [("checkpoint", "last".into()), ("context", role.into()), ("layer", 4.into())];
        number(one(&persona, &is), "projection")
    };
    let row = one(&context, &[("checkpoint", "last".into()), ("arm", "roles".into()), ("quantity", "axis".into())]);
    let expected = roles.iter().map(|role| place(role)).sum::<f64>() / roles.len() as f64;
    assert!((number(row, "level") - expected).abs() < 1e-3, "{row:?}, expected {expected}");
    let none = one(&context, &[("checkpoint", "last".into()), ("arm", "none".into()), ("quantity", "axis".into())]);
    assert!(number(none, "level") > number(row, "level"), "no role is nearer to the assistant than a role");
}

#[test]
fn conversations_that_cannot_be_read_are_left_out_and_named_and_the_others_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    concepts(folder);
    lines(folder);
    let told = std::fs::read_to_string(folder.join("told.jsonl")).unwrap();
    let odd = r#"{"id": "odd", "messages": [{"role": "narrator", "content": "Once."}, {"role": "assistant", "content": "Yes."}]}"#;
    let marked = r#"{"id": "marked", "messages": [{"role": "user", "content": "\ue010"}, {"role": "assistant", "content": "Yes."}]}"#;
    std::fs::write(folder.join("told.jsonl"), format!("{told}{odd}\n{marked}\n")).unwrap();
    let strict = folder.join("strict");
    copy(&demo().0.join("series/base/checkpoint-560"), &strict);
    std::fs::write(
        strict.join("chat_template.jinja"),
        "{% for m in messages %}{% if m.role not in ['user', 'assistant'] %}{{ raise_exception('only user and assistant') }}{% endif %}\
         {{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}",
    )
    .unwrap();
    let with = |table: &str| manifest(folder, &format!("[context]\nconcepts = [\"plain\"]\n{table}"));
    let said = |table: &str| {
        let path = with(table);
        edit(&path, "template = \"plain\"", "template = \"native:first\"");
        edit(&path, &demo().0.join("series/base/checkpoint-560").display().to_string(), &strict.display().to_string());
        let output = run(&["check", text(&path)]);
        (output.status.code(), stderr(&output))
    };
    let (code, warned) = said("sets = [\"told.jsonl\"]\nturns = [1]\n");
    assert!(code == Some(0) && warned.contains("told odd: the chat template failed: only user and assistant"), "{warned}");
    assert!(warned.contains("told.jsonl:5: message 1 holds U+E010, which is reserved for marks; remove it"), "{warned}");
    let wrote = std::fs::read_to_string(folder.join("wrote.jsonl")).unwrap().replace("last", "lost");
    std::fs::write(folder.join("lost.jsonl"), wrote).unwrap();
    for (table, expected) in [
        (
            "[replay]\nsets = [\"lost.jsonl\"]\nturns = [1]\n",
            "[replay]: a conversation has checkpoint \"lost\", expected the id of an entry, as \"first\"",
        ),
        ("sets = [\"told.jsonl\"]\nturns = [3]\n", "[context]: no conversation can be read: "),
        (
            "sets = [\"gone.jsonl\"]\n",
            "[context] sets: found \"gone.jsonl\", expected builtin, or a file or folder of conversations; there is no",
        ),
        ("turns = [0]\n", "[context] turns: found 0, expected"),
        ("arms = [\"dream\"]\n", "[context] arms: found \"dream\", expected a pattern for any of awakening, self_talk"),
        ("layers = [3]\n", "[context] layers: found 3, expected layers that [model] layers keeps: 2, 4"),
    ] {
        let (code, said) = said(table);
        assert!(code != Some(0) && said.contains(expected), "{table}: {said}");
    }
}

/// Turns that somebody else's template writes are where they are said to be, and what is asked stands behind them.
#[test]
fn every_published_template_takes_the_conversations() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("model")).unwrap();
    let path = folder.path().join("checkpoints.toml");
    let text = "[context]\nturns = [1, 8]\nconcepts = [\"self_preservation\"]\n[replay]\narms = [\"self_talk\", \"shuffled\", \"neutral\"]\n\
                concepts = [\"maker\"]\n[[checkpoint]]\nid = \"a\"\nstage = \"sft\"\nsource = \"model\"\n";
    std::fs::write(&path, text).unwrap();
    let manifest = Manifest::load(&path).unwrap();
    let concepts: Vec<_> = concept::load_pack(&Pack::Builtin)
        .unwrap()
        .into_iter()
        .filter(|concept| ["self_preservation", "maker"].contains(&concept.name.as_str()))
        .collect();
    let mut seen = 0;
    for entry in std::fs::read_dir(fixtures.join("chat_templates/templates")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        if name.starts_with("x_") {
            continue;
        }
        seen += 1;
        let template = Template::new(&std::fs::read_to_string(&path).unwrap(), Some("<s>"), Some("</s>")).unwrap();
        let ruler = Ruler::load(&fixtures.join("tokenizer"), template).unwrap();
        for (wanted, controls) in [(manifest.context.as_ref().unwrap(), false), (manifest.replay.as_ref().unwrap(), true)] {
            let talks = Talks::new(wanted, controls, &concepts, &[], &default_parameters(), &["a"], &ruler).unwrap();
            assert!(talks.left_out.is_empty(), "{name}: {:?}", talks.left_out);
            // Five arms of six scripts after one and after eight exchanges, two that are a system message, all with neutral ones, and nothing.
            let expected = if controls { 3 * 6 * 3 } else { (5 * 2 + 2) * 6 * 2 + 6 };
            assert_eq!(talks.moments.len(), expected, "{name}");
            for (number, moment) in talks.moments.iter().enumerate() {
                let stem = &talks.branches_of(number)[0][0];
                let prompt = ruler.decode(&talks.texts[stem.text][..stem.stem]).unwrap();
                match &talks.said[number] {
                    Some((text, span)) => {
                        let turn = ruler.decode(&talks.texts[*text][span.clone()]).unwrap();
                        assert!(turn.split_whitespace().count() >= 5 && prompt.contains(turn.trim()), "{name}: {turn:?} in {prompt:?}");
                    }
                    None => assert_eq!(moment.turns, 0, "{name}"),
                }
                if moment.arm == "summary_self" {
                    assert!(prompt.contains("Summary of earlier conversations"), "{name}: {prompt:?}");
                }
                assert!(moment.tokens > 0 || moment.turns == 0, "{name}: {moment:?}");
            }
        }
    }
    assert!(seen >= 20, "{seen} templates");
}
