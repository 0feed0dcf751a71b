"""The settings of a training: their names, defaults, limits and reasons, for `Recipe` and the command line."""

import argparse
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from files import Problem

HERE = Path(__file__).resolve().parent
LARGEST = 2**32 - 1  # of any setting, where nothing lower is said; the largest seed that JAX takes


def _knob(default: Any, reason: str, **rules: Any) -> Any:
    """A setting of `Recipe` with the reason for its default, which --help shows."""
    return field(default=default, metadata={"reason": reason, **rules})


@dataclass(frozen=True)
class Recipe:
    """Every setting of a training, with its published default where there is one."""

    data: str = _knob("cifar10", "cifar10, digits or FILE.npz")
    genotype: str = _knob(str(HERE / "digits.json"), "JSON file with the cells to stack")
    C: int = _knob(36, "channels of the first cells", least=2, most=1000)
    layers: int = _knob(20, "number of cells", least=3, most=1000)
    epochs: int = _knob(600, "passes over the training images", least=1, most=50_000)
    batch_size: int = _knob(96, "images in a step; a rest too small for a step waits an epoch", least=1)
    learning_rate: float = _knob(0.025, "at the start; falls to 0 along a cosine", least=0)
    momentum: float = _knob(0.9, "of SGD", least=0, most=1)
    weight_decay: float = _knob(3e-4, "added to the gradient, so momentum carries it", least=0)
    gradient_clip: float = _knob(5.0, "largest norm of all gradients together", least=0)
    crop: int = _knob(4, "pixels of border for the random crop", least=0, most=1000)
    flip: bool = _knob(True, "mirror half of the images; wrong for digits")
    cutout: int = _knob(16, "side of the blanked square in pixels", least=0)
    drop_path: float = _knob(0.2, "probability that the last epoch nears, from 0 on", least=0)
    auxiliary: bool = _knob(True, "train with an auxiliary head")
    auxiliary_weight: float = _knob(0.4, "of the auxiliary head's loss", least=0)
    validation: int = _knob(5000, "training images held out to choose the epoch; 0: the last", least=0)
    precision: str = _knob(
        "auto",
        "auto: mixed_bfloat16 on a GPU, else float32",
        choices=("auto", "float32", "mixed_bfloat16", "mixed_float16"),
    )
    seed: int | None = _knob(None, "whole number from 0; without it one is drawn and printed", least=0)

    def __post_init__(self) -> None:
        for knob in fields(self):
            value, rules = getattr(self, knob.name), knob.metadata
            stands = f"--{option(knob.name)} is {value!r:.50}"
            # A bool is an int to Python, but no number of anything.
            if not isinstance(value, knob.type) or isinstance(value, bool) != (knob.type is bool):
                raise Problem(f"{stands}, which is of the wrong type")
            if value == "":
                raise Problem(f"--{option(knob.name)} is empty; name something")
            least, most = rules.get("least"), rules.get("most", LARGEST)
            if None not in (value, least) and not least <= value <= most:
                raise Problem(f"{stands}; it must be from {least} to {most}")
            if value not in rules.get("choices", [value]):
                raise Problem(f"{stands}; it must be one of {', '.join(rules['choices'])}")
        if self.drop_path >= 1:
            raise Problem(f"--drop-path is {self.drop_path}; it must be below 1")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add an option for each setting."""
    for knob in fields(Recipe):
        rules: dict[str, Any] = {"help": f"{knob.metadata['reason']} (default: {knob.default})"}
        if isinstance(knob.default, bool):
            rules["action"] = argparse.BooleanOptionalAction
        else:
            rules["type"] = int if knob.default is None else type(knob.default)
            rules["choices"] = knob.metadata.get("choices")
        parser.add_argument(f"--{option(knob.name)}", **rules)


def option(name: str) -> str:
    """A setting's name on the command line."""
    return name.replace("_", "-")
