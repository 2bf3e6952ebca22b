"""The low-rank benchmark: memory of a step, accuracy on folders of images."""

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("resource")  # not on Windows

from benchmarks import low_rank


def test_accuracy_is_measured_on_image_folder(tmp_path, capsys, monkeypatch):
    rng = np.random.default_rng(0)
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        for number in range(4):
            picture = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(picture).save(tmp_path / label / f"{number}.png")
    monkeypatch.setattr(low_rank, "SMALL", "test_vit")
    monkeypatch.setattr(low_rank, "N_TRAINING", 2)
    monkeypatch.setattr(low_rank, "N_TEST", 1)
    low_rank.measure_accuracy(tmp_path, weights=False, epochs=1, seeds=1)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines] == [
        ["test_vit", f"trainable={setting}"] for setting in low_rank.SETTINGS
    ]
    assert all("(1 draws, 1 epochs)" in line for line in lines)


def test_step_memory_is_measured(capsys, monkeypatch):
    monkeypatch.setattr(low_rank.torch, "set_num_threads", lambda number: None)
    low_rank.measure_step("test_vit", "lora", checkpointing=False)
    line = capsys.readouterr().out
    assert line.startswith("test_vit")
    assert "checkpointing=False peak" in line
