# SPDX-License-Identifier: Apache-2.0
"""
Random values of botocore's shapes, and what they look like in our JSON.

Requests keep to what we serve (the overlay's `serves`) and to the overlay's rules; replies use every
member that the model has. The seed is fixed, so a failure comes again.
"""

import base64
import datetime
import string

TRICKY = ["é", "ß", "日本", "🪴", "&", "<", ">", '"', "'", "%", "+", "=", " ", "/", ";", "\n", "\t", "\r"]
HEADER = string.ascii_letters + string.digits + "-_./:=,"


class Random:
    def __init__(self, random, service, overlay, action, request):
        self.random = random
        self.service = service
        self.request = request
        self.serves = overlay.get("serves", {}) if request else None
        self.rules = overlay.get("rules", {}).get(action, []) if request else []

    # --- one value ----------------------------------------------------------------------------

    def scalar(self, shape, path, location):
        rule = self.rule_for(path)
        kind = shape.type_name
        if kind == "boolean":
            return self.random.random() < 0.5
        if kind in ("integer", "long"):
            return self.number(shape, rule, kind)
        if kind in ("double", "float"):
            return round(self.random.uniform(-1e6, 1e6), 3)
        if kind == "timestamp":
            whole = datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc) + datetime.timedelta(
                seconds=self.random.randrange(10**8))
            # Only EC2's and S3's XML carry fractions.
            ms = 0 if location or self.random.random() < 0.5 else self.random.randrange(1000)
            return whole + datetime.timedelta(milliseconds=ms)
        if kind == "blob":
            return bytes(self.random.randrange(256) for _ in range(self.random.randrange(1, 40)))
        return self.text(shape, rule, location)

    def number(self, shape, rule, kind):
        low = shape.metadata.get("min", -(2**31))
        high = shape.metadata.get("max", 2**31 - 1 if kind == "integer" else 2**53)
        if rule and rule["kind"] == "range":
            low, high = max(low, rule["min"]), min(high, rule["max"])
        return self.random.choice([low, high, self.random.randint(low, high)])

    def text(self, shape, rule, location):
        if rule and rule["kind"] == "id":
            return "%s-%017x" % (rule["prefix"], self.random.getrandbits(68))
        if rule and rule["kind"] == "values":
            return self.random.choice(rule["values"])
        if shape.metadata.get("enum") and self.random.random() < 0.8:
            return self.random.choice(shape.metadata["enum"])
        low = max(shape.metadata.get("min", 1), 1)
        high = min(shape.metadata.get("max", low + 20), low + 20)
        if rule and rule["kind"] == "range":
            high = min(high, rule["max"])
        length = self.random.randint(low, max(low, high))
        if location in ("header", "headers"):
            return "".join(self.random.choice(HEADER) for _ in range(length))
        pool = list(string.ascii_letters) + TRICKY
        if self.request and self.service == "s3":
            pool.remove("\r")  # botocore writes it bare, and any XML parser makes it a line feed
        return "".join(self.random.choice(pool) for _ in range(length))

    # --- a whole structure --------------------------------------------------------------------

    def struct(self, shape, path=""):
        value = {}
        for name, member in shape.members.items():
            required = name in shape.required_members
            if not self.wanted(shape, name, member) or (not required and self.random.random() < 0.35):
                continue
            made = self.value(member, path + "." + name if path else name)
            while required and made is None:  # its members are optional and all were left out
                made = self.value(member, path + "." + name if path else name)
            if made is not None:
                value[name] = made
        if not path:
            self.apply_counts(shape, value)
        return value

    def wanted(self, shape, name, member):
        if member.serialization.get("streaming"):
            return False
        if self.serves is None:
            return True
        served = self.serves.get(shape.name, [])
        return served == "*" or name in served or name == "DryRun"

    def value(self, shape, path):
        """None for what would be an empty structure or list: requests cannot say those."""
        location = shape.serialization.get("location")
        if shape.type_name == "structure":
            return self.struct(shape, path) or None
        if shape.type_name == "list":
            items = [self.value(shape.member, path) for _ in range(self.random.randint(1, 3))]
            items = [i for i in items if i is not None]
            return items or None
        if shape.type_name == "map":
            return {self.word(): self.text(shape.value, None, "headers") for _ in range(3)}
        return self.scalar(shape, path, location)

    def word(self):
        return "".join(self.random.choice(string.ascii_lowercase) for _ in range(8))

    # --- the overlay's rules --------------------------------------------------------------------

    def rule_for(self, path):
        for rule in self.rules:
            if path in rule["members"] and rule["kind"] in ("id", "values", "range"):
                return rule
        return None

    def apply_counts(self, shape, value):
        """one_of and at_most_one: keep a single one of what was made, make one where one is needed."""
        for rule in self.rules:
            if rule["kind"] not in ("one_of", "at_most_one"):
                continue
            tops = [m.partition(".")[0] for m in rule["members"]]
            given = [t for t in tops if t in value]
            if rule["kind"] == "one_of" and not given:
                keep = self.random.choice(tops)
                value[keep] = self.value(shape.members[keep], keep)
            for extra in given[1:]:
                value.pop(extra, None)


# --- our JSON ---------------------------------------------------------------------------------


def to_json(shape, value):
    """A botocore value as our JSON codec writes it."""
    kind = shape.type_name
    if kind == "structure":
        return {k: to_json(shape.members[k], v) for k, v in value.items() if k in shape.members}
    if kind == "list":
        return [to_json(shape.member, v) for v in value]
    if kind == "timestamp":
        return value.astimezone(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.") + (
            "%03dZ" % (value.microsecond // 1000))
    if kind == "blob":
        return base64.b64encode(value).decode()
    return value


def without_empty(value):
    """Empty lists and structures gone: XML's flattened lists and Query cannot tell them from absent."""
    if isinstance(value, dict):
        kept = {k: without_empty(v) for k, v in value.items()}
        return {k: v for k, v in kept.items() if v not in ({}, [])}
    if isinstance(value, list):
        return [without_empty(v) for v in value]
    return value
