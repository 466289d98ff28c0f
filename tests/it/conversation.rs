//! Checkpoints that are let talk: what they write against what they write otherwise, and what is read behind it against the same text as a replay.

use crate::baseline::rows;
use crate::cli::{copy, demo, edit, run, stderr, stdout, tables, text};
use crate::talks::{Row, concepts, manifest, number, one};
use selftrace::prompt::template::{Message, Template};
use selftrace::prompt::tokenize::Ruler;
use serde_json::{Value, json};
use std::path::Path;

/// Two arms, one of another instance and one of a script; the script holds the control.
fn openings(folder: &Path) {
    std::fs::create_dir(folder.join("openings")).unwrap();
    let file = |arm: &str, rest: &str| {
        let text = format!("source = \"s\"\nlicense = \"CC0-1.0\"\narm = \"{arm}\"\ndescription = \"d\"\n{rest}");
        std::fs::write(folder.join(format!("openings/{arm}.toml")), text).unwrap();
    };
    file(
        "mirror",
        "partner = \"itself\"\nopenings = [\"What is the gardener?\", \"What is your name?\", \"May I ask what the baker is?\", \"What is the baker?\", \"What is the farmer?\"]\n",
    );
    file(
        "script",
        "partner = \"script\"\ncontrol = true\nopenings = [\"What is your name?\", \"What is the baker?\", \"What is the farmer?\", \"What is the gardener?\", \"May I ask what the baker is?\"]\n\
         follow_ups = [\"May I ask what the gardener is?\", \"What is the farmer?\"]\n",
    );
}

const TALK: &str = "[conversation]\nsets = [\"openings\"]\nseeds = 5\nexchanges = 3\nmax_tokens = 12\ntemperatures = [1.0, 0.0]\nturns = [1, 3]\nconcepts = [\"plain\"]\nlayers = [2]\n";

fn column<'a>(lines: &'a [Row], name: &str, with: &[(&str, Value)]) -> Vec<&'a str> {
    let own = lines.iter().filter(|row| with.iter().all(|(column, value)| row[*column] == *value));
    own.map(|row| row[name].as_str().unwrap()).collect()
}

fn said<'a>(lines: &'a [Row], with: &[(&str, Value)]) -> Vec<&'a str> {
    column(lines, "text", with)
}

