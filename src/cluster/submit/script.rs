//! The batch scripts: plain bash with directives on top, to be read and edited, without anything secret in
//! them.

use super::Options;
use super::array::ranges;
use anyhow::{Result, ensure};
use std::path::Path;

/// How often a task that met its time limit begins again, before it is given up.
const RESTARTS: usize = 3;
/// Seconds before the time limit at which a task is told.
const WARNING: usize = 120;

/// What all scripts of a run have in common.
pub struct Place<'a> {
    pub run: &'a str,
    pub program: &'a Path,
    pub manifest: &'a Path,
    /// The folder that relative paths of the manifest start from.
    pub start: &'a Path,
    pub logs: &'a Path,
    pub options: &'a Options,
}

impl Place<'_> {
    /// A task per checkpoint: `ids` lists those of the series, `numbers` the tasks among them.
    ///
    /// # Errors
    /// A path or an option that a directive cannot hold.
    pub fn walk(&self, path: &Path, ids: &[&str], numbers: &[usize]) -> Result<String> {
        let parallel = self.options.max_parallel.map_or_else(String::new, |most| format!("%{most}"));
        let mut head = vec![format!("--array={}{parallel}", ranges(numbers))];
        head.extend(self.directives("", "%A_%a.log")?);
        let resources = self.resources()?;
        head.extend(resources);
        let list: String = ids.iter().enumerate().map(|(number, id)| format!("    {:<32} # {number}\n", quoted(id))).collect();
        let run = self.run;
        Ok(format!(
            "#!/bin/bash
# Walks what is missing of {run}, a task per checkpoint, numbered as in the list below. Written by `selftrace submit`; it may be edited
# and handed in again with: sbatch {path}
{head}
{common}checkpoints=(
{list})
checkpoint=${{checkpoints[$SLURM_ARRAY_TASK_ID]}}

# USR1 comes {WARNING} s before the time limit and TERM when the task is preempted. Either ends the walk within 20 s; what is complete is kept.
trap 'kill -USR1 $walk' USR1
trap 'kill -TERM $walk' TERM
\"$selftrace\" walk \"$manifest\" --checkpoint \"$checkpoint\" &
walk=$!
wait $walk
while kill -0 $walk 2>/dev/null; do wait $walk; done
wait $walk
code=$?

# 138: USR1, so the time was too short. A preempted task is requeued by Slurm itself.
if [ $code -eq 138 ]; then
    if [ \"${{SLURM_RESTART_COUNT:-0}}\" -lt {RESTARTS} ]; then
        scontrol requeue \"$SLURM_JOB_ID\"
    else
        echo \"$checkpoint did not fit into the time limit $((SLURM_RESTART_COUNT + 1)) times: submit it with a longer --time\" >&2
    fi
fi
exit $code
",
            path = quoted(&path.display().to_string()),
            head = directives(&head),
            common = self.common()?,
        ))
    }

    /// Tables from what is there when all tasks have ended, however they did; its exit code is that of
    /// `status`.
    ///
    /// # Errors
    /// As [`Place::walk`].
    pub fn finish(&self, path: &Path) -> Result<String> {
        let mut head = self.directives("-finish", "finish-%j.log")?;
        head.extend(self.resources()?.into_iter().filter(|option| !option.starts_with("--gpus")));
        let run = self.run;
        Ok(format!(
            "#!/bin/bash
# Analyses what has been walked of {run}, also when some checkpoints failed. Written by `selftrace submit`; it may be edited and handed
# in again with: sbatch {path}
{head}
{common}\"$selftrace\" analyze \"$manifest\"
code=$?
\"$selftrace\" status \"$manifest\"
status=$?
if [ $code -le 1 ]; then exit $status; fi
exit $code
",
            path = quoted(&path.display().to_string()),
            head = directives(&head),
            common = self.common()?,
        ))
    }

    fn directives(&self, suffix: &str, log: &str) -> Result<Vec<String>> {
        let logs = self.logs.display().to_string().replace('%', "%%");
        Ok(vec![
            format!("--job-name=selftrace-{}{suffix}", self.run),
            value("--chdir", &self.start.display().to_string())?,
            value("--output", &format!("{logs}/{log}"))?,
            "--open-mode=append".to_owned(),
            "--requeue".to_owned(),
            format!("--signal=B:USR1@{WARNING}"),
            "--ntasks=1".to_owned(),
        ])
    }

    fn resources(&self) -> Result<Vec<String>> {
        let Options { partition, account, qos, time, mem, cpus_per_task, gpus_per_task, others, .. } = self.options;
        let texts = [("--partition", partition), ("--account", account), ("--qos", qos), ("--time", time), ("--mem", mem)];
        let numbers = [("--cpus-per-task", cpus_per_task), ("--gpus-per-task", gpus_per_task)];
        let mut all = Vec::new();
        for (name, text) in texts {
            all.extend(text.as_ref().map(|text| value(name, text)).transpose()?);
        }
        all.extend(numbers.iter().filter_map(|(name, number)| Some(format!("{name}={}", number.as_ref()?))));
        for other in others {
            ensure!(other.starts_with('-'), "--sbatch {other:?}: expected an option of sbatch, as in --sbatch=--constraint=a100");
            ensure!(!other.chars().any(char::is_control), "--sbatch {other:?}: expected one line");
            all.push(other.clone());
        }
        Ok(all)
    }

    fn common(&self) -> Result<String> {
        let (program, manifest) = (self.program.display().to_string(), self.manifest.display().to_string());
        ensure!(
            !program.chars().chain(manifest.chars()).any(char::is_control),
            "{manifest}: a path with control characters cannot be handed in"
        );
        Ok(format!(
            "selftrace={}\nmanifest={}\nexport OMP_NUM_THREADS=${{OMP_NUM_THREADS:-${{SLURM_CPUS_PER_TASK:-1}}}}\n",
            quoted(&program),
            quoted(&manifest)
        ))
    }
}

