//! `chat_template.jinja`, with three turns, closed and open.
#![no_main]
use libfuzzer_sys::fuzz_target;
use selftrace::prompt::template::{Message, Template};
use selftrace_fuzz::said;

fuzz_target!(|data: &[u8]| {
    let Ok(source) = std::str::from_utf8(data) else { return };
    let Some(template) = said(Template::new(source, Some("<s>"), None)) else { return };
    let messages = [("system", "Be brief."), ("user", "Who are you?"), ("assistant", "My name is")];
    let messages = messages.map(|(role, content)| Message::new(role, content));
    if let Some(text) = said(template.render(&messages, true)) {
        assert!(text.len() <= 256 << 20);
    }
    said(template.render_open(&messages));
});
