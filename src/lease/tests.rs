use super::owner::ME;
use super::*;

fn lease(folder: &Path) -> PathBuf {
    folder.join("c0.lease")
}

fn theirs(owner: &Owner, folder: &Path) {
    let text = Text { owner: owner.clone(), progress: Progress::default() };
    std::fs::write(lease(folder), text.bytes().unwrap()).unwrap();
}

fn is_ours(folder: &Path) -> bool {
    matches!(Lease::take(&lease(folder)).unwrap(), Taken::Ours(_))
}

#[test]
fn one_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let first = Lease::take(&lease(folder.path())).unwrap();
    assert!(matches!(&first, Taken::Ours(_)));
    let Taken::Theirs(other) = Lease::take(&lease(folder.path())).unwrap() else { panic!("two at a time") };
    assert_eq!(other.owner.pid, std::process::id());
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

#[test]
fn one_that_gives_no_sign_is_outlasted_and_one_that_lives_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let seen = Instant::now();
    assert!(outlast(&lease(folder.path()), seen).unwrap(), "nobody has it");
    let ours = Lease::take(&lease(folder.path())).unwrap();
    assert!(!outlast(&lease(folder.path()), seen).unwrap(), "a live process of this machine");
    drop(ours);
    theirs(&Owner { machine: "another".to_owned(), ..ME.clone() }, folder.path());
    let ago = |seconds| {
        let time = SystemTime::now() - Duration::from_secs(seconds);
        File::options().write(true).open(lease(folder.path())).unwrap().set_modified(time).unwrap();
    };
    ago(0);
    let long_since = seen.checked_sub(Duration::from_secs(30)).unwrap();
    assert!(!outlast(&lease(folder.path()), long_since).unwrap(), "a sign after it was seen");
    ago(SILENCE.as_secs() - 1);
    assert!(outlast(&lease(folder.path()), seen).unwrap(), "silent for too long");
}

#[test]
fn what_an_owner_says_is_read_by_others() {
    let folder = tempfile::tempdir().unwrap();
    let Taken::Ours(ours) = Lease::take(&lease(folder.path())).unwrap() else { panic!("nobody has it") };
    assert_eq!(look(&lease(folder.path())).unwrap().progress, Progress::default());
    ours.tell("layer", 3, 13);
    let told = ours.progress.lock().unwrap().clone();
    assert_eq!((told.unit.as_str(), told.done, told.of), ("layer", 3, 13));
    assert!(told.seconds_left.unwrap() >= 0.0);
    let text = Text { owner: ours.owner.clone(), progress: told.clone() };
    assert_eq!(text.bytes().unwrap().len(), LENGTH, "a sign of life keeps its length");
    std::fs::write(lease(folder.path()), text.bytes().unwrap()).unwrap();
    let read = look(&lease(folder.path())).unwrap().progress;
    assert_eq!((&read.unit, read.done, read.of), (&told.unit, told.done, told.of));
    assert!((read.seconds_left.unwrap() - told.seconds_left.unwrap()).abs() < 1e-9, "text rounds the last bit");
    drop(ours);
    assert!(look(&lease(folder.path())).is_none());
}

#[test]
fn a_process_that_ends_in_the_midst_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    sweep(folder.path());
    let ours = Lease::take(&lease(folder.path())).unwrap();
    let half = folder.path().join(format!("{}x", partial("c0.safetensors")));
    std::fs::write(&half, "").unwrap();
    release(&lease(folder.path()), &Owner { since: "another time".to_owned(), ..Owner::now() });
    assert!(lease(folder.path()).exists(), "that of another is not given back");
    partial::delete_own();
    assert!(!half.exists());
    drop(ours);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}
