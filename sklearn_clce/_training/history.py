"""The epochs of a fit, as skorch keeps them, and as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from skorch.history import History

if TYPE_CHECKING:
    import pandas as pd

N_SHOWN = 10  # epochs
NOT_SHOWN = ("batches", "_best", "batch_count")  # ends of names


class TrainingHistory(History):
    """A row for each epoch, a dictionary of its figures; :meth:`to_frame` makes a table of them."""

    def to_frame(self) -> pd.DataFrame:
        """Return the figures as a data frame, which needs pandas.

        Returns
        -------
        pandas.DataFrame of n_epochs rows
            The index is the number of the epoch, from 1 on.
        """
        try:
            import pandas
        except ImportError as error:
            raise ImportError(
                "to_frame needs pandas, which is not installed: python -m pip install pandas"
            ) from error
        index = pandas.RangeIndex(1, len(self) + 1, name="epoch")
        return pandas.DataFrame(self._figures(), index=index).drop(columns="epoch", errors="ignore")

    def _figures(self) -> list[dict[str, Any]]:
        """Return the figures of each epoch that are numbers for people."""
        return [
            {name: value for name, value in epoch.items() if not name.endswith(NOT_SHOWN)}
            for epoch in self
        ]

    def __repr__(self) -> str:
        figures = self._figures()
        names = list(dict.fromkeys(name for epoch in figures for name in epoch if name != "epoch"))
        rows = [
            [str(number), *(_cell(epoch.get(name)) for name in names)]
            for number, epoch in enumerate(figures, 1)
        ]
        if len(rows) > N_SHOWN:
            half = N_SHOWN // 2
            rows = [*rows[:half], ["..."] * (len(names) + 1), *rows[-half:]]
        rows.insert(0, ["epoch", *names])
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join(
            "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
            for row in rows
        )


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else "" if value is None else str(value)