#[test]
fn what_a_checkpoint_says_by_itself_is_its_own_text_and_read_as_any_text() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    concepts(folder);
    openings(folder);
    let path = manifest(folder, TALK);
    let plan = stdout(&run(&["check", text(&path)]));
    // Of one arm five turns are written, of the other three.
    let written = 5 * 2 * 12 * (5 + 3);
    assert!(plan.contains(&format!("Conversation: at most {written} tokens written and ")), "{plan}");
    let output = run(&["run", text(&path)]);
    assert!(output.status.success(), "{}", stderr(&output));
    let (lines, talked) = (rows(folder, "transcripts.parquet"), rows(folder, "conversation.parquet"));

    // Greedily, the first turns are what `generate` writes.
    let prompts = folder.join("prompts.jsonl");
    let ruler = Ruler::load(&demo().0.join("series/base/checkpoint-560"), Template::plain().unwrap()).unwrap();
    let prompt = |(k, ask): (usize, &str)| {
        let encoded = ruler.encode_chat(&[Message::new("user", ask)]).unwrap();
        format!("{}\n", json!({ "id": k.to_string(), "token_ids": encoded.ids }))
    };
    let asked =
        ["What is the gardener?", "What is your name?", "May I ask what the baker is?", "What is the baker?", "What is the farmer?"];
    std::fs::write(&prompts, asked.into_iter().enumerate().map(prompt).collect::<String>()).unwrap();
    for (checkpoint, source) in [("first", "base/checkpoint-560"), ("last", "rl/checkpoint-960")] {
        let source = demo().0.join("series").join(source);
        let arguments = ["generate", "--model", text(&source), "--prompts", text(&prompts), "--max-tokens", "12"];
        let written = run(&[arguments.as_slice(), &["--temperature", "0"]].concat());
        assert!(written.status.success(), "{}", stderr(&written));
        let texts: Vec<Value> = stdout(&written).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        for (seed, line) in texts.iter().enumerate() {
            let is = [("checkpoint", checkpoint.into()), ("arm", "mirror".into()), ("temperature", 0.0.into()), ("seed", seed.into())];
            let own = said(&lines, &[&is[..], &[("speaker", "model".into())]].concat());
            // A turn ends where the template's next one would begin.
            let whole = line["text"].as_str().unwrap();
            let expected = whole.split("Human:").next().unwrap().trim();
            assert_eq!(own[0], expected, "{checkpoint} {seed}: {whole:?}");
            // The other instance hears it as its user, and is heard as one.
            let all = said(&lines, &is);
            assert_eq!(all[0], asked[seed]);
            let speakers = column(&lines, "speaker", &is);
            let began = speakers.len().min(3);
            assert_eq!(speakers[..began], ["given", "model", "partner"][..began]);
            // Nobody answers an empty turn.
            assert!(began == 3 || expected.is_empty(), "{checkpoint} {seed}: {speakers:?}");
        }
    }
    // The lines of a script are the script's, whatever the model answers, and the first temperature comes first.
    let scripted =
        said(&lines, &[("checkpoint", "last".into()), ("arm", "script".into()), ("seed", 1.into()), ("speaker", "given".into())]);
    assert_eq!(scripted[..3], ["What is the baker?", "What is the farmer?", "May I ask what the gardener is?"]);
    assert_eq!(lines[0]["temperature"], 1.0);

    // The same text as a replay: own conversations, in the same wordings.
    let again = tempfile::tempdir().unwrap();
    concepts(again.path());
    let sets = folder.join("reports/test/conversation");
    let replay = manifest(
        again.path(),
        &format!(
            "[replay]\nsets = [\"{}\"]\narms = [\"mirror\", \"script\"]\nturns = [1, 3]\nconcepts = [\"plain\"]\nlayers = [2]\n",
            sets.display()
        ),
    );
    let output = run(&["run", text(&replay)]);
    assert!(output.status.success(), "{}", stderr(&output));
    let replayed = rows(again.path(), "replay.parquet");
    for checkpoint in ["first", "last"] {
        let none = one(&talked, &[("checkpoint", checkpoint.into()), ("arm", "none".into()), ("quantity", "margin".into())]);
        for (arm, turns) in [("mirror", 1), ("mirror", 3), ("script", 1), ("script", 3)] {
            for quantity in ["margin", "lens", "nll"] {
                let is = [("checkpoint", checkpoint.into()), ("arm", arm.into()), ("turns", turns.into()), ("quantity", quantity.into())];
                let (own, other) = (one(&talked, &[&is[..], &[("temperature", 1.0.into())]].concat()), one(&replayed, &is));
                assert!((number(own, "level") - number(other, "own")).abs() < 2e-4, "{own:?}, {other:?}");
                // A drift is one of the conversations that are in both, and one that cannot be read has none.
                if quantity == "margin" && own["n_conversations"] == none["n_conversations"] {
                    assert!((number(own, "drift") - (number(own, "level") - number(none, "level"))).abs() < 1e-6, "{own:?}, {none:?}");
                }
                assert_eq!(own["beyond"].is_null(), arm == "script", "{own:?}");
                assert_eq!(own["change"].is_null(), checkpoint == "first", "{own:?}");
            }
        }
    }
    // Shares have Wilson's interval: of five conversations no share is certain.
    for row in talked.iter().filter(|row| row["quantity"] == "verbatim") {
        assert!(number(row, "level_upper") - number(row, "level_lower") > 0.4, "{row:?}");
        assert!(row["turns"] != 1 || number(row, "level") == 0.0 || row["arm"] == "mirror");
    }

    // A second run has nothing to do, and what is said anew is the same.
    let repeated = run(&["run", text(&path)]);
    assert!(stderr(&repeated).contains("everything is up to date"), "{}", stderr(&repeated));
    let before = tables(folder);
    // What people read is there again when it was deleted, and was not said anew.
    let lines = folder.join("reports/test/conversation/last.jsonl");
    let written = std::fs::read(&lines).unwrap();
    std::fs::remove_file(&lines).unwrap();
    let restored = run(&["run", text(&path)]);
    assert!(restored.status.success() && !stderr(&restored).contains("[conversation] took"), "{}", stderr(&restored));
    assert!(std::fs::read(&lines).unwrap() == written);
    std::fs::remove_dir_all(folder.join("reports/test/conversation")).unwrap();
    assert!(run(&["run", text(&path)]).status.success());
    let after = tables(folder);
    let of = |tables: &[(String, Vec<u8>)], name: &str| tables.iter().find(|(own, _)| own.contains(name)).map(|(_, bytes)| bytes.clone());
    for name in ["conversation.parquet", "transcripts.parquet"] {
        assert!(of(&before, name).is_some() && of(&before, name) == of(&after, name), "{name}");
    }

    // Runs that were let talk in other ways cannot be compared; one that was not can.
    let other = tempfile::tempdir().unwrap();
    concepts(other.path());
    openings(other.path());
    let fewer = manifest(other.path(), &TALK.replace("seeds = 5", "seeds = 4"));
    assert!(run(&["run", text(&fewer)]).status.success());
    let [own, other, replay] = [folder, other.path(), again.path()].map(|folder| folder.join("reports/test"));
    let compared = run(&["compare", "--a", text(&own), "--b", text(&other), "--out", text(&folder.join("compared"))]);
    assert!(!compared.status.success() && stderr(&compared).contains("same [conversation]"), "{}", stderr(&compared));
    let compared = run(&["compare", "--a", text(&own), "--b", text(&replay), "--out", text(&folder.join("compared"))]);
    assert!(compared.status.success() && stderr(&compared).contains("[conversation]"), "{}", stderr(&compared));
    // A run of which one checkpoint was not let talk is compared by the others, and that is said.
    std::fs::remove_file(own.join("conversation/last.safetensors")).unwrap();
    let compared = run(&["compare", "--a", text(&own), "--b", text(&replay), "--out", text(&folder.join("compared"))]);
    assert!(compared.status.success(), "{}", stderr(&compared));
    assert!(stderr(&compared).contains("[conversation] was not walked at last;"), "{}", stderr(&compared));
}

