"""Train a network of AlphaX-1's family: `python train.py --data cifar10 --genotype FILE.json`.

The defaults are the published recipe of this family (DARTS, arXiv 1806.09055, section 3.1 and its
code). One thing differs on purpose: the original code kept the epoch with the best *test* accuracy,
which makes that accuracy a little too good. Here, images are held out of the training set, the best
epoch is chosen by them, and the test set is never looked at.

Under --out: checkpoint.npz, all that --resume needs, replaced after every epoch; best.weights.h5 and
best.json, the best epoch's network, as model_test.py takes them; history.json, the figures of every
epoch. All randomness of a step comes from the seed, the epoch and the step, so a training that was
killed and resumed ends with the very weights of one that was not (on the same machine).
"""

import argparse
import json
import math
import secrets
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from backend import has_gpu, keras
from data import Images, augment, load, statistics
from evaluation import score_batches, total
from files import Parser, Problem, replacing, run
from model import (
    Description,
    build,
    describes,
    load_weights,
    read_genotype,
    without_auxiliary,
    write_description,
)

HERE = Path(__file__).resolve().parent
OUT = Path("results", "alphax-1-net")  # below the folder one is in
# What a random stream is for; numbers from 1, since a trailing 0 does not change a seed sequence.
SPLIT, ORDER, AUGMENT, DROP_PATH = 1, 2, 3, 4
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
    epochs: int = _knob(600, "passes over the training images", least=1)
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
            stands = f"--{_option(knob.name)} is {value!r:.50}"
            # A bool is an int to Python, but no number of anything.
            if not isinstance(value, knob.type) or isinstance(value, bool) != (knob.type is bool):
                raise Problem(f"{stands}, which is of the wrong type")
            least, most = rules.get("least"), rules.get("most", LARGEST)
            if None not in (value, least) and not least <= value <= most:
                raise Problem(f"{stands}; it must be from {least} to {most}")
            if value not in rules.get("choices", [value]):
                raise Problem(f"{stands}; it must be one of {', '.join(rules['choices'])}")
        if self.drop_path >= 1:
            raise Problem(f"--drop-path is {self.drop_path}; it must be below 1")


