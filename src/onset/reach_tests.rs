use super::*;
use crate::stats::draws::{generator, normal};

/// Five kinds of thirteen choices.
fn kinds() -> Vec<Vec<f64>> {
    let outlier = |k, j| if (k, j) == (2, 5) { 3.0 } else { 0.0 };
    (0..5).map(|k| (0..13).map(|j| f64::from((k * 37 + j * 53) % 101) / 25.0 - 2.0 + outlier(k, j)).collect()).collect()
}

/// numpy for the scores, scipy.stats.genpareto and scipy.stats.beta on the same grid for the tail.
#[test]
fn scores_and_tails_are_those_of_scipy() {
    let scores = scores(&kinds());
    let wanted = [0.059_319_238_599_432_784, -0.764_368_016_896_365_f64, 0.143_966_117_211_351_55, -0.566_753_953_790_853_2];
    assert!(scores[2].iter().zip(wanted).all(|(score, wanted)| (score - wanted).abs() < 1e-12), "{:?}", scores[2]);
    assert!((scores[2][5] - 1.336_350_063_938_865_5).abs() < 1e-12);
    let tail = Tail::new(scores.iter().flat_map(|choices| choices[1..].to_vec()).collect()).unwrap();
    let wanted = [
        (-1.0, 0.934_426_229_508_196_8),
        (0.5, 0.213_114_754_098_360_64),
        (6.0, 8.420_646_441_008_699e-4),
        (20.0, 6.296_841_002_204_72e-5),
    ];
    for (score, p) in wanted {
        assert!((tail.beyond(score) / p - 1.0).abs() < 1e-9, "{score}: {} {p}", tail.beyond(score));
    }
}

#[test]
fn what_has_no_spread_or_few_foils_stands_out_nowhere() {
    let scores = scores(&[vec![5.0, 1.0, 1.0, 1.0, 1.0], vec![9.0, 0.0, 1.0]]);
    assert_eq!(scores, [vec![0.0; 5], vec![0.0; 3]]);
    let scores: Vec<&[f64]> = scores.iter().map(Vec::as_slice).collect();
    assert!(standings(&scores).iter().all(|standing| !standing.stands_out() && standing.p == Some(1.0)));
    assert_eq!(at_best_layers(&[]), None);
}

#[test]
fn the_layer_is_the_answers_and_foils_have_theirs() {
    let (chosen, reach) = at_best_layers(&[&[1.0, 9.0, 0.0, 0.0], &[8.0, 0.0, 1.0, 1.0]]).unwrap();
    assert_eq!((chosen, reach), (1, vec![8.0, 9.0, 1.0, 1.0]));
}

/// Shares of untaught answers with p of at most .01 and .001. Every series has so many kinds of fourteen choices at so many layers that are
/// alike in part; kinds have scales of their own, and `draw` gives a choice.
fn passed(kinds: usize, layers: usize, draw: fn(&mut dyn FnMut() -> f64) -> f64) -> [f64; 2] {
    const ANSWERS: usize = 12_000;
    let mut small = [0usize; 2];
    for seed in 0..ANSWERS / kinds {
        let mut rng = generator(seed as u64, "reach");
        let mut unit = || normal(&mut rng);
        let mut at_layers: Vec<Vec<Vec<f64>>> = vec![Vec::new(); layers];
        for _ in 0..kinds {
            let scale = (0.4 * unit()).exp();
            let shared: Vec<f64> = (0..14).map(|_| draw(&mut unit)).collect();
            let mut at_layer = || shared.iter().map(|own| scale * (own + 0.7 * draw(&mut unit))).collect();
            at_layers.iter_mut().for_each(|layer| layer.push(at_layer()));
        }
        let at_layers: Vec<Vec<Vec<f64>>> = at_layers.iter().map(|kinds| scores(kinds)).collect();
        let reach = |kind: usize| at_best_layers(&at_layers.iter().map(|layer| layer[kind].as_slice()).collect::<Vec<_>>()).unwrap().1;
        let reach: Vec<Vec<f64>> = (0..kinds).map(reach).collect();
        for standing in standings(&reach.iter().map(Vec::as_slice).collect::<Vec<_>>()) {
            small.iter_mut().zip([0.01, 0.001]).for_each(|(count, level)| *count += usize::from(standing.p.unwrap() <= level));
        }
    }
    small.map(|count| count as f64 / ANSWERS as f64)
}

/// Three standard errors above the level are .0127 and .0019.
#[test]
fn untaught_answers_pass_no_more_often_than_the_level() {
    for (kinds, layers) in [(1, 1), (3, 4), (12, 1), (12, 4)] {
        let [at_hundredth, at_thousandth] = passed(kinds, layers, |unit| unit());
        assert!(at_hundredth <= 0.0127 && at_thousandth <= 0.0019, "{kinds} kinds, {layers} layers: {at_hundredth} {at_thousandth}");
    }
}

/// Student's t with three degrees of freedom: one choice in a hundred is 4.5 scales out. A normal tail passes .001 many times too often, this
/// one, which has 156 foils to go by, less than three times.
#[test]
fn hardly_more_often_do_they_where_some_choices_are_far_from_the_others() {
    let student = |unit: &mut dyn FnMut() -> f64| {
        let [z, a, b, c] = [unit(), unit(), unit(), unit()];
        z / ((a * a + b * b + c * c) / 3.0).sqrt()
    };
    for layers in [1, 4] {
        let [at_hundredth, at_thousandth] = passed(12, layers, student);
        assert!(at_hundredth <= 0.015 && at_thousandth <= 0.003, "{layers} layers: {at_hundredth} {at_thousandth}");
    }
}

/// The same height is far out where foils are alike, and near where one in a few has it.
#[test]
fn an_answer_is_held_against_the_tail_of_all_foils() {
    let choices = |seed: u64, answer: f64, outlier: f64| -> Vec<Vec<f64>> {
        let mut rng = generator(seed, "tail");
        let mut kind = |k: usize| -> Vec<f64> {
            let foil = |j: usize| if j == 3 && k % 3 == 1 { outlier } else { 0.0 };
            (0..14).map(|j| normal(&mut rng) + if (k, j) == (0, 0) { answer } else { foil(j) }).collect()
        };
        (0..9).map(&mut kind).collect()
    };
    let p = |seed: u64, outlier: f64| {
        let scores = scores(&choices(seed, 12.0, outlier));
        standings(&scores.iter().map(Vec::as_slice).collect::<Vec<_>>())[0].p.unwrap()
    };
    for seed in 0..20 {
        let (alike, not) = (p(seed, 0.0), p(seed, 10.0));
        assert!(alike < 1e-4 && not > 5e-4 && not > 10.0 * alike, "seed {seed}: {alike} {not}");
    }
}
