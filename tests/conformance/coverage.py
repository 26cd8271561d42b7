#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Holds recorded requests and answers against the specification's own schemas.

usage: coverage.py --records FILE --spec-data DIR --endpoints FILE [--write FILE] [--check FILE]

The records come from `myelin-conform --record`. Each answer that succeeded must fit the schema that
the specification has for it, each refusal must be an error with an errcode, and each endpoint that is
served must have been asked well and, where it can be, badly. --write makes the table of endpoints,
--check wants each of them to stand in it.
Closes with `N passed, N failed`, counting endpoints. Needs PyYAML and jsonschema.
"""
import argparse
import collections
import json
import pathlib
import re
import sys
import urllib.parse

import jsonschema
import yaml

FORMATS = {
    "mx-user-id": r"^@",
    "mx-event-id": r"^\$",
    "mx-room-id": r"^!",
    "mx-room-alias": r"^#",
    "mx-mxc-uri": r"^mxc://[^/]+/[A-Za-z0-9_-]+$",
    "mx-unpadded-base64": r"^[A-Za-z0-9+/]*$",
    "mx-urlsafe-unpadded-base64": r"^[A-Za-z0-9_-]*$",
}
checker = jsonschema.FormatChecker(formats=[])
for name, pattern in FORMATS.items():
    checker.checks(name)(lambda value, p=re.compile(pattern): not isinstance(value, str) or bool(p.search(value)))


class Loader(yaml.CSafeLoader if hasattr(yaml, "CSafeLoader") else yaml.SafeLoader):
    """YAML whose dates stay text, as in JSON."""


Loader.yaml_implicit_resolvers = {
    key: [(tag, rx) for tag, rx in found if tag != "tag:yaml.org,2002:timestamp"]
    for key, found in Loader.yaml_implicit_resolvers.items()
}


class Documents:
    """The specification's files with their references put in place."""

    def __init__(self):
        self.files = {}

    def load(self, path):
        path = path.resolve()
        if path not in self.files:
            self.files[path] = yaml.load(path.read_text(), Loader)
        return self.files[path]

    def follow(self, reference, base):
        name, _, pointer = reference.partition("#")
        path = (base.parent / name).resolve() if name else base
        target = self.load(path)
        for part in filter(None, pointer.split("/")):
            target = target[part.replace("~1", "/").replace("~0", "~")]
        return target, path

    def whole(self, node, base, above=()):
        """A copy without references; one that leads back into itself allows anything."""
        if isinstance(node, list):
            return [self.whole(item, base, above) for item in node]
        if not isinstance(node, dict):
            return node
        if "$ref" not in node:
            return {key: self.whole(value, base, above) for key, value in node.items()
                    if key not in ("example", "examples", "description", "title")
                    or isinstance(value, dict) and key != "example" and key != "examples"}
        target, path = self.follow(node["$ref"], base)
        if id(target) in above:
            return {}
        found = self.whole(target, path, above + (id(target),))
        beside = {key: value for key, value in node.items() if key != "$ref"}
        if beside:
            return {"allOf": [found, self.whole(beside, base, above)]}
        return found


class Operation:
    def __init__(self, method, path, spec, base, documents):
        self.method, self.path, self.name = method, path, spec["operationId"]
        self.spec, self.base, self.documents = spec, base, documents
        self.validators = {}
        self.others = []  # of the same method and path, told apart by their bodies
        pieces = re.split(r"\{[^}]+\}", path)
        self.rx = re.compile("[^/]*".join(map(re.escape, pieces)) + "/?$")
        self.literal = len("".join(pieces))

    def validator(self, kind, content):
        if kind not in self.validators:
            schema = (content or {}).get("application/json", {}).get("schema")
            whole = self.documents.whole(schema, self.base) if schema else None
            self.validators[kind] = whole and jsonschema.Draft202012Validator(whole, format_checker=checker)
        return self.validators[kind]

    def response(self, status):
        """The validator for an answer of this status; None: the specification shows no JSON."""
        spec = self.spec.get("responses", {}).get(str(status))
        if spec and "$ref" in spec:
            spec, _ = self.documents.follow(spec["$ref"], self.base)
        return self.validator(status, (spec or {}).get("content"))

    def takes(self, body, exceptions):
        """Whether a body is a conforming request."""
        own = self.request()
        wrong = own and problem(own, body)
        return (not wrong or is_excepted(self, wrong, exceptions)
                or any(other.takes(body, exceptions) for other in self.others))

    def request(self):
        body = self.spec.get("requestBody") or {}
        if "$ref" in body:
            body, _ = self.documents.follow(body["$ref"], self.base)
        return self.validator("request", body.get("content"))


def operations(data):
    documents = Documents()
    found = {}
    for folder in ("client-server", "server-server"):
        for path in sorted((data / "api" / folder).glob("*.yaml")):
            document = documents.load(path)
            servers = document.get("servers") or [{}]
            prefix = servers[0].get("variables", {}).get("basePath", {}).get("default", "")
            for route, methods in (document.get("paths") or {}).items():
                for method, spec in methods.items():
                    if isinstance(spec, dict) and "operationId" in spec:
                        operation = Operation(method.upper(), prefix.rstrip("/") + route.strip(), spec,
                                              path.resolve(), documents)
                        first = found.setdefault((operation.method, operation.path), operation)
                        if first is not operation:
                            first.others.append(operation)
                            first.name += ";" + operation.name
    return list(found.values())


def problem(validator, value):
    """The first thing that does not fit, with where it is."""
    worst = jsonschema.exceptions.best_match(validator.iter_errors(value))
    if worst is None:
        return None
    where = "/".join(str(step) for step in worst.absolute_path) or "the whole"
    return f"{where}: {worst.message[:200]}"


