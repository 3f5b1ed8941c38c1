#!/usr/bin/env bash
# K-means on the 1,797 digits of scikit-learn: the start of lowest inertia, which `n_init` keeps, is not the one that
# agrees best with the classes. Of 200 single starts (scikit-learn 1.9.1, numpy 2.4.6, scipy 1.17.1) clustering accuracy
# runs from .576 to .872; the start of lowest inertia reaches .792 and is 44th, although inertia and accuracy are
# correlated in the right direction (Spearman -.55). Whoever quotes one number of K-means quotes its rule of choice too.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  scikit-learn==1.9.1 numpy==2.4.6 scipy==1.17.1
OMP_NUM_THREADS=1 "$folder/venv/bin/python" - <<'PY'
import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.stats import spearmanr
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits

images, classes = load_digits(return_X_y=True)
inertia, accuracy = [], []
for seed in range(200):
    model = KMeans(10, n_init=1, random_state=seed).fit(images / 16)
    counts = np.zeros((10, 10), dtype=int)
    np.add.at(counts, (model.labels_, classes), 1)
    inertia.append(model.inertia_)
    accuracy.append(counts[linear_sum_assignment(counts, maximize=True)].sum() / len(classes))
kept = accuracy[int(np.argmin(inertia))]
rank = 1 + sum(value > kept for value in accuracy)
rho = spearmanr(inertia, accuracy).statistic
print(f"accuracy {min(accuracy):.3f} to {max(accuracy):.3f}, lowest inertia {kept:.3f}: rank {rank} of 200, rho {rho:.2f}")
assert abs(kept - 0.792) < 0.002 and 40 <= rank <= 48 and abs(rho + 0.55) < 0.02, "the behaviour has changed"
PY