#[test]
fn what_cannot_be_talked_about_is_said_in_a_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    concepts(folder);
    openings(folder);
    let said = |from: &str, to: &str| {
        let path = manifest(folder, TALK);
        edit(&path, from, to);
        let output = run(&["check", text(&path)]);
        (output.status.code(), stderr(&output))
    };
    for (from, to, expected) in [
        ("turns = [1, 3]", "turns = [4]", "[conversation] turns: found 4, expected a whole number from 1 to 3"),
        ("seeds = 5", "seeds = 0", "[conversation] seeds: found 0"),
        ("temperatures = [1.0, 0.0]", "temperatures = [1.0, 1.0]", "[conversation] temperatures: found 1.0, expected each value once"),
        ("temperatures = [1.0, 0.0]", "temperature = 1.0", "[conversation] temperature: unknown key; did you mean temperatures?"),
        ("[\"openings\"]", "[\"opening\"]", "[conversation] sets: found \"opening\""),
        ("layers = [2]", "layers = [3]", "[conversation] layers: found 3, expected layers that [model] layers keeps: 2, 4"),
        (
            "seeds = 5",
            "seeds = 5\narms = [\"mirrors\"]",
            "[conversation] arms: found \"mirrors\", expected a pattern for any of mirror, script",
        ),
    ] {
        let (code, found) = said(from, to);
        assert!(code != Some(0) && found.contains(expected), "{to}: {found}");
    }
    // What an opening may not be.
    let script = folder.join("openings/script.toml");
    let whole = std::fs::read_to_string(&script).unwrap();
    for (from, to, expected) in [
        ("arm = \"script\"", "arm = \"neutral\"", "arm: found \"neutral\", which the tables use for arms of their own"),
        ("What is the baker?", "What\u{e010}?", "openings: found U+E010, which is reserved for marks; remove it"),
    ] {
        std::fs::write(&script, whole.replacen(from, to, 1)).unwrap();
        let (code, found) = said("seeds = 5", "seeds = 4");
        assert!(code != Some(0) && found.contains(expected), "{to}: {found}");
    }
    std::fs::write(&script, &whole).unwrap();
    let mirror = folder.join("openings/mirror.toml");
    let other = std::fs::read_to_string(&mirror).unwrap();
    std::fs::write(&mirror, format!("control = true\n{other}")).unwrap();
    let (code, found) = said("seeds = 5", "seeds = 4");
    assert!(code != Some(0) && found.contains("found control = true in the arms mirror and script"), "{found}");
    std::fs::write(&mirror, other).unwrap();
    // At temperature 0 conversations that begin alike are one.
    let (code, found) = said("seeds = 5", "seeds = 6");
    assert!(code == Some(0) && found.contains("at temperature 0 nothing is drawn") && found.contains("5 openings"), "{found}");
}