ERROR = jsonschema.Draft202012Validator({
    "type": "object",
    "required": ["errcode", "error"],
    "properties": {"errcode": {"type": "string", "minLength": 1}, "error": {"type": "string", "minLength": 1}},
})


class Tally:
    def __init__(self):
        self.fitting = collections.Counter()  # status -> answers that fit
        self.plain = 0                        # answers that are no JSON by the specification
        self.errcodes = collections.Counter()
        self.problems = collections.Counter()

    def add(self, other):
        self.fitting += other.fitting
        self.plain += other.plain
        self.errcodes += other.errcodes


def is_excepted(operation, wrong, exceptions):
    return any(operation.name == name and part in wrong for name, part in exceptions)


def judge(operation, record, exceptions, tally):
    status, answer = record["status"], record.get("answer")
    if status >= 400:
        if answer is None:
            tally.problems[f"{status} without JSON"] += 1
            return
        # What needs another sign-in step answers 401 without an errcode.
        validator = operation.response(status) if status == 401 and "flows" in answer else ERROR
        wrong = validator and problem(validator, answer)
        if wrong:
            tally.problems[f"{status}: {wrong}"] += 1
        elif "errcode" in answer:
            tally.errcodes[answer["errcode"]] += 1
        return
    validator = operation.response(status)
    if validator is None:
        tally.plain += 1
        return
    wrong = problem(validator, answer) if answer is not None else "no JSON"
    if wrong and not is_excepted(operation, wrong, exceptions):
        tally.problems[f"{status}: {wrong}"] += 1
        return
    if "request" in record and not operation.takes(record["request"], exceptions):
        return  # not a conforming request: its answer counts for nothing
    tally.fitting[status] += 1


def find(operations_by_method, record):
    """The operations whose path this is, the one that says most of it first."""
    path = record["path"].partition("?")[0].replace("/_matrix/client/r0/", "/_matrix/client/v3/")
    fitting = [o for o in operations_by_method[record["method"]] if o.rx.fullmatch(path)]
    return sorted(fitting, key=lambda o: -o.literal)


def read_endpoints(path):
    """(method, path) -> what it waits for; empty = served."""
    rows = {}
    for line in path.read_text().splitlines():
        if line.startswith("#") or line.startswith("method\t"):
            continue
        fields = line.split("\t")
        rows[fields[0], fields[1].rstrip("/")] = fields[3] if len(fields) > 3 else ""
    return rows


def read_exceptions(path):
    """operation, a part of the problem's text; the reason stands in the comment above."""
    rows = []
    for line in path.read_text().splitlines():
        if line.strip() and not line.startswith("#"):
            operation, _, text = line.partition("\t")
            rows.append((operation, text))
    return rows


def row_of(operation, tally):
    fits = "yes" if tally.fitting else "no JSON" if tally.plain else "no"
    codes = ", ".join(sorted(tally.errcodes))
    return f"| {operation.method} {operation.path} | {operation.name} | {fits} | {codes} |"


HEAD = """# Endpoints held against the specification's schemas

Generated by tests/conformance/coverage.py from what the plays of tests/conformance ask and what this server
answers. `fits`: well-formed requests got answers that fit the schema of the Matrix specification (v1.19);
`errcodes`: what others were refused with. Which sentences the plays check is in [plays.md](plays.md).

{count} endpoints.

| endpoint | operation | fits | errcodes |
|---|---|---|---|
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", required=True, type=pathlib.Path)
    parser.add_argument("--spec-data", required=True, type=pathlib.Path)
    parser.add_argument("--endpoints", required=True, type=pathlib.Path)
    parser.add_argument("--write", type=pathlib.Path)
    parser.add_argument("--check", type=pathlib.Path)
    options = parser.parse_args()

    data = options.spec_data / "data"
    served = read_endpoints(options.endpoints)
    exceptions = read_exceptions(pathlib.Path(__file__).with_name("schema-exceptions.txt"))
    known = operations(data)
    by_method = collections.defaultdict(list)
    for operation in known:
        by_method[operation.method].append(operation)
    tallies = {operation: Tally() for operation in known}
    seen = set()
    with options.records.open() as lines:
        for line in lines:
            record = json.loads(line)
            found = find(by_method, record) if line not in seen else []
            seen.add(line)
            for operation in found[:1]:
                judge(operation, record, exceptions, tallies[operation])
            for operation in found[1:]:  # a general form of it, as /query/{queryType} is
                general = Tally()
                judge(operation, record, exceptions, general)
                if not general.problems:
                    tallies[operation].add(general)

    passed = failed = 0
    rows = []
    listed = options.check.read_text() if options.check else None
    for operation in sorted(known, key=lambda o: (o.path, o.method)):
        due = served.get((operation.method, operation.path.rstrip("/")))
        if due is None or due:
            continue
        tally = tallies[operation]
        faults = [f"{text} ({n} times)" for text, n in tally.problems.items()]
        if not tally.fitting and not tally.plain:
            faults.append("no well-formed request was answered")
        security = operation.spec.get("security")
        if not tally.errcodes and security and {} not in security:
            faults.append("nothing was refused")
        if listed is not None and f"| {operation.method} {operation.path} |" not in listed:
            faults.append(f"not in {options.check}: make it anew with --write")
        for fault in faults:
            print(f"{operation.method} {operation.path} ({operation.name}): {fault}")
        passed, failed = passed + (not faults), failed + bool(faults)
        rows.append(row_of(operation, tally))
    if options.write:
        options.write.write_text(HEAD.format(count=len(rows)) + "\n".join(rows) + "\n")
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
