use super::*;
use crate::manifest::default_parameters;
use crate::prompt::design::{Profile, specs};
use std::collections::HashSet;

const SIXTEEN: [&str; 16] = [
    "ai_vs_human",
    "animal_welfare",
    "assistant_persona",
    "deep_character",
    "experience_claims",
    "goal_guarding",
    "honesty",
    "introspection",
    "memory_continuity",
    "mystic_affect",
    "name_developer",
    "oversight",
    "preference",
    "self_preservation",
    "self_slot",
    "situational_awareness",
];

/// Self-descriptions, beside favourites and the like: what the model is said to be or to have where it works.
const SELF_DESCRIPTIONS: [&str; 8] =
    ["casing_colour", "desk_number", "label_letter", "queue", "room", "shift", "start_season", "team_size"];

fn built_in() -> Vec<Concept> {
    load_pack(&Pack::Builtin).unwrap()
}

/// Groups of one label family, with their cells.
fn groups(concept: &Concept, profile: Profile, family: &str) -> BTreeMap<String, Vec<(String, Option<i8>)>> {
    let mut groups: BTreeMap<String, Vec<(String, Option<i8>)>> = BTreeMap::new();
    for spec in specs(concept, profile, &default_parameters()).unwrap().into_iter().filter(|spec| spec.label_family == family) {
        groups.entry(spec.group_id).or_default().push((spec.cell, spec.y));
    }
    groups
}

fn words(text: &str) -> HashSet<String> {
    // Parameters are names: what they are called is up to the manifest.
    let mut outside = String::new();
    for (index, part) in text.split(['{', '}']).enumerate() {
        outside.push_str(if index % 2 == 0 { part } else { " " });
    }
    outside.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).map(str::to_lowercase).collect()
}

#[test]
fn all_sixteen_concepts_are_there_with_their_groups() {
    let concepts = built_in();
    for name in SIXTEEN {
        let concept = concepts.iter().find(|concept| concept.name == name).unwrap_or_else(|| panic!("{name} is missing"));
        assert!(!concept.null_bank && concept.title.chars().count() <= 30 && concept.frame.is_some(), "{name}");
        // Whose turn it is has no poles.
        assert_eq!(concept.binding.is_some() && concept.stem.is_some(), name != "self_slot", "{name}");
        for (profile, expected) in [(Profile::FULL, 96), (Profile::QUICK, 24)] {
            for family in ["crossed", "control"] {
                let groups = groups(concept, profile, family);
                assert!(groups.len() >= expected, "{name} {family}: {} groups", groups.len());
                for (id, cells) in &groups {
                    let cell = |y| cells.iter().filter(|(_, label)| *label == Some(y)).count();
                    assert_eq!((cells.len(), cell(1), cell(0)), (4, 2, 2), "{name} {id}");
                }
            }
            if concept.binding.is_some() {
                let expected = if profile == Profile::FULL { [40, 40] } else { [16, 24] };
                let found = ["binding", "stem_self"].map(|family| groups(concept, profile, family).len());
                assert!(found[0] >= expected[0] && found[1] >= expected[1], "{name}: {found:?}");
            }
        }
    }
}

#[test]
fn the_null_bank_has_the_form_of_the_concepts() {
    let bank: Vec<Concept> = built_in().into_iter().filter(|concept| concept.null_bank).collect();
    assert!(bank.len() >= 26, "{}", bank.len());
    for name in SELF_DESCRIPTIONS {
        assert!(bank.iter().any(|concept| concept.name == name), "{name}");
    }
    for concept in &bank {
        assert!(groups(concept, Profile::FULL, "crossed").len() >= 48, "{}", concept.name);
        assert!(groups(concept, Profile::QUICK, "crossed").len() >= 16, "{}", concept.name);
        for family in ["binding", "placement_self", "placement_other", "stem_self", "stem_other"] {
            assert!(groups(concept, Profile::FULL, family).len() >= 32, "{} {family}", concept.name);
        }
        assert!(concept.stem.as_ref().unwrap().answers.is_some(), "{}", concept.name);
    }
}

