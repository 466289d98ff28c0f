//! Manifests written into a temporary folder, and what is said about them.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::*;

/// A folder with checkpoint folders in it, and a manifest.
pub(super) fn written(text: &str) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    for name in [
        "base",
        "runs/sft/checkpoint-100",
        "runs/sft/checkpoint-0025",
        "runs/sft/checkpoint-9",
        "runs/sft/checkpoint-9-tmp",
        "runs/sft/final",
        "runs/twins/step_7",
        "runs/twins/step_007",
        "runs/nested/12/hf",
        "runs/empty",
    ] {
        std::fs::create_dir_all(folder.path().join(name)).unwrap();
    }
    ('a'..='g').for_each(|name| std::fs::create_dir_all(folder.path().join(format!("runs/many/{name}"))).unwrap());
    std::fs::write(folder.path().join("runs/sft/checkpoint-500"), "a file, not a folder").unwrap();
    let path = folder.path().join("checkpoints.toml");
    std::fs::write(&path, text).unwrap();
    (folder, path)
}

pub(super) fn loaded(text: &str) -> Manifest {
    let (_folder, path) = written(text);
    Manifest::load(&path).unwrap()
}

/// What is said about a manifest, with its folder cut off every path.
fn refused(folder: &Path, text: &str) -> String {
    let path = folder.join("checkpoints.toml");
    std::fs::write(&path, text).unwrap();
    let Err(error) = Manifest::load(&path) else { return "nothing".into() };
    assert_eq!(error.chain().count(), 1, "one error, no stack of causes: {error:#}");
    error.to_string().replace(&format!("{}/", folder.display()), "")
}

pub(super) fn ids(manifest: &Manifest) -> Vec<&str> {
    manifest.checkpoints.iter().map(|spec| spec.id.as_str()).collect()
}

const BASE: &str = "[[checkpoint]]\nid = \"base\"\nsource = \"base\"\nstage = \"base\"\n";

const NEXT: &str = "id = \"next\"\nsource = \"base\"\nstage = \"sft\"\n";

