"""Time per fine-tuning step of two checkouts of this repository, in alternation, so that other work on the machine slows both alike.

    python benchmarks/two_versions.py OLD NEW             # folders; shipped StarGAN, 64×64, batch 8, one thread

Each checkout has a process of its own, which trains all arms in turn. Printed are medians over the rounds: CPU time per step, its ratio to that version's
own control, and new against old with the least and the greatest ratio.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

ARMS = ("control", "frozen", "cotrain", "vision_aided", "joint")


def worker() -> None:
    """For every line "arm steps" of the standard input, train so many steps and print the seconds of CPU time per step."""
    answers, sys.stdout = sys.stdout, sys.stderr  # the training prints too
    import torch
    from accelerate import Accelerator

    from generators import create_generator
    from generators.stargan import stargan_discriminator
    from generators.stargan_losses import StarGANObjective, StarGANWeights
    from malp_disc import MaLP
    from malp_disc.data.faces import ProceduralFaces
    from malp_disc.malp import with_pretrained_branch
    from malp_disc.shipped import FACES_DISCRIMINATOR, FACES_GENERATOR, FACES_MALP
    from malp_disc.training.batches import steps
    from malp_disc.training.finetune import ArmSetup, FineTuning
    from malp_disc.training.options import FinetuneOptions

    torch.set_num_threads(1)
    faces, accelerator, folder = ProceduralFaces(64, image_size=64), Accelerator(cpu=True), tempfile.TemporaryDirectory()
    items = [faces[i] for i in range(64)]  # rendered once, so that rendering isn't timed
    malp = MaLP.from_pretrained(FACES_MALP).eval()
    cotrained = {"trainable": True, "weight": 1.0, "template_dropout": 1.0}
    asked = {"map_weight": 0.0, "realness_weight": 1.0}
    setups = {
        "control": ArmSetup(),
        "frozen": ArmSetup(malp, weight=0.2),
        "cotrain": ArmSetup(malp, **cotrained),
        "vision_aided": ArmSetup(with_pretrained_branch(malp), **cotrained, **asked),
        "joint": ArmSetup(with_pretrained_branch(malp), **cotrained, **asked, classifier_weight=1.0, losses="pretraining"),
    }
    trainings = {}
    for arm, setup in setups.items():
        options = FinetuneOptions(output_dir=Path(folder.name) / arm, max_train_steps=10**4, train_batch_size=8, checkpointing_steps=10**6)
        own = StarGANObjective(stargan_discriminator(FACES_DISCRIMINATOR), StarGANWeights(rec=30.0))
        tuning = FineTuning(arm, setup, create_generator("stargan", FACES_GENERATOR), own, items, options, accelerator)
        trainings[arm] = tuning, steps(items, options, accelerator, start=0)
    for line in sys.stdin:
        arm, count = line.split()
        tuning, batches = trainings[arm]
        start = time.process_time()
        for _ in range(int(count)):
            tuning.train_step(*next(batches))
        print((time.process_time() - start) / int(count), file=answers, flush=True)


def main(folders: list[str], rounds: int = 6, steps: int = 6) -> None:
    workers = {}
    for version, folder in zip(("old", "new"), folders, strict=True):
        environment = {**os.environ, "PYTHONPATH": str(Path(folder).resolve()), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, str(Path(__file__).resolve()), "--worker"]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
        workers[version] = subprocess.Popen(command, env=environment, cwd=folder, **pipes)

    def seconds(version: str, arm: str, count: int) -> float:
        print(arm, count, file=workers[version].stdin, flush=True)
        return float(workers[version].stdout.readline())

    times: dict[str, dict[str, list[float]]] = {version: {arm: [] for arm in ARMS} for version in workers}
    for number in range(rounds + 1):  # the first warms up
        for arm in ARMS:
            for version in sorted(workers, reverse=bool(number % 2)):
                took = seconds(version, arm, steps if number else 2)
                if number:
                    times[version][arm].append(took)
    print(f"load {os.getloadavg()[0]:.1f}, median of {rounds} x {steps} steps")
    for arm in ARMS:
        own = (
            f"{v} {1000 * median(t[arm]):.0f} ms, {median(a / b for a, b in zip(t[arm], t['control'])):.2f} × control"
            for v, t in times.items()
        )
        ratios = [new / old for old, new in zip(times["old"][arm], times["new"][arm])]
        print(f"{arm:13} {'; '.join(own)}; new / old {median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    if sys.argv[1:] == ["--worker"]:
        worker()
    elif len(sys.argv) == 3:
        main(sys.argv[1:])
    else:
        sys.exit(__doc__)