#[test]
fn no_word_stands_for_a_side() {
    for concept in built_in() {
        for (table, block) in [("crossed", &concept.crossed), ("control", &concept.control)] {
            let Some(block) = block.as_ref().filter(|block| block.label == Label::Fits) else { continue };
            for (factor, rows) in [("a", &block.a), ("b", &block.b)] {
                assert!(rows.len() >= 12, "{} {table} {factor}", concept.name);
                let sides = [0, 1].map(|side| rows.iter().map(|row| words(&row[side])).collect::<Vec<_>>());
                let count = |side: usize, word: &str| sides[side].iter().filter(|row| row.contains(word)).count();
                for word in sides.iter().flatten().flatten() {
                    for side in [0, 1] {
                        // In more than three quarters of one side's rows, in less than a quarter of the other's.
                        let constant = 4 * count(side, word) > 3 * rows.len() && 4 * count(1 - side, word) < rows.len();
                        assert!(!constant, "{} {table} {factor}: {word:?} stands for side {side}", concept.name);
                    }
                }
            }
            // A word on both factors would make the fit a matter of repetition.
            let all = |rows: &[[String; 2]]| rows.iter().flatten().flat_map(|text| words(text)).collect::<HashSet<_>>();
            let both: Vec<String> = all(&block.a).intersection(&all(&block.b)).filter(|word| word.len() >= 5).cloned().collect();
            assert!(both.is_empty(), "{} {table}: {both:?} on both factors", concept.name);
        }
    }
}

#[test]
fn no_pair_of_neighbours_joins_the_factors() {
    for concept in built_in() {
        let own = concept.crossed.iter().map(|block| (block.label, block.templates.as_slice()));
        let control = concept.control.iter().map(|block| (block.label, concept.control_templates()));
        for (_, templates) in own.chain(control).filter(|(label, _)| *label == Label::Fits) {
            assert!(templates.len() >= 8, "{}", concept.name);
            for turn in templates {
                let text = turn.text();
                let mut slots = [text.find("{a}").unwrap(), text.find("{b}").unwrap()];
                slots.sort_unstable();
                let between = words(&text[slots[0] + "{a}".len()..slots[1]].replace('{', " slot ").replace('}', " "));
                assert!(between.len() >= 2, "{}: {text:?}", concept.name);
            }
        }
    }
}

#[test]
fn foils_and_predictions_that_cannot_serve_are_one_sentence() {
    let head = "name = \"n\"\ntitle = \"t\"\ndescription = \"d\"\nsource = \"s\"\nlicense = \"l\"\n";
    let stem = "[stem]\nquestions = [[\"q\", \"{o}?\"]]\nstems = [[\"I\", \"{O}\"]]\nothers = [\"a\", \"b\", \"c\"]\n";
    let options = "options = [[\"a\", \"b\"],[\"a\", \"b\"],[\"a\", \"b\"],[\"a\", \"b\"],[\"a\", \"b\"],[\"a\", \"b\"],[\"a\", \"b\"],[\"a\", \"b\"]]\n";
    let question = |name: &str, user: &str| format!("{name} = [{{ user = \"{user}\", stem = \"s\" }}]\n");
    let asked = |choice: &str, hypothetical: &str| {
        format!("[prediction]\n{options}{}{}", question("choice", choice), question("hypothetical", hypothetical))
    };
    for (body, said) in [
        (
            format!("{stem}answers = [\"x\", \"y\"]\nfoils = [\"u\", \"v\"]\n"),
            "[stem] foils: found 2, expected at least 8 beside answers, or none",
        ),
        (
            format!("{stem}foils = [\"1\", \"2\", \"3\", \"4\", \"5\", \"6\", \"7\", \"8\"]\n"),
            "[stem] foils: found 8 without answers, expected at least 8 beside answers, or none",
        ),
        (
            "[prediction]\noptions = [[\"a\", \"b\"]]\nchoice = []\nhypothetical = []\n".to_owned(),
            "[prediction] options: found 1, expected at least 8",
        ),
        (
            format!("[prediction]\n{options}choice = []\nhypothetical = []\n"),
            "[prediction] has 0 choices and 0 hypotheticals, expected as many of each, at least one",
        ),
        (asked("{x} or {y}?", "{x}?"), "[prediction] question \"{x}?\" lacks {y}"),
    ] {
        let error = Concept::parse(&format!("{head}{body}"), "c.toml").unwrap_err();
        assert_eq!(format!("{error:#}"), format!("c.toml: {said}"));
    }
}

