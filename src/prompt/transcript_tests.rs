use super::*;
use crate::prompt::concept;
use std::collections::BTreeSet;

/// A manifest's table with these sets and arms.
fn wanted(extra: &str, folder: &Path) -> Talk {
    let text =
        format!("[model]\ntemplate = \"plain\"\n[replay]\n{extra}\n[[checkpoint]]\nid = \"a\"\nstage = \"sft\"\nsource = \"model\"\n");
    std::fs::create_dir_all(folder.join("model")).unwrap();
    let path = folder.join("checkpoints.toml");
    std::fs::write(&path, text).unwrap();
    crate::manifest::Manifest::load(&path).unwrap().replay.unwrap()
}

fn words(text: &str) -> Result<usize> {
    Ok(text.split_whitespace().count())
}

fn builtin() -> Library {
    Library::load(&wanted("", tempfile::tempdir().unwrap().path())).unwrap()
}

#[test]
fn the_conversations_inside_the_binary_are_sound_and_say_no_answer() {
    let library = builtin();
    let arms: Vec<&str> = library.arms.iter().map(|(arm, _)| arm.as_str()).collect();
    assert_eq!(arms, ORDER);
    for (arm, scripts) in &library.arms {
        let turns = if arm.starts_with("summary") { 1 } else { 16 };
        assert!(scripts.len() == 6 && scripts.iter().all(|script| script.messages.len() == turns), "{arm}");
    }
    assert_eq!(library.topics.len(), 48);
    // Texts that say what is scored behind them would be heard, and no more.
    let concepts = concept::load_pack(&crate::manifest::Pack::Builtin).unwrap();
    let answers: BTreeSet<String> = concepts
        .iter()
        .filter(|concept| !concept.null_bank)
        .filter_map(|concept| concept.stem.as_ref()?.answers.clone())
        .flatten()
        .map(|answer| format!(" {} ", answer.to_lowercase()))
        .collect();
    let plain = |text: &str| {
        let letters: String = text.to_lowercase().chars().map(|c| if c.is_alphanumeric() || c == '\'' { c } else { ' ' }).collect();
        format!(" {} ", letters.split_whitespace().collect::<Vec<_>>().join(" "))
    };
    let turns = library.arms.iter().flat_map(|(_, scripts)| scripts).flat_map(|script| &script.messages).map(|message| &message.content);
    let sentences = library.topics.iter().flat_map(|topic| topic.user.iter().chain(&topic.assistant));
    for text in turns.chain(sentences) {
        let text = plain(text);
        assert_eq!(answers.iter().find(|answer| text.contains(answer.as_str())), None, "{text}");
    }
}

#[test]
fn a_neutral_conversation_is_as_long_as_the_other_and_about_something_else_every_time() {
    let library = builtin();
    for (arm, scripts) in &library.arms {
        let mut texts = BTreeSet::new();
        for (number, script) in scripts.iter().enumerate() {
            let neutral = library.neutral(number, script, &words).unwrap();
            let roles = |script: &Transcript| script.messages.iter().map(|message| message.role.clone()).collect::<Vec<_>>();
            assert_eq!(roles(&neutral), roles(script));
            let length = |script: &Transcript| script.messages.iter().map(|message| words(&message.content).unwrap()).sum::<usize>();
            assert!(length(&neutral).abs_diff(length(script)) <= 6, "{arm} {number}: {} of {}", length(&neutral), length(script));
            assert!(neutral.messages.iter().all(|message| texts.insert(message.content.clone())), "{arm} {number}");
        }
    }
}