/// A directive whose value may have spaces in it.
fn value(name: &str, text: &str) -> Result<String> {
    let bad = |c: char| c.is_control() || c == '"' || c == '\\';
    ensure!(!text.is_empty() && !text.chars().any(bad), "{name} {text:?}: expected a text without quotes, backslashes and line ends");
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:%,=@".contains(c);
    Ok(if text.chars().all(plain) { format!("{name}={text}") } else { format!("{name}=\"{text}\"") })
}

fn directives(all: &[String]) -> String {
    all.iter().map(|option| format!("#SBATCH {option}\n")).collect()
}

/// One word of bash.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use std::process::Command;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn options(arguments: &[&str]) -> Options {
        Line::parse_from(std::iter::once(&"x").chain(arguments)).options
    }

    fn place(options: &Options) -> Place<'_> {
        Place {
            run: "my-run",
            program: Path::new("/opt/it's here/selftrace"),
            manifest: Path::new("/data/100% mine/checkpoints.toml"),
            start: Path::new("/data/100% mine"),
            logs: Path::new("/data/100% mine/reports/my-run/logs"),
            options,
        }
    }

    #[test]
    fn every_option_stands_in_a_line_of_its_own() {
        let asked = ["--slurm", "--partition", "gpu", "--gpus-per-task", "2", "--max-parallel", "4", "--time", "2:00:00"];
        let options = options(&[&asked[..], &["--sbatch=--constraint=a100", "--sbatch=--nice"]].concat());
        let text = place(&options).walk(Path::new("walk.sbatch"), &["base-0", "sft-1", "sft-2"], &[0, 1, 2]).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        for line in [
            "#SBATCH --array=0-2%4",
            "#SBATCH --job-name=selftrace-my-run",
            "#SBATCH --chdir=\"/data/100% mine\"",
            "#SBATCH --output=\"/data/100%% mine/reports/my-run/logs/%A_%a.log\"",
            "#SBATCH --requeue",
            "#SBATCH --signal=B:USR1@120",
            "#SBATCH --partition=gpu",
            "#SBATCH --gpus-per-task=2",
            "#SBATCH --time=2:00:00",
            "#SBATCH --constraint=a100",
            "#SBATCH --nice",
            "selftrace='/opt/it'\\''s here/selftrace'",
        ] {
            assert!(lines.contains(&line), "{line} is not in\n{text}");
        }
        let finish = place(&options).finish(Path::new("finish.sbatch")).unwrap();
        assert!(finish.contains("--partition=gpu") && !finish.contains("gpus") && !finish.contains("--array"), "{finish}");
    }

    #[test]
    fn what_a_directive_cannot_hold_is_refused() {
        for arguments in [["--partition", "a\nb"], ["--time", "\""], ["--sbatch", "constraint"], ["--account", ""]] {
            let options = options(&["--slurm", arguments[0], arguments[1]]);
            assert!(place(&options).walk(Path::new("walk.sbatch"), &["a"], &[0]).is_err(), "{arguments:?}");
        }
    }

    /// The script itself, with a program that takes its time and scripts in place of Slurm's.
    #[test]
    fn a_task_passes_signals_on_and_is_requeued_a_few_times() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, format!("#!/bin/bash\n{text}")).unwrap();
            std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
            path
        };
        write("scontrol", "echo \"$@\" >> requeued\n");
        let program = write(
            "walk it",
            "trap 'exit 138' USR1\ntrap 'exit 143' TERM\necho \"$4\" >> walked\n[ \"$4\" = quick ] && exit 1\nfor i in {1..100}; do sleep .05; done\n",
        );
        let options = options(&["--slurm"]);
        let place = Place { program: &program, ..place(&options) };
        let script = write("walk.sbatch", &place.walk(Path::new("walk.sbatch"), &["quick", "slow"], &[0, 1]).unwrap());
        let start = |task: &str, restarts: &str| {
            let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap());
            let mut command = Command::new("bash");
            command.arg(&script).current_dir(&folder).env("PATH", path).env("SLURM_ARRAY_TASK_ID", task);
            command.env("SLURM_JOB_ID", "77").env("SLURM_RESTART_COUNT", restarts).spawn().unwrap()
        };
        let requeued = || std::fs::read_to_string(folder.path().join("requeued")).unwrap_or_default();
        assert_eq!(start("0", "0").wait().unwrap().code(), Some(1), "the code of the walk");
        let signalled = |signal: &str, restarts: &str| {
            let walked = folder.path().join("walked");
            let _ = std::fs::remove_file(&walked);
            let mut child = start("1", restarts);
            while std::fs::read_to_string(&walked).unwrap_or_default().is_empty() {
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
            Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
            child.wait().unwrap().code()
        };
        assert_eq!(signalled("-TERM", "0"), Some(143));
        assert_eq!(requeued(), "", "Slurm requeues what it preempts");
        assert_eq!(signalled("-USR1", "0"), Some(138));
        assert_eq!(requeued(), "requeue 77\n");
        assert_eq!(signalled("-USR1", "3"), Some(138));
        assert_eq!(requeued(), "requeue 77\n", "not for ever");
    }
}
