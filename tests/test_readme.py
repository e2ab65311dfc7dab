"""The README and the pages of docs: recipes followed to the letter, commands, choices and links."""

import importlib
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import lightning as L
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from lightning.pytorch.loggers import Logger
from omegaconf import OmegaConf
from torch import nn

from mnist_cnn.app import overrides
from mnist_cnn.app.resumed import read_settings
from mnist_cnn.app.settings import TrainSettings
from mnist_cnn.app.start import register_resolvers
from mnist_cnn.schema import check
from mnist_cnn.training.building import build, build_metrics
from mnist_cnn.training.classifier import Classifier
from tests import runs
from tests.conftest import REPOSITORY
from tests.runs import compose_train, settings_of

READMES = ("README.md", "README.zh.md")
PAGES = (*READMES, *(f"docs/{path.name}" for path in sorted((REPOSITORY / "docs").glob("*.md"))))
RECIPES = (*READMES, "docs/extend.md")
COMMAND = re.compile(r"python (train|evaluate|predict|export)\.py(.*)")


def text_of(page: str) -> str:
    return (REPOSITORY / page).read_text(encoding="utf-8")


def blocks_of(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text_of(page), re.DOTALL | re.MULTILINE)


def commands_of(page: str) -> list[tuple[str, list[str]]]:
    """Return the scripts of a page's commands that are no sweep, and their arguments."""
    lines = "".join(blocks_of(page, "bash")).replace("\\\n", " ").splitlines()
    found = [match for line in lines if (match := COMMAND.match(line))]
    commands = [(match[1], shlex.split(match[2], comments=True)) for match in found]
    return [(script, arguments) for script, arguments in commands if "-m" not in arguments]


def files_of(page: str) -> dict[str, str]:
    """Return the files that a page tells to write: each begins with a comment, its path."""
    text = "".join([*blocks_of(page, "yaml"), *blocks_of(page, "python")])
    parts = re.split(r"^# ((?:conf|src)/[\w/]+\.(?:yaml|py))\b.*\n", text, flags=re.MULTILINE)
    assert parts[0] == ""
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@pytest.fixture
def recipes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The files of all recipes, beside those of the repository."""
    shutil.copytree(REPOSITORY / "conf", tmp_path / "conf")
    monkeypatch.setattr(runs, "CONF", tmp_path / "conf")
    monkeypatch.setattr(overrides, "CONF", tmp_path / "conf")
    modules = []
    for page in RECIPES:
        for name, content in files_of(page).items():
            assert not (REPOSITORY / name).exists(), f"{name} exists"
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content, encoding="utf-8")
            if path.suffix == ".py":
                modules.append(name.removeprefix("src/").removesuffix(".py").replace("/", "."))
                package = importlib.import_module(modules[-1].rpartition(".")[0])
                monkeypatch.setattr(package, "__path__", [*package.__path__, str(path.parent)])
    yield
    for module in modules:
        sys.modules.pop(module, None)


@pytest.mark.parametrize("page", RECIPES)
@pytest.mark.usefixtures("recipes")
def test_what_the_recipes_add_can_be_built_and_used(page: str, tmp_path: Path) -> None:
    added = {Path(name).stem for name in files_of(page) if name.startswith("conf/")}
    used = set()
    for _, arguments in commands_of(page):
        chosen = added & set(re.findall(r"\w+", " ".join(arguments)))
        if not chosen:
            continue
        used |= chosen
        config = compose_train(*arguments)
        plain = settings_of(config)
        check(plain, TrainSettings)
        OmegaConf.save(plain, tmp_path / "resolved.yaml")
        read_settings(tmp_path / "resolved.yaml", trusted=[])  # a run with these settings can be resumed

        data = instantiate(config.data, seed=0)
        classifier = Classifier(
            build(plain["model"], nn.Module, (), "model"),
            loss=build(plain["loss"], nn.Module, (), "loss"),
            num_classes=data.num_classes,
            optimizer=instantiate(config.optim),
            metrics=build_metrics(plain["metrics"], ()),
        )
        targets = torch.arange(8) % data.num_classes
        images = torch.randn(8, config.data.in_channels, config.data.image_size, config.data.image_size)
        classifier.training_step((images, targets), 0).backward()
        assert all(value.ndim == 0 for value in classifier.train_metrics.compute().values())
        optimizer = classifier.optimizer(classifier.network.parameters())
        if config.scheduler:
            trainer = L.Trainer(logger=False, enable_checkpointing=False)
            scheduler = instantiate(config.scheduler).build(optimizer, trainer)
            optimizer.step()
            scheduler.step()

        for callback in config.callbacks.values():
            assert isinstance(instantiate(callback), L.Callback)
        for logger in config.logger.values():
            logger.save_dir = str(tmp_path)
            assert isinstance(instantiate(logger), Logger)
    assert used == added


@pytest.mark.usefixtures("recipes")
def test_data_set_of_the_recipe_gives_batches(tmp_path: Path) -> None:
    data = instantiate(compose_train("data=squares", f"data.dir={tmp_path}").data, seed=0)
    data.prepare_data()
    data.setup("fit")
    images, targets = next(iter(data.train_dataloader()))
    assert images.shape == (64, 1, 28, 28)
    assert set(targets.tolist()) == {0, 1}


@pytest.mark.usefixtures("recipes")
def test_callback_of_the_recipe_ends_training() -> None:
    callback = instantiate(compose_train("callbacks=good_enough").callbacks.good_enough)
    trainer = L.Trainer(logger=False, enable_checkpointing=False)
    for accuracy, stops in ((0.98, False), (0.99, True)):
        trainer.callback_metrics["val/acc"] = torch.tensor(accuracy, dtype=torch.float64)
        callback.on_validation_end(trainer, L.LightningModule())
        assert trainer.should_stop is stops


@pytest.mark.usefixtures("recipes")
def test_commands_compose() -> None:
    register_resolvers()
    different = {(script, *arguments) for page in PAGES for script, arguments in commands_of(page)}
    for script, *arguments in sorted(different):
        arguments = [argument for argument in arguments if not argument.startswith("--")]
        with initialize_config_dir(str(runs.CONF), version_base="1.3"):
            compose(script, overrides=overrides.prepare(arguments))


@pytest.mark.parametrize("page", READMES)
def test_choices_are_those_of_the_config_groups(page: str) -> None:
    groups = {
        path.name: {option.stem for option in path.glob("*.yaml")}
        for path in (REPOSITORY / "conf").iterdir()
        if path.is_dir() and path.name not in ("hydra", "loss_optim")
    }
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \|", text_of(page), re.MULTILINE)
    assert {group: set(re.findall(r"`(\w+)`", options)) for group, options in rows} == groups
    choices = compose_train().hydra.runtime.choices
    for group, options in rows:
        bold = re.findall(r"\*\*`(\w+)`\*\*", options)
        assert bold == [choices[group]] * (choices[group] is not None)


@pytest.mark.parametrize("page", [*PAGES, "hydra-sweeps/README.md"])
def test_links_lead_somewhere(page: str) -> None:
    for link in re.findall(r"\]\((?!https?://)([^)]+)\)", text_of(page)):
        name, _, anchor = link.partition("#")
        target = (REPOSITORY / page).parent / name if name else REPOSITORY / page
        assert target.exists(), link
        if anchor:
            headings = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            slugs = [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings]
            assert anchor in slugs, link
