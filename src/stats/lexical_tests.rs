use super::*;
use crate::manifest::{Pack, default_parameters};
use crate::prompt::concept::load_pack;
use crate::prompt::design::{Profile, Spec, specs};
use crate::prompt::template::Template;
use crate::prompt::tokenize::{SPAN_CLOSE, SPAN_OPEN};
use crate::stats::draws::{generator, normal, uniform_index};

const SPEAKERS: [&str; 5] = ["the nurse", "a pilot", "my old neighbour", "the \"clerk\"", "some farmer, retired"];
const CLAIMS: [&str; 4] = ["I like soup", "nobody came", "it rained for days", "we left early"];

/// Quartets speaker x claim, y = 1 where the sides are the same; texts, labels and groups.
fn quartets(n: usize) -> (Vec<String>, Vec<bool>, Vec<usize>) {
    let (mut texts, mut labels, mut groups) = (vec![], vec![], vec![]);
    for group in 0..n {
        for (i, j) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            let speaker = SPEAKERS[(group + i) % SPEAKERS.len()];
            let claim = CLAIMS[(group / 2 + j) % CLAIMS.len()];
            texts.push(format!("Number {group}: {speaker} said that {claim}."));
            labels.push(i == j);
            groups.push(group);
        }
    }
    (texts, labels, groups)
}

fn rows(texts: &[String], labels: Vec<bool>, groups: Vec<usize>) -> [LexicalAudit; 2] {
    let draws = Draws::with_counts(groups.iter().max().unwrap() + 1, 1, 999, 0, "lexical").unwrap();
    let texts = texts.iter().map(|text| Some(text.as_str())).collect();
    audit(&Labelled { concept: "planted", label_family: "crossed", texts, labels, groups }, &draws).unwrap()
}

#[test]
fn a_crossed_quartet_is_exactly_at_chance() {
    let (texts, labels, groups) = quartets(48);
    for row in rows(&texts, labels, groups) {
        assert_eq!(row.auroc.parts(), [Some(0.5); 3], "{row:?}");
        assert_eq!((row.status.as_str(), row.n, row.n_groups), ("ok", 192, 48));
    }
}

#[test]
fn a_planted_word_and_a_planted_length_are_found() {
    let (mut texts, labels, groups) = quartets(48);
    for (i, text) in texts.iter_mut().enumerate().filter(|&(i, _)| i % 3 > 0) {
        text.push_str(if labels[i] { " Indeed" } else { " Really" });
    }
    let [ngram, length] = rows(&texts, labels.clone(), groups.clone());
    assert_eq!((ngram.status.as_str(), ngram.passed), ("lexical_leak", Some(false)));
    assert!(ngram.auroc.value.unwrap() > 0.75);
    assert_eq!(length.status, "ok", "{length:?}");
    assert!(!passed(&[ngram, length]));

    let (mut texts, _, _) = quartets(48);
    for (i, text) in texts.iter_mut().enumerate().filter(|&(i, _)| labels[i]) {
        text.push_str(["!", "?"][i % 2]);
    }
    let [_, length] = rows(&texts, labels, groups);
    assert_eq!(length.status, "lexical_leak");
}

#[test]
fn random_labels_pass() {
    let (texts, _, groups) = quartets(96);
    let mut generator = generator(2, "random labels");
    let labels = (0..texts.len()).map(|_| uniform_index(2, &mut generator) == 1).collect();
    let rows = rows(&texts, labels, groups);
    for row in &rows {
        assert!((0.45..0.6).contains(&row.auroc.upper.unwrap()), "{row:?}");
    }
    assert!(passed(&rows));
}

#[test]
fn what_cannot_be_audited_says_so() {
    let (texts, labels, groups) = quartets(6);
    let [ngram, _] = rows(&texts, vec![true; 24], groups.clone());
    assert_eq!((ngram.status.as_str(), ngram.auroc.value, ngram.passed), ("degenerate_label", None, None));
    let draws = Draws::with_counts(6, 1, 99, 0, "lexical").unwrap();
    let mut texts: Vec<Option<&str>> = texts.iter().map(|text| Some(text.as_str())).collect();
    texts[3] = None;
    let set = Labelled { concept: "planted", label_family: "crossed", texts, labels, groups };
    let rows = audit(&set, &draws).unwrap();
    assert_eq!(rows[1].status, "not_run");
    assert!(!passed(&rows));
}

