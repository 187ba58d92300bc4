"""pytorch-fid's Inception as we run it beside itself: `uv run python tests/benchmarks/bench_inception.py`.

Both read one file of random weights and grey images of 32×32 pixels, which both resize to 299×299. They are timed in
turns in one process by its CPU time, so that a busy machine falsifies neither; the ratio counts.
"""

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import torch
from pytorch_fid import inception as theirs

from aigc_lab.nets.inception import CLASSES, Inception

IMAGES, ROUNDS = 16, 4


def random_weights() -> dict[str, torch.Tensor]:
    """Weights whose normalisation has seen images: a random Inception lets next to nothing through."""
    network = theirs._inception_v3(num_classes=CLASSES, aux_logits=False, weights=None)
    with mock.patch.object(theirs, "load_state_dict_from_url", return_value=network.state_dict()):
        whole = theirs.fid_inception_v3()
    for module in whole.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        whole.train()(torch.rand(24, 3, 75, 75) * 2 - 1)
    state: dict[str, torch.Tensor] = whole.state_dict()
    return state


def main() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.pth"
        torch.save(random_weights(), path)
        weights = torch.load(path, weights_only=True)
    with mock.patch.object(theirs, "load_state_dict_from_url", return_value=weights):
        reference = theirs.InceptionV3().eval()
    network = Inception(weights, 2048)
    images = torch.randint(0, 256, (IMAGES, 1, 32, 32), dtype=torch.uint8)
    contestants: dict[str, Callable[[], torch.Tensor]] = {
        "pytorch-fid": lambda: reference(images.expand(-1, 3, -1, -1).float() / 255)[0].flatten(1),
        "ours": lambda: network(images)[0],
    }
    times: dict[str, list[float]] = {name: [] for name in contestants}
    made: dict[str, torch.Tensor] = {}
    with torch.inference_mode():
        for _ in range(ROUNDS):
            for name, run in contestants.items():
                begun = time.process_time()
                made[name] = run()
                times[name].append(time.process_time() - begun)
    best = {name: min(values[1:]) for name, values in times.items()}
    truth = made["pytorch-fid"].double()
    error = ((made["ours"].double() - truth).norm(dim=1) / truth.norm(dim=1)).max().item()
    for name, seconds in best.items():
        print(f"{name:12} {IMAGES / seconds:6.2f} images per CPU second")
    print(f"ratio {best['pytorch-fid'] / best['ours']:.2f}, relative feature error {error:.1e}")


if __name__ == "__main__":
    main()
