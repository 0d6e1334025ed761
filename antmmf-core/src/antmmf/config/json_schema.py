"""The JSON Schema of a config, with the names of the installed components, for editors."""

from __future__ import annotations

from typing import Any

from antmmf.config.schema import BLOCKS, RunConfig
from antmmf.registry import Registry


def json_schema(registry: Registry) -> dict[str, Any]:
    """JSON Schema (2020-12) of a config file; imports no component."""
    schema = RunConfig.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "AntMMF config"
    schema["properties"]["includes"] = {"type": "array", "items": {"type": "string"}, "description": "files laid below"}
    schema["anyOf"] = [{"required": schema.pop("required")}, {"required": ["includes"]}]
    definitions = schema["$defs"]
    for key, kind in BLOCKS.items():
        *sections, name = key.split(".")
        owner = schema
        for section in sections:
            owner = definitions[owner["properties"][section]["$ref"].rpartition("/")[2]]
        definitions.setdefault(kind, _block(registry, kind))
        owner["properties"][name] = _point_to(owner["properties"][name], f"#/$defs/{kind}")
    _allow_train_blocks(definitions)
    definitions.pop("Block", None)
    return schema


def _allow_train_blocks(definitions: dict[str, Any]) -> None:
    """A data set to train on may have more keys than others."""
    block = definitions["TrainBlock"]["properties"]
    block["type"] = definitions["datasets"]["anyOf"][0]
    block["sampler"] = _point_to(block["sampler"], "#/$defs/samplers")
    choices = [{"$ref": "#/$defs/datasets"}, {"$ref": "#/$defs/TrainBlock"}]
    definitions["DatasetAttributes"]["properties"]["train"]["items"] = {"anyOf": choices}


def _block(registry: Registry, kind: str) -> dict[str, Any]:
    """The name of a component, or ``type`` and ``params``; an included file may have given the type."""
    names = sorted({name for component in registry.components(kind) for name in (component.name, component.full_name)})
    name = {"anyOf": [{"enum": names}, {"type": "string"}]} if names else {"type": "string"}
    block = {
        "type": "object",
        "properties": {"type": name, "params": {"type": "object"}},
        "additionalProperties": False,
    }
    return {"anyOf": [name, block], "description": f"one of the {kind.replace('_', ' ')}: antmmf list {kind}"}


def _point_to(schema: Any, reference: str) -> Any:
    """``schema`` with every reference to ``Block`` replaced."""
    if isinstance(schema, dict):
        if schema.get("$ref") == "#/$defs/Block":
            return {**{key: value for key, value in schema.items() if key != "default"}, "$ref": reference}
        return {key: _point_to(value, reference) for key, value in schema.items() if key != "default"}
    return [_point_to(item, reference) for item in schema] if isinstance(schema, list) else schema
