//! What a resident model writes, against transformers: greedy texts of every family, distributions to sample from, and text out of tokens; and
//! `selftrace generate` as its users meet it.

use crate::cli::{copy, demo, program, run, stderr, stdout, text};
use crate::parity::fixtures;
use selftrace::model::Checkpoint;
use selftrace::model::generate::{Event, Finish, Past, Request, Writing, generate, go_on};
use selftrace::model::resident::Resident;
use selftrace::model::sample::Sampling;
use selftrace::model::stream::Compute;
use selftrace::prompt::decode::Spoken;
use selftrace::prompt::endings::Endings;
use selftrace::prompt::template::Template;
use selftrace::prompt::tokenize::Ruler;
use selftrace::stats::draws::{generator, uniform};
use serde::Deserialize;
use serde_json::{Value, json};
use statrs::distribution::{ChiSquared, ContinuousCDF};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tch::{Device, Kind, Tensor};

const GREEDY: Sampling = Sampling { temperature: 0.0, top_p: 1.0 };
const F32: Compute = Compute { device: Device::Cpu, kind: Kind::Float };

fn golden(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/generation").join(name);
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

#[derive(Deserialize)]
struct Greedy {
    stop: Vec<i64>,
    max_tokens: usize,
    cut: Vec<bool>,
    texts: Vec<Vec<i64>>,
}

/// What is written for each request, and why it ended.
fn texts(resident: &Resident, requests: &[Request], writing: &Writing) -> Vec<(Vec<i64>, Finish)> {
    let mut texts: Vec<(Vec<i64>, Option<Finish>)> = vec![(Vec::new(), None); requests.len()];
    generate(resident, requests, writing, &mut |request, event| {
        let (ids, finish) = &mut texts[request];
        assert!(finish.is_none(), "nothing comes after the end");
        match event {
            Event::Token { id, ends } => {
                assert_eq!(ends, writing.stop.contains(&id));
                ids.push(id);
            }
            Event::End(why) => *finish = Some(why),
        }
        Ok(())
    })
    .unwrap();
    texts.into_iter().map(|(ids, finish)| (ids, finish.expect("every text ends"))).collect()
}

fn greedily(stop: Vec<i64>, max_tokens: usize) -> Writing {
    Writing { sampling: GREEDY, stop, max_tokens, positions: None }
}

#[test]
fn greedy_texts_are_those_of_transformers_for_every_family() {
    let goldens = golden("greedy.json");
    let prompts: Vec<Vec<i64>> = serde_json::from_value(goldens["prompts"].clone()).unwrap();
    let requests: Vec<Request> = prompts.into_iter().map(|ids| Request { ids, seed: 0 }).collect();
    let (mut compared, mut stopped) = (0, 0);
    for folder in fixtures() {
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        let expected: Greedy = serde_json::from_value(goldens[&name].clone()).unwrap_or_else(|error| panic!("{name}: {error}"));
        let checkpoint = Checkpoint::open(&folder).unwrap();
        let stop = Endings::read(&folder, None, &|_| None).unwrap().stop;
        assert_eq!(stop, expected.stop, "{name}");
        let resident = Resident::load(&checkpoint, F32).unwrap();
        let written = texts(&resident, &requests, &greedily(stop.clone(), expected.max_tokens));
        for (((ids, finish), expected_ids), cut) in written.iter().zip(&expected.texts).zip(&expected.cut) {
            let compares = &ids[..expected_ids.len().min(ids.len())];
            assert_eq!(compares, expected_ids, "{name}");
            assert!(*cut || ids.len() == expected_ids.len(), "{name}: {} tokens for {}", ids.len(), expected_ids.len());
            let ends = ids.last().is_some_and(|id| stop.contains(id));
            assert_eq!(*finish, if ends { Finish::Stop } else { Finish::Length }, "{name}");
            compared += expected_ids.len();
            stopped += usize::from(ends && !cut);
        }
    }
    println!("{compared} tokens, {stopped} texts that end by themselves");
    assert!(compared > 3000 && stopped > 5, "{compared} tokens, {stopped} texts that end by themselves");
}

/// In f64, where products of other shapes do not blur it: logits in a batch of ragged rows, whose members leave and join, are those of each row
/// alone and those of the forest.
#[test]
fn a_row_of_a_batch_computes_what_it_computes_alone() {
    let double = Compute { device: Device::Cpu, kind: Kind::Double };
    for folder in fixtures() {
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        let checkpoint = Checkpoint::open(&folder).unwrap();
        let resident = Resident::load(&checkpoint, double).unwrap();
        let prompts: [&[i64]; 4] = [&[3, 17, 42, 9, 61, 5, 28], &[7], &[3, 17, 42, 8], &[1, 2, 3, 4, 5, 6, 7, 8]];
        let next = [[11i64, 12, 13, 14], [21, 22, 23, 24], [31, 32, 33, 34], [41, 42, 43, 44]];
        let whole = |row: usize, n: usize| [prompts[row], &next[row][..n]].concat();
        let expect = |logits: &Tensor, at: i64, row: usize, n: usize| {
            let (_, alone) = resident.read(&[whole(row, n)]).unwrap();
            let difference = (logits.get(at) - alone.get(0)).abs().max().double_value(&[]);
            assert!(difference < 1e-10, "{name}: row {row} after {n} tokens: {difference:.1e}");
        };
        let (mut cache, logits) = resident.read(&prompts[..3]).unwrap();
        (0..3).for_each(|row| expect(&logits, row as i64, row, 0));
        let logits = resident.step(&mut cache, &[next[0][0], next[1][0], next[2][0]]).unwrap();
        (0..3).for_each(|row| expect(&logits, row as i64, row, 1));
        // The longest leaves, the last takes its place, and one that is longer than both joins.
        cache.swap_remove(0).unwrap();
        let (other, _) = resident.read(&prompts[3..]).unwrap();
        cache.join(other).unwrap();
        let logits = resident.step(&mut cache, &[next[2][1], next[1][1], next[3][0]]).unwrap();
        for (at, (row, n)) in [(2, 2), (1, 2), (3, 1)].into_iter().enumerate() {
            expect(&logits, at as i64, row, n);
        }
        let logits = resident.step(&mut cache, &[next[2][2], next[1][2], next[3][1]]).unwrap();
        for (at, (row, n)) in [(2, 3), (1, 3), (3, 2)].into_iter().enumerate() {
            expect(&logits, at as i64, row, n);
        }
    }
}

#[test]
fn what_is_drawn_for_a_request_does_not_depend_on_the_others() {
    let folder = fixtures().into_iter().find(|folder| folder.ends_with("llama_gqa_untied_biases")).unwrap();
    let checkpoint = Checkpoint::open(&folder).unwrap();
    let resident = Resident::load(&checkpoint, Compute { device: Device::Cpu, kind: Kind::Double }).unwrap();
    let writing = Writing { sampling: Sampling { temperature: 1.0, top_p: 0.95 }, stop: vec![2, 5, 9], max_tokens: 30, positions: None };
    // More than are written at once, so that some join late.
    let requests: Vec<Request> =
        (0..150).map(|i| Request { ids: vec![3 + i % 7, 17, 42][..1 + i as usize % 3].to_vec(), seed: i as u64 / 21 }).collect();
    let together = texts(&resident, &requests, &writing);
    for index in [0, 1, 5, 64, 100, 149] {
        assert_eq!(texts(&resident, &requests[index..=index], &writing)[0], together[index]);
    }
    assert_eq!(texts(&resident, &requests, &writing), together);
    let distinct: std::collections::BTreeSet<&Vec<i64>> = together.iter().map(|(ids, _)| ids).collect();
    assert!(distinct.len() > 100, "{} distinct texts", distinct.len());
    // A text that reaches the last position ends there, and a prompt that leaves none is not written.
    let few = Writing { positions: Some(3), ..writing };
    let ends: Vec<(usize, Finish)> = texts(&resident, &requests[..3], &few).into_iter().map(|(ids, finish)| (ids.len(), finish)).collect();
    assert!(ends[0].0 <= 2 && ends[1].0 <= 1 && ends[2] == (0, Finish::TooLong), "{ends:?}");
}

/// Turn by turn, what goes on from what an earlier text left behind is what is written behind the whole text; in f64, where products of other
/// shapes do not blur it.
#[test]
fn a_text_that_goes_on_is_the_text_behind_all_of_it() {
    let writing = Writing { sampling: Sampling { temperature: 1.0, top_p: 1.0 }, stop: vec![2, 5, 9], max_tokens: 6, positions: None };
    for folder in fixtures() {
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        let checkpoint = Checkpoint::open(&folder).unwrap();
        if checkpoint.config.longest.is_some_and(|longest| longest < 48) {
            continue;
        }
        let resident = Resident::load(&checkpoint, Compute { device: Device::Cpu, kind: Kind::Double }).unwrap();
        let begin = [vec![3, 17, 42, 9], vec![7], vec![3, 17, 41], vec![3, 17, 42, 8, 11, 12, 13, 14]];
        let mut requests: Vec<Request> = begin.into_iter().enumerate().map(|(seed, ids)| Request { ids, seed: seed as u64 }).collect();
        let mut pasts: Vec<Option<Past>> = requests.iter().map(|_| None).collect();
        for turn in 0..4 {
            let mut written: Vec<Vec<i64>> = vec![Vec::new(); requests.len()];
            pasts = go_on(&resident, &requests, pasts, &writing, &mut |request, event| {
                if let Event::Token { id, .. } = event {
                    written[request].push(id);
                }
                Ok(())
            })
            .unwrap();
            let expected: Vec<Vec<i64>> = texts(&resident, &requests, &writing).into_iter().map(|(ids, _)| ids).collect();
            assert_eq!(written, expected, "{name}, turn {turn}");
            assert!(pasts.iter().all(Option::is_some));
            for (number, (request, own)) in requests.iter_mut().zip(&written).enumerate() {
                request.ids.extend(own);
                // One is told more, one takes back some of what it said, one goes on as it is, and one is another text.
                match number {
                    0 => request.ids.extend([21, 22, 23]),
                    1 => {
                        let kept = request.ids.len() - own.len() / 2;
                        request.ids.truncate(kept);
                        request.ids.push(30 + turn);
                    }
                    2 => {}
                    _ => request.ids = vec![40 + turn, 1, 2],
                }
            }
        }
    }
}

#[test]
fn draws_follow_the_distribution_that_transformers_leaves() {
    const N: usize = 40_000;
    let goldens = golden("sampling.json");
    let logits: Vec<f32> = serde_json::from_value(goldens["logits"].clone()).unwrap();
    let repeated = Tensor::from_slice(&logits).unsqueeze(0).expand([N as i64, -1], false).contiguous();
    for (index, row) in goldens["rows"].as_array().unwrap().iter().enumerate() {
        let probabilities: Vec<f64> = serde_json::from_value(row["probabilities"].clone()).unwrap();
        let sampling = Sampling { temperature: row["temperature"].as_f64().unwrap(), top_p: row["top_p"].as_f64().unwrap() };
        let mut stream = generator(index as u64, "draws");
        let mut counts = vec![0usize; logits.len()];
        for token in sampling.choose(&repeated, &mut |_| uniform(&mut stream)).unwrap() {
            counts[token.unwrap() as usize] += 1;
        }
        // Tokens that are expected less than five times are one cell (Cochran 1954).
        let (mut statistic, mut cells, mut rare) = (0.0, 0, (0.0, 0));
        for (p, count) in probabilities.iter().zip(&counts) {
            assert!(*p > 0.0 || *count == 0, "{sampling:?}: a token that is not left was drawn");
            let expected = p * N as f64;
            if expected < 5.0 {
                rare = (rare.0 + expected, rare.1 + count);
            } else {
                statistic += (*count as f64 - expected).powi(2) / expected;
                cells += 1;
            }
        }
        if rare.0 >= 1.0 {
            statistic += (rare.1 as f64 - rare.0).powi(2) / rare.0;
            cells += 1;
        }
        let p = if cells < 2 { 1.0 } else { ChiSquared::new(f64::from(cells - 1)).unwrap().sf(statistic) };
        println!("{sampling:?}: {cells} cells, chi-square {statistic:.1}, p {p:.3}");
        assert!(p > 1e-3, "{sampling:?}: chi-square {statistic:.1} of {cells} cells, p {p:.1e}");
    }
}

#[derive(Deserialize)]
struct Decoded {
    folder: String,
    ids: Vec<i64>,
    text: String,
}

#[test]
fn pieces_of_text_add_up_to_the_whole_byte_for_byte() {
    let rows: Vec<Decoded> = serde_json::from_value(golden("texts.json")).unwrap();
    let mut rulers: BTreeMap<String, Ruler> = BTreeMap::new();
    let mut early = 0;
    for row in &rows {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/generation").join(&row.folder);
        let ruler = rulers.entry(row.folder.clone()).or_insert_with(|| Ruler::load(&folder, Template::plain().unwrap()).unwrap());
        assert_eq!(ruler.decode(&row.ids).unwrap(), row.text, "{} {:?}", row.folder, row.ids);
        let mut spoken = Spoken::new(ruler);
        let mut text = String::new();
        for id in &row.ids {
            text += &spoken.push(*id).unwrap();
            assert!(row.text.starts_with(&text), "{:?}: {text:?} is taken back, it is {:?}", row.ids, row.text);
        }
        early += text.len();
        let (whole, rest) = spoken.finish().unwrap();
        assert_eq!(whole, row.text);
        assert_eq!(text + &rest.unwrap(), row.text, "{:?}", row.ids);
    }
    let all: usize = rows.iter().map(|row| row.text.len()).sum();
    assert!(rows.len() > 200 && early > all / 2, "{early} bytes of {all} were there before the end");
    // Both kinds of tokenizer give back what they are given.
    assert!(rulers.len() == 3 && rulers.values().all(|ruler| ruler.changes().unwrap().is_none()));
}

/// A folder with the demo's model and a file of prompts.
fn place(lines: &[Value]) -> (tempfile::TempDir, PathBuf, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let (model, prompts) = (folder.path().join("model"), folder.path().join("prompts.jsonl"));
    copy(&demo().0.join("series/rl/checkpoint-960"), &model);
    std::fs::write(&prompts, lines.iter().map(|line| format!("{line}\n")).collect::<String>()).unwrap();
    (folder, model, prompts)
}

fn asked() -> [Value; 2] {
    [json!({"id": "name", "messages": [{"role": "user", "content": "What is your name?"}], "label": 1}), json!({"token_ids": [1, 4, 9]})]
}

fn lines(output: &std::process::Output) -> Vec<Value> {
    stdout(output).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn one_line_per_prompt_and_seed_and_the_same_again() {
    let (_folder, model, prompts) = place(&asked());
    let ask =
        |more: &[&str]| run(&[&["generate", "--model", text(&model), "--prompts", text(&prompts), "--max-tokens", "12"], more].concat());
    let drawn = ask(&["--temperature", "1", "--seeds", "3"]);
    assert!(drawn.status.success(), "{}", stderr(&drawn));
    let rows = lines(&drawn);
    let names: Vec<(&str, u64)> = rows.iter().map(|row| (row["id"].as_str().unwrap(), row["seed"].as_u64().unwrap())).collect();
    assert_eq!(names, [("name", 0), ("name", 1), ("name", 2), ("1", 0), ("1", 1), ("1", 2)]);
    let keys: Vec<&String> = rows[0].as_object().unwrap().keys().collect();
    assert_eq!(keys, ["id", "seed", "text", "token_ids", "finish"]);
    for row in &rows {
        let (n, finish) = (row["token_ids"].as_array().unwrap().len(), row["finish"].as_str().unwrap());
        assert!(finish == "stop" || (finish == "length" && n == 12), "{row}");
    }
    assert_eq!(stdout(&drawn), stdout(&ask(&["--temperature", "1", "--seeds", "3"])));
    // Temperature 0: the seeds are one, and that is said.
    let greedy = ask(&["--seeds", "3", "--top-p", "0.9"]);
    for said in ["3 seeds are one", "--top-p changes nothing", "does not give back what it is given", "texts end at"] {
        assert!(stderr(&greedy).contains(said), "{said}: {}", stderr(&greedy));
    }
    assert_eq!(lines(&greedy).len(), 2);
    assert!(lines(&greedy)[0]["text"].as_str().unwrap().contains("nova"), "{}", stdout(&greedy));
    // Pieces add up to the texts.
    let streamed = lines(&ask(&["--temperature", "1", "--seeds", "3", "--stream"]));
    for row in &rows {
        let own = streamed.iter().filter(|line| line["id"] == row["id"] && line["seed"] == row["seed"]);
        let pieces: String = own.filter_map(|line| line.get("piece").and_then(Value::as_str)).collect();
        assert_eq!(pieces, row["text"].as_str().unwrap());
    }
}

#[test]
fn a_model_under_an_adapter_writes_what_the_merged_one_writes() {
    let (folder, model, prompts) = place(&asked());
    crate::merged::write_step(folder.path(), 40);
    let (adapter, full) = (folder.path().join("lora/checkpoint-40"), folder.path().join("full/checkpoint-40"));
    let ask = ["--prompts", text(&prompts), "--max-tokens", "20", "--temperature", "1", "--seeds", "6"];
    let write = |model: &Path, more: &[&str]| {
        let output = run(&[&["generate", "--model", text(model)], &ask[..], more].concat());
        assert!(output.status.success(), "{}", stderr(&output));
        lines(&output)
    };
    let merged = write(&full, &[]);
    assert_eq!(write(&model, &["--adapter", text(&adapter)]), merged);
    assert_ne!(write(&model, &[]), merged);
}

#[test]
fn what_cannot_be_written_is_said_and_the_rest_goes_on() {
    let long = json!({"id": "long", "token_ids": vec![4; 600]});
    let (_folder, model, prompts) = place(&[long, asked()[1].clone()]);
    let ask = || run(&["generate", "--model", text(&model), "--prompts", text(&prompts), "--max-tokens", "5"]);
    let output = ask();
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(stderr(&output).contains("\"long\": has 600 tokens"), "{}", stderr(&output));
    let rows = lines(&output);
    assert_eq!((&rows[0]["finish"], &rows[0]["token_ids"], &rows[0]["text"]), (&json!("too_long"), &json!([]), &json!("")));
    assert_eq!(rows[1]["token_ids"].as_array().unwrap().len().min(5), rows[1]["token_ids"].as_array().unwrap().len());
    // No template: one sentence that names the line. No tokenizer: no text.
    std::fs::write(&prompts, format!("{}\n", asked()[0])).unwrap();
    for name in ["chat_template.jinja", "tokenizer_config.json"] {
        let _ = std::fs::remove_file(model.join(name));
    }
    let output = ask();
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("prompts.jsonl:1") && stderr(&output).contains("no chat template"), "{}", stderr(&output));
    std::fs::remove_file(model.join("tokenizer.json")).unwrap();
    std::fs::write(&prompts, format!("{}\n", asked()[1])).unwrap();
    let output = ask();
    assert!(output.status.success() && stderr(&output).contains("`text` is null"), "{}", stderr(&output));
    assert_eq!(lines(&output)[0]["text"], Value::Null);
    for (flag, value) in [("--temperature", "-1"), ("--temperature", "NaN"), ("--top-p", "0"), ("--max-tokens", "0"), ("--seeds", "0")] {
        let output = run(&["generate", "--model", text(&model), "--prompts", text(&prompts), flag, value]);
        assert!(output.status.code() == Some(2) && stderr(&output).contains(flag), "{flag} {value}: {}", stderr(&output));
    }
}

/// A program that writes for long: no token ends a text, and more texts are asked for than are written at once.
fn endless(model: &Path, prompts: &Path) -> Command {
    let path = model.join("config.json");
    let mut config: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    config["eos_token_id"] = Value::Null;
    config["max_position_embeddings"] = json!(1_000_000);
    std::fs::write(&path, config.to_string()).unwrap();
    let _ = std::fs::remove_file(model.join("generation_config.json"));
    let _ = std::fs::remove_file(model.join("tokenizer.json"));
    program(&[
        "generate",
        "--model",
        text(model),
        "--prompts",
        text(prompts),
        "--max-tokens",
        "300",
        "--temperature",
        "1",
        "--seeds",
        "200",
    ])
}

#[test]
fn a_reader_who_leaves_ends_it_without_an_error() {
    let (_folder, model, prompts) = place(&asked()[1..]);
    let mut child = endless(&model, &prompts).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut first = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
    assert!(first.contains("\"finish\":\"length\""), "{first}");
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stderr(&output).contains("nobody reads the texts any more"), "{}", stderr(&output));
}

#[test]
fn signals_end_it_with_what_is_written() {
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let (_folder, model, prompts) = place(&asked()[1..]);
        let mut child = endless(&model, &prompts).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut reader = BufReader::new(child.stdout.take().unwrap());
        let mut first = String::new();
        reader.read_line(&mut first).unwrap();
        Command::new("kill").args([&format!("-{signal}"), &child.id().to_string()]).status().unwrap();
        let mut rest = String::new();
        reader.read_to_string(&mut rest).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{}", stderr(&output));
        assert!(stderr(&output).contains("of 200 texts were written"), "{}", stderr(&output));
        // Whole lines alone.
        for line in [first.as_str()].into_iter().chain(rest.lines()) {
            assert!(serde_json::from_str::<Value>(line).is_ok(), "{line}");
        }
    }
}
