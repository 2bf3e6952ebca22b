"""How an estimator looks in a notebook."""

import re

import pytest
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_clce import BackboneFeatures, CLCEClassifier
from sklearn_clce._system import groups_of
from small_fits import head


def names_in(page, kind):
    return re.findall(rf'<tr class="{kind}"><td class="param">(\w+)</td>', page)


@pytest.mark.parametrize("estimator", [CLCEClassifier, BackboneFeatures])
def test_every_parameter_is_in_one_group(estimator):
    names = [name for group in groups_of(estimator).values() for name in group]
    assert sorted(names) == sorted(estimator().get_params())


def test_groups_are_those_of_the_docstring():
    groups = groups_of(CLCEClassifier)
    assert list(groups)[:3] == ["Start with these", "Model", "Criterion"]
    assert groups["Model"] == ["pretrained", "projection_dim", "lora_rank"]


def test_parameters_that_are_set_come_first():
    page = CLCEClassifier("beit", weight=0.9, augment=None)._repr_html_()
    assert names_in(page, "user-set") == ["augment", "backbone", "weight"]
    assert "&#x27;beit&#x27;" in page
    assert page.index("Parameters that are set") < page.index("Parameters at their defaults")
    others = names_in(page, "default")
    assert others[0] == "trainable"
    assert len(others) == len(CLCEClassifier().get_params()) - 3
    assert "Parameters that are set" not in CLCEClassifier()._repr_html_()


def test_values_are_escaped_and_short():
    page = CLCEClassifier("<script>" * 100)._repr_html_()
    value = re.search(r'<td class="value">(.*?)</td>', page)[1]
    assert value.startswith("&#x27;&lt;script&gt;")
    assert value.count("&lt;script&gt;") < 10


def test_table_is_readable_in_dark_pages_and_inside_a_pipeline(clouds):
    page = make_pipeline(StandardScaler(), head(max_epochs=1)).fit(*clouds)._repr_html_()
    assert names_in(page, "user-set") == ["backbone", "learning_rate", "max_epochs", "random_state"]
    assert ".sk-global.dark:has(.clce-parameters)" in page
