"""The benchmark of a head's epochs reports what was measured."""

from benchmarks import head_epochs
from benchmarks.accuracy.results import read_lines


def test_report_compares_all_fits_with_the_closed_form(capsys):
    head_epochs.main(["report"])
    tables = capsys.readouterr().out.split("\n\n")
    lines = read_lines(head_epochs.RESULTS)
    assert len(tables) - 1 == len({(line["backbone"], line["shots"]) for line in lines})
    for table in tables[:-1]:
        _, header, *rows = table.strip().splitlines()
        assert header.split() == [*head_epochs.METRICS, "seconds"]
        assert len(rows) == len(list(head_epochs.fits()))
        assert "nan" not in table


def test_lines_are_of_different_runs_and_hold_each_fit_once():
    lines = read_lines(head_epochs.RESULTS)
    places = [tuple(line[name] for name in head_epochs.PLACE) for line in lines]
    assert len(set(places)) == len(places)
    for line in lines:
        assert [(fit["setting"], fit["epochs"]) for fit in line["fits"]] == [*head_epochs.fits()]
