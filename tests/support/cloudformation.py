"""A CloudFormation template, read and resolved as far as tests need it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

PSEUDO = {
    "AWS::Region": "eu-central-1",
    "AWS::AccountId": "123456789012",
    "AWS::Partition": "aws",
    "AWS::StackName": "reconciler",
    "AWS::StackId": "arn:aws:cloudformation:eu-central-1:123456789012:stack/reconciler/"
    "0a1b2c3d-0000-0000-0000-0123456789ab",
}
NOTHING = object()
_REFERENCE = re.compile(r"\$\{([^}]+)\}")


class _Loader(yaml.SafeLoader):
    """YAML with CloudFormation's short forms (``!Ref``, ``!Sub``, …)."""


def _short_form(loader: _Loader, suffix: str, node: yaml.Node) -> dict[str, Any]:
    name = suffix if suffix in {"Ref", "Condition"} else f"Fn::{suffix}"
    if isinstance(node, yaml.ScalarNode):
        value: Any = loader.construct_scalar(node)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        assert isinstance(node, yaml.MappingNode)
        value = loader.construct_mapping(node, deep=True)
    return {name: value}


_Loader.add_multi_constructor("!", _short_form)


@dataclass
class Template:
    """A template with values for its parameters; a reference to a resource resolves to its name."""

    raw: dict[str, Any]
    parameters: Mapping[str, Any]

    def resource(self, name: str) -> Any:
        """Return a resource's properties, resolved."""
        return self.resolve(self.raw["Resources"][name]["Properties"])

    def of_type(self, kind: str) -> dict[str, Any]:
        """Return name → resolved properties of the resources of a type that would be created."""
        return {
            name: self.resource(name)
            for name, resource in self.raw["Resources"].items()
            if resource["Type"] == kind
            and ("Condition" not in resource or self.holds(resource["Condition"]))
        }

    def holds(self, condition: str) -> bool:
        """Whether a condition holds."""
        return bool(self.resolve(self.raw["Conditions"][condition]))

    def resolve(self, value: Any) -> Any:
        """Return a value with all functions resolved."""
        if isinstance(value, list):
            return [found for part in value if (found := self.resolve(part)) is not NOTHING]
        if not isinstance(value, dict):
            return value
        if len(value) == 1:
            ((name, argument),) = value.items()
            if name in {"Ref", "Condition"} or name.startswith("Fn::"):
                return self._function(name, argument)
        resolved = {key: self.resolve(inner) for key, inner in value.items()}
        return {key: inner for key, inner in resolved.items() if inner is not NOTHING}

    def _function(self, name: str, argument: Any) -> Any:
        match name:
            case "Ref":
                return self._named(argument)
            case "Fn::If":
                condition, then, otherwise = argument
                return self.resolve(then if self.holds(condition) else otherwise)
            case "Condition" | "Fn::Not" | "Fn::Or" | "Fn::And" | "Fn::Equals":
                return self._condition(name, argument)
        return self._text(name, argument)

    def _condition(self, name: str, argument: Any) -> bool:
        if name == "Condition":
            return self.holds(argument)
        parts = self.resolve(argument)
        match name:
            case "Fn::Not":
                return not parts[0]
            case "Fn::Or":
                return any(parts)
            case "Fn::And":
                return all(parts)
        one, other = parts
        return bool(one == other)

    def _text(self, name: str, argument: Any) -> Any:
        match name, argument:
            case "Fn::Sub", _:
                return self._substituted(argument)
            case "Fn::GetAtt", _:
                return f"<{argument}>"
            case "Fn::FindInMap", [first, second, third]:
                return self.raw["Mappings"][first][second][third]
            case "Fn::Join", [between, parts]:
                return between.join(self.resolve(parts))
            case "Fn::Split", [between, whole]:
                return self.resolve(whole).split(between)
            case "Fn::Select", [index, parts]:
                return self.resolve(parts)[index]
        raise AssertionError(f"{name} is not resolved here")

    def _substituted(self, argument: Any) -> str:
        text, own = (argument, {}) if isinstance(argument, str) else argument
        known = {name: self.resolve(value) for name, value in own.items()}
        return _REFERENCE.sub(
            lambda found: str(known[found[1]] if found[1] in known else self._named(found[1])), text
        )

    def _named(self, name: str) -> Any:
        if name == "AWS::NoValue":
            return NOTHING
        if name in PSEUDO:
            return PSEUDO[name]
        if name in self.raw["Parameters"]:
            given = self.raw["Parameters"][name].get("Default")
            return self.parameters.get(name, given)
        assert name.partition(".")[0] in self.raw["Resources"], name
        return "6379" if name.endswith(".Port") else name.replace(".", "-")


def load_template(path: Path, **parameters: Any) -> Template:
    """Read a template."""
    raw = yaml.load(path.read_text(), Loader=_Loader)  # noqa: S506 - a safe loader with short forms
    return Template(raw, parameters)