class SGD(keras.optimizers.SGD):
    """SGD whose weight decay is part of the gradient, after clipping, as in PyTorch.

    Keras's own `weight_decay` bypasses momentum and so is weaker by a factor of 1 - momentum.
    """

    def __init__(self, *args: Any, decay: float, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.decay = decay

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        super().update_step(gradient + self.decay * variable, variable, learning_rate)


class Batches(keras.utils.PyDataset):
    """The training images of one epoch, shuffled and augmented: a matter of seed and epoch alone.

    Yields images, (batch, size, size, 3), and the labels once for each output of the model.
    """

    def __init__(self, data: Images, recipe: Recipe, description: Description, epoch: int) -> None:
        super().__init__()
        self.data, self.recipe, self.description, self.epoch = data, recipe, description, epoch
        self.order = _random(ORDER, recipe.seed, epoch).permutation(len(data.labels))

    def __len__(self) -> int:
        return len(self.order) // self.recipe.batch_size

    def __getitem__(self, step: int) -> tuple[np.ndarray, list[np.ndarray]]:
        recipe, size = self.recipe, self.recipe.batch_size
        chosen = self.order[step * size : (step + 1) * size]
        images = augment(
            self.data.images[chosen],
            self.description.mean,
            self.description.std,
            _random(AUGMENT, recipe.seed, self.epoch, step),
            recipe.crop,
            recipe.flip,
            recipe.cutout,
        )
        return images, [self.data.labels[chosen]] * (1 + self.description.auxiliary)


class Progress(keras.callbacks.Callback):
    """A progress bar for one epoch."""

    async_safe = True  # Keras reads the loss in another thread, and the steps do not wait for it

    def __init__(self, bar: tqdm) -> None:
        super().__init__()
        self.bar = bar

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self.bar.set_postfix(loss=f"{float(logs['loss']):.4f}", refresh=False)
        self.bar.update()


class Training:
    """A network in training and how far it has come.

    Parameters
    ----------
    recipe : Recipe
        With a seed.
    out : Path
        The folder for results.

    Raises
    ------
    Problem
        If the data or the genotype cannot be used.
    """

    def __init__(self, recipe: Recipe, out: Path) -> None:
        self.recipe, self.out = recipe, out
        self.train_data, self.held_out = _split(load(recipe.data, "train"), recipe)
        self.description = _describe(recipe, self.train_data, self.held_out)
        keras.config.set_dtype_policy(_policy(recipe.precision))
        self.model = build(self.description, recipe.seed)
        self.network = without_auxiliary(self.model)
        self.history: list[dict[str, float]] = []
        self._compile()

    def _compile(self) -> None:
        recipe, outputs = self.recipe, len(self.model.outputs)
        optimizer = SGD(
            recipe.learning_rate,
            recipe.momentum,
            decay=recipe.weight_decay,
            global_clipnorm=recipe.gradient_clip or None,
        )
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        self.model.compile(
            optimizer,
            loss=[loss] * outputs,
            loss_weights=[1.0, recipe.auxiliary_weight][:outputs],
            metrics=[["accuracy"], []][:outputs],
        )
        self.model.optimizer.build(self.model.trainable_variables)

    @property
    def checkpoint(self) -> Path:
        """The file that `save` replaces."""
        return self.out / "checkpoint.npz"

    @property
    def best_weights(self) -> Path:
        """The weights of the best epoch so far."""
        return self.out / "best.weights.h5"

    def run(self) -> None:
        """Train from where it stands to the last epoch, saving after each."""
        write_description(self.description, describes(self.best_weights))
        for epoch in range(len(self.history), self.recipe.epochs):
            self._run_epoch(epoch)
            if epoch == self.best_epoch:
                self._save_best()
            self.save()

    @property
    def best_epoch(self) -> int:
        """The epoch with the best validation accuracy, or the last one without validation.

        Of equals, the one with the lowest validation loss is the best.
        """
        if not self.recipe.validation:
            return len(self.history) - 1

        def merit(epoch: int) -> tuple[float, float]:
            figures = self.history[epoch]
            return figures["validation_accuracy"], -figures["validation_loss"]

        return max(range(len(self.history)), key=merit)

    def _run_epoch(self, epoch: int) -> None:
        """One pass over the training images; appends its figures to the history."""
        recipe, start = self.recipe, time.perf_counter()
        done = epoch / recipe.epochs
        rate = recipe.learning_rate * (1 + math.cos(math.pi * done)) / 2
        self.model.optimizer.learning_rate = rate
        drop_path = self.model.get_layer("drop_path")
        drop_path.rate.assign(recipe.drop_path * done)
        key = int(_random(DROP_PATH, recipe.seed, epoch).integers(2**31))
        drop_path.seed_generator.state.assign([key, 0])
        batches = Batches(self.train_data, recipe, self.description, epoch)
        with tqdm(total=len(batches), desc=f"epoch {epoch + 1}/{recipe.epochs}", leave=False) as bar:
            fit = self.model.fit(
                batches,
                initial_epoch=epoch,
                epochs=epoch + 1,
                shuffle=False,
                verbose=0,
                callbacks=[Progress(bar)],
            )
        trained = time.perf_counter() - start
        fitted = {name: values[-1] for name, values in fit.history.items()}
        figures = {
            "epoch": epoch + 1,
            "learning_rate": rate,
            "loss": fitted["loss"],
            "accuracy": fitted.get("classifier_accuracy", fitted.get("accuracy")),
            **self._validate(),
            "images_per_second": len(batches) * recipe.batch_size / trained,
        }
        for name, value in figures.items():
            if not math.isfinite(value):
                raise Problem(f"the {name} is {value} in epoch {epoch + 1}; lower --learning-rate")
        # Of the last step no loss tells, where there is no validation.
        if not all(np.isfinite(keras.ops.convert_to_numpy(v)).all() for v in self._variables()):
            raise Problem(f"weights are not finite after epoch {epoch + 1}; lower --learning-rate")
        self.history.append(figures)
        print("  ".join(f"{name} {value:.5g}" for name, value in figures.items()), flush=True)

    def _validate(self) -> dict[str, float]:
        """Loss and top-1 accuracy (0 to 1) on the held-out images, if there are any."""
        number = len(self.held_out.labels)
        if not number:
            return {}
        size = min(self.recipe.batch_size, number)
        score = total(list(score_batches(self.network, self.description, self.held_out, size)))
        return {"validation_loss": score.loss / number, "validation_accuracy": score.top_1 / number}

    def _save_best(self) -> None:
        # A model that was compiled would save its optimizer, too.
        bare = keras.Model(self.model.input, self.model.outputs)
        with replacing(self.best_weights) as part:
            bare.save_weights(part)

    def _check_best(self) -> None:
        """See to it that the best epoch's weights, on which training may not improve, are on disk."""
        if self.best_epoch == len(self.history) - 1:
            self._save_best()  # they are at hand
            return
        try:
            load_weights(build(self.description), self.best_weights)
        except Exception as error:  # h5py and Keras raise all sorts on a damaged or foreign file
            raise Problem(
                f"{self.best_weights}, the weights of epoch {self.best_epoch + 1}, is missing or damaged"
                f" ({type(error).__name__}); put it back, or name another --out"
            ) from error

    def save(self) -> None:
        """Replace the checkpoint: weights, optimizer, settings and history, in one file."""
        state = {
            "recipe": asdict(self.recipe),
            "network": asdict(self.description),
            "history": self.history,
        }
        with replacing(self.out / "history.json") as part:
            part.write_text(json.dumps(self.history, indent=1), encoding="utf-8")
        with replacing(self.checkpoint) as part:
            np.savez(part, state=json.dumps(state), **_named_arrays(self._variables()))

    def restore(self) -> None:
        """Take weights, optimizer and history from the checkpoint.

        Raises
        ------
        Problem
            If it is damaged or holds another network, if the data are not what they were, or if the
            best epoch's weights are gone.
        """
        state, arrays = _read_checkpoint(self.checkpoint)
        variables = self._variables()
        network = json.loads(json.dumps(asdict(self.description)))
        found = [(array.dtype, array.shape) for array in arrays]
        if state.get("network") != network or found != [(v.dtype, tuple(v.shape)) for v in variables]:
            raise Problem(
                f"{self.checkpoint} is damaged or belongs to other contents of the data or the genotype"
                " file; restore those, or name another --out"
            )
        for variable, array in zip(variables, arrays):
            variable.assign(array)
        self.history = state["history"]
        if self.history:
            self._check_best()

    def _variables(self) -> list[keras.Variable]:
        return [*self.model.weights, *self.model.optimizer.variables]


def main(arguments: Sequence[str]) -> None:
    """Train, or go on training, as the arguments say."""
    options = _options(arguments)
    out, resume = options.pop("out"), options.pop("resume")
    checkpoint = out / "checkpoint.npz"
    if checkpoint.exists() and not resume:
        raise Problem(f"{out} holds a training already; add --resume, or name another folder with --out")
    resume = resume and checkpoint.exists()
    recipe = _resumed_recipe(checkpoint, options) if resume else _fresh_recipe(options)
    training = Training(recipe, out)
    if resume:
        training.restore()
    else:
        training.save()  # a folder that cannot be written to shows now, not after an epoch
    print(
        f"Seed {recipe.seed}; {len(training.train_data.labels)} images to train on,"
        f" {len(training.held_out.labels)} held out; {len(training.history)} epochs done",
        flush=True,
    )
    try:
        training.run()
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"{len(training.history)} epochs are done; go on with --resume") from None
    kept = training.history[training.best_epoch]
    print(f"Kept epoch {kept['epoch']}; test it with model_test.py --weights {training.best_weights}")


