use super::*;

fn lease(folder: &Path) -> PathBuf {
    folder.join("c0.lease")
}

fn theirs(owner: &Owner, folder: &Path) {
    std::fs::write(lease(folder), serde_json::to_string(owner).unwrap()).unwrap();
}

fn is_ours(folder: &Path) -> bool {
    matches!(Lease::take(&lease(folder)).unwrap(), Taken::Ours(_))
}

#[test]
fn one_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let first = Lease::take(&lease(folder.path())).unwrap();
    assert!(matches!(&first, Taken::Ours(_)));
    let Taken::Theirs(owner, _) = Lease::take(&lease(folder.path())).unwrap() else { panic!("two at a time") };
    assert_eq!(owner.pid, std::process::id());
    drop(first);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left");
    assert!(is_ours(folder.path()));
}

#[test]
fn a_dead_process_of_this_machine_is_taken_over_from_at_once() {
    let folder = tempfile::tempdir().unwrap();
    // Its number is that of a live process, its start is not.
    theirs(&Owner { started: ME.started + 1, ..ME.clone() }, folder.path());
    assert!(is_ours(folder.path()));
    let mut child = std::process::Command::new("true").spawn().unwrap();
    let pid = child.id();
    child.wait().unwrap();
    theirs(&Owner { pid, ..ME.clone() }, folder.path());
    assert!(is_ours(folder.path()));
}

#[test]
fn one_of_another_machine_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    theirs(&Owner { machine: "another".to_owned(), ..ME.clone() }, folder.path());
    assert!(!is_ours(folder.path()));
    let long_ago = SystemTime::now() - SILENCE - Duration::from_secs(60);
    File::options().write(true).open(lease(folder.path())).unwrap().set_modified(long_ago).unwrap();
    assert!(is_ours(folder.path()));
}

#[test]
fn a_lease_that_was_taken_over_is_not_taken_back() {
    let folder = tempfile::tempdir().unwrap();
    let ours = Lease::take(&lease(folder.path())).unwrap();
    theirs(&Owner { machine: "another".to_owned(), ..ME.clone() }, folder.path());
    drop(ours);
    assert!(lease(folder.path()).exists(), "it is the other's");
}

#[test]
fn partial_files_of_live_processes_stay() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = std::process::Command::new("true").spawn().unwrap();
    let dead = partial("a-b.safetensors").replace(&format!("-{}-", ME.pid), &format!("-{}-", child.id()));
    child.wait().unwrap();
    let kept = [format!("{}x", partial("a-b.safetensors")), ".partial-b-another-1-x".to_owned(), "a-b.safetensors".to_owned()];
    for name in kept.iter().chain([&format!("{dead}x")]) {
        std::fs::write(folder.path().join(name), "").unwrap();
    }
    sweep(folder.path());
    assert!(kept.iter().all(|name| folder.path().join(name).exists()) && !folder.path().join(format!("{dead}x")).exists());
}
