"""A contiguous part of a data set."""

from __future__ import annotations

from torch.utils.data import Dataset, Subset


class Part(Subset):
    """Images `first` to `last` - 1 of a data set, with its attribute names; fewer where it ends before.

    Args:
        name: what they are, for `description`.
    """

    def __init__(self, dataset: Dataset, first: int, last: int, *, name: str = "a part") -> None:
        super().__init__(dataset, range(first, min(last, len(dataset))))
        self.attribute_names, self.name = dataset.attribute_names, name

    @property
    def description(self) -> str:
        """One line for reports: which images of which data set."""
        return f"{self.name} of {self.dataset.description}"
