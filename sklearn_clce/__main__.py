"""Fit, predict and export without writing Python: ``python -m sklearn_clce``."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from . import CLCEClassifier, find_unreadable, list_images, load_image_folder

ERROR, SOME_UNREADABLE = 1, 3  # exit codes; 2 is argparse's, for wrong arguments
EPILOG = (
    "Exit code: 0 if all is done; 1 after an error, which is printed; 2 for wrong arguments; "
    "3 if it is done without files that can't be read, which are listed at the end."
)
Unreadable = list[str]  # what is wrong with files


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command, and return its exit code."""
    arguments = _parser().parse_args(argv)
    unreadable: Unreadable = []
    with warnings.catch_warnings():
        warnings.showwarning = _print_warning
        try:
            _check_folder_of(arguments.output)
            arguments.run(arguments, unreadable)
        except (ValueError, TypeError, OSError, ImportError) as error:
            print(f"error: {error}", file=sys.stderr)
            return ERROR
        finally:
            for message in unreadable:
                print(f"left out: {message}", file=sys.stderr)
    return SOME_UNREADABLE if unreadable else 0


def fit(arguments: argparse.Namespace, unreadable: Unreadable) -> None:
    """Fit a classifier to a folder of images, and save it."""
    X, y = _read_folder(arguments.folder, unreadable)
    test = _read_folder(arguments.test, unreadable) if arguments.test else None
    clf = CLCEClassifier(trainable="head" if arguments.head else "auto", verbose=1).fit(X, y)
    clf.save(arguments.output)
    print(f"{arguments.output}: fitted to {len(X)} images of {len(clf.classes_)} classes")
    if test:
        print(f"accuracy on {len(test[0])} images of {arguments.test}: {clf.score(*test):.3f}")


def predict(arguments: argparse.Namespace, unreadable: Unreadable) -> None:
    """Predict the images of a folder into a table."""
    clf = CLCEClassifier.load(arguments.model).set_params(verbose=1)
    frame = clf.predict_frame(list_images(arguments.folder))
    # Python reads names of files that are not UTF-8 so
    frame.to_csv(arguments.output, index=False, encoding="utf-8", errors="surrogateescape")
    unreadable += frame["error"].dropna().tolist()
    print(f"{arguments.output}: {len(frame)} images, {len(frame) - len(unreadable)} predicted")


def export(arguments: argparse.Namespace, unreadable: Unreadable) -> None:
    """Write a classifier as ONNX, for programs without Python."""
    CLCEClassifier.load(arguments.model).export_onnx(arguments.output)
    print(f"{arguments.output}: written")


def _read_folder(folder: str, unreadable: Unreadable) -> tuple[np.ndarray, np.ndarray]:
    """Return paths and labels of a folder, without files that can't be read."""
    paths, labels = load_image_folder(folder)
    bad = find_unreadable(paths)
    unreadable += bad.values()
    return np.delete(paths, list(bad)), np.delete(labels, list(bad))


def _check_folder_of(output: str) -> None:
    """Raise an error before a long fit, and not after it."""
    folder = Path(output).parent
    if Path(output).is_dir():
        raise IsADirectoryError(f"{output!r} is a folder: the name of a file is required")
    if not folder.is_dir():
        raise FileNotFoundError(f"{output!r} can't be written: there is no folder {str(folder)!r}")


def _print_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"warning: {message}", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m sklearn_clce", description="Classify images.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    added = _add_command(commands, fit)
    added.add_argument("folder", metavar="FOLDER", help="a folder for each class, with its images")
    _add_output(added, "model.safetensors")
    added.add_argument("--head", action="store_true", help="train a head only, in seconds")
    added.add_argument("--test", metavar="FOLDER", help="a folder of other images, for a score")

    added = _add_command(commands, predict)
    _add_model(added)
    added.add_argument("folder", metavar="FOLDER", help="a folder of images, flat or nested")
    _add_output(added, "table.csv")

    added = _add_command(commands, export)
    _add_model(added)
    added.add_argument("output", metavar="model.onnx", help="the file to write")
    return parser


def _add_command(commands: Any, function: Any) -> argparse.ArgumentParser:
    text = function.__doc__
    added = commands.add_parser(function.__name__, help=text, description=text, epilog=EPILOG)
    added.set_defaults(run=function)
    return added


def _add_model(command: argparse.ArgumentParser) -> None:
    command.add_argument("model", metavar="model.safetensors", help="a file that fit has written")


def _add_output(command: argparse.ArgumentParser, name: str) -> None:
    command.add_argument("-o", "--output", metavar=name, required=True, help="the file to write")


if __name__ == "__main__":
    sys.exit(main())