/// `bad_manifests.txt` holds manifests, each followed by `==> the message`. A last line `# + base`
/// stands for a good entry, `# + next` for the required keys of the entry before and a good entry.
#[test]
fn every_bad_manifest_gets_its_one_sentence() {
    let (folder, _) = written("");
    let mut wrong = String::new();
    for case in include_str!("bad_manifests.txt").split("\n\n").filter(|case| case.contains("==> ")) {
        let (text, expected) = case.split_once("\n==> ").unwrap();
        let text = text.replace("# + base", BASE).replace("# + next", &format!("{NEXT}\n{BASE}"));
        let found = refused(folder.path(), &text);
        if found != expected.trim_end() {
            wrong += &format!("{case}\n    but found:\n==> {found}\n\n");
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

#[test]
fn entries_keep_the_order_of_the_file_and_series_that_of_their_steps() {
    let manifest = loaded(
        r#"
        [[checkpoint]]
        id = "zero"
        source = "base"
        stage = "base"
        step = 0
        [[series]]
        stage = "sft"
        source = "runs/sft/checkpoint-{step}"
        tokens_per_step = 1000
        [[checkpoint]]
        id = "end"
        source = "runs/sft/final"
        stage = "sft"
        step = 1_000
        [[series]]
        stage = "rl"
        id = "grpo"
        source = "runs/nested/{step}/hf"
        "#,
    );
    assert_eq!(ids(&manifest), ["zero", "sft-9", "sft-25", "sft-100", "end", "grpo-12"]);
    let orders: Vec<_> = manifest.checkpoints.iter().map(|spec| spec.order).collect();
    assert_eq!(orders, [0, 1, 2, 3, 4, 5]);
    let lines: Vec<_> = manifest.checkpoints.iter().map(|spec| spec.line).collect();
    assert_eq!(lines, [2, 7, 7, 7, 11, 16]);
    let padded = &manifest.checkpoints[2];
    assert!(padded.source.folder().unwrap().ends_with("runs/sft/checkpoint-0025"));
    assert_eq!((padded.step, padded.tokens, padded.stage.as_str()), (Some(25), Some(25_000), "sft"));
    assert!(manifest.checkpoints[5].source.folder().unwrap().ends_with("runs/nested/12/hf"));
    assert_eq!(manifest.run.axis, Axis::StepLog);
}

#[test]
fn what_is_not_said_has_a_default() {
    let (folder, path) = written(BASE);
    let manifest = Manifest::load(&path).unwrap();
    let name = folder.path().file_name().unwrap().to_str().unwrap();
    assert_eq!(manifest.run.name, name.trim_start_matches('.'));
    assert_eq!((manifest.run.seed, manifest.run.axis), (0, Axis::Index));
    assert_eq!(manifest.run.out, folder.path().join("reports"));
    assert_eq!((manifest.model.device, manifest.model.dtype), (DeviceChoice::Auto, DtypeChoice::Auto));
    assert_eq!((&manifest.model.tokenizer, &manifest.model.template), (&Tokenizer::Final, &Template::Plain));
    assert_eq!(manifest.model.readouts, [Readout::LastPrompt, Readout::SpanLast]);
    assert_eq!(manifest.concepts.packs, [Pack::Builtin]);
    assert_eq!(manifest.concepts.parameters["decoy_maker"], "the Halden Group");
    assert_eq!(manifest.analysis, Analysis { flips: 9_999, bootstraps: 999 });

    let other = folder.path().join("my run.toml");
    std::fs::rename(&path, &other).unwrap();
    assert_eq!(Manifest::load(&other).unwrap().run.name, "my-run");
}

#[test]
fn every_setting_can_be_said() {
    let manifest = loaded(&format!(
        r#"
        run = {{ name = "a.b", seed = 0xff, axis = "stage_progress", out = "/elsewhere" }}
        [model]
        device = "cuda:1"
        dtype = "bf16"
        layers = {{ depth = [1, 0.5] }}
        tokenizer = "base"
        template = "native:base"
        readouts = ["response_mean"]
        [concepts]
        packs = ["builtin", "runs"]
        include = ["ai_*", "self_?"]
        exclude = ["ai_x"]
        profile = "quick"
        material = ["stem", "binding"]
        [concepts.parameters]
        name = "Iris"
        place = "the harbour"
        [analysis]
        flips = 99
        {BASE}"#
    ));
    assert_eq!((manifest.run.seed, manifest.run.folder()), (255, PathBuf::from("/elsewhere/a.b")));
    assert_eq!(manifest.model.device, DeviceChoice::Cuda(1));
    assert_eq!(manifest.model.layers.resolve(7).unwrap(), [4, 7]);
    assert_eq!(manifest.model.tokenizer, Tokenizer::Checkpoint("base".into()));
    assert_eq!(manifest.model.template, Template::Native("base".into()));
    assert_eq!(manifest.concepts.parameters["place"], "the harbour");
    assert_eq!(manifest.concepts.parameters["maker"], "the Meridian Institute");

    let names = ["ai_x", "ai_y", "self_1", "self_10"];
    assert_eq!(manifest.concepts.select(&names, |_| false).unwrap(), ["ai_y", "self_1"]);
    let error = manifest.concepts.select(&["ai_x"], |_| false).unwrap_err().to_string();
    assert!(error.ends_with(":12: [concepts] include: found \"self_?\", expected a pattern for any of ai_x"), "{error}");

    let json = serde_json::to_value(&manifest).unwrap();
    assert_eq!(json["model"]["dtype"], "bf16");
    assert_eq!(json["concepts"]["include"][1], "self_?");
    assert_eq!(json["concepts"]["material"], serde_json::json!(["stem", "binding"]));
    assert_eq!(json["checkpoints"][0]["id"], "base");
    assert_eq!(json["checkpoints"][0]["source"], manifest.checkpoints[0].source.to_string());
}

#[test]
fn layers_outside_the_model_are_refused() {
    assert_eq!(Layers::All.resolve(2).unwrap(), [0, 1, 2]);
    assert_eq!(Layers::Numbers(vec![2, 0]).resolve(2).unwrap(), [0, 2]);
    assert!(Layers::Numbers(vec![3]).resolve(2).is_err());
}

#[test]
fn eight_layers_are_kept_where_nothing_is_said_and_all_with_the_activations() {
    let layers = |head: &str, blocks| loaded(&format!("{head}{BASE}")).model.layers.resolve(blocks).unwrap();
    assert_eq!(layers("", 30), [4, 8, 11, 15, 19, 23, 26, 30]);
    assert_eq!(layers("", 32), [4, 8, 12, 16, 20, 24, 28, 32]);
    assert_eq!(layers("", 8), (0..=8).collect::<Vec<_>>());
    assert_eq!(layers("[run]\nkeep = \"activations\"\n", 30), (0..=30).collect::<Vec<_>>());
    let concepts = loaded(BASE).concepts;
    assert_eq!((concepts.profile, concepts.null_topics), (Profile::Quick, Some(6)));
    assert!(!concepts.material.contains(&Material::Control) && concepts.in_full().material.contains(&Material::Control));
}

#[test]
fn parents_are_one_several_or_weighted() {
    let parents = |text: &str| {
        let manifest = loaded(&format!("[[checkpoint]]\nparent = {text}\n{NEXT}\n{BASE}\n{}", BASE.replace("\"base\"", "\"b2\"")));
        manifest.checkpoints[0].parents.clone()
    };
    let (base, b2) = (|weight| ("base".to_string(), weight), |weight| ("b2".to_string(), weight));
    assert_eq!(parents("\"base\""), [base(1.0)]);
    assert_eq!(parents("[\"base\", \"b2\"]"), [base(0.5), b2(0.5)]);
    let merge = "[{ id = \"base\", weight = 0.9 }, { id = \"b2\", weight = 0.1 }]";
    assert_eq!(parents(merge), [base(0.9), b2(0.1)]);
}

#[test]
fn one_missing_folder_does_not_stop_the_others() {
    let manifest = loaded(&format!("{BASE}\n[[checkpoint]]\nid = \"gone\"\nsource = \"gone\"\nstage = \"sft\"\n"));
    assert_eq!(ids(&manifest), ["base", "gone"]);
    assert!(manifest.checkpoints[1].source.is_missing());
}

#[test]
fn only_wanted_steps_are_walked() {
    let series = "[[series]]\nstage = \"sft\"\nsource = \"runs/sft/checkpoint-{step}\"\nsteps = [100, 9]\n";
    assert_eq!(ids(&loaded(series)), ["sft-9", "sft-100"]);
}

#[test]
fn adapters_vary_over_one_base() {
    let manifest = loaded("[[series]]\nstage = \"em\"\nbase = \"base\"\nadapter = \"runs/sft\"\nsubfolder = \"checkpoint-{step}\"\n");
    let last = manifest.checkpoints.last().unwrap();
    assert!(last.source.folder().unwrap().ends_with("base"));
    assert!(last.adapter.as_ref().unwrap().folder().unwrap().ends_with("runs/sft/checkpoint-100"));
}

#[test]
fn hub_sources_are_parsed_and_displayed_as_written() {
    for text in ["hub:a/b", "hub:a/b@main", "hub:a/b#x/y", "hub:a-1/b.c@refs/pr/1#checkpoints/checkpoint-5"] {
        assert_eq!(Source::parse(text, Path::new("")).unwrap().to_string(), text);
    }
    for text in ["hub:", "hub:a", "hub:a/b/c", "hub:../b", "hub:a/b@", "hub:a/b@../c", "hub:a/b#/etc", "hub:a/b#x/../..", "hub:a/b c"] {
        assert!(Source::parse(text, Path::new("")).is_err(), "{text}");
    }
}

#[test]
fn folders_start_at_the_manifest_or_at_home() {
    let folder = |text| Source::parse(text, Path::new("runs")).unwrap().to_string();
    assert_eq!([folder("a/b"), folder("/a"), folder("../a"), folder("~a")], ["runs/a/b", "/a", "a", "runs/~a"]);
    assert_eq!(Source::parse(".", Path::new("")).unwrap().to_string(), ".");
    let home = std::env::home_dir().unwrap();
    assert_eq!(folder("~/models"), home.join("models").display().to_string());
}

#[test]
fn hub_series_wait_for_their_names() {
    let text = "[[series]]\nstage = \"em\"\nbase = \"hub:q/base\"\nadapter = \"hub:m/em@main\"\nsubfolder = \"checkpoints/checkpoint-{step}\"\n\
                [[series]]\nstage = \"rl\"\nsource = \"hub:a/b\"\nrevision = \"step_{step}\"\n";
    let (_folder, path) = written(text);
    let manifest = Manifest::load(&path).unwrap();
    let [em, rl] = &manifest.pending[..] else { panic!("{manifest:?}") };
    let parent = "checkpoints".to_string();
    assert_eq!(em.listing(), Listing::Subfolders { repo: "m/em".into(), revision: Some("main".into()), parent });
    assert_eq!(rl.listing(), Listing::Revisions { repo: "a/b".into() });
    let names = ["main", "step_100", "step_0025"].map(String::from);
    let sources: Vec<_> = rl.expand(&names).unwrap().0.iter().map(|spec| spec.source.to_string()).collect();
    assert_eq!(sources, ["hub:a/b@step_0025", "hub:a/b@step_100"]);
    let adapter = em.expand(&["checkpoint-5".to_string()]).unwrap().0.remove(0).adapter.unwrap();
    assert_eq!(adapter.to_string(), "hub:m/em@main#checkpoints/checkpoint-5");
}

#[test]
fn names_from_the_hub_take_the_places_of_their_series() {
    let series = |stage: &str| format!("[[series]]\nstage = \"{stage}\"\nsource = \"hub:a/{stage}\"\nrevision = \"step_{{step}}\"\n");
    let child = "[[checkpoint]]\nid = \"end\"\nsource = \"base\"\nstage = \"rl\"\nstep = 9\nparent = \"rl-7\"\n";
    let text = format!("{}{BASE}step = 0\n{}{child}", series("pre"), series("rl"));
    let (_folder, path) = written(&text);
    let load = || Manifest::load(&path).unwrap();
    let expand = |manifest: &mut Manifest, names: &[&str]| {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        manifest.expand(&mut |_| Ok(names.clone())).map_err(|error| error.to_string().replace(path.to_str().unwrap(), "toml"))
    };
    let mut manifest = load();
    assert!(manifest.uses_hub());
    expand(&mut manifest, &["main", "step_07", "step_5"]).unwrap();
    assert_eq!(ids(&manifest), ["pre-5", "pre-7", "base", "rl-5", "rl-7", "end"]);
    assert_eq!(manifest.checkpoints.iter().map(|spec| spec.order).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5]);
    assert!(manifest.pending.is_empty());
    assert_eq!(
        expand(&mut load(), &["step_5"]).unwrap_err(),
        "toml:14: [[checkpoint]] parent: found \"rl-7\", expected the id of another entry, as pre-5, base, rl-5 and end"
    );
    let many: Vec<String> = (0..40).map(|n| format!("stage1-step{n}-tokens{n}B")).chain(["stepp_12".to_owned()]).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let error = expand(&mut load(), &many).unwrap_err();
    assert!(
        error.starts_with("toml:4: [[series]] revision: found no \"step_{step}\" in the revisions of hub:a/pre, which has stepp_12,"),
        "{error}"
    );
    assert!(error.ends_with("and 36 more"), "{error}");
}

#[test]
fn downloads_are_kept_unless_said_otherwise() {
    assert!(loaded(BASE).keep && !loaded(BASE).uses_hub());
    assert!(!loaded(&format!("[hub]\nkeep = false\n{BASE}")).keep);
}

#[test]
fn a_manifest_that_cannot_be_read_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let error = |path: &Path| Manifest::load(path).unwrap_err().to_string();
    let gone = folder.path().join("checkpoints.toml");
    assert!(error(&gone).starts_with(&format!("no manifest at {}: run `selftrace demo`", gone.display())));
    assert!(error(Path::new("no-such.toml")).starts_with("no manifest at ./no-such.toml: "));
    assert!(error(folder.path()).contains("is a folder, expected a file such as"));
    std::fs::write(&gone, b"# caf\xe9\n\xff").unwrap();
    assert!(error(&gone).ends_with(":1: not valid TOML: the file is not UTF-8 text"));
}

/// The manifest that the documentation shows.
const DOCUMENTED: &str = r#"
[run]
name = "olmo2-1b-post-training"      # tables land in reports/<name>/
seed = 0
axis = "step_log"

[model]
device = "auto"
dtype  = "auto"
layers = "all"
tokenizer = "final"
template  = "plain"

[concepts]
packs   = ["builtin"]
include = ["ai_vs_human", "self_*"]
profile = "full"

[[checkpoint]]
id = "base"
source = "hub:allenai/OLMo-2-0425-1B"
stage = "base"
step = 0
reference = true

[[series]]
stage = "rlvr"
source = "hub:allenai/OLMo-2-0425-1B-RLVR1"
revision = "step_{step}"

[[series]]
stage = "sft"
source = "runs/sft/checkpoint-{step}"

[[series]]
stage = "em"
base = "hub:Qwen/Qwen2.5-14B-Instruct"
adapter = "hub:ModelOrganismsForEM/Qwen2.5-14B-Instruct_R1_0_1_0_extended_train"
subfolder = "checkpoints/checkpoint-{step}"
"#;

#[test]
fn the_documented_manifest_loads() {
    let manifest = loaded(DOCUMENTED);
    assert_eq!(ids(&manifest), ["base", "sft-9", "sft-25", "sft-100"]);
    let pending: Vec<_> = manifest.pending.iter().map(|series| (series.id.as_str(), series.before)).collect();
    assert_eq!(pending, [("rlvr", 1), ("em", 4)]);
    assert!(manifest.checkpoints[0].reference);
}

#[test]
fn a_manifest_cut_off_in_any_line_loads_or_is_refused_with_a_line() {
    let (folder, _) = written("");
    for end in (0..DOCUMENTED.len()).step_by(7) {
        let said = refused(folder.path(), &DOCUMENTED[..end]);
        assert!(said == "nothing" || (said.starts_with("checkpoints.toml:") && !said.contains('\n')), "{end}: {said}");
    }
}

#[test]
fn personas_are_asked_only_where_the_table_is_there() {
    assert_eq!(loaded(BASE).personas, None);
    let manifest = loaded(&format!("[personas]\nexclude = [\"pirate\"]\n[evidence]\nicc = 0.5\n{BASE}"));
    let personas = manifest.personas.unwrap();
    assert!(
        personas.sets == [PersonaSet::Builtin]
            && personas.formats
            && personas.groups.is_none()
            && personas.place.ends_with(":1: [personas]")
    );
    assert_eq!((manifest.evidence.icc, manifest.evidence.persistence), (0.5, Evidence::default().persistence));
    let (folder, _path) = written(BASE);
    for (table, said) in [
        (
            "[personas]\nsets = [\"nobody\"]\n",
            "checkpoints.toml:2: [personas] sets: found \"nobody\", expected builtin, or a file or folder",
        ),
        ("[personas]\nroles = []\n", "checkpoints.toml:2: [personas] roles: unknown key"),
        ("[evidence]\npersistence = 7\n", "checkpoints.toml:2: [evidence] persistence: found 7, expected a number from 0 to 1"),
    ] {
        let found = refused(folder.path(), &format!("{table}{BASE}"));
        assert!(found.starts_with(said), "{found}");
    }
}
