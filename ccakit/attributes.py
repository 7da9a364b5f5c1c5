"""The attributes (conditions) of a data set and their values (labels), which all rooms share."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Attributes:
    """K attributes and the values of each.

    A *condition* is an attribute's index, 0..K-1; a *label* is a value's index within its attribute.

    >>> shirts = Attributes(("sleeve", "tone"), (("short", "long"), ("dark", "mid", "light")))
    >>> len(shirts), shirts.sizes, shirts.condition("tone"), shirts.value(1, 2)
    (2, (2, 3), 1, 'light')
    """

    names: tuple[str, ...]
    values: tuple[tuple[str, ...], ...]

    def __post_init__(self) -> None:
        if len(self.names) != len(self.values):
            raise ValueError(f"{len(self.names)} attribute names, but values for {len(self.values)}")
        if len(set(self.names)) != len(self.names):
            raise ValueError(f"an attribute name is used twice: {self.names}")
        for name, values in zip(self.names, self.values):
            if len(set(values)) != len(values) or not values:
                raise ValueError(f"attribute {name!r} has no value, or one value twice: {values}")

    @classmethod
    def numbered(cls, sizes: dict[str, int]) -> Attributes:
        """Make attributes whose values have no names, as in ASEN's meta.json: "0", "1", and so on."""
        return cls(tuple(sizes), tuple(tuple(str(v) for v in range(n)) for n in sizes.values()))

    def __len__(self) -> int:
        return len(self.names)

    @property
    def sizes(self) -> tuple[int, ...]:
        """The number of values of each attribute."""
        return tuple(len(v) for v in self.values)

    def condition(self, name: str) -> int:
        """Return the condition of an attribute's name; ValueError lists the known names."""
        if name not in self.names:
            raise ValueError(f"no attribute {name!r}; there are: {', '.join(self.names)}")
        return self.names.index(name)

    def title(self, condition: int) -> str:
        """Return the attribute's name for people: "sleeve length"."""
        return self.names[condition].replace("_", " ")

    def value(self, condition: int, label: int) -> str:
        """Return the name of a value."""
        return self.values[condition][label]
