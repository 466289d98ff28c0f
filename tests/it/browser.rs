//! The page in a real browser, where there is one: no error, nothing wider than the window, and the filter and the sort do what they say.

use crate::pages::{NAME, SMALL, Size, write};
use selftrace::report::page;
use std::path::Path;
use std::process::Command;

/// What the page is asked to do; what came of it is written into the document.
const TRY: &str = r##"<script>
addEventListener("load", () => {
  const out = {}, table = document.querySelector("#onsets table"), form = document.querySelector("form.controls");
  const rows = () => [...table.tBodies[0].rows].filter(row => row.getClientRects().length > 0);
  const set = (name, value) => { form.elements[name].value = value; form.dispatchEvent(new Event("input", { bubbles: true })); };
  const click = key => table.querySelector(`th[data-sort=${key}] button`).click();
  const dates = () => rows().map(row => Number(row.dataset.d)).filter(date => !Number.isNaN(date));
  const sorted = list => list.every((date, at) => at === 0 || list[at - 1] <= date);
  out.all = rows().length;
  out.said = form.querySelector("output").value;
  set("measure", "lens"); out.lens = rows().length; out.only = rows().every(row => row.dataset.m === "lens"); set("measure", "");
  set("status", "dated"); out.dated = rows().length; out.marks = rows().filter(row => row.querySelector(".mark .ci")).length; set("status", "");
  set("concept", "CONCEPT_1"); out.named = rows().length; set("concept", "");
  click("date"); out.up = sorted(dates()); click("date"); out.down = sorted(dates().reverse());
  click("concept"); const names = rows().map(row => row.cells[0].textContent);
  out.names = names.every((name, at) => at === 0 || names[at - 1].localeCompare(name) <= 0);
  out.sortedBy = table.querySelector("[aria-sort]").textContent + table.querySelector("[aria-sort]").ariaSort;
  const number = document.querySelector("[data-at]"); number.dispatchEvent(new MouseEvent("mouseover", { bubbles: true })); out.title = number.title;
  out.wide = document.documentElement.scrollWidth - innerWidth; out.width = innerWidth;
  out.curves = document.querySelectorAll(".curve .line").length; out.text = getComputedStyle(document.querySelector(".f-text")).fontSize;
  const text = "RESULT" + JSON.stringify(out) + "END";
  if (parent === self) document.body.append(text); else parent.postMessage(text, "*");
});
</script>"##;
/// A page in a frame, as no window of a browser is as narrow as a phone; what the page says of itself is written into the document.
const NARROW: &str = r#"<!doctype html><meta charset="utf-8"><script>addEventListener("message", event => document.body.append(event.data));</script>
<body><iframe src="tried.html" width="390" height="900" style="border:0"></iframe></body>"#;

fn chromium() -> Option<&'static str> {
    ["chromium", "chromium-browser", "google-chrome"]
        .into_iter()
        .find(|name| Command::new(name).arg("--version").output().is_ok_and(|out| out.status.success()))
}

/// Opens a page and returns its document as it is then, and what the console said.
fn open(browser: &str, page: &Path, home: &Path) -> (String, String) {
    let output = Command::new(browser)
        .args([
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-extensions",
            "--enable-logging=stderr",
            "--v=0",
            "--dump-dom",
            "--virtual-time-budget=20000",
        ])
        .arg(format!("--user-data-dir={}", home.display()))
        .arg("--window-size=1280,900")
        .arg(format!("file://{}", page.display()))
        .output()
        .unwrap();
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    let console = log.lines().filter(|line| line.contains("CONSOLE")).collect::<Vec<_>>().join("\n");
    (String::from_utf8_lossy(&output.stdout).into_owned(), console)
}

#[test]
fn filter_and_sort_work_and_nothing_is_too_wide() {
    let Some(browser) = chromium() else {
        eprintln!("skipped: there is no chromium here to open a page in");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "in a browser", Size { concepts: 5, ..SMALL });
    let path = page::write(folder.path(), None, "selftrace report it").unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    let tried = folder.path().join("tried.html");
    std::fs::write(&tried, text.replace("</body>", &format!("{TRY}</body>"))).unwrap();
    let narrow = folder.path().join("narrow.html");
    std::fs::write(&narrow, NARROW).unwrap();
    for (width, page) in [(1280, &tried), (390, &narrow)] {
        let (document, console) = open(browser, page, &folder.path().join("home"));
        assert_eq!(console, "", "the console is silent at {width}");
        let result =
            document.rsplit("RESULT").next().and_then(|rest| rest.split("END").next()).unwrap_or_else(|| panic!("no result: {document}"));
        let found: serde_json::Value =
            serde_json::from_str(&result.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")).unwrap();
        assert_eq!(found["width"], width, "the window is as wide as it should be");
        assert_eq!(found["all"], 45, "five concepts by nine measures: {found}");
        assert_eq!(found["said"], "45 of 45 rows");
        assert_eq!((found["lens"].as_u64(), found["only"].as_bool()), (Some(5), Some(true)), "{found}");
        assert_eq!(found["dated"], 12, "three concepts by four measures: {found}");
        assert_eq!(found["marks"], found["dated"], "{found}");
        assert_eq!(found["named"], 9, "{found}");
        for yes in ["up", "down", "names"] {
            assert_eq!(found[yes], true, "{yes} at {width}: {found}");
        }
        assert_eq!(found["sortedBy"], "Conceptascending");
        assert!(found["title"].as_str().is_some_and(|title| title.contains(".parquet, row ")), "{found}");
        assert!(found["wide"].as_i64().is_some_and(|wide| wide <= 0), "wider than the window at {width}: {found}");
        assert!(found["curves"].as_u64().is_some_and(|n| n >= 40), "{found}");
        assert!(width == 390 || document.contains("&lt;/b&gt;&lt;/script&gt;") && !document.contains(NAME));
    }
}
