"""Makes rfm-xrfm.safetensors: what the library xrfm (dmbeaglehole/xRFM, MIT) learns from small seeded features, in f64.

Run from the repository's root with an environment that has torch, safetensors, scikit-learn and xrfm (0.4.5 was used):
    OMP_NUM_THREADS=1 python tests/python/rfm/make_fixture.py

Tensors: `features` f32 [rows, width], first `train` rows, then `validation`, then `held_out`; `level` and `class` f64 [rows],
the targets. For each case I: `I.predictions` f64 [held_out], `I.agop` f64 [width, width] (of the best iterate's predictor),
`I.direction` f64 [width] (its top eigenvector, signed by the training targets). Metadata: `train`, `validation`, `held_out`,
`seed`, the versions, and `cases`, a JSON list of the hyper-parameters and of what came out (`best_iteration`, `ratio`).
"""

import argparse
import json
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from xrfm.rfm_src import RFM
from xrfm.rfm_src.class_conversion import ClassificationConverter
from xrfm.rfm_src.kernels import LaplaceKernel, LightLaplaceKernel

SEED = 20251101
TRAIN, VALIDATION, HELD_OUT, WIDTH = 200, 60, 60, 48

# `bandwidth` is absolute, or with `adaptive` a multiple of the median distance under the current metric.
CASES = [
    dict(target="level", bandwidth=12.0, adaptive=False, exponent=1.0, ridge=1e-3, centred=False, iterations=4),
    dict(target="level", bandwidth=20.0, adaptive=False, exponent=1.2, ridge=1e-2, centred=True, iterations=5),
    dict(target="class", bandwidth=5.0, adaptive=False, exponent=1.4, ridge=1e-3, centred=False, iterations=5),
    dict(target="class", bandwidth=3.0, adaptive=True, exponent=0.7, ridge=1e-1, centred=True, iterations=4),
]


def draw():
    """Correlated features far from the origin, and two targets that depend on two of their directions, not linearly."""
    random = np.random.default_rng(SEED)
    rows = TRAIN + VALIDATION + HELD_OUT
    spread = np.linspace(2.0, 0.5, WIDTH)
    turn, _ = np.linalg.qr(random.standard_normal((WIDTH, WIDTH)))
    features = ((random.standard_normal((rows, WIDTH)) * spread) @ turn + 3.0 * random.standard_normal(WIDTH)).astype(np.float32)
    centred = features.astype(np.float64) - features.astype(np.float64).mean(0)
    first, second = (centred @ turn[i] / spread[i] for i in (5, 11))
    level = np.tanh(first) + 0.3 * second + 0.2 * first * second + 0.1 * random.standard_normal(rows)
    level = (level - level.mean()) / level.std()
    labels = (first + 0.5 * second**2 + 0.3 * random.standard_normal(rows) > 0.4).astype(np.float64)
    return features, {"level": level, "class": labels}


def fit(case, features, target, dtype, kernel=LightLaplaceKernel):
    x, y = torch.from_numpy(features).to(dtype), torch.from_numpy(target).to(dtype)[:, None]
    parts = [slice(0, TRAIN), slice(TRAIN, TRAIN + VALIDATION), slice(TRAIN + VALIDATION, None)]
    model = RFM(
        kernel=kernel(bandwidth=case["bandwidth"], exponent=case["exponent"]),
        bandwidth_mode="adaptive" if case["adaptive"] else "constant",
        device="cpu",
        verbose=False,
        class_converter=ClassificationConverter(mode="zero_one", n_classes=2) if case["target"] == "class" else None,
    )
    model.fit(
        (x[parts[0]], y[parts[0]]),
        (x[parts[1]], y[parts[1]]),
        iters=case["iterations"],
        reg=case["ridge"],
        center_grads=case["centred"],
        tuning_metric="auc" if case["target"] == "class" else "mse",
        get_agop_best_model=True,
    )
    agop = model.agop_best_model.double()
    values, vectors = torch.linalg.eigh((agop + agop.T) / 2)
    direction = vectors[:, -1]
    projection = (x[parts[0]].double() @ direction).numpy()
    if not np.corrcoef(projection, target[parts[0]])[0, 1] > 0:
        direction = -direction
    return dict(
        predictions=model.predict(x[parts[2]])[:, 0].double(),
        agop=agop,
        direction=direction.contiguous(),
        best_iteration=int(model.best_iter),
        ratio=float(values[-1] / values[-2]),
        bandwidth=float(model.kernel_obj.bandwidth),
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("tests/fixtures/rfm-xrfm.safetensors"))
    out = parser.parse_args().out
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    features, targets = draw()
    tensors = {"features": torch.from_numpy(features)} | {name: torch.from_numpy(t) for name, t in targets.items()}
    cases = []
    for index, case in enumerate(CASES):
        target = targets[case["target"]]
        found = fit(case, features, target, torch.float64)
        tensors |= {f"{index}.{name}": found[name] for name in ("predictions", "agop", "direction")}
        cases.append(case | dict(best_iteration=found["best_iteration"], ratio=found["ratio"], bandwidth_used=found["bandwidth"]))
        print(cases[-1])
        # How far xrfm's own arithmetic spreads: as it is used (f32), and with the square root of the metric.
        for name, other in (
            ("f32", fit(case, features, target, torch.float32)),
            ("square root", fit(case, features, target, torch.float64, LaplaceKernel)),
        ):
            print(
                f"  {name}: best iteration {other['best_iteration']}, predictions within"
                f" {(other['predictions'] - found['predictions']).abs().max():.1e}, AGOP within"
                f" {torch.linalg.norm(other['agop'] - found['agop']) / torch.linalg.norm(found['agop']):.1e},"
                f" cosine {float(other['direction'] @ found['direction']):.6f}"
            )
    metadata = dict(
        train=str(TRAIN),
        validation=str(VALIDATION),
        held_out=str(HELD_OUT),
        seed=str(SEED),
        cases=json.dumps(cases),
        xrfm=version("xrfm"),
        torch=torch.__version__,
        numpy=np.__version__,
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, out, metadata)
    print(f"{out}: {out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
