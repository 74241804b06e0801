"""Checks a JSON document against a JSON Schema, as far as ours goes: type, enum, const, required,
properties, additionalProperties, items, minimum, maximum, $ref to $defs. A keyword it does not know is
an error, so that the schema cannot promise what nobody checks.

Usage: json_schema.py SCHEMA DOCUMENT
"""
import json
import sys

TYPES = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None)}
IGNORED = {"$schema", "$defs", "title", "description"}


def is_type(value, name):
    if name in ("number", "integer"):
        return not isinstance(value, bool) and isinstance(value, (int, float) if name == "number" else int)
    return isinstance(value, TYPES[name])


def check(schema, value, where, root):
    if "$ref" in schema:
        yield from check(root["$defs"][schema["$ref"].split("/")[-1]], value, where, root)
        return
    for key, want in schema.items():
        if key in IGNORED:
            continue
        if key == "type":
            if not any(is_type(value, t) for t in ([want] if isinstance(want, str) else want)):
                yield f"{where}: {value!r} is not {want}"
        elif key == "enum":
            if value not in want:
                yield f"{where}: {value!r} is not one of {want}"
        elif key == "const":
            if value != want:
                yield f"{where}: {value!r} is not {want!r}"
        elif key in ("minimum", "maximum"):
            if is_type(value, "number") and (value < want if key == "minimum" else value > want):
                yield f"{where}: {value} is beyond the {key} {want}"
        elif key == "required":
            yield from (f"{where}: '{k}' is missing" for k in want if isinstance(value, dict) and k not in value)
        elif key == "properties":
            for k, v in value.items() if isinstance(value, dict) else ():
                if k in want:
                    yield from check(want[k], v, f"{where}.{k}", root)
        elif key == "additionalProperties":
            for k, v in value.items() if isinstance(value, dict) else ():
                if k not in schema.get("properties", {}):
                    yield from [f"{where}: '{k}' is not in the schema"] if want is False else check(want, v, f"{where}.{k}", root)
        elif key == "items":
            for i, v in enumerate(value if isinstance(value, list) else ()):
                yield from check(want, v, f"{where}[{i}]", root)
        else:
            yield f"schema at {where}: keyword '{key}' is not checked"


def main():
    schema, document = (json.load(open(path)) for path in sys.argv[1:3])
    wrong = [w for w in check(schema, document, "report", schema)]
    if wrong:
        print("\n".join(wrong[:20]), file=sys.stderr)
    sys.exit(bool(wrong))


main()
