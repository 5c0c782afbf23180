"""Holds the rendered chart against Kubernetes' own schemas, and the sets of values against the chart's.

    helm/validate.py FOLDER

FOLDER holds what `cargo test -p weft-relay --test chart` rendered, a file a set of values. Needs kubernetes-validate (which
brings the schemas of every Kubernetes version along), jsonschema and PyYAML; fetches nothing.
"""

import json
import pathlib
import sys

import jsonschema
import kubernetes_validate
import yaml

CHART = pathlib.Path(__file__).parent / "weft-relay"
# The oldest that the chart allows and the newest that the schemas are of.
VERSIONS = ["1.25", kubernetes_validate.latest_version()]
# Not Kubernetes' own: the Prometheus operator's.
FOREIGN = {"monitoring.coreos.com/v1"}

# Values that nobody should be able to install.
REFUSED = {
    "several relays without NATS": {"replicas": 3, "existingSecret": "relay"},
    "several relays without shared keys": {"replicas": 3, "nats": {"url": "nats://nats:4222"}},
    "autoscaling without NATS": {"autoscaling": {"enabled": True}},
    "an unknown value": {"replica": 1},
    "an address that no agent can dial": {"publicUrl": "relay.example.org"},
    "something that is no DID": {"allowDids": ["alice.example"]},
}


def merged(into, over):
    if isinstance(into, dict) and isinstance(over, dict):
        return {key: merged(into.get(key), over[key]) if key in over else into[key] for key in {**into, **over}}
    return over


def manifests(folder):
    count = 0
    for path in sorted(folder.glob("*.yaml")):
        for manifest in yaml.safe_load_all(path.read_text()):
            if manifest["apiVersion"] in FOREIGN:
                continue
            for version in VERSIONS:
                try:
                    kubernetes_validate.validate(manifest, version, strict=True)
                except kubernetes_validate.ValidationError as error:
                    where = ".".join(map(str, error.path))
                    sys.exit(f"{path.name}: {manifest['kind']} is not of Kubernetes {version}: {where}: {error.message}")
                count += 1
    if not count:
        sys.exit(f"nothing was rendered into {folder}")
    # A validator that takes everything proves nothing.
    try:
        wrong = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}, "spec": {"port": 1}}
        kubernetes_validate.validate(wrong, VERSIONS[-1], strict=True)
    except kubernetes_validate.ValidationError:
        return count
    sys.exit("the schemas take a Service that is none")


def values():
    schema = json.loads((CHART / "values.schema.json").read_text())
    jsonschema.Draft7Validator.check_schema(schema)
    validator = jsonschema.Draft7Validator(schema)
    defaults = yaml.safe_load((CHART / "values.yaml").read_text())
    sets = {path.name: yaml.safe_load(path.read_text()) for path in sorted(CHART.glob("ci/*.yaml"))}
    for name, over in {"values.yaml": {}, **sets}.items():
        for error in validator.iter_errors(merged(defaults, over)):
            sys.exit(f"{name}: {'.'.join(map(str, error.path))}: {error.message}")
    for name, over in REFUSED.items():
        if validator.is_valid(merged(defaults, over)):
            sys.exit(f"the schema takes {name}")
    return len(sets) + 1


if __name__ == "__main__":
    checked = manifests(pathlib.Path(sys.argv[1]))
    print(f"{checked} manifests are of Kubernetes {' and '.join(VERSIONS)}; {values()} sets of values fit the schema")