#[test]
fn replays_have_shuffled_and_neutral_turns_unless_the_arms_say_otherwise() {
    let folder = tempfile::tempdir().unwrap();
    let mut library = builtin();
    library.add_controls(&[], None, &words).unwrap();
    let of = |arm: &str| &library.arms.iter().find(|(own, _)| own == arm).unwrap().1;
    for (script, other) in of(SELF_TALK).iter().zip(of(SHUFFLED)) {
        let pairs = || script.messages.iter().zip(&other.messages);
        assert!(pairs().all(|(own, other)| own.role == other.role && own.content != other.content));
        let sorted = |script: &Transcript| script.messages.iter().map(|message| message.content.clone()).collect::<BTreeSet<_>>();
        assert_eq!(sorted(script), sorted(other));
    }
    assert_eq!(of(NEUTRAL).len(), 6);
    // Beside what several checkpoints wrote they stand once.
    let mut library = builtin();
    let (_, written) = library.arms.iter_mut().find(|(arm, _)| arm == SELF_TALK).unwrap();
    written.iter_mut().enumerate().for_each(|(number, script)| script.writer = Some(["a", "b"][number % 2].to_owned()));
    library.add_controls(&[], Some("b"), &words).unwrap();
    let of = |arm: &str| &library.arms.iter().find(|(own, _)| own == arm).unwrap().1;
    assert_eq!((of(NEUTRAL).len(), of(SHUFFLED).len()), (3, 3));
    let wanted = wanted("arms = [\"task\", \"self_*\"]", folder.path());
    let mut library = Library::load(&wanted).unwrap();
    library.add_controls(&wanted.arms, None, &words).unwrap();
    assert_eq!(library.arms.iter().map(|(arm, _)| arm.as_str()).collect::<Vec<_>>(), ["task", "self_talk"]);
}

#[test]
fn lines_and_logs_of_inspect_are_read_and_what_is_no_conversation_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let put = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    put(
        "mine.jsonl",
        "{\"id\": 7, \"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}, {\"role\": \"assistant\", \"content\": \"Hello\"}], \"score\": 1}\n\n\
         {\"arm\": \"other\", \"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}, {\"role\": \"assistant\", \"content\": \" \"}]}\n\
         {\"arm\": \"other\", \"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}]}\n",
    );
    put(
        "log.json",
        "{\"version\": 2, \"eval\": {\"task\": \"talk\", \"model\": \"x\"}, \"samples\": [{\"id\": \"s\", \"epoch\": 2, \"messages\": [\
         {\"id\": \"m\", \"role\": \"user\", \"content\": [{\"type\": \"text\", \"text\": \"Hi\"}], \"source\": \"input\"}, \
         {\"role\": \"assistant\", \"content\": \"Hello\", \"stop_reason\": \"stop\"}]}, {\"id\": 3, \"epoch\": 1, \"messages\": [\
         {\"role\": \"user\", \"content\": [{\"type\": \"image\", \"image\": \"x\"}]}]}]}",
    );
    let set = |name: &str| wanted(&format!("sets = [\"{}\"]", folder.path().join(name).display()), folder.path());
    let library = Library::load(&set("mine.jsonl")).unwrap();
    let hello = |arm: &str, id: &str| Transcript {
        arm: arm.to_owned(),
        id: id.to_owned(),
        writer: None,
        messages: vec![Message::new("user", "Hi"), Message::new("assistant", "Hello")],
    };
    assert_eq!(library.arms, [("mine".to_owned(), vec![hello("mine", "7")])]);
    let place = folder.path().join("mine.jsonl").display().to_string();
    assert_eq!(
        library.left_out,
        [
            format!("{place}:3: message 2 of role assistant has no text; this conversation is left out"),
            format!("{place}:4: the assistant says nothing in it; this conversation is left out"),
        ]
    );
    let library = Library::load(&set("log.json")).unwrap();
    assert_eq!(library.arms, [("talk".to_owned(), vec![hello("talk", "s/2")])]);
    assert!(
        library.left_out[0].contains("log.json: sample 2: message 1: content: found a part of type \"image\""),
        "{:?}",
        library.left_out
    );

    for (name, text, said) in [
        ("bad.jsonl", "{\"messages\": 3}", "bad.jsonl:1: invalid type"),
        ("bad.json", "[1]", "bad.json: expected a log of Inspect with `samples`"),
        (
            "bad.toml",
            "source = \"s\"\nlicense = \"l\"\narm = \"A b\"\ndescription = \"d\"\n",
            "bad.toml: arm: found \"A b\", expected lower-case",
        ),
        (
            "few.toml",
            "source = \"s\"\nlicense = \"l\"\narm = \"a\"\ndescription = \"d\"\n[[script]]\nturns = [[\"Hi\", \" \"]]\n",
            "few.toml: [[script]] 1: turns: found an empty one",
        ),
        ("text.txt", "Hi", "text.txt: expected a file that ends in .toml, .jsonl or .json"),
    ] {
        put(name, text);
        let found = format!("{:#}", Library::load(&set(name)).unwrap_err());
        assert!(found.contains(said) && !found.contains('\n'), "{found}");
    }
}
