//! `tokenizer.json`, and a text through it.
#![no_main]
use libfuzzer_sys::fuzz_target;
use selftrace::prompt::template::Template;
use selftrace::prompt::tokenize::Ruler;
use selftrace_fuzz::{folder, said, write};

fuzz_target!(|data: &[u8]| {
    write("tokenizer.json", data);
    let Some(ruler) = said(Template::plain().and_then(|template| Ruler::load(folder(), template))) else { return };
    for text in ["", "My name is <s>Nova</s>,\n\n é 12345", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!"] {
        said(ruler.encode_text(text));
        said(ruler.encode_raw(text));
    }
});
