"""MLflow and skops: a fitted classifier is logged, loaded and predicts the same."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from sklearn.model_selection import GridSearchCV

from model_files import on_features, vectors
from sklearn_clce import CLCEClassifier

# of others than the standard ones that skops trusts
OURS = ("sklearn_clce.", "skorch.", "torch.", "functools.partial")
LABELS = np.array(["cat", "dog"] * 6)


@pytest.fixture(scope="module")
def clf():
    return on_features().fit(vectors(), LABELS)


@pytest.fixture
def mlflow(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("mlflow.sklearn")
    mlflow.set_tracking_uri((tmp_path / "runs").as_uri())
    return mlflow


def test_skops_trusts_types_that_are_named(clf):
    io = pytest.importorskip("skops.io")
    data = io.dumps(clf)
    types = io.get_untrusted_types(data=data)
    assert "sklearn_clce.classifier.CLCEClassifier" in types
    assert [name for name in types if not name.startswith(OURS)] == []
    loaded = io.loads(data, trusted=types)
    assert_array_equal(loaded.predict_proba(vectors()), clf.predict_proba(vectors()))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of MLflow's own code
def test_mlflow_logs_and_loads_a_model(clf, mlflow):
    io = pytest.importorskip("skops.io")
    types = io.get_untrusted_types(data=io.dumps(clf))
    with mlflow.start_run():
        with pytest.raises(mlflow.exceptions.MlflowException, match="untrusted types"):
            mlflow.sklearn.log_model(clf, name="model", pip_requirements=["sklearn-clce"])
        logged = mlflow.sklearn.log_model(
            clf, name="model", skops_trusted_types=types, pip_requirements=["sklearn-clce"]
        )
    loaded = mlflow.sklearn.load_model(logged.model_uri)
    assert_array_equal(loaded.predict_proba(vectors()), clf.predict_proba(vectors()))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_mlflow_keeps_a_model_file(clf, mlflow, tmp_path):
    clf.save(tmp_path / "model.safetensors")
    with mlflow.start_run() as run:
        mlflow.log_artifact(tmp_path / "model.safetensors")
    path = mlflow.artifacts.download_artifacts(f"runs:/{run.info.run_id}/model.safetensors")
    loaded = CLCEClassifier.load(path)
    assert_array_equal(loaded.predict_proba(vectors()), clf.predict_proba(vectors()))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_mlflow_autolog_logs_a_search(clf, mlflow):
    mlflow.sklearn.autolog(log_models=False)
    try:
        GridSearchCV(clf, {"temperature": [0.1, 0.5]}, cv=2).fit(vectors(), LABELS)
    finally:
        mlflow.sklearn.autolog(disable=True)
    logged = mlflow.last_active_run().data
    assert logged.params["best_temperature"] in ("0.1", "0.5")
    assert "best_cv_score" in logged.metrics
