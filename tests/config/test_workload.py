"""The workload section: a mistake in it is answered with one line."""

from __future__ import annotations

import pytest

from kit.paths import QUICKSTART
from paceline.config.scenario import load
from paceline.program.errors import ScenarioError


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("workload.optimizer.name=adam", "workload.optimizer: unknown name 'adam'; write one of sgd, adamw"),
        ("workload.optimizer={lr: 0.1, betas: [0.9, 0.9]}", "workload.optimizer.betas: unknown key; known keys: clip"),
        ("workload.optimizer={name: adamw, lr: 0.1, beta: 1}", "optimizer.beta: unknown key; did you mean 'betas'?"),
        ("workload.optimizer={name: adamw, lr: 0.1, betas: [0.9, 1]}", "optimizer.betas: [0.9, 1.0]: each must be 0"),
        ("workload.optimizer={name: adamw}", "workload.optimizer.lr: is missing"),
        ("workload.optimizer=adamw", "workload.optimizer.lr: is missing"),
        ("workload.optimizer={lr: 0.1, nesterov: true}", "workload.optimizer: nesterov needs a momentum above 0"),
        ("workload.optimizer={lr: 0.1, momentum: 1}", "workload.optimizer.momentum: "),
        ("workload.optimizer.weight_decay=-1", "workload.optimizer.weight_decay: "),
        ("workload.optimizer={name: adamw, lr: 0.1, eps: 0}", "workload.optimizer.eps: "),
        ("workload.optimizer.lr=high", "workload.optimizer.lr: "),
        ("workload.optimizer=3", "workload.optimizer: "),
        ("workload.optimizer.decay=some", "workload.optimizer.decay: "),
        ("workload.optimizer.clip=0", "workload.optimizer.clip: "),
        ("workload.label_smoothing=1", "workload.label_smoothing: "),
        ("workload.micro_batch=0", "workload.micro_batch: "),
        ("workload.precision=fp8", "workload.precision: "),
        ("workload.loss_scale=1024", "workload: loss_scale is 1024; it is for precision: fp16 only, leave it out"),
        ("workload.augment={crop: -1}", "workload.augment.crop: "),
        (
            "workload.augment={resized_crop: {scale: [0.5, 0.1]}}",
            "resized_crop: scale falls from 0.5 to 0.1; write the",
        ),
        ("workload.augment={resized_crop: {scale: [0, 1]}}", "workload.augment.resized_crop.scale[0]: "),
        (
            "workload.augment={resized_crop: {ratio: 1}}",
            "workload.augment.resized_crop.ratio: write a list, like [1, 2]",
        ),
        ("workload.augment={randaugment: {depth: 0}}", "workload.augment.randaugment.depth: "),
        ("workload.augment={randaugment: {severity: 31}}", "workload.augment.randaugment.severity: "),
        ("workload.augment={randaugment: {strength: any}}", "workload.augment.randaugment.strength: "),
        (
            "workload.augment={randaugment: {severity: 11, strength: drawn}}",
            "workload.augment.randaugment: severity is 11; with strength: drawn it goes from 0.1 to 10",
        ),
        ("workload.augment={mixup: 0}", "workload.augment.mixup: "),
        ("workload.augment={mixup: true}", "workload.augment: mixup is True; write a number"),
        ("workload.augment={flipp: true}", "workload.augment.flipp: unknown key; did you mean 'flip'?"),
    ],
)
def test_mistakes_are_one_line(setting, message):
    with pytest.raises(ScenarioError) as error:
        load(QUICKSTART, [setting])
    assert message in str(error.value)
    assert "\n" not in str(error.value)