def _options(arguments: Sequence[str]) -> dict[str, Any]:
    """The options that were given, and `out` and `resume`; all others are left out."""
    parser = Parser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
    )
    parser.add_argument("--out", type=Path, default=OUT, help=f"folder for results (default: {OUT})")
    parser.add_argument(
        "--resume",
        action="store_true",
        default=False,
        help="go on from the folder's checkpoint, if there is one, with its settings",
    )
    for knob in fields(Recipe):
        rules: dict[str, Any] = {"help": f"{knob.metadata['reason']} (default: {knob.default})"}
        if isinstance(knob.default, bool):
            rules["action"] = argparse.BooleanOptionalAction
        else:
            rules["type"] = int if knob.default is None else type(knob.default)
            rules["choices"] = knob.metadata.get("choices")
        parser.add_argument(f"--{_option(knob.name)}", **rules)
    return vars(parser.parse_args(arguments))


def _option(name: str) -> str:
    """A setting's name on the command line."""
    return name.replace("_", "-")


def _fresh_recipe(options: dict[str, Any]) -> Recipe:
    options.setdefault("seed", secrets.randbelow(2**31))
    return Recipe(**options)


def _resumed_recipe(checkpoint: Path, options: dict[str, Any]) -> Recipe:
    """The settings in a checkpoint; options given anew must not contradict them."""
    saved = _read_checkpoint(checkpoint)[0]["recipe"]
    for name, value in options.items():
        if saved.get(name) != value:
            raise Problem(
                f"{checkpoint} was made with --{_option(name)} {saved.get(name)}, not {value};"
                " leave that option out, or name another --out"
            )
    return Recipe(**saved)


