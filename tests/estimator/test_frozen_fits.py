"""Small fits give the results that were frozen."""

import json

import numpy as np
import pytest

from frozen_fits import FITS, RESULTS, results

KEPT = json.loads(RESULTS.read_text())
# Of a processor with other instructions, whose rounding AdamW's first steps amplify.
TOLERANCE = {"rtol": 0.05, "atol": 0.03}


@pytest.mark.parametrize("name", FITS)
def test_fit_gives_its_frozen_results(name):
    if name == "onnx":
        pytest.importorskip("onnxruntime")
    found = results(name)
    assert found.keys() == KEPT[name].keys()
    for key, value in found.items():
        np.testing.assert_allclose(value, KEPT[name][key], err_msg=key, **TOLERANCE)
