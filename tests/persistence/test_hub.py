"""The Hugging Face Hub: what is pushed, what is loaded, and the model card; without a network."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import numpy as np
import pytest
import yaml
from numpy.testing import assert_array_equal
from sklearn.exceptions import NotFittedError

from model_files import on_features, tiny, vectors, vit
from sklearn_clce import CLCEClassifier, model_card

LABELS = np.array(["cat", "dog"] * 6)


@pytest.fixture(scope="module")
def clf():
    return on_features(temperature=0.1, verbose=0).fit(vectors(), LABELS)


class Hub:
    """The client's calls, on a folder."""

    def __init__(self, folder, *, refuses=None):
        self.folder, self.refuses, self.calls = folder, refuses, []

    def __call__(self, token=None):
        self.calls.append(("token", token))
        return self

    def create_repo(self, repo_id, **options):
        self._call("create_repo", repo_id, options)

    def upload_folder(self, *, repo_id, folder_path, commit_message):
        self._call(
            "upload_folder", repo_id, sorted(file.name for file in Path(folder_path).iterdir())
        )
        shutil.copytree(folder_path, self.folder / repo_id)
        return SimpleNamespace(commit_url=f"https://huggingface.co/{repo_id}/commit/1")

    def hf_hub_download(self, repo_id, filename, revision=None):
        self._call("hf_hub_download", repo_id, revision)
        return str(self.folder / repo_id / filename)

    def _call(self, name, *values):
        self.calls.append((name, *values))
        if name == self.refuses:
            raise ConnectionError("403 Forbidden")


@pytest.fixture
def hub(tmp_path, monkeypatch):
    hub = Hub(tmp_path)
    monkeypatch.setattr(huggingface_hub, "HfApi", hub)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", hub.hf_hub_download)
    return hub


def test_what_is_pushed_is_loaded(clf, hub):
    url = clf.push_to_hub("owner/name", scores={"accuracy": 0.9}, private=True, token="secret")
    assert url == "https://huggingface.co/owner/name/commit/1"
    assert hub.calls == [
        ("token", "secret"),
        ("create_repo", "owner/name", {"private": True, "exist_ok": True}),
        ("upload_folder", "owner/name", ["README.md", "model.safetensors"]),
    ]
    card = (hub.folder / "owner/name/README.md").read_text("utf-8")
    assert card == model_card(clf, scores={"accuracy": 0.9}, repo_id="owner/name")
    loaded = CLCEClassifier.load("hf-hub:owner/name", device="cpu")
    assert_array_equal(loaded.predict_proba(vectors()), clf.predict_proba(vectors()))
    CLCEClassifier.load("hf-hub:owner/name@v1")
    downloads = [call for call in hub.calls if call[0] == "hf_hub_download"]
    assert [revision for *_, revision in downloads] == [None, "v1"]


@pytest.mark.parametrize("call", ["create_repo", "upload_folder"])
def test_refused_push_is_an_error_and_pushes_nothing(call, clf, hub):
    hub.refuses = call
    with pytest.raises(OSError, match=r"repo_id='owner/name': nothing was pushed \(403 Forb"):
        clf.push_to_hub("owner/name")
    assert list(hub.folder.iterdir()) == []


def test_wrong_calls_ask_the_hub_nothing(clf, hub, monkeypatch):
    with pytest.raises(NotFittedError):
        on_features().push_to_hub("owner/name")
    for name in ("a/b/c", "", "owner/na me"):
        with pytest.raises(ValueError, match=r"repo_id='.*': 'owner/name' is required"):
            clf.push_to_hub(name)

    def failing(self, path):
        raise ValueError("can't be stored")

    monkeypatch.setattr(CLCEClassifier, "save", failing)
    with pytest.raises(ValueError, match="can't be stored"):
        clf.push_to_hub("owner/name")
    assert hub.calls == []


def test_without_a_network_push_and_load_fail_at_once(clf):
    """The client itself: HF_HUB_OFFLINE is set for all tests."""
    with pytest.raises(OSError, match="repo_id='owner/name': nothing was pushed"):
        clf.push_to_hub("owner/name")
    with pytest.raises(OSError, match=r"path='hf-hub:owner/no_such' can't be downloaded"):
        CLCEClassifier.load("hf-hub:owner/no_such")
    with pytest.raises(ValueError, match=r"path='hf-hub:a b': 'hf-hub:owner/name' is required"):
        CLCEClassifier.load("hf-hub:a b")


def test_file_from_the_hub_is_untrusted(hub):
    (hub.folder / "owner/name").mkdir(parents=True)
    (hub.folder / "owner/name/model.safetensors").write_bytes(b"\0" * 100)
    with pytest.raises(ValueError, match=r"model\.safetensors"):
        CLCEClassifier.load("hf-hub:owner/name")


def test_card_says_what_the_fit_was(clf):
    card = model_card(clf, scores={"accuracy": 0.91236, "log loss": 0.3})
    for line in (
        "A classifier of 2 classes",
        "- backbone: precomputed",
        "- samples: 12",
        "- epochs: 3",
        "- `temperature`: `0.1`",
        "`cat`, `dog`",
        "- accuracy: 0.9124",
        "- log loss: 0.3000",
        "clf = CLCEClassifier.load('model.safetensors')",
    ):
        assert line in card
    assert "None were passed." in model_card(clf)
    about = yaml.safe_load(card.split("---\n")[1])
    assert about["library_name"] == "sklearn-clce"
    assert about["pipeline_tag"] == "tabular-classification"


def test_card_of_images_names_backbone_and_licence(colour_images, tmp_path):
    fitted = vit(trainable="head", memory=str(tmp_path / "features"))
    fitted.fit(colour_images, LABELS)
    card = model_card(fitted)
    assert "- backbone: test_vit" in card
    assert "trained from scratch" in card
    assert yaml.safe_load(card.split("---\n")[1])["pipeline_tag"] == "image-classification"
    own = model_card(tiny(max_epochs=1).fit(colour_images, LABELS))
    assert "- backbone: TinyBackbone" in own
    for text in (card, own):
        assert str(tmp_path) not in text
        assert "/" not in text.replace("https://arxiv.org/abs/2402.14551", "")


def test_card_names_the_licence_that_timm_knows(colour_images):
    clf = CLCEClassifier(trainable="head", image_size=32, max_epochs=1, random_state=0)
    assert "backbone: apache-2.0." in model_card(clf.fit(colour_images, LABELS))


def test_card_shows_some_of_many_classes():
    y = np.tile(np.arange(60), 3)
    clf = on_features(max_epochs=1).fit(np.ones((180, 5), dtype=np.float32) * y[:, None], y)
    assert "`49` and 10 more" in model_card(clf)