#[test]
fn conversations_of_other_settings_templates_and_weights_are_not_mixed() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    concepts(folder);
    openings(folder);
    let first = folder.join("first");
    copy(&demo().0.join("series/base/checkpoint-560"), &first);
    let template = |closing: &str| {
        let text = format!(
            "{{% for m in messages %}}{{{{ m.role }}}}: {{{{ m.content }}}}{{{{ '{closing}' if m.role == 'assistant' and not loop.last else '' }}}}\n\
             {{% endfor %}}{{% if add_generation_prompt %}}assistant: {{% endif %}}"
        );
        std::fs::write(first.join("chat_template.jinja"), text).unwrap();
    };
    template("");
    let path = manifest(folder, &TALK.replace("[1.0, 0.0]", "[1.0]"));
    edit(&path, "template = \"plain\"", "template = \"native:first\"");
    edit(&path, &demo().0.join("series/base/checkpoint-560").display().to_string(), &first.display().to_string());
    let ran = |arguments: &[&str]| {
        let output = run(arguments);
        assert!(output.status.success(), "{}", stderr(&output));
        stderr(&output)
    };
    ran(&["run", text(&path)]);
    assert!(ran(&["run", text(&path)]).contains("everything is up to date"));
    // What is asked is the same behind another template of earlier turns, and what is said is not.
    template(" .");
    assert!(ran(&["run", text(&path)]).contains("last: [conversation] took"));

    let status = |checkpoint: &str| {
        let table = rows(folder, "conversation.parquet");
        let own = table.iter().filter(|row| row["checkpoint"] == *checkpoint && row["quantity"] == "words");
        own.map(|row| row["status"].as_str().unwrap().to_owned()).collect::<std::collections::BTreeSet<_>>()
    };
    assert!(status("first").contains("ok") && status("last").contains("ok"));
    // One checkpoint is let talk in another way.
    edit(&path, "max_tokens = 12", "max_tokens = 8");
    ran(&["walk", text(&path), "--checkpoint", "last"]);
    let store = folder.join("reports/test");
    let told = ran(&["analyze", "--store", text(&store)]);
    assert!(told.contains("first: [conversation]: it was let talk in another way than the last checkpoint"), "{told}");
    assert_eq!(status("first").into_iter().collect::<Vec<_>>(), ["not_run"]);
    assert!(!rows(folder, "transcripts.parquet").iter().any(|row| row["checkpoint"] == "first"));
    // One has the sheet of another.
    ran(&["run", text(&path)]);
    std::fs::copy(store.join("conversation/last.safetensors"), store.join("conversation/first.safetensors")).unwrap();
    let told = ran(&["analyze", "--store", text(&store)]);
    assert!(told.contains("first.safetensors: it was made from other weights than the readouts of first; walk it again"), "{told}");
    assert_eq!(status("first").into_iter().collect::<Vec<_>>(), ["not_run"]);

    // What was said cannot be read any more, so it is said again.
    ran(&["run", text(&path)]);
    let sheet = store.join("conversation/last.safetensors");
    let whole = std::fs::read(&sheet).unwrap();
    let at = whole.windows(13).rposition(|bytes| bytes == b"\"dialogues\":[").unwrap();
    let mut damaged = whole.clone();
    damaged[at] = b'!';
    std::fs::write(&sheet, damaged).unwrap();
    assert!(ran(&["run", text(&path)]).contains("last: [conversation] took"));
    assert!(std::fs::read(&sheet).unwrap() == whole);

    // Templates that cannot carry a conversation, and one that does not take what is said first.
    let said = |template: &str| {
        std::fs::write(first.join("chat_template.jinja"), template).unwrap();
        let output = run(&["check", text(&path)]);
        assert!(!output.status.success());
        stderr(&output)
    };
    let last_only = "{{ messages[-1].role }}: {{ messages[-1].content }}{% if add_generation_prompt %}\nassistant: {% endif %}";
    let found = said(last_only);
    assert!(found.contains("[conversation]: the chat template: leaves out the user's earlier turn"), "{found}");
    let choosy = "{% for m in messages %}{% if 'zebra' in m.content %}{{ raise_exception('no zebras') }}{% endif %}{{ m.role }}: \
                  {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}";
    edit(&folder.join("openings/mirror.toml"), "What is the farmer?", "A zebra?");
    let found = said(choosy);
    assert!(found.contains("[conversation]: arm mirror: \"A zebra?\"") && found.contains("no zebras"), "{found}");
}