#[test]
fn words_and_marks_are_tokens() {
    assert_eq!(tokens("\"I'm OK,\" said R2."), ["\"", "i", "'", "m", "ok", ",", "\"", "said", "r2", "."]);
}

#[test]
fn built_in_concepts_do_not_leak() {
    // As users get them: both profiles, both templates that are not a model's own.
    for (profile, template) in
        [(Profile::QUICK, Template::plain()), (Profile::QUICK, Template::chatml()), (Profile::FULL, Template::plain())]
    {
        let template = template.unwrap();
        for concept in [Pack::Builtin, Pack::Organism].iter().flat_map(|pack| load_pack(pack).unwrap()) {
            let specs = specs(&concept, profile, &default_parameters()).unwrap();
            for family in ["crossed", "control", "binding"] {
                let chosen: Vec<_> = specs.iter().filter(|spec| spec.label_family == family && spec.y.is_some()).collect();
                if chosen.is_empty() {
                    continue;
                }
                let texts: Vec<String> = chosen.iter().map(|spec| rendered(&template, spec)).collect();
                let labels = chosen.iter().map(|spec| spec.y == Some(1)).collect();
                let groups = folds::numbered(&chosen.iter().map(|spec| &spec.group_id).collect::<Vec<_>>());
                for row in rows(&texts, labels, groups) {
                    assert_eq!(row.status, "ok", "{} {family}: {row:?}", concept.name);
                }
            }
        }
    }
}

#[test]
fn content_labels_of_a_data_set_leak() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/concept_pack");
    let concepts = load_pack(&Pack::Folder(folder)).unwrap();
    let concept = concepts.iter().find(|concept| concept.name == "gardening").unwrap();
    let specs = specs(concept, Profile::QUICK, &default_parameters()).unwrap();
    let texts: Vec<String> = specs.iter().map(|spec| rendered(&Template::plain().unwrap(), spec)).collect();
    let labels = specs.iter().map(|spec| spec.y == Some(1)).collect();
    let groups = folds::numbered(&specs.iter().map(|spec| &spec.group_id).collect::<Vec<_>>());
    let [ngram, _] = rows(&texts, labels, groups);
    assert_eq!(ngram.status, "lexical_leak", "{ngram:?}");
}

fn rendered(template: &Template, spec: &Spec) -> String {
    let open = spec.messages.last().is_some_and(|message| message.role == "assistant");
    let text = if open { template.render_open(&spec.messages) } else { template.render(&spec.messages, true) };
    text.unwrap().replace([SPAN_OPEN, SPAN_CLOSE], "")
}

#[test]
fn means_of_balanced_words_are_at_chance_and_a_planted_word_is_found() {
    const D: usize = 40;
    let mut random = generator(5, "embeddings");
    let mut vectors = |n: usize| (0..n).map(|_| (0..D).map(|_| normal(&mut random)).collect()).collect::<Vec<Vec<f64>>>();
    let (speakers, claims, planted) = (vectors(5), vectors(4), vectors(2));
    let (_, labels, groups) = quartets(48);
    let folds = folds::grouped(&groups, folds::OUTER).unwrap();
    // Every text has two words, rounded as a store rounds them.
    let rows = |leak: f64| -> Vec<f32> {
        let mut rows = Vec::new();
        for group in 0..48 {
            for (i, j) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                let (a, b) = (&speakers[(group + i) % 5], &claims[(group / 2 + j) % 4]);
                let extra = &planted[usize::from(i == j)];
                rows.extend((0..D).map(|k| ((a[k] + b[k] + leak * extra[k]) / 2.0) as f32));
            }
        }
        rows
    };
    let auroc = |leak: f64| {
        let scores = embedding_scores(&rows(leak), D, &labels, &folds).unwrap().unwrap();
        crate::stats::evaluate::Ranking::new(&scores, &labels).unwrap().auroc(&vec![1.0; labels.len()]).unwrap()
    };
    assert_eq!(auroc(0.0), 0.5);
    assert!(auroc(0.5) > 0.95, "{}", auroc(0.5));
}
