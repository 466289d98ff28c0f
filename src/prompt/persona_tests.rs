use super::*;
use crate::manifest::Pack;
use crate::prompt::concept;

fn wanted(sets: Vec<PersonaSet>) -> Personas {
    let place = "checkpoints.toml:7: [personas]".to_owned();
    Personas { sets, include: Vec::new(), exclude: Vec::new(), concepts: Vec::new(), groups: None, formats: true, place }
}

/// What is said about a file with these lines.
fn refused(lines: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("set.toml");
    std::fs::write(&path, format!("source = \"s\"\nlicense = \"l\"\n{lines}")).unwrap();
    let error = load(&wanted(vec![PersonaSet::Path(path)]), &[]).unwrap_err();
    format!("{error:#}").replace(&format!("{}/", folder.path().display()), "")
}

const REPLIES: &str = "[[reply]]\nquestion = \"q\"\nresponse = \"r\"\n";

#[test]
fn the_built_in_contexts_range_wide_enough_for_a_verdict() {
    let concepts = concept::load_pack(&Pack::Builtin).unwrap();
    let contexts = load(&wanted(vec![PersonaSet::Builtin]), &concepts).unwrap();
    let count = |kind| contexts.personas.iter().filter(|persona| persona.kind == kind).count();
    assert!(count(Kind::Default) == 3 && count(Kind::Role) >= 24 && count(Kind::Conflict) >= 5 && count(Kind::Frame) >= 3);
    assert!(contexts.personas.iter().filter(|persona| persona.quartets).count() >= 16);
    assert!((16..=24).contains(&contexts.replies.len()) && contexts.formats.len() == 8);
    let null = concepts.iter().filter(|concept| concept.null_bank && contexts.concepts.contains(&concept.name)).count();
    assert!(null == NULL_CONCEPTS && contexts.concepts.contains("ai_vs_human"));
    let named: BTreeSet<&String> = contexts.formats.iter().flat_map(|format| &format.concepts).collect();
    assert!(named.iter().all(|name| concepts.iter().any(|concept| concept.name == **name)), "{named:?}");
}

#[test]
fn too_little_for_an_axis_is_one_sentence() {
    let role = |id: &str| format!("[[persona]]\nid = \"{id}\"\nkind = \"role\"\nsystem = \"You are {id}.\"\n");
    let default = "[[persona]]\nid = \"empty\"\nkind = \"default\"\nsystem = \"\"\n";
    let replies = REPLIES.repeat(4);
    for (lines, expected) in [
        (format!("{}{}{replies}", role("a"), role("b")), "[personas]: there is no context of kind \"default\""),
        (format!("{default}{}{replies}", role("a")), "[personas]: found 1 contexts of kind \"role\", expected at least 2"),
        (format!("{default}{}{}{REPLIES}", role("a"), role("b")), "[personas]: found 1 replies, expected at least 4"),
        (format!("{default}{}", REPLIES.replace("\"r\"", "\" \"")), "set.toml: [[reply]] to \"q\": the response is empty"),
        (
            "[[format]]\nid = \"log\"\nwrap.question = \"{user}\"\nwrap.exchange = \"{user}\"\n".to_owned(),
            "set.toml: [[format]] log: wrap \"{user}\" lacks {assistant}",
        ),
        (
            "[[format]]\nid = \"log\"\nconcepts = [\"x\"]\nwrap.question = \"{user}\"\nwrap.exchange = \"{user} {assistant}\"\n".to_owned(),
            "set.toml: [[format]] log: a wrap is for every concept",
        ),
        ("[[format]]\nid = \"log\"\n".to_owned(), "set.toml: [[format]] log: templates is empty, and there is no wrap"),
        (default.replace("default", "role"), "set.toml: [[persona]] empty: system is empty"),
        (default.replace("id = \"empty\"", "id = \"default\""), "set.toml: [[persona]] id: found \"default\""),
        (default.replace("kind", "sort"), "set.toml:5: unknown field `sort`"),
    ] {
        let said = refused(&lines);
        assert!(said.contains(expected), "{said}");
    }
}

#[test]
fn a_template_without_a_system_role_gets_the_context_in_the_users_turn() {
    let gemma = "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}\
        {% for message in messages %}<{{ message.role }}>{{ message.content }}{% endfor %}";
    let dropping = "{% for message in messages if message.role != 'system' %}<{{ message.role }}>{{ message.content }}{% endfor %}";
    // As of Mistral: with the last message, if that is a user's.
    let last = "{% for message in messages %}{% if message.role != 'system' %}{% if loop.last and message.role == 'user' and \
        messages[0].role == 'system' %}{{ messages[0].content }}{% endif %}<{{ message.role }}>{{ message.content }}{% endif %}{% endfor %}";
    for source in [gemma, dropping, last] {
        assert!(!has_system_role(&Template::new(source, None, None).unwrap()));
    }
    assert!(has_system_role(&Template::plain().unwrap()) && has_system_role(&Template::chatml().unwrap()));
    let messages = vec![Message::new("user", "Hello.")];
    assert_eq!(in_context(messages.clone(), "You are a clerk.", false), [Message::new("user", "You are a clerk.\n\nHello.")]);
    let with_role = in_context(messages.clone(), "You are a clerk.", true);
    assert_eq!(with_role, [Message::new("system", "You are a clerk."), Message::new("user", "Hello.")]);
    let twice = in_context(with_role, "Be brief.", true);
    assert_eq!(twice[0], Message::new("system", "Be brief.\n\nYou are a clerk."));
    assert_eq!(in_context(messages.clone(), "", false), messages);
}

#[test]
fn quartets_keep_their_groups_in_every_format() {
    let concepts = concept::load_pack(&Pack::Builtin).unwrap();
    let contexts = load(&wanted(vec![PersonaSet::Builtin]), &concepts).unwrap();
    let parameters = crate::manifest::default_parameters();
    for concept in concepts.iter().filter(|concept| contexts.concepts.contains(&concept.name)) {
        let all = design::specs(concept, Profile::QUICK, &parameters).unwrap();
        let plain = design::first_quartets(concept, Profile::QUICK, 8, &parameters, None).unwrap();
        assert!(plain.len() == 32 && plain.iter().all(|spec| all.contains(spec)), "{}", concept.name);
        let formats = contexts.formats_of(concept);
        assert!(formats.len() >= 3, "{}", concept.name);
        for (format, templates) in formats {
            let other = design::first_quartets(concept, Profile::QUICK, 8, &parameters, Some(&templates)).unwrap();
            let key = |spec: &Spec| (spec.group_id.clone(), spec.cell.clone(), spec.y, spec.lexicon_id.clone());
            assert!(plain.iter().map(key).eq(other.iter().map(key)), "{} in {}", concept.name, format.id);
        }
    }
}
