"""The three ways to install say the same."""

import tomllib
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
REQUIRED = [
    Requirement(text) for text in [*PROJECT["dependencies"], *(r for extra in EXTRAS.values() for r in extra)]
]


def pins():
    lines = [line.partition("#")[0].strip() for line in (ROOT / "requirements.lock").read_text().splitlines()]
    pairs = [line.partition("==")[::2] for line in lines if line]
    return {canonicalize_name(name): version for name, version in pairs}


@pytest.mark.parametrize("requirement", REQUIRED, ids=str)
def test_lock_satisfies_every_bound(requirement):
    version = pins()[canonicalize_name(requirement.name)]
    assert requirement.specifier.contains(version)


def test_lock_is_pins_only():
    assert all(version and version[0].isdigit() for version in pins().values())


def test_conda_environment_installs_the_project_and_nothing_else():
    *conda, last = OmegaConf.to_container(OmegaConf.load(ROOT / "environment.yaml"))["dependencies"]
    assert f"python{PROJECT['requires-python']}" in conda
    assert {Requirement(text).name for text in conda} == {"python", "pip"}
    known = {canonicalize_name(requirement.name) for requirement in REQUIRED}
    project, *others = last["pip"]
    path, _, extras = project.removeprefix("-e ").partition("[")
    assert path == "." and set(filter(None, extras.rstrip("]").split(","))) <= set(EXTRAS)
    assert {canonicalize_name(Requirement(text).name) for text in others} <= known


def test_every_package_is_shipped():
    content = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests"}
    assert set(content["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]) == packages
