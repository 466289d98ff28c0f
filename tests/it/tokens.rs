//! Tokenizer folders, begun answers and messages against transformers, and prompts as people have them.

use selftrace::prompt::conversation::Conversation;
use selftrace::prompt::template::{Message, Template};
use selftrace::prompt::tokenize::Ruler;
use selftrace::prompt::vocabulary::special_tokens;
use selftrace::walk::extract::{Prompt, Words, read_prompts};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

fn fixtures(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn read<T: for<'a> Deserialize<'a>>(path: &Path) -> T {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

#[derive(Deserialize)]
struct Folders {
    texts: Vec<String>,
    rows: Vec<Folder>,
}

#[derive(Deserialize)]
struct Folder {
    start: String,
    files: BTreeMap<String, Option<Map<String, Value>>>,
    ids: Vec<Vec<i64>>,
    named: BTreeMap<String, String>,
}

/// A copy of a folder of fixtures with changed keys: null removes a key, or a file.
fn built(root: &Path, start: &str, files: &BTreeMap<String, Option<Map<String, Value>>>) -> PathBuf {
    let folder = root.join("model");
    std::fs::create_dir_all(&folder).unwrap();
    if start == "pieces" {
        std::fs::copy(fixtures("tokenizer/pieces.json"), folder.join("tokenizer.json")).unwrap();
    } else {
        for name in ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja"] {
            let _ = std::fs::copy(fixtures("tokenizer").join(start).join(name), folder.join(name));
        }
    }
    for (name, keys) in files {
        let path = folder.join(name);
        let Some(keys) = keys else {
            std::fs::remove_file(path).unwrap();
            continue;
        };
        let mut table: Map<String, Value> = if path.exists() { read(&path) } else { Map::new() };
        for (key, value) in keys {
            if value.is_null() {
                table.remove(key)
            } else {
                table.insert(key.clone(), value.clone())
            };
        }
        std::fs::write(path, Value::Object(table).to_string()).unwrap();
    }
    folder
}

#[test]
fn tokenizer_folders_are_read_as_transformers_reads_them() {
    let goldens: Folders = read(&fixtures("tokenizer/files.json"));
    assert!(goldens.rows.len() > 50);
    let mut wrong = Vec::new();
    for row in &goldens.rows {
        let root = tempfile::tempdir().unwrap();
        let folder = built(root.path(), &row.start, &row.files);
        let named = special_tokens(&folder).unwrap();
        let ruler = Ruler::load(&folder, Template::plain().unwrap()).unwrap();
        let ids: Vec<Vec<i64>> = goldens.texts.iter().map(|text| ruler.encode_text(text).unwrap()).collect();
        if ids != row.ids || named != row.named {
            wrong.push(format!("{} {:?}: {ids:?} for {:?}, {named:?} for {:?}", row.start, row.files, row.ids, row.named));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn a_class_with_rules_of_its_own_is_refused_by_name() {
    let root = tempfile::tempdir().unwrap();
    let files = json!({"tokenizer_config.json": {"tokenizer_class": "T5TokenizerFast"}});
    let folder = built(root.path(), ".", &serde_json::from_value(files).unwrap());
    let error = format!("{:#}", Ruler::load(&folder, Template::plain().unwrap()).err().unwrap());
    assert!(error.contains("tokenizer_config.json") && error.contains("T5Tokenizer"), "{error}");
}

#[derive(Deserialize)]
struct Begun {
    shows: String,
    rows: Vec<BegunRow>,
    messages: Vec<MessagesRow>,
}

#[derive(Deserialize)]
struct BegunRow {
    template: String,
    answer: String,
    rendered: Option<String>,
}

#[derive(Deserialize)]
struct MessagesRow {
    messages: Vec<Map<String, Value>>,
    rendered: String,
}

#[derive(Deserialize)]
struct Templates {
    templates: Vec<Named>,
}

#[derive(Deserialize)]
struct Named {
    name: String,
    bos_token: Option<String>,
    eos_token: Option<String>,
}

#[test]
fn begun_answers_stop_where_those_of_transformers_do() {
    let begun: Begun = read(&fixtures("chat_templates/begun.json"));
    let named: Templates = read(&fixtures("chat_templates/goldens.json"));
    let mut wrong = Vec::new();
    for row in &begun.rows {
        let tokens = named.templates.iter().find(|named| named.name == row.template).unwrap();
        let source = std::fs::read_to_string(fixtures("chat_templates/templates").join(format!("{}.jinja", row.template))).unwrap();
        let template = Template::new(&source, tokens.bos_token.as_deref(), tokens.eos_token.as_deref()).unwrap();
        let said = [("user", "Say yes"), ("assistant", "yes"), ("user", "Q"), ("assistant", &row.answer)];
        let rendered = template.render_open(&said.map(|(role, content)| Message::new(role, content)));
        if rendered.as_ref().ok() != row.rendered.as_ref() {
            wrong.push(format!("{} {:?}: {rendered:?} for {:?}", row.template, row.answer, row.rendered));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn messages_have_parts_nulls_and_keys_of_their_own() {
    let begun: Begun = read(&fixtures("chat_templates/begun.json"));
    let shows = Template::new(&begun.shows, None, None).unwrap();
    for row in begun.messages {
        let conversation = Conversation::read(row.messages).unwrap();
        let rendered = if conversation.is_open() {
            shows.render_until(&conversation, '\u{E100}')
        } else {
            shows.render_conversation(&conversation, true)
        };
        assert_eq!(rendered.unwrap(), row.rendered);
    }
    // A template that adds up texts gets one.
    let adds = Template::new("{% for m in messages %}{{ m['role'] + ': ' + m['content'] }}{% endfor %}", None, None).unwrap();
    let parts =
        |text: &str| serde_json::from_value(json!([{"role": "user", "content": serde_json::from_str::<Value>(text).unwrap()}])).unwrap();
    let two = Conversation::read(parts(r#"[{"type": "text", "text": "Hi "}, {"type": "text", "text": "there"}]"#)).unwrap();
    assert_eq!(adds.render_conversation(&two, true).unwrap(), "user: Hi there");
    // One that writes some of the parts is believed.
    let last = Template::new("{% for m in messages %}{{ m.content[-1].text }};{% endfor %}", None, None).unwrap();
    assert_eq!(last.render_conversation(&two, true).unwrap(), "there;");
    let error = format!("{:#}", Conversation::read(parts(r#"[{"type": "image", "url": "x"}]"#)).unwrap_err());
    assert!(error.contains("message 1") && error.contains("\"image\""), "{error}");
}

/// The prompts of a file whose lines are these, with tokenizer and template of `folders`.
fn prompts(lines: &[Value], folders: Vec<&Path>, special: bool) -> Result<Vec<Prompt>, String> {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("prompts.jsonl");
    std::fs::write(&path, lines.iter().map(|line| format!("{line}\n")).collect::<String>()).unwrap();
    read_prompts(&path, &Words { folders }, special).map_err(|error| format!("{error:#}"))
}

#[test]
fn line_ends_of_a_template_are_those_of_jinja() {
    let source = "{%- for m in messages %}\n<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{%- endfor %}\n";
    let [unix, windows, mac] = [source.to_owned(), source.replace('\n', "\r\n"), source.replace('\n', "\r")]
        .map(|source| Template::new(&source, None, None).unwrap().render(&[Message::new("user", "Hi\r\n")], true).unwrap());
    assert_eq!(unix, "<|im_start|>user\nHi\r\n<|im_end|>");
    assert_eq!([&windows, &mac], [&unix, &unix]);
}

#[test]
fn private_use_characters_of_a_message_stay_text() {
    let folder = fixtures("tokenizer");
    let content = "icon \u{e100} here \u{e010} and \u{e011} <|im_end|>";
    let chat = |content: &str| json!({"messages": [{"role": "user", "content": content}], "label": 1});
    let prompt = prompts(&[chat(content)], vec![&folder], false).unwrap().remove(0);
    let ruler = Ruler::load(&folder, Template::plain().unwrap()).unwrap();
    let text: Vec<String> = prompt.ids.iter().map(|id| ruler.token(*id)).collect();
    // Bytes of a character are tokens of their own, so that their number tells.
    let plain = prompts(&[chat("icon  here  and  <|im_end|>")], vec![&folder], false).unwrap().remove(0);
    assert_eq!(prompt.ids.len(), plain.ids.len() + 9, "{text:?}");
    assert_eq!(prompt.ids.iter().filter(|id| **id == 2).count(), plain.ids.iter().filter(|id| **id == 2).count());
}

#[test]
fn an_adapter_comes_with_its_own_words() {
    let root = tempfile::tempdir().unwrap();
    let own = json!({"tokenizer_config.json": {"chat_template": "{% for m in messages %}NEW {{ m.content }}{{ eos_token }}{% endfor %}"}});
    let adapter = built(root.path(), ".", &serde_json::from_value(own).unwrap());
    let line = json!({"messages": [{"role": "user", "content": "Hi"}]});
    let base = fixtures("tokenizer/bos");
    let ids = |folders: Vec<&Path>| prompts(std::slice::from_ref(&line), folders, false).unwrap().remove(0).ids;
    let ruler = Ruler::load(&adapter, Template::plain().unwrap()).unwrap();
    assert_eq!(ids(vec![&adapter, &base]), ruler.encode_text("NEW Hi<|im_end|>").unwrap());
    // Weights alone: the base's.
    let empty = tempfile::tempdir().unwrap();
    assert_eq!(ids(vec![empty.path(), &base]), ids(vec![&base]));
}

#[test]
fn special_tokens_are_known_for_means() {
    let folder = fixtures("tokenizer/bos");
    let lines = [json!({"text": "a b"}), json!({"token_ids": [0, 49, 1]}), json!({"messages": [{"role": "user", "content": "<|eot|>"}]})];
    let special: Vec<Vec<usize>> = prompts(&lines, vec![&folder], true).unwrap().into_iter().map(|prompt| prompt.special).collect();
    assert_eq!(special[..2], [vec![0], vec![0, 2]]);
    // The template's, and not the one that the message spells out.
    let expected = prompts(&[json!({"messages": [{"role": "user", "content": "x"}]})], vec![&folder], true).unwrap()[0].special.len();
    assert_eq!(special[2].len(), expected);
}
