//! Third-party code on files that nobody vouches for: a panic becomes an error, and recursion gets a stack of its own. And how much a disk
//! still takes.

use anyhow::{Result, anyhow};
use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::path::Path;
use std::sync::Once;

/// Stack for code that recurses as deeply as its input is nested; only what is touched takes memory.
const STACK: usize = 256 << 20;

thread_local! {
    /// Panics of this thread become errors, so nothing is printed about them.
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Runs `action`; a panic in it is an error that says what `library` said.
///
/// # Errors
/// The action panicked.
pub fn guarded<T>(library: &str, action: impl FnOnce() -> T) -> Result<T> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = take_hook();
        set_hook(Box::new(move |info| {
            if !GUARDED.get() {
                before(info);
            }
        }));
    });
    let outer = GUARDED.replace(true);
    let result = catch_unwind(AssertUnwindSafe(action));
    GUARDED.set(outer);
    result.map_err(|panic| anyhow!("{library} gave up: {}", brief(said(&*panic))))
}

/// As [`guarded`], on a thread with a large stack.
///
/// # Errors
/// The action panicked, or the system has no thread left.
pub fn on_a_large_stack<T: Send>(library: &str, action: impl FnOnce() -> T + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, || guarded(library, action));
        let thread = thread.map_err(|error| anyhow!("no thread for {library}: {error}"))?;
        thread.join().unwrap_or_else(|panic| Err(anyhow!("{library} gave up: {}", brief(said(&*panic)))))
    })
}

fn said(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without a message")
}

/// Bytes that are free for us where `folder` is or will be; `None` where the system does not say.
pub fn free_space(folder: &Path) -> Option<u64> {
    let folder = std::path::absolute(folder).ok()?;
    let there = folder.ancestors().find(|folder| folder.is_dir())?;
    let disk = rustix::fs::statvfs(there).ok()?;
    Some(disk.f_bavail * disk.f_frsize)
}

/// One line of at most 300 characters: messages of libraries may be as long as their input.
pub fn brief(text: &str) -> String {
    const LONGEST: usize = 300;
    let mut line: String = text.split_whitespace().flat_map(|word| [" ", word]).skip(1).flat_map(str::chars).take(LONGEST + 1).collect();
    if line.chars().count() > LONGEST {
        line = line.chars().take(LONGEST).chain(['…']).collect();
    }
    line
}

/// An error with its context, at most 1,500 characters of it: a value out of a file may be as long as the file.
pub fn sentence(error: &anyhow::Error) -> String {
    const HEAD: usize = 1000;
    const TAIL: usize = 500;
    let text = format!("{error:#}");
    let cut = |at: usize| text.char_indices().nth(at).map_or(text.len(), |(place, _)| place);
    match text.chars().count() {
        all if all > HEAD + TAIL => format!("{}… {}", &text[..cut(HEAD)], &text[cut(all - TAIL)..]),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error_of_one_line() {
        let error = guarded("the library", || -> () { panic!("index {}\nout of bounds", "x".repeat(1000)) }).unwrap_err().to_string();
        assert!(error.starts_with("the library gave up: index xxx") && error.len() < 400 && !error.contains('\n'), "{error}");
        let error = on_a_large_stack("the library", || -> () { panic!("deep") }).unwrap_err().to_string();
        assert_eq!(error, "the library gave up: deep");
    }

    #[test]
    fn an_error_is_not_as_long_as_what_it_is_about() {
        let short = anyhow!("hidden_act: found \"mish\"").context("config.json");
        assert_eq!(sentence(&short), "config.json: hidden_act: found \"mish\"");
        let long = sentence(&anyhow!("hidden_act: found {}, expected silu", "é".repeat(400_000)).context("config.json"));
        assert!(long.chars().count() < 1510 && long.starts_with("config.json: hidden_act") && long.ends_with("expected silu"), "{long}");
    }

    #[test]
    fn a_large_stack_holds_deep_recursion() {
        fn deep(n: usize) -> usize {
            let here = std::hint::black_box([n; 64]);
            if n == 0 { 0 } else { deep(n - 1) + here[0] / n.max(1) }
        }
        assert_eq!(on_a_large_stack("recursion", || deep(100_000)).unwrap(), 100_000);
    }
}
