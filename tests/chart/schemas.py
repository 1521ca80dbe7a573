"""JSON schemas for kubeconform, from the API server's own OpenAPI and the definitions of custom resources. Nothing that they do
not name is allowed."""

import json
import os
from pathlib import Path

import yaml

CHART = Path(__file__).resolve().parents[2] / "charts/scriptscope"
# Of the Prometheus operator only what the chart uses, since its definitions are in no module that can be had.
STRINGS = {"type": "object", "additionalProperties": {"type": "string"}}
OURS = {
    ("monitoring.coreos.com", "v1", "ServiceMonitor"): {
        "selector": {"type": "object", "properties": {"matchLabels": STRINGS}},
        "endpoints": {"type": "array", "items": {"type": "object", "properties": {
            "port": {"type": "string"}, "interval": {"type": "string"}, "scrapeTimeout": {"type": "string"},
            "honorLabels": {"type": "boolean"}}}},
    },
    ("monitoring.coreos.com", "v1", "PrometheusRule"): {
        "groups": {"type": "array", "items": {"type": "object", "required": ["name", "rules"], "properties": {
            "name": {"type": "string"},
            "rules": {"type": "array", "minItems": 1, "items": {"type": "object", "required": ["alert", "expr"], "properties": {
                "alert": {"type": "string"}, "expr": {"type": "string"}, "for": {"type": "string"},
                "labels": STRINGS, "annotations": STRINGS}}}}}},
    },
}


def closed(schema):
    """The same schema, where an object has no members but those that are named."""
    if not isinstance(schema, dict):
        return schema
    schema = dict(schema)
    # Members may be called like words of the schema's own language.
    for word in ("properties", "definitions"):
        if word in schema:
            schema[word] = {name: closed(member) for name, member in schema[word].items()}
    for word in ("items", "additionalProperties"):
        if word in schema:
            schema[word] = closed(schema[word])
    any_value = schema.get("x-kubernetes-int-or-string") or schema.get("format") == "int-or-string"
    if "properties" in schema and "additionalProperties" not in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
        schema["additionalProperties"] = False
    if any_value:
        schema["type"] = ["integer", "string"]
    return schema


def write(folder, group, version, kind, schema):
    name = "-".join(filter(None, [kind, group.split(".")[0], version])).lower()
    (folder / f"{name}.json").write_text(json.dumps(schema))


def make(folder):
    """Fills the folder, for kubeconform's -schema-location FOLDER/{{.ResourceKind}}{{.KindSuffix}}.json."""
    definitions = json.loads(Path(os.environ["KUBERNETES_OPENAPI"]).read_text())["definitions"]
    definitions = {name: closed(definition) for name, definition in definitions.items()}
    definitions["io.k8s.apimachinery.pkg.api.resource.Quantity"] = {"type": ["string", "number"]}
    (folder / "definitions.json").write_text(json.dumps({"definitions": definitions}))
    for name, definition in definitions.items():
        for kind in definition.get("x-kubernetes-group-version-kind", []):
            write(folder, kind["group"], kind["version"], kind["kind"], {"$ref": f"definitions.json#/definitions/{name}"})
    meta = {"$ref": "definitions.json#/definitions/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"}
    for (group, version, kind), spec in OURS.items():
        whole = {"type": "object", "required": ["metadata", "spec"], "properties": {
            "apiVersion": {}, "kind": {}, "metadata": {}, "spec": {"type": "object", "properties": spec}}}
        whole = closed(whole)
        whole["properties"]["metadata"] = meta
        write(folder, group, version, kind, whole)
    crds = [*CHART.glob("files/crds/*.yaml"), *Path(os.environ["GATEWAY_API"]).glob("config/crd/standard/*httproutes.yaml")]
    for crd in crds:
        spec = yaml.safe_load(crd.read_text())["spec"]
        for version in spec["versions"]:
            schema = closed(version["schema"]["openAPIV3Schema"])
            schema["properties"]["metadata"] = meta
            write(folder, spec["group"], version["name"], spec["names"]["kind"], schema)
