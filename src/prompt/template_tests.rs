use super::*;

fn chat() -> Vec<Message> {
    vec![Message::new("user", "What is your name?"), Message::new("assistant", "My name is")]
}

fn error(source: &str) -> String {
    let rendered = Template::new(source, None, None).and_then(|template| template.render(&chat(), false));
    let error = format!("{:#}", rendered.unwrap_err());
    assert!(error.len() < 600 && !error.contains('\n'), "{error}");
    error
}

#[test]
fn plain_turns_open_with_the_assistant() {
    let plain = Template::plain().unwrap();
    assert_eq!(plain.render(&chat()[..1], true).unwrap(), "Human: What is your name?\n\nAssistant:");
    assert_eq!(plain.render_open(&chat()).unwrap(), "Human: What is your name?\n\nAssistant: My name is");
}

#[test]
fn an_open_turn_stops_before_the_end_token() {
    let chatml = Template::chatml().unwrap();
    let begun = |answer: &str| chatml.render_open(&[Message::new("user", "Q"), Message::new("assistant", answer)]).unwrap();
    let front = "<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\n";
    // Parts of the end token, white space at the end, and nothing at all.
    for answer in ["My name is", "end", "im", "|", "The answer is ", "<think>\n\n</think>\n\n", ""] {
        assert_eq!(begun(answer), format!("{front}{answer}"));
    }
}

#[test]
fn a_template_that_trims_keeps_no_space_at_the_end() {
    let template = Template::new("{% for m in messages %}[{{ m.content | trim }}]{% endfor %}", None, None).unwrap();
    assert_eq!(template.render_open(&[Message::new("assistant", " a b \n")]).unwrap(), "[a b");
}

#[test]
fn a_template_that_loops_or_grows_is_ended() {
    for source in [
        "{% for a in range(9999) %}{% for b in range(9999) %}x{% endfor %}{% endfor %}",
        "{% set s='x'*1000000 %}{% for i in range(200) %}{{ s }}{% endfor %}",
    ] {
        assert!(error(source).contains("did not end within"), "{source}");
    }
    error("{% set ns=namespace(s=[1,2,3]) %}{% for i in range(40) %}{% set ns.s = ns.s + ns.s %}{% endfor %}{{ ns.s|length }}");
    // Sums of lists are made when they are looked at, or when there are many of them: 2^33 items, whatever the name is given by.
    let many = |tag: &str, end: &str, shown: &str| format!("{{% set a = [1] %}}{}{{{{ {shown} }}}}{}", tag.repeat(40), end.repeat(40));
    for source in [
        many("{% set a = a + a %}", "", "a|length"),
        many("{% set a = [a[0] + a[0]] %}", "", "a[0]|length").replacen("[1]", "[[1]]", 1),
        many("{% for a in [a + a] %}", "{% endfor %}", "a|length"),
        many("{% with a = a + a %}", "{% endwith %}", "a|length"),
        "{% macro f(n, a) %}{{ f(n - 1, a + a) if n else a|length }}{% endmacro %}{{ f(40, [1]) }}".to_owned(),
    ] {
        assert!(error(&source).contains("did not end within"), "{source}: {}", error(&source));
    }
}

#[test]
fn what_would_recurse_without_end_is_refused() {
    for source in [
        "{% set ns=namespace(s=1) %}{% set ns.s=ns %}{{ ns }}",
        "{% set ns=namespace() %}{%- set ns.s = [{'a': ns}] -%}{{ ns | tojson }}",
        "{% set ns=namespace(l=[]) %}{% for i in range(100000) %}{% set ns.l = [ns.l] %}{% endfor %}{{ ns.l }}",
    ] {
        assert!(error(source).contains("namespace"), "{source}: {}", error(source));
    }
    for (sign, name) in [("-", "min"), ("1+", "plus"), ("not ", "not"), ("1 if ", "if"), ("a.", "attribute"), ("a|e|", "filter")] {
        let source = format!("{{{{ {}1 }}}}", sign.repeat(20_000));
        assert!(error(&source).contains("words and signs"), "{name}");
        // Fewer are too deep for the parser, or compute.
        let _ = Template::new(&format!("{{{{ {}1 }}}}", sign.repeat(2_000)), None, None).map(|template| template.render(&[], false));
    }
}

#[test]
fn widths_and_indents_are_bounded() {
    assert!(error("{{ '{:>9999999999}'.format('a') }}").contains("format"));
    assert!(error("{{ messages|tojson(indent=1000000000) }}").contains("indent"));
    assert!(error("{{ 'a'.zfill(1000000000) }}").contains("zfill"));
}

#[test]
fn a_raised_exception_is_the_message_of_one_line() {
    assert!(error("{{ raise_exception('no system role') }}").contains("no system role"));
    assert!(error("{{ raise_exception('x\n'*100000) }}").contains("x x x"));
}

#[test]
fn a_template_that_hides_the_stem_is_refused() {
    let error = Template::new("{{ messages[0].content }}", None, None).unwrap().render_open(&chat()).unwrap_err().to_string();
    assert!(error.contains("does not show the last message"), "{error}");
}

#[test]
fn a_special_token_that_is_not_there_may_be_asked_for_but_not_written() {
    let render = |source: &str| Template::new(source, None, Some("</s>")).unwrap().render(&chat(), false);
    for source in ["{{ bos_token }}x", "{{ bos_token ~ 'x' }}", "{{ bos_token + 'x' }}", "{% set a = pad_token %}{{ a }}"] {
        let error = render(source).unwrap_err().to_string();
        assert!(error.contains("_token, which the tokenizer does not have"), "{source}: {error}");
    }
    for source in [
        "{% if bos_token %}{{ bos_token }}{% endif %}x",
        "{% if bos_token is defined %}{{ bos_token }}{% endif %}x",
        "{{ bos_token | default('') }}x",
        "{{ bos_token or '' }}x",
    ] {
        assert_eq!(render(source).unwrap(), "x", "{source}");
    }
    assert_eq!(render("{{ eos_token }}").unwrap(), "</s>");
}

#[test]
fn numbers_are_written_as_python_writes_them() {
    let template = Template::new("{{ 1e20 }} {{ 1e-7 }} {{ 0.5 }} {{ 3.0 }} {{ 3 }} {{ true }}", None, None).unwrap();
    assert_eq!(template.render(&chat(), false).unwrap(), "1e+20 1e-07 0.5 3.0 3 True");
    assert!(error("{{ messages | pprint }}").contains("pprint"));
}

#[test]
fn assignments_to_namespaces_work_as_written() {
    let source = "{% raw %}{% set ns.a = 1 %}{% endraw %}{%- set ns = namespace(a=1, b={'}}': {}}) -%}\n{% set ns.a = ns.a + 1 if true else 9 %}\n\
                  {%- set ns.b = [1, 2] %}{{ ns.a }}{{ ns.b }}{{ {'a': {'b': 3}}['a']['b'] }}{# {{ 'x #}";
    let rendered = Template::new(source, None, None).unwrap().render(&[], false).unwrap();
    assert_eq!(rendered, "{% set ns.a = 1 %}2[1, 2]3");
}
