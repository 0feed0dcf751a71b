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

import os
import sys

if __name__ == "__main__":  # as a module once more, so that what befalls the imports below is reported
    sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))  # not there under PYTHONSAFEPATH
    from terminal import start

    start("train")

import argparse
import contextlib
import json
import math
import secrets
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

import saved_training
from arrays import Header
from backend import has_gpu, keras
from data import Images, augment, load, statistics
from evaluation import score_batches, total
from files import Problem, locked, replacing
from model import (
    Description,
    build,
    describes,
    load_weights,
    read_genotype,
    save_weights,
    without_auxiliary,
    write_description,
)
from recipe import Recipe, add_options, option
from terminal import Parser, Screen, Unprinted, filled_path, say, set_last_words

OUT = Path("results", "alphax-1-net")  # below the folder one is in
# What a random stream is for; numbers from 1, since a trailing 0 does not change a seed sequence.
SPLIT, ORDER, AUGMENT, DROP_PATH = 1, 2, 3, 4


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


def _bar(total: int, title: str) -> tqdm:
    """A progress bar, if stderr is a terminal."""
    return tqdm(total=total, desc=title, leave=False, disable=None, file=Screen())


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
        self.saved_epochs = 0
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
            self.save()
            # After the checkpoint: from that, weights of a best last epoch can be made anew.
            if epoch == self.best_epoch:
                self._save_best()
            with contextlib.suppress(Unprinted):  # the training is worth more; its end will tell
                say("  ".join(f"{name} {value:.5g}" for name, value in self.history[-1].items()))

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
        with _bar(len(batches), f"epoch {epoch + 1}/{recipe.epochs}") as bar:
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

    def _validate(self) -> dict[str, float]:
        """Loss and top-1 accuracy (0 to 1) on the held-out images, if there are any."""
        number = len(self.held_out.labels)
        if not number:
            return {}
        size = min(self.recipe.batch_size, number)
        score = total(list(score_batches(self.network, self.description, self.held_out, size)))
        return {"validation_loss": score.loss / number, "validation_accuracy": score.top_1 / number}

    def _save_best(self) -> None:
        save_weights(self.model, self.best_weights)

    def _check_best(self) -> None:
        """See to it that the best epoch's weights, on which training may not improve, are on disk."""
        if self.best_epoch == len(self.history) - 1:
            self._save_best()  # they are at hand
            return
        try:
            load_weights(build(self.description), self.best_weights)
        except Problem as problem:
            raise Problem(
                f"the file of the best weights, those of epoch {self.best_epoch + 1}, is missing or damaged"
                f" ({problem}); put it back, or name another --out"
            ) from problem

    def save(self) -> None:
        """Replace the checkpoint: weights, optimizer, settings and history, in one file."""
        state = {
            "recipe": asdict(self.recipe),
            "network": asdict(self.description),
            "history": self.history,
        }
        with replacing(self.out / "history.json") as part:
            part.write_text(json.dumps(self.history, indent=1), encoding="utf-8")
        arrays = [keras.ops.convert_to_numpy(variable) for variable in self._variables()]
        saved_training.write(self.checkpoint, state, arrays)
        self.saved_epochs = len(self.history)

    def restore(self) -> None:
        """Take weights, optimizer and history from the checkpoint.

        Raises
        ------
        Problem
            If it is damaged or holds another network, if the data are not what they were, or if the
            best epoch's weights are gone.
        """
        state, variables = saved_training.read_state(self.checkpoint), self._variables()
        if state.get("network") != json.loads(json.dumps(asdict(self.description))):
            raise Problem(
                f"{self.checkpoint} is damaged or belongs to other contents of the data or the genotype"
                " file; restore those, or name another --out"
            )
        headers = [Header(np.dtype(variable.dtype), tuple(variable.shape)) for variable in variables]
        arrays = saved_training.read_arrays(self.checkpoint, headers)
        for variable, array in zip(variables, arrays):
            variable.assign(array)
        self.history = state["history"]
        self.saved_epochs = len(self.history)
        if self.history:
            self._check_best()

    def _variables(self) -> list[keras.Variable]:
        return [*self.model.weights, *self.model.optimizer.variables]


def main(arguments: Sequence[str]) -> None:
    """Train, or go on training, as the arguments say."""
    options = _options(arguments)
    out, resume = options.pop("out"), options.pop("resume")
    checkpoint = out / "checkpoint.npz"
    _keep_other_trainings(checkpoint, resume)
    resume = resume and checkpoint.exists()
    recipe = _resumed_recipe(checkpoint, options) if resume else _fresh_recipe(options)
    training = Training(recipe, out)
    with locked(out):
        _keep_other_trainings(checkpoint, resume)  # one may have come to its end meanwhile
        for part in out.glob(".part-*"):  # of a training that was killed while it wrote
            part.unlink(missing_ok=True)
        _train(training, resume)
    kept = training.history[training.best_epoch]
    say(
        f"Kept epoch {kept['epoch']}; test it with model_test.py --weights {training.best_weights}",
        last=True,
    )


def _keep_other_trainings(checkpoint: Path, resume: bool) -> None:
    if checkpoint.exists() and not resume:
        raise Problem(
            f"{checkpoint.parent} holds a training already; add --resume, or name another folder with --out"
        )


def _train(training: Training, resume: bool) -> None:
    """Train to the end, from the checkpoint if `resume`."""
    if resume:
        training.restore()
    else:
        training.save()  # a folder that cannot be written to shows now, not after an epoch
    set_last_words(lambda: f"interrupted: {training.saved_epochs} epochs are done; go on with --resume")
    with contextlib.suppress(Unprinted):
        say(
            f"Seed {training.recipe.seed}; {len(training.train_data.labels)} images to train on,"
            f" {len(training.held_out.labels)} held out; {len(training.history)} epochs done"
        )
    training.run()


def _options(arguments: Sequence[str]) -> dict[str, Any]:
    """The options that were given, and `out` and `resume`; all others are left out."""
    parser = Parser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
    )
    parser.add_argument("--out", type=filled_path, default=OUT, help=f"folder for results (default: {OUT})")
    parser.add_argument(
        "--resume",
        action="store_true",
        default=False,
        help="go on from the folder's checkpoint, if there is one, with its settings",
    )
    add_options(parser)
    return vars(parser.parse_args(arguments))


def _fresh_recipe(options: dict[str, Any]) -> Recipe:
    options.setdefault("seed", secrets.randbelow(2**31))
    return Recipe(**options)


def _resumed_recipe(checkpoint: Path, options: dict[str, Any]) -> Recipe:
    """The settings in a checkpoint; options given anew must not contradict them."""
    saved = saved_training.read_state(checkpoint)["recipe"]
    for name, value in options.items():
        if saved.get(name) != value:
            raise Problem(
                f"{checkpoint} was made with --{option(name)} {saved.get(name)}, not {value};"
                " leave that option out, or name another --out"
            )
    return Recipe(**saved)


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
