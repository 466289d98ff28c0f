//! The logit lens: that it is the unembedding at the last layer, and that it dates what is planted.

use crate::parity::{fixtures, prompts};
use crate::store::{D, item_with_answers, write_points};
use selftrace::analysis::analyze;
use selftrace::model::Checkpoint;
use selftrace::model::logits::unembedding;
use selftrace::model::stream::Compute;
use selftrace::series::{Lens, Series};
use selftrace::stats::draws::{generator, normal};
use selftrace::walk::store::Readouts;
use tch::{Device, Kind};

/// Differences of logits between tokens, less the same at the first position (where the bias of a norm cancels), as transformers has them.
#[test]
fn at_the_last_layer_the_lens_reads_what_transformers_says() {
    let mut tried = 0;
    for folder in fixtures() {
        let checkpoint = Checkpoint::open(&folder).unwrap();
        if checkpoint.config.logit_cap.is_some() {
            continue; // a bound on logits is left out of the lens
        }
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        let reference = Readouts::open(&folder.join("reference.safetensors")).unwrap();
        let (vocabulary, d) = (checkpoint.config.d_vocab as usize, checkpoint.config.d_model as usize);
        let tokens: Vec<i64> = (0..vocabulary as i64).collect();
        let rows = unembedding(&checkpoint, Compute { device: Device::Cpu, kind: Kind::Float }, &tokens).unwrap();
        let lens = Lens::new(&tokens, rows, d, checkpoint.config.norm.is_layer());
        let hidden = reference.layer("hidden", checkpoint.config.n_layers).unwrap();
        let logits = reference.values("logits").unwrap();
        let normed: Vec<Vec<f64>> = hidden.chunks_exact(d).map(|h| lens.normed(h)).collect();
        let last: usize = prompts(&reference).iter().map(Vec::len).sum::<usize>() - 1;
        for token in 1..vocabulary {
            let says = lens.direction(&[token as i32]).unwrap();
            let first = lens.direction(&[0]).unwrap();
            let read = |at: usize| normed[at].iter().zip(says.iter().zip(&first)).map(|(h, (u, v))| h * (u - v)).sum::<f64>();
            let theirs = |at: usize| f64::from(logits[at * vocabulary + token]) - f64::from(logits[at * vocabulary]);
            let difference = (read(last) - read(0)) - (theirs(last) - theirs(0));
            // The fixtures' epsilon of the norm is left out of the lens.
            assert!(difference.abs() < 2e-3, "{name}: token {token} differs by {difference:.1e}");
        }
        tried += 1;
    }
    assert!(tried > 40, "{tried} fixtures");
}

const CHECKPOINTS: usize = 12;
const CHOICES: usize = 14;

/// Concepts with an answer and thirteen foils. Everything grows fourfold and drifts along the directions of all choices, so that some
/// foil always wins; only for `taught` does the residual of self items turn to the answer, from checkpoint 6.
#[test]
fn a_lesson_is_dated_and_a_surer_model_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let mut rng = generator(11, "lens");
    let concepts: Vec<String> = std::iter::once("taught".to_owned()).chain((0..24).map(|n| format!("null_{n:02}"))).collect();
    let directions: Vec<f32> = (0..concepts.len() * CHOICES * D).map(|_| normal(&mut rng) as f32 / 4.0).collect();
    let direction = |concept: usize, choice: usize| &directions[(concept * CHOICES + choice) * D..][..D];
    let mut items = Vec::new();
    for (number, concept) in concepts.iter().enumerate() {
        let ids: Vec<Vec<i32>> = (0..CHOICES).map(|choice| vec![(number * CHOICES + choice) as i32]).collect();
        for group in 0..24 {
            items.push(item_with_answers(concept, "stem_self", group, "self", &ids));
            items.push(item_with_answers(concept, "stem_other", group, "other0", &ids));
        }
    }
    let drift: Vec<f64> = (0..concepts.len() * CHOICES).map(|_| normal(&mut rng)).collect();
    let base: Vec<f64> = (0..items.len() * D).map(|_| normal(&mut rng)).collect();
    let mut activation = |t: usize, index: usize, own: bool| -> Vec<f32> {
        let concept = index / 48;
        let growth = 1.0 + 3.0 * t as f64 / CHECKPOINTS as f64;
        let mut h: Vec<f64> = base[index * D..(index + 1) * D].iter().map(|x| x + 0.3 * normal(&mut rng)).collect();
        for choice in 0..CHOICES {
            let lesson = if own && concept == 0 && choice == 0 && t >= 6 { 2.0 } else { 0.0 };
            let surer = if own { 0.4 * drift[concept * CHOICES + choice] * t as f64 / CHECKPOINTS as f64 } else { 0.0 };
            h.iter_mut().zip(direction(concept, choice)).for_each(|(x, u)| *x += (lesson + surer) * f64::from(*u));
        }
        h.iter().map(|x| (growth * x) as f32).collect()
    };
    write_points(folder.path(), &items, CHECKPOINTS, &mut |t, index| activation(t, index, index.is_multiple_of(2)), Some(&directions));
    let rows = analyze(&Series::open(folder.path()).unwrap()).unwrap().onsets;
    let lens: Vec<_> = rows.iter().filter(|row| row.measure == "lens" && row.primary).collect();
    assert_eq!(lens.len(), 25);
    let taught = lens.iter().find(|row| row.concept == "taught").unwrap();
    assert_eq!((taught.status.as_str(), taught.n_null), ("ok", CHOICES as i32 - 1));
    assert!((taught.t50.value.unwrap() - 5.5).abs() < 0.6, "{taught:?}");
    let dated = lens.iter().filter(|row| row.null_bank && row.status == "ok").count();
    assert!(dated <= 1, "{dated} of 24 untaught concepts are dated");
}
