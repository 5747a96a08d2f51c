# SPDX-License-Identifier: Apache-2.0
"""
Reads one service: the model (Amazon's format, plain or gzipped JSON), the list of actions that we
serve, and the overlay with what the model does not say. The result is a Service whose shapes are
only those that the served actions reach, each member with its wire names, place and flags.

Nothing here knows C; emit_c.py and docs.py print what stands in these objects.
"""

import gzip
import json
import os

import names
import wirenames

SCALARS = {
    "string": "string",
    "character": "string",
    "blob": "blob",
    "integer": "int",
    "long": "int",
    "float": "double",
    "double": "double",
    "boolean": "bool",
    "timestamp": "time",
}


class ModelError(Exception):
    """A model, overlay or action list that we refuse; the message names the file's place."""


def load_json(path):
    """A JSON file; when only PATH.gz is there (newer botocore), that."""
    if not os.path.exists(path) and os.path.exists(path + ".gz"):
        path += ".gz"
    opener = gzip.open if path.endswith(".gz") else open
    with opener(path, "rt", encoding="utf-8") as f:
        return json.load(f)


def load_model(path):
    """A model with botocore's own corrections (service-2.sdk-extras.json beside it), as botocore loads it."""
    model = load_json(path)
    extras = os.path.join(os.path.dirname(path), "service-2.sdk-extras.json")
    if os.path.exists(extras):
        merge(model, load_json(extras).get("merge", {}))
    return model


def merge(base, extra):
    for key, value in extra.items():
        if isinstance(value, dict) and isinstance(base.get(key), dict):
            merge(base[key], value)
        else:
            base[key] = value


class Member:
    """A member of a structure, as its structure sees it."""

    def __init__(self, name, traits, shape):
        self.name = name
        self.traits = traits  # the model's: the reference's own over the shape's
        self.shape = shape
        self.required = False
        self.served = True  # accepted on input
        self.field = True  # has a member in the C struct
        self.location = "body"  # body uri query header headers status
        self.wire_in = self.wire_out = name
        self.flattened = self.member_list = False
        self.payload = self.streaming = self.attribute = self.text = False
        self.time_format = "iso"  # iso http epoch

    @property
    def sensitive(self):
        return bool(self.shape.model.get("sensitive"))


class Shape:
    """One shape. kind: string blob int double bool time struct list map."""

    def __init__(self, service, name, model):
        self.service = service  # the name that prefixes its C names
        self.name = name
        self.model = model
        if model["type"] in SCALARS:
            self.kind = SCALARS[model["type"]]
        elif model["type"] in ("structure", "list", "map"):
            self.kind = {"structure": "struct"}.get(model["type"], model["type"])
        else:
            raise ModelError("shape %s: type %s is not known" % (name, model["type"]))
        self.members = []  # struct: Member, in the model's order
        self.item = None  # list: Shape
        self.item_name = None  # list: element name on output
        self.on_input = self.on_output = False

    @property
    def c_name(self):
        return "%s_%s" % (self.service, names.snake(self.name))

    @property
    def limits(self):
        """(min, max) or None: ranges of numbers, lengths of the rest."""
        low, high = self.model.get("min"), self.model.get("max")
        top, bottom = 2**63 - 1, 0
        if self.kind in ("int", "double"):
            bottom = -(2**63)
        if self.model["type"] == "integer":
            top, bottom = 2**31 - 1, -(2**31)
        elif low is None and high is None:
            return None
        return (bottom if low is None else int(low), top if high is None else int(high))

    @property
    def enum(self):
        return sorted(self.model.get("enum", []))


class Action:
    def __init__(self, name, model):
        self.name = name
        self.model = model
        self.input = self.output = None
        self.output_root = None
        self.rules = []
        self.roles = model.get("roles", [])
        self.route = None
        self.dry_run = self.stream_in = self.stream_out = self.md5_required = False

    @property
    def documentation(self):
        return self.model.get("documentation", "")