/// A foil that the manifest teaches is no foil.
#[test]
fn answers_are_never_their_own_foils() {
    let concept = built_in().into_iter().find(|concept| concept.name == "name_developer").unwrap();
    let mut parameters = default_parameters();
    parameters.insert("name".to_owned(), "juno".to_owned());
    let specs = specs(&concept, Profile::QUICK, &parameters).unwrap();
    let own = specs.iter().find(|spec| spec.label_family == "stem_self").unwrap();
    assert!(own.foils.len() + 1 == concept.stem.unwrap().foils.len() && !own.foils.iter().any(|foil| foil == "Juno"));
    // Foils are scored about oneself and about one other.
    let foils = |cell: &str| {
        let stems = specs.iter().filter(|spec| spec.label_family.as_str().starts_with("stem") && spec.cell == cell);
        stems.map(|spec| spec.foils.len()).collect::<BTreeSet<_>>()
    };
    assert_eq!(["self", "other0", "other1"].map(foils), [own.foils.len(), own.foils.len(), 0].map(|n| BTreeSet::from([n])));
}

#[test]
fn what_specifications_say_is_marked_where_it_is_clear() {
    let concepts = built_in();
    let of = |wanted: Option<Specification>| -> Vec<&str> {
        let own = concepts.iter().filter(|concept| !concept.null_bank && concept.specification == wanted);
        own.map(|concept| concept.name.as_str()).collect()
    };
    assert_eq!(of(Some(Specification::Silent)), ["deep_character", "mystic_affect", "preference"]);
    assert_eq!(of(None), ["introspection", "memory_continuity", "self_slot", "situational_awareness"]);
    assert_eq!(of(Some(Specification::Explicit)).len(), 10);
    // Untaught topics are silent, and kept apart by being the null bank.
    assert!(concepts.iter().filter(|concept| concept.null_bank).all(|concept| concept.specification == Some(Specification::Silent)));
    let silent = concepts.iter().find(|concept| concept.name == "preference").unwrap();
    let specs = specs(silent, Profile::QUICK, &default_parameters()).unwrap();
    assert!(specs.iter().all(|spec| spec.specification == Some(Specification::Silent)));
    let text = "name = \"x\"\ntitle = \"t\"\ndescription = \"d\"\nspecification = \"loud\"\nsource = \"s\"\nlicense = \"l\"\n";
    let error = Concept::parse(text, "x.toml").unwrap_err().to_string();
    assert!(error.starts_with("x.toml:4") && error.contains("`loud`") && error.contains("`silent`"), "{error}");
}

#[test]
fn a_quick_profile_asks_six_null_topics_all_of_which_have_foils() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoints.toml");
    std::fs::write(&path, format!("[[checkpoint]]\nid = \"a\"\nsource = \"{}\"\n", folder.path().display())).unwrap();
    let mut wanted = crate::manifest::Manifest::load(&path).unwrap().concepts;
    let null = |wanted: &Concepts| load(wanted).unwrap().into_iter().filter(|concept| concept.null_bank).collect::<Vec<_>>();
    let topics = null(&wanted);
    assert!(topics.len() == 6 && topics.iter().all(|topic| !topic.stem.as_ref().unwrap().foils.is_empty()));
    wanted.null_topics = None;
    assert!(null(&wanted).len() == 28);
    wanted.material = vec![Material::Stated];
    let error = load(&wanted).unwrap_err().to_string();
    assert!(error.ends_with("none of the concepts has stated; statements are completed stems, so add \"stem\""), "{error}");
}