def _read_checkpoint(path: Path) -> tuple[dict[str, Any], list[np.ndarray]]:
    """The state and the arrays that `Training.save` wrote."""
    try:
        with np.load(path, allow_pickle=False) as content:
            state = json.loads(str(content["state"]))
            arrays = [content[name] for name in _array_names(len(content.files) - 1)]
        recipe = Recipe(**state["recipe"])
        if asdict(recipe) != state["recipe"] or recipe.seed is None:
            raise ValueError("it lacks settings")
        _check_history(state["history"], recipe)
        if not all(np.isfinite(array).all() for array in arrays):
            raise ValueError("not all of its numbers are finite")
    except Exception as error:  # whatever zipfile, NumPy and json raise on a damaged file
        raise Problem(
            f"{path} is no checkpoint or is damaged ({error!s:.200}); name another --out"
        ) from error
    return state, arrays


def _check_history(history: Any, recipe: Recipe) -> None:
    """Raise a `ValueError` unless it is what `Training.run` notes of epochs 1, 2, and so on."""
    if type(history) is not list or len(history) > recipe.epochs:
        raise ValueError(f"its history is no list of at most {recipe.epochs} epochs")
    names = ["learning_rate", "loss", "accuracy", "images_per_second"]
    names += ["validation_loss", "validation_accuracy"] if recipe.validation else []
    kinds = {"epoch": int, **dict.fromkeys(names, float)}
    for number, figures in enumerate(history, 1):
        if (
            type(figures) is not dict
            or {name: type(value) for name, value in figures.items()} != kinds
            or figures["epoch"] != number
            or not all(map(math.isfinite, figures.values()))
        ):
            raise ValueError(f"its history has wrong figures for epoch {number}")


def _array_names(number: int) -> list[str]:
    return [f"variable_{position}" for position in range(number)]


def _named_arrays(variables: list[keras.Variable]) -> dict[str, np.ndarray]:
    arrays = [keras.ops.convert_to_numpy(variable) for variable in variables]
    return dict(zip(_array_names(len(arrays)), arrays))


def _random(stream: int, *key: int) -> np.random.Generator:
    """A generator of its own for each purpose, seed, epoch and step."""
    return np.random.default_rng([stream, *key])


def _split(data: Images, recipe: Recipe) -> tuple[Images, Images]:
    """The images to train on and those held out, drawn by the seed."""
    number = len(data.labels) - recipe.validation
    if number < recipe.batch_size:
        raise Problem(
            f"{recipe.data} has {len(data.labels)} training images; lower --validation"
            f" ({recipe.validation}) or --batch-size ({recipe.batch_size})"
        )
    order = _random(SPLIT, recipe.seed).permutation(len(data.labels))
    train, held_out = (
        Images(data.images[part], data.labels[part]) for part in (order[:number], order[number:])
    )
    return train, held_out


def _describe(recipe: Recipe, data: Images, held_out: Images) -> Description:
    mean, std = statistics(recipe.data, data.images)
    return Description(
        genotype=read_genotype(Path(recipe.genotype)),
        C=recipe.C,
        layers=recipe.layers,
        classes=int(np.concatenate([data.labels, held_out.labels]).max()) + 1,
        auxiliary=recipe.auxiliary,
        image_size=data.images.shape[1],
        data=Path(recipe.data).name,
        mean=mean,
        std=std,
    )


def _policy(precision: str) -> str:
    """Keras's name for the precision to compute in."""
    if precision != "auto":
        return precision
    return "mixed_bfloat16" if has_gpu() else "float32"


if __name__ == "__main__":
    sys.exit(run(main))