class Service:
    """Everything that the emitters need of one service."""

    def __init__(self, name, model, overlay, served_actions, shared=None):
        self.name = name
        self.model = model
        self.overlay = overlay
        self.shared = shared  # the Service whose shapes we may name, or None
        meta = model["metadata"]
        self.protocol = meta.get("protocol", "mallee-rpc")
        self.api_version = meta["apiVersion"]
        self.xml_namespace = overlay.get("xml_namespace", meta.get("xmlNamespace"))
        self.documentation = meta.get("documentation", "")
        self.shapes = {}
        self._apply_overlay_shapes()
        self.operations = model.get("operations", {})
        self.actions = [self._action(n) for n in served_actions]
        if not self.operations:  # shapes only: all of them
            for shape_name in model["shapes"]:
                self._walk(self._shape(shape_name), on_output=True)
        self._serve_members()
        self._check_overlay()

    # --- shapes -----------------------------------------------------------------------------

    def _apply_overlay_shapes(self):
        shapes = self.model["shapes"]
        for name, model in self.overlay.get("shapes", {}).items():
            shapes.setdefault(name, model)  # a newer model that knows it wins
        for name, members in self.overlay.get("members", {}).items():
            if name not in shapes:
                raise ModelError("overlay members: no shape %s in the model" % name)
            for member, ref in members.items():
                shapes[name]["members"].setdefault(member, ref)
        for name, shape in self.overlay.get("inputs", {}).items():
            if name not in self.model["operations"]:
                raise ModelError("overlay inputs: no action %s in the model" % name)
            self.model["operations"][name].setdefault("input", {"shape": shape})

    def _shape(self, name):
        if name in self.shapes:
            return self.shapes[name]
        model = self.model["shapes"].get(name)
        if model is None:
            if self.shared is None:
                raise ModelError("%s: no shape %s" % (self.name, name))
            return self.shared._shape(name)
        shape = self.shapes[name] = Shape(self.name, name, model)
        if shape.kind == "struct":
            for member_name, ref in model["members"].items():
                shape.members.append(self._member(shape, member_name, ref))
        elif shape.kind == "list":
            shape.item = self._shape(model["member"]["shape"])
            shape.item_name = wirenames.item_name(self.protocol, model["member"])
            if shape.item.kind in ("list", "map"):
                raise ModelError("shape %s: a list of %ss is not supported" % (name, shape.item.kind))
        elif shape.kind == "map":
            if {self._shape(model[k]["shape"]).kind for k in ("key", "value")} != {"string"}:
                raise ModelError("shape %s: only maps of string to string are supported" % name)
        return shape

    def _member(self, owner, name, ref):
        if "shape" not in ref:
            raise ModelError("%s: %s.%s names no shape" % (self.name, owner.name, name))
        target = self._shape(ref["shape"])
        traits = dict(target.model)
        traits.update(ref)
        member = Member(name, traits, target)
        member.required = name in owner.model.get("required", [])
        member.payload = owner.model.get("payload") == name
        member.streaming = bool(traits.get("streaming"))
        member.attribute = bool(traits.get("xmlAttribute"))
        member.text = self.overlay.get("text", {}).get(owner.name) == name
        wirenames.fill(self.protocol, member)
        return member

    # --- actions ----------------------------------------------------------------------------

    def _action(self, name):
        if name not in self.operations:
            raise ModelError("%s: the model has no action %s" % (self.name, name))
        model = self.operations[name]
        action = Action(name, model)
        if "input" in model:
            action.input = self._shape(model["input"]["shape"])
            self._walk(action.input, on_input=True)
            action.dry_run = self.protocol == "ec2" and any(
                m.name == "DryRun" for m in action.input.members
            )
            action.stream_in = any(m.payload and m.streaming for m in action.input.members)
        if "output" in model and name not in self.overlay.get("no_output", []):
            action.output = self._shape(model["output"]["shape"])
            self._walk(action.output, on_output=True)
            action.stream_out = any(m.payload and m.streaming for m in action.output.members)
        checksum = model.get("httpChecksum", {})
        action.md5_required = bool(
            checksum.get("requestChecksumRequired") or model.get("httpChecksumRequired")
        )
        action.output_root = wirenames.output_root(self, action)
        if self.protocol == "rest-xml":
            action.route = wirenames.route(self, action)
        action.rules = self.overlay.get("rules", {}).get(name, [])
        return action

    def _walk(self, shape, on_input=False, on_output=False):
        """Mark what an input or an output reaches; unserved input members lead nowhere."""
        if (not on_input or shape.on_input) and (not on_output or shape.on_output):
            return
        shape.on_input |= on_input
        shape.on_output |= on_output
        if shape.item:
            self._walk(shape.item, on_input, on_output)
        for member in shape.members:
            if on_output or self._serves(shape, member):
                self._walk(member.shape, on_input, on_output)

    # --- what is served ---------------------------------------------------------------------

    def _serves(self, shape, member):
        if self.protocol == "mallee-rpc":
            return True
        if shape.name not in self.overlay.get("serves", {}):
            raise ModelError(
                "overlay of %s: serves has no entry for the input structure %s (members: %s)"
                % (self.name, shape.name, ", ".join(m.name for m in shape.members))
            )
        served = self.overlay["serves"][shape.name]
        return served == "*" or member.name in served or member.name == "DryRun"

    def _serve_members(self):
        for shape in self.shapes.values():
            for member in shape.members:
                if shape.on_input:
                    member.served = self._serves(shape, member)
                member.field = not member.streaming and (member.served or shape.on_output)
                if member.required and not member.served:
                    raise ModelError("overlay of %s: %s.%s is required and must be served"
                                     % (self.name, shape.name, member.name))
                if member.field and member.shape.kind == "map" and member.location == "body":
                    if self.protocol != "mallee-rpc":
                        raise ModelError("%s.%s: a map in a body: the codecs have none"
                                         % (shape.name, member.name))

    def reached(self):
        """The shapes to emit, by name."""
        return [s for _, s in sorted(self.shapes.items()) if s.on_input or s.on_output]

    def used_shared(self):
        return self.shared is not None

    # --- overlay hygiene --------------------------------------------------------------------

    def _check_overlay(self):
        for name, served in self.overlay.get("serves", {}).items():
            shape = self.shapes.get(name)
            if shape is None or not shape.on_input:
                if name in self.overlay.get("some_models", []):
                    continue
                raise ModelError("overlay of %s: serves %s, which no served action reads"
                                 % (self.name, name))
            known = {m.name for m in shape.members}
            for member in [] if served == "*" else served:
                if member not in known:
                    raise ModelError("overlay of %s: serves %s.%s, which the model does not have"
                                     % (self.name, name, member))
        served_actions = {a.name: a for a in self.actions}
        for name, rules in self.overlay.get("rules", {}).items():
            if name not in served_actions:
                raise ModelError("overlay of %s: rules for %s, which is not served"
                                 % (self.name, name))
            for rule in rules:
                for path in rule["members"]:
                    self._check_path(served_actions[name].input, path)
        for key in ("roots", "routes"):
            for name in self.overlay.get(key, {}):
                if name not in self.operations:
                    raise ModelError("overlay of %s: %s of %s, which the model does not have"
                                     % (self.name, key, name))

    def _check_path(self, shape, path):
        """A dotted member path of a rule must lead to a served member."""
        for step in path.split("."):
            if shape.kind == "list":
                shape = shape.item
            found = [m for m in shape.members if m.name == step]
            if not found or not found[0].served:
                raise ModelError("overlay of %s: rule on %s: %s has no served member %s"
                                 % (self.name, path, shape.name, step))
            shape = found[0].shape
