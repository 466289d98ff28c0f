#!/usr/bin/env python3
"""The logistic probe of selftrace and that of scikit-learn on the same cells (checkpoint x layer x concept).

A cell is a grouped 5-fold cross-validation: in each fold features are standardised by the training items, lambda is chosen
of 7 by grouped 3-fold cross-validation on log-loss, and the held-out items are scored. The peer is `StandardScaler` with
`LogisticRegressionCV` (warm-started along the grid; --solvers), folds and grid as ours, and with --peer grid one
`LogisticRegression` per fold, inner fold and penalty, as a pipeline in `GridSearchCV` would fit. Features have a power-law
spectrum and offsets per group, as activations do. Seconds are CPU seconds from features in memory to scores, so that a busy
machine decides less; the BLAS of the peer has one thread. Prints them per cell, the ratio, and how far ROC areas are apart.

    cargo build --release --example probe_grid
    python probes.py --probe-grid target/release/examples/probe_grid
"""
import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"
import argparse, json, pathlib, subprocess, tempfile, time, warnings

import numpy as np
from safetensors.numpy import save_file
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.preprocessing import StandardScaler

LAMBDAS = np.logspace(4, -2, 7)


def cells(count, n, d, seed):
    """Quartets with fitting (y = 1) and other pairs; a direction of varying strength on top of a power-law spectrum."""
    rng = np.random.default_rng(seed)
    groups, y = np.repeat(np.arange(n // 4), 4), np.tile([1, 0, 0, 1], n // 4)
    spectrum = np.arange(1, d + 1) ** -0.5
    x = np.empty((count, n, d), np.float32)
    for c, strength in enumerate(np.linspace(0, 1.5, count)):
        offsets = rng.normal(size=(n // 4, d))[groups]
        noise = (offsets + 0.7 * rng.normal(size=(n, d))) * spectrum
        direction = rng.normal(size=d) * spectrum / np.sqrt(np.sum(spectrum**2))
        x[c] = noise @ np.linalg.qr(rng.normal(size=(d, d)))[0] if d <= 1024 else noise
        x[c] += strength * np.outer(2 * y - 1, direction)
    return x, y, groups


def dealt(groups, k):
    """Groups in the order of their first appearance, dealt out over k folds: `probe::folds::grouped`."""
    first = {g: i for i, g in enumerate(dict.fromkeys(groups.tolist()))}
    return np.array([first[g] % k for g in groups.tolist()])


def path(x, y, inner, solver, tol):
    model = LogisticRegressionCV(Cs=1 / LAMBDAS, cv=inner, scoring="neg_log_loss", solver=solver, tol=tol, max_iter=10000, use_legacy_attributes=False, l1_ratios=(0,))
    return model.fit(x, y), 1 / model.C_


def grid(x, y, inner, solver, tol):
    fit = lambda lam, rows: LogisticRegression(C=1 / lam, solver=solver, tol=tol, max_iter=10000).fit(x[rows], y[rows])
    loss = [sum(log_loss(y[held], fit(lam, rows).predict_proba(x[held]), normalize=False) for rows, held in inner) for lam in LAMBDAS]
    best = LAMBDAS[int(np.argmin(loss))]
    return fit(best, np.arange(len(y))), best


def peer(x, y, groups, fit, solver, tol):
    scores, chosen, folds = np.empty(len(y)), [], dealt(groups, 5)
    for fold in range(5):
        train, test = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        inner = dealt(groups[train], 3)
        inner = [(np.flatnonzero(inner != f), np.flatnonzero(inner == f)) for f in range(3)]
        scaler = StandardScaler().fit(x[train])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model, best = fit(scaler.transform(x[train]), y[train], inner, solver, tol)
        scores[test] = model.decision_function(scaler.transform(x[test]))
        chosen.append(float(best))
    return scores, chosen


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--probe-grid", required=True, help="the release build of examples/probe_grid.rs")
    ap.add_argument("--n", type=int, default=384, help="items, a multiple of 4")
    ap.add_argument("--d", type=int, nargs="+", default=[64, 576, 2048, 4096])
    ap.add_argument("--cells", type=int, default=64)
    ap.add_argument("--peer-cells", type=int, default=4, help="cells that the peer does, evenly spaced")
    ap.add_argument("--solvers", nargs="+", default=["lbfgs"])
    ap.add_argument("--tol", type=float, default=1e-4, help="of the peer's solver; at its default lbfgs stops short of the minimum")
    ap.add_argument("--peer", choices=["path", "grid"], default="path")
    args = ap.parse_args()
    print(f"{'d':>5} {'solver':>16} {'peer s/cell':>12} {'ours s/cell':>12} {'ratio':>7} {'AUROC apart':>12} {'same lambda':>12}   load {os.getloadavg()[0]:.1f}")
    for d in args.d:
        x, y, groups = cells(args.cells, args.n, d, seed=d)
        with tempfile.TemporaryDirectory() as folder:
            data, out = (pathlib.Path(folder) / name for name in ("cells.safetensors", "out.json"))
            save_file({"x": x, "y": y.astype(np.uint8), "groups": groups.astype(np.int64)}, data)
            subprocess.run([args.probe_grid, data, out], check=True)
            ours = json.loads(out.read_text())
            mine = ours["cpu_seconds"] / args.cells
        picked = np.unique(np.linspace(0, args.cells - 1, args.peer_cells).round().astype(int))
        for solver in args.solvers:
            begin = time.process_time()
            results = [peer(x[c], y, groups, {"path": path, "grid": grid}[args.peer], solver, args.tol) for c in picked]
            seconds = (time.process_time() - begin) / len(picked)
            apart = max(abs(roc_auc_score(y, s) - roc_auc_score(y, ours["scores"][c])) for c, (s, _) in zip(picked, results))
            same = np.mean([np.isclose(chosen, ours["lambdas"][c]) for c, (_, chosen) in zip(picked, results)])
            print(f"{d:5} {solver:>16} {seconds:12.3f} {mine:12.4f} {seconds / mine:7.1f} {apart:12.1e} {same:12.0%}", flush=True)


if __name__ == "__main__":
    main()
