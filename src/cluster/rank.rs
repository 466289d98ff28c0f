//! Which part of a series a task of an array walks, in any engine that numbers its tasks in the environment.

use std::ops::Range;

/// How an engine numbers the tasks of an array.
struct Engine {
    id: &'static str,
    /// The smallest number, and the distance to the next one.
    first: Option<&'static str>,
    step: Option<&'static str>,
    /// The number of tasks, or the largest of their numbers.
    count: Option<&'static str>,
    last: Option<&'static str>,
}

const ENGINES: &[Engine] = &[
    // Slurm
    Engine {
        id: "SLURM_ARRAY_TASK_ID",
        first: Some("SLURM_ARRAY_TASK_MIN"),
        step: Some("SLURM_ARRAY_TASK_STEP"),
        count: Some("SLURM_ARRAY_TASK_COUNT"),
        last: None,
    },
    // Grid Engine
    Engine { id: "SGE_TASK_ID", first: Some("SGE_TASK_FIRST"), step: Some("SGE_TASK_STEPSIZE"), count: None, last: Some("SGE_TASK_LAST") },
    // Kubernetes, PBS, Torque and HyperQueue do not say how many there are.
    Engine { id: "JOB_COMPLETION_INDEX", first: None, step: None, count: None, last: None },
    Engine { id: "PBS_ARRAY_INDEX", first: None, step: None, count: None, last: None },
    Engine { id: "PBS_ARRAYID", first: None, step: None, count: None, last: None },
    Engine { id: "HQ_TASK_ID", first: None, step: None, count: None, last: None },
];

/// What a task walks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Share {
    /// Part number `part`, from 1, of `parts`.
    Part { part: usize, parts: usize },
    /// Whatever nobody has, beginning with this number, from 0, and going round.
    From(usize),
}

/// The share of this task, and the rule in words; nothing outside of an array. `get` reads the environment.
pub fn share(get: &dyn Fn(&str) -> Option<String>) -> Option<(Share, String)> {
    let number = |name: &str| get(name)?.trim().parse::<usize>().ok();
    // Grid Engine says "undefined" where there is no array.
    let (engine, id) = ENGINES.iter().find_map(|engine| Some((engine, number(engine.id)?)))?;
    let task = format!("{} = {id}", engine.id);
    let all = "--shard 1/1 walks all";
    if let Some((part, parts)) = engine.place(id, &number) {
        let rule = if parts == 1 {
            format!("{task}, the only task: walks every checkpoint")
        } else {
            let (nth, turn) = (part + 1, parts);
            format!("{task}, task {nth} of {parts}: walks every {turn}. checkpoint from the {nth}. on; {all}")
        };
        return Some((Share::Part { part: part + 1, parts }, rule));
    }
    let rule = format!("{task}, of an unknown number of tasks: begins with that checkpoint and goes on with those that nobody has; {all}");
    Some((Share::From(id), rule))
}

impl Engine {
    /// Number of the task, from 0, and of all; nothing where the engine does not say, or where its numbers
    /// are not evenly spaced.
    fn place(&self, id: usize, number: &dyn Fn(&str) -> Option<usize>) -> Option<(usize, usize)> {
        let first = number(self.first?)?;
        let step = self.step.and_then(number).unwrap_or(1).max(1);
        let count = match (self.count, self.last) {
            (Some(count), _) => number(count)?,
            (_, Some(last)) => number(last)?.checked_sub(first)? / step + 1,
            _ => return None,
        };
        let tasks: Range<usize> = 0..count;
        let offset = id.checked_sub(first)?;
        (offset.is_multiple_of(step) && tasks.contains(&(offset / step))).then_some((offset / step, count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(variables: &[(&str, &str)]) -> Option<Share> {
        let get = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        share(&get).map(|(share, _)| share)
    }

    #[test]
    fn every_engine_gives_every_task_its_own_part() {
        assert_eq!(of(&[]), None);
        for (id, part) in [("4", 1), ("6", 2), ("8", 3)] {
            let slurm = [
                ("SLURM_ARRAY_TASK_ID", id),
                ("SLURM_ARRAY_TASK_MIN", "4"),
                ("SLURM_ARRAY_TASK_STEP", "2"),
                ("SLURM_ARRAY_TASK_COUNT", "3"),
            ];
            assert_eq!(of(&slurm), Some(Share::Part { part, parts: 3 }));
            let grid = [("SGE_TASK_ID", id), ("SGE_TASK_FIRST", "4"), ("SGE_TASK_STEPSIZE", "2"), ("SGE_TASK_LAST", "8")];
            assert_eq!(of(&grid), Some(Share::Part { part, parts: 3 }));
        }
        assert_eq!(of(&[("SGE_TASK_ID", "undefined")]), None, "no array");
        for engine in ["JOB_COMPLETION_INDEX", "PBS_ARRAY_INDEX", "PBS_ARRAYID", "HQ_TASK_ID"] {
            assert_eq!(of(&[(engine, "7")]), Some(Share::From(7)));
        }
    }

    /// `--array=0-3,7`: no part is certain, so no checkpoint may be left to a task that does not exist.
    #[test]
    fn uneven_numbers_are_no_parts() {
        let task = |id| of(&[("SLURM_ARRAY_TASK_ID", id), ("SLURM_ARRAY_TASK_MIN", "0"), ("SLURM_ARRAY_TASK_COUNT", "5")]);
        assert_eq!(task("7"), Some(Share::From(7)));
    }
}
